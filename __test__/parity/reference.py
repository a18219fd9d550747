"""What the generators of parity files share: drawing inputs, taking PyTorch's derivatives (f64), and writing the file.

Every entry has a kind (op, layer, loss, optimizer), a name that the TypeScript table knows, and cases. A case holds inputs (whole
numbers, to be divided by `unit`, so that f32, f16 and bf16 hold them exactly), indices, arguments, the value, and for a fixed cotangent c and
tangents v: the gradient of <c, f(x)>, the jvp f'(x)v, and the product of the Hessian of <c, f(x)> with v.
"""

import json
import math
import pathlib
import zlib

import numpy as np
import torch

UNIT = 64
torch.set_default_dtype(torch.float64)
entries = []


def number(x):
    """13 digits: enough for comparisons to 1e-10."""
    x = float(x)
    if math.isnan(x):
        return "nan"
    if math.isinf(x):
        return "inf" if x > 0 else "-inf"
    rounded = float("%.13g" % x)
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e15 else rounded


def flat(t):
    return [number(x) for x in t.detach().to(torch.float64).reshape(-1)]


def draw(rng, shape, domain):
    """Distinct whole numbers, where there are enough."""
    low, high = domain
    n = int(np.prod(shape)) if len(shape) else 1
    # bf16 holds eight digits
    pool = np.array([i for i in range(low, high + 1) if i != 0 and (abs(i) <= 256 or i % 2 == 0)])
    return rng.choice(pool, n, replace=n > len(pool)).astype(int)


def case(f, shapes, domain=(-128, 128), args=None, indices=(), derivatives=True, label=None, data=None):
    return dict(f=f, shapes=shapes, domain=domain, args=args or {}, indices=indices, derivatives=derivatives, label=label, data=data)


def op(name, *cases, kind="op"):
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    written = []
    for c in cases:
        domains = c["domain"] if isinstance(c["domain"], list) else [c["domain"]] * len(c["shapes"])
        ints = [draw(rng, s, d) for s, d in zip(c["shapes"], domains)]
        if c["data"] is not None:
            ints = [np.array(d) for d in c["data"]]
        x = [torch.tensor(i / UNIT).reshape(s).requires_grad_(c["derivatives"]) for i, s in zip(ints, c["shapes"])]
        idx = [torch.tensor(d).reshape(s) for s, d in c["indices"]]
        y = c["f"](x, idx, c["args"])
        out = {
            "label": c["label"] or " ".join(str(list(s)).replace(" ", "") for s in c["shapes"]),
            "inputs": [{"shape": list(s), "data": i.tolist()} for i, s in zip(ints, c["shapes"])],
            "value": {"shape": list(y.shape), "data": flat(y)},
        }
        if c["args"]:
            out["args"] = c["args"]
        if idx:
            out["indices"] = [{"shape": list(t.shape), "data": t.reshape(-1).tolist()} for t in idx]
        if c["derivatives"]:
            cot, tan = draw(rng, y.shape, (-64, 64)), [draw(rng, s, (-64, 64)) for s in c["shapes"]]
            cotangent = torch.tensor(cot / UNIT).reshape(y.shape).requires_grad_()
            tangents = [torch.tensor(t / UNIT).reshape(s) for t, s in zip(tan, c["shapes"])]
            zero = lambda g, like: torch.zeros_like(like) if g is None else g
            g = torch.autograd.grad(y, x, cotangent, create_graph=True, allow_unused=True)
            g = [zero(gi, xi) for gi, xi in zip(g, x)]
            along = sum((gi * v).sum() for gi, v in zip(g, tangents))
            if along.requires_grad:
                tangent, *second = torch.autograd.grad(along, [cotangent, *x], allow_unused=True)
            else:
                tangent, second = None, [None] * len(x)
            out["cotangent"], out["tangents"] = cot.tolist(), [t.tolist() for t in tan]
            out["gradient"] = [flat(gi) for gi in g]
            out["tangent"] = flat(zero(tangent, y))
            out["second"] = [flat(zero(s, xi)) for s, xi in zip(second, x)]
        written.append(out)
    entries.append({"kind": kind, "name": name, "cases": written})


def write(name):
    text = ",\n".join(json.dumps(e, separators=(",", ":")) for e in entries)
    path = pathlib.Path(__file__).with_name(name)
    path.write_text('{"source":"PyTorch %s","unit":%d,"entries":[\n%s\n]}\n' % (torch.__version__.split("+")[0], UNIT, text))
    print(f"{path}: {len(entries)} entries, {sum(len(e['cases']) for e in entries)} cases, {path.stat().st_size} bytes")
