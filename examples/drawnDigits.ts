/**
 * Handwriting-like digits, drawn here so that the demo needs no download: each digit is a few strokes (polylines and
 * arcs) that are bent, turned, scaled, thickened and covered with noise. Training on them is `digits.ts`'s work.
 */

type Point = readonly [x: number, y: number];
type Stroke = readonly Point[];

/** Points on an ellipse arc; angles in turns, 0 = right, growing clockwise (y points down). */
function arc(centreX: number, centreY: number, radiusX: number, radiusY: number, from: number, to: number): Stroke {
  const steps = 14;
  return Array.from({ length: steps + 1 }, (_, index): Point => {
    const angle = 2 * Math.PI * (from + ((to - from) * index) / steps);
    return [centreX + radiusX * Math.cos(angle), centreY + radiusY * Math.sin(angle)];
  });
}

/** The strokes of each digit in a square from −1 to 1; a digit has one or two ways of writing it. */
const SHAPES: readonly (readonly (readonly Stroke[])[])[] = [
  [[arc(0, 0, 0.55, 0.85, 0, 1)], [arc(0, 0, 0.7, 0.8, 0.1, 1.12)]],
  [
    [
      [
        [0, -0.9],
        [0, 0.9],
      ],
    ],
    [
      [
        [-0.35, -0.5],
        [0.05, -0.9],
        [0.05, 0.9],
      ],
    ],
  ],
  [
    [
      arc(0, -0.4, 0.5, 0.5, 0.5, 1.08),
      [
        [0.43, -0.15],
        [-0.55, 0.85],
        [0.6, 0.85],
      ],
    ],
    [
      arc(0, -0.4, 0.55, 0.45, 0.55, 1.1),
      [
        [0.44, -0.14],
        [-0.2, 0.5],
        [-0.55, 0.8],
        [-0.3, 0.6],
        [0.1, 0.85],
        [0.6, 0.75],
      ],
    ],
  ],
  [
    [arc(-0.05, -0.43, 0.5, 0.43, 0.55, 1.25), arc(-0.05, 0.43, 0.55, 0.45, 0.75, 1.45)],
    [
      [
        [-0.5, -0.85],
        [0.5, -0.85],
        [-0.05, -0.15],
      ],
      arc(-0.05, 0.36, 0.55, 0.5, 0.75, 1.42),
    ],
  ],
  [
    [
      [
        [0.2, -0.9],
        [-0.6, 0.3],
        [0.65, 0.3],
      ],
      [
        [0.3, -0.25],
        [0.3, 0.9],
      ],
    ],
    [
      [
        [-0.5, -0.85],
        [-0.5, 0.05],
        [0.45, 0.05],
      ],
      [
        [0.45, -0.85],
        [0.45, 0.9],
      ],
    ],
  ],
  [
    [
      [
        [0.55, -0.85],
        [-0.4, -0.85],
        [-0.45, -0.1],
      ],
      arc(-0.05, 0.35, 0.55, 0.52, 0.63, 1.4),
    ],
    [
      [
        [0.5, -0.8],
        [-0.35, -0.85],
        [-0.45, -0.05],
      ],
      arc(-0.1, 0.38, 0.6, 0.45, 0.65, 1.35),
    ],
  ],
  [
    [
      [
        [0.35, -0.9],
        [-0.2, -0.45],
        [-0.48, 0.1],
      ],
      arc(0, 0.4, 0.48, 0.48, 0, 1),
    ],
  ],
  [
    [
      [
        [-0.55, -0.85],
        [0.55, -0.85],
        [-0.15, 0.9],
      ],
    ],
    [
      [
        [-0.55, -0.75],
        [0.5, -0.85],
        [0.05, 0.9],
      ],
      [
        [-0.25, 0.0],
        [0.5, 0.0],
      ],
    ],
  ],
  [[arc(0, -0.43, 0.42, 0.42, 0.25, 1.25), arc(0, 0.43, 0.52, 0.45, 0.75, 1.75)]],
  [
    [
      arc(0, -0.38, 0.48, 0.48, 0, 1),
      [
        [0.48, -0.38],
        [0.42, 0.3],
        [0.2, 0.9],
      ],
    ],
  ],
];

const SIDE = 28;

/** A small generator of uniform numbers in [0, 1) (mulberry32): fast, seeded, good enough for drawing. */
export function uniformFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Draws a line of the given half thickness into the image; the brightest touch of a pixel counts. */
function drawSegment(image: Float32Array, from: Point, to: Point, thickness: number): void {
  const [ax, ay] = from;
  const [dx, dy] = [to[0] - ax, to[1] - ay];
  const lengthSquared = dx * dx + dy * dy || 1e-9;
  const reach = thickness + 1;
  const low = (a: number, d: number) => Math.max(0, Math.floor(Math.min(a, a + d) - reach));
  const high = (a: number, d: number) => Math.min(SIDE - 1, Math.ceil(Math.max(a, a + d) + reach));
  for (let y = low(ay, dy); y <= high(ay, dy); y++) {
    for (let x = low(ax, dx); x <= high(ax, dx); x++) {
      const along = Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / lengthSquared));
      const distance = Math.hypot(x - ax - along * dx, y - ay - along * dy);
      const ink = Math.min(1, Math.max(0, thickness + 0.6 - distance));
      const at = y * SIDE + x;
      if (ink > (image[at] ?? 0)) image[at] = ink;
    }
  }
}

/** One digit into `image`, which is all zeros. */
function drawDigit(image: Float32Array, digit: number, uniform: () => number): void {
  const spread = (width: number) => (uniform() + uniform() + uniform() - 1.5) * width; // roughly normal
  const ways = SHAPES[digit] ?? [];
  const strokes = ways[Math.floor(uniform() * ways.length)] ?? [];
  const [turn, lean] = [spread(0.35), spread(0.45)];
  const [width, height] = [8.2 * (1 + spread(0.3)), 9 * (1 + spread(0.22))];
  const [x0, y0] = [13.5 + spread(2.4), 13.5 + spread(2.4)];
  const [bend, phase] = [spread(0.16), uniform() * 6.28];
  const thickness = 0.75 + 0.85 * uniform();
  const [cosine, sine] = [Math.cos(turn), Math.sin(turn)];

  const place = ([px, py]: Point): Point => {
    const x = px + lean * -py + bend * Math.sin(3 * py + phase) + spread(0.05);
    const y = py + bend * Math.cos(3 * px + phase) + spread(0.05);
    return [x0 + width * (cosine * x - sine * y), y0 + height * (sine * x + cosine * y)];
  };
  for (const stroke of strokes) {
    const points = stroke.map(place);
    for (let index = 1; index < points.length; index++) {
      drawSegment(image, points[index - 1] as Point, points[index] as Point, thickness);
    }
  }
  for (let at = 0; at < image.length; at++) {
    const noisy = (image[at] ?? 0) * (0.85 + 0.15 * uniform()) + (uniform() < 0.02 ? 0.4 * uniform() : 0);
    image[at] = Math.min(1, noisy);
  }
}

/** `count` digits: images [count, 28, 28] in [0, 1], labels [count]; the same for the same seed. */
export function drawDigits(count: number, seed: number): { images: Float32Array; labels: Int32Array } {
  const uniform = uniformFrom(seed * 2654435761 + 12345);
  const images = new Float32Array(count * SIDE * SIDE);
  const labels = new Int32Array(count);
  for (let index = 0; index < count; index++) {
    labels[index] = Math.floor(uniform() * 10);
    drawDigit(images.subarray(index * SIDE * SIDE, (index + 1) * SIDE * SIDE), labels[index] ?? 0, uniform);
  }
  return { images, labels };
}
