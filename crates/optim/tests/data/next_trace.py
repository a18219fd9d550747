"""Writes next_trace.json: the reference of the rule `next` on a small network, 200 steps, for four optimizers and two starts.

    python next_trace.py path/to/next_rule.py > next_trace.json

Needs torch. The network is 3-5-2, tanh, squared error, float64; batches of 8 cycle through 32 fixed rows. Runs without
start-up probes begin far too high, so they reject; their batch `POISONED` has a NaN loss.
"""
import importlib.util
import json
import sys

import torch

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
ROWS, BATCH, STEPS, POISONED = 32, 8, 200, 50
SIZES = [("W1", (3, 5)), ("b1", (5,)), ("W2", (5, 2)), ("b2", (2,))]


def rule_class(path):
    spec = importlib.util.spec_from_file_location("next_rule", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NextRule


def optimizer(name, params):
    if name == "sgd":
        return torch.optim.SGD(params, lr=1.0)
    if name == "momentum":
        return torch.optim.SGD(params, lr=1.0, momentum=0.9)
    if name == "adam":
        return torch.optim.Adam(params, lr=1.0)
    return torch.optim.AdamW(params, lr=1.0, weight_decay=0.01)


def trace(make_rule, name, alpha, probe_steps, start, x, y):
    params = [torch.tensor(values).reshape(shape).requires_grad_() for (_, shape), values in zip(SIZES, start)]
    opt = optimizer(name, params)
    rule = make_rule(opt, alpha=alpha, probe_steps=probe_steps)
    alphas, losses = [], []
    for step in range(STEPS):
        rows = slice(step * BATCH % ROWS, step * BATCH % ROWS + BATCH)
        weight = float("nan") if step == POISONED and probe_steps == 0 else 1.0

        def loss_of():
            w1, b1, w2, b2 = params
            return weight * ((torch.tanh(x[rows] @ w1 + b1) @ w2 + b2 - y[rows]) ** 2).mean()

        loss = loss_of()
        opt.zero_grad()
        loss.backward()
        rule.step(float(loss.detach()), probe=lambda: float(loss_of().detach()))
        alphas.append(rule.alpha)
        losses.append(float(loss.detach()) if weight == 1.0 else None)
    return {
        "direction": name,
        "initial": alpha,
        "probeSteps": probe_steps,
        "rejections": rule.rejections,
        "alpha": alphas,
        "loss": losses,
    }


def main():
    make_rule = rule_class(sys.argv[1])
    torch.manual_seed(7)
    x = torch.randn(ROWS, 3)
    y = torch.stack([torch.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2], torch.cos(x[:, 1])], 1) + 0.3 * torch.randn(ROWS, 2)
    start = [(0.6 * torch.randn(shape)).flatten().tolist() for _, shape in SIZES]
    names = ("sgd", "momentum", "adam", "adamw")
    traces = [
        trace(make_rule, name, alpha, probe_steps, start, x, y)
        for name in names
        for alpha, probe_steps in ((1e-6, 3), (10.0, 3), (10.0, 0))
    ]
    head = {"batch": BATCH, "poisoned": POISONED, "x": x.tolist(), "y": y.tolist(), "start": start}
    json.dump({**head, "traces": traces}, sys.stdout)
    print()


main()
