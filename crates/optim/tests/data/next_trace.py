"""Writes traces of a reference of `next` or `nextPlain` on a small network, 200 steps, for four optimizers and two starts.

    python next_trace.py next_reference.py Next > next_trace.json
    python next_trace.py path/to/next_rule.py NextRule > next_plain_trace.json

Needs torch. The network is 3-5-2, tanh, squared error, float64; batches of 8 cycle through 32 fixed rows. Some runs have
batches whose loss is multiplied: by NaN, or by a thousand. Those of `nextPlain` begin far too high and without start-up
probes, so they reject at once.
"""
import importlib.util
import json
import sys

import torch

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
ROWS, BATCH, STEPS = 32, 8, 200
SIZES = [("W1", (3, 5)), ("b1", (5,)), ("W2", (5, 2)), ("b2", (2,))]


def runs(name):
    """(options of the rule, {step: factor of the loss})"""
    if name == "NextRule":
        steady = [({"alpha": alpha, "probe_steps": 3}, {}) for alpha in (1e-6, 10.0)]
        return [*steady, ({"alpha": 10.0, "probe_steps": 0}, {50: float("nan")})]
    starts = [({"alpha": alpha, "total_steps": total}, {}) for alpha in (1e-6, 10.0) for total in (None, STEPS)]
    # A loss that stays high is taken for the usual one in the end.
    lasting = {step: 1e3 for step in range(150, 200)}
    nan = float("nan")
    spoilt = ({"alpha": 1e-6, "total_steps": None}, {4: nan, 50: nan, 51: nan, 100: 1e3, **lasting})
    # Gradients that grow: the lengths of steps are bounded.
    growing = ({"alpha": 1e-6, "total_steps": None}, {step: 1.15 ** min(step, 30) for step in range(STEPS)})
    return [*starts, spoilt, growing]


def optimizer(name, params):
    if name == "sgd":
        return torch.optim.SGD(params, lr=1.0)
    if name == "momentum":
        return torch.optim.SGD(params, lr=1.0, momentum=0.9)
    if name == "adam":
        return torch.optim.Adam(params, lr=1.0)
    return torch.optim.AdamW(params, lr=1.0, weight_decay=0.01)


def trace(make_rule, name, options, factors, start, x, y):
    params = [torch.tensor(values).reshape(shape).requires_grad_() for (_, shape), values in zip(SIZES, start)]
    opt = optimizer(name, params)
    rule = make_rule(opt, **options)
    alphas, losses = [], []
    for step in range(STEPS):
        rows = slice(step * BATCH % ROWS, step * BATCH % ROWS + BATCH)
        factor = factors.get(step, 1.0)

        def loss_of():
            w1, b1, w2, b2 = params
            return factor * ((torch.tanh(x[rows] @ w1 + b1) @ w2 + b2 - y[rows]) ** 2).mean()

        loss = loss_of()
        opt.zero_grad()
        loss.backward()
        rule.step(float(loss.detach()), probe=lambda: float(loss_of().detach()))
        alphas.append(rule.alpha)
        losses.append(none_if_nan(float(loss.detach())))
    return {
        "direction": name,
        "initial": options["alpha"],
        "probeSteps": options.get("probe_steps", 3),
        "totalSteps": options.get("total_steps") or 0,
        "factors": [[step, none_if_nan(factor)] for step, factor in factors.items()],
        "rejections": rule.rejections,
        "alpha": alphas,
        "loss": losses,
    }


def none_if_nan(number):
    return None if number != number else number


def main():
    path, name = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("rule", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make_rule = getattr(module, name)
    torch.manual_seed(7)
    x = torch.randn(ROWS, 3)
    y = torch.stack([torch.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2], torch.cos(x[:, 1])], 1) + 0.3 * torch.randn(ROWS, 2)
    start = [(0.6 * torch.randn(shape)).flatten().tolist() for _, shape in SIZES]
    traces = [
        trace(make_rule, direction, options, factors, start, x, y)
        for direction in ("sgd", "momentum", "adam", "adamw")
        for options, factors in runs(name)
    ]
    head = {"batch": BATCH, "x": x.tolist(), "y": y.tolist(), "start": start}
    json.dump({**head, "traces": traces}, sys.stdout)
    print()


main()
