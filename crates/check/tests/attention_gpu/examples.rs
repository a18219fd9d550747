//! Attentions of many sizes and layouts, with the cotangents of their operands, and how far a device is from the reference.

use raphson_check::draw::{Generator, Values};
use raphson_check::runner::device::OnDevice;
use raphson_graph::derivative::vjp;
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::flat::{Graph, flatten, simplify};
use raphson_graph::op::attention::Attention;
use raphson_graph::reference::evaluate;
use raphson_graph::value::Value;

/// An attention: batch…, queries, keys, width, values, and how its operands lie.
#[derive(Clone, Copy, Debug)]
pub struct Example<'a> {
    pub batch: &'a [usize],
    /// Queries, keys, width, values.
    pub sizes: [usize; 4],
    pub causal: bool,
    /// The mask's shape, if there is one.
    pub mask: Option<&'a [usize]>,
    pub layout: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Rows follow each other.
    Plain,
    /// Heads are inside positions, as layers make them: [b, position, head, width].
    HeadsInside,
    /// Columns are contiguous.
    Transposed,
    /// All batch entries share keys and values, and queries are seen in reverse order of batch axes.
    Shared,
}

/// An operand of [batch…, rows, columns] by a view of an input, and that input.
fn operand(example: &Example<'_>, [rows, columns]: [usize; 2], is_query: bool) -> (Value, Value) {
    let n = example.batch.len();
    let made = |shape: &[usize], order: &[usize]| {
        let input = Value::input(shape.into(), DType::F32);
        let view = input.permute(order).unwrap();
        (input, view)
    };
    let natural: Vec<usize> = (0..n + 2).collect();
    match example.layout {
        Layout::Shared if is_query => {
            let shape: Vec<usize> = example.batch.iter().rev().copied().chain([rows, columns]).collect();
            made(&shape, &(0..n).rev().chain([n, n + 1]).collect::<Vec<_>>())
        }
        Layout::Shared => made(&[rows, columns], &[0, 1]),
        Layout::Plain => made(&[example.batch, &[rows, columns]].concat(), &natural),
        Layout::Transposed => made(&[example.batch, &[columns, rows]].concat(), &[&natural[..n], &[n + 1, n]].concat()),
        Layout::HeadsInside => {
            let (heads, outer) = example.batch.split_last().unwrap();
            let shape = [outer, &[rows, *heads, columns]].concat();
            made(&shape, &[&natural[..n - 1], &[n, n - 1, n + 1]].concat())
        }
    }
}

/// The output and the cotangents of q, k and v, for a cotangent that is an input.
pub fn training(example: &Example<'_>, seed: &str) -> (Graph, Vec<Vec<f64>>) {
    let [queries, keys, width, values] = example.sizes;
    let (q, q_view) = operand(example, [queries, width], true);
    let (k, k_view) = operand(example, [keys, width], false);
    let (v, v_view) = operand(example, [keys, values], false);
    let mask = example.mask.map(|shape| Value::input(shape.into(), DType::Bool));
    let options = Attention { causal: example.causal, scale: Scalar::Float(0.4) };
    let out = q_view.attention(&k_view, &v_view, mask.as_ref(), options).unwrap();
    let weights = Value::input(out.shape().clone(), DType::F32);
    let wanted = [q.clone(), k.clone(), v.clone()];
    let gradients = vjp(std::slice::from_ref(&out), &wanted, std::slice::from_ref(&weights)).unwrap();
    let inputs: Vec<Value> = wanted.into_iter().chain([weights]).chain(mask).collect();
    let graph = flatten(&inputs, &[vec![out], gradients].concat()).unwrap().graph;
    let mut generator = Generator::named(seed);
    let mut draw = |value: &Value| {
        let values = if value.dtype() == DType::Bool { Values::Below(4) } else { Values::Within(-1.5, 1.5) };
        let drawn = values.draw(value.shape().elements(), value.dtype(), &mut generator);
        drawn.iter().map(|&x| if value.dtype() == DType::Bool { x.min(1.0) } else { f64::from(x as f32) }).collect()
    };
    let data = inputs.iter().map(&mut draw).collect();
    (graph, data)
}

/// The greatest difference of each output from the reference, over the output's greatest value (or a tenth, where it is smaller:
/// cotangents may cancel).
pub fn errors(device: &OnDevice, graph: &Graph, inputs: &[Vec<f64>]) -> Vec<f64> {
    let got = device.run_donating(graph, inputs, &vec![false; inputs.len()]).unwrap();
    let want = evaluate(&simplify(graph), inputs).unwrap();
    let error = |(got, want): (&Vec<f64>, &Vec<f64>)| {
        assert_eq!(got.len(), want.len());
        let greatest = want.iter().fold(0.1_f64, |most, value| most.max(value.abs()));
        let worst = |most: f64, (got, want): (&f64, &f64)| {
            let difference = (got - want).abs();
            if difference.is_nan() { f64::INFINITY } else { most.max(difference) }
        };
        got.iter().zip(want).fold(0.0, worst) / greatest
    };
    got.iter().zip(&want).map(error).collect()
}

pub const PLAIN: Example<'static> =
    Example { batch: &[], sizes: [70, 90, 24, 20], causal: false, mask: None, layout: Layout::Plain };

pub fn examples() -> Vec<Example<'static>> {
    vec![
        PLAIN,
        Example { causal: true, ..PLAIN },
        // More keys than queries and the other way round; whole tiles; odd sizes with a mask for every score.
        Example { batch: &[2], sizes: [33, 101, 17, 9], causal: true, layout: Layout::Transposed, ..PLAIN },
        Example { sizes: [101, 33, 8, 40], causal: true, ..PLAIN },
        Example { batch: &[2], sizes: [64, 64, 64, 64], causal: true, ..PLAIN },
        Example { batch: &[2], sizes: [37, 41, 5, 7], mask: Some(&[2, 37, 41]), ..PLAIN },
        Example { batch: &[2, 2], sizes: [35, 35, 16, 16], causal: true, mask: Some(&[2, 1, 1, 35]), ..PLAIN },
        // Layers' heads; keys for all heads; axes that no order merges, more than the kernels count.
        Example { batch: &[2, 3], sizes: [40, 40, 12, 12], causal: true, layout: Layout::HeadsInside, ..PLAIN },
        Example { batch: &[2, 3], sizes: [9, 70, 8, 4], layout: Layout::Shared, ..PLAIN },
        Example { batch: &[2, 2, 2, 2, 2], sizes: [3, 4, 2, 3], layout: Layout::Shared, ..PLAIN },
        // The widest; the smallest; none of something.
        Example { sizes: [70, 40, 128, 128], causal: true, ..PLAIN },
        Example { sizes: [40, 70, 100, 128], ..PLAIN },
        Example { sizes: [1, 70, 16, 16], causal: true, ..PLAIN },
        Example { sizes: [1, 1, 1, 1], ..PLAIN },
        Example { batch: &[2], sizes: [5, 0, 3, 4], ..PLAIN },
        Example { batch: &[2], sizes: [0, 5, 3, 4], ..PLAIN },
        Example { batch: &[2], sizes: [6, 5, 0, 4], ..PLAIN },
        Example { batch: &[2], sizes: [6, 5, 3, 0], ..PLAIN },
        Example { batch: &[0], sizes: [6, 5, 3, 2], ..PLAIN },
    ]
}
