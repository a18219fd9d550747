"""Golden traces of optimizers and schedules, from PyTorch in float64 and, where PyTorch has none, from plain loops here.

    python __test__/parity/optimizers.py      # needs torch >= 2.9; writes optimizers.json beside this file

A case names an optimizer of raphson with its options; its trace holds the parameters after some of 20 steps. The problem
is small and the same on both sides (`problem` here, `lossOf` in optimizers.test.ts). Muon runs torch.optim.Muon's own code
with its bfloat16 replaced by float64, and torch.optim.AdamW for what is no matrix. Lion and LAMB are the papers' loops.
"""

import json
import math
import pathlib

import torch

STEPS = 20
KEPT = (1, 2, 3, 7, 20)
SHAPES = {"w": (3, 2), "b": (3,), "v": (2, 2, 3)}
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def numbers(count, seed):
    """Numbers between −1/2 and 1/2 that are the same in every language."""
    return [((7 * i * i + 11 * i + 13 * seed) % 17) / 17 - 0.5 for i in range(count)]


def tensor(shape, seed):
    return torch.tensor(numbers(math.prod(shape), seed)).reshape(shape)


def start():
    return {name: tensor(shape, i).requires_grad_() for i, (name, shape) in enumerate(SHAPES.items())}


def problem(params, batch):
    """mean (tanh(x wᵀ + b) − y)² + mean (v z − y[0, 0])²"""
    x, y, z = tensor((5, 2), 3 * batch), tensor((5, 3), 3 * batch + 1), tensor(SHAPES["v"], 3 * batch + 2)
    predicted = torch.tanh(x @ params["w"].T + params["b"])
    return (predicted - y).square().mean() + (params["v"] * z - y[0, 0]).square().mean()


def trace(make, micro_batches=1, clip=None):
    """The parameters after the kept steps. `make`: from parameters to a list of optimizers."""
    params = start()
    optimizers = make(params)
    kept = []
    for step in range(STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad()
        for micro in range(micro_batches):
            (problem(params, step * micro_batches + micro) / micro_batches).backward()
        if clip:
            clip(list(params.values()))
        for optimizer in optimizers:
            optimizer.step()
        if step + 1 in KEPT:
            kept.append({name: param.detach().flatten().tolist() for name, param in params.items()})
    return kept


class Plain:
    """An optimizer as a loop over lists of numbers: `direction(theta, gradient, slots, t)` is ω of a whole tensor."""

    def __init__(self, params, rate, direction):
        self.params, self.rate, self.direction, self.t = list(params.values()), rate, direction, 0
        self.slots = [[[0.0] * param.numel() for _ in range(2)] for param in self.params]

    def zero_grad(self):
        for param in self.params:
            param.grad = None

    def step(self):
        self.t += 1
        for param, slots in zip(self.params, self.slots):
            theta = param.detach().flatten().tolist()
            omega = self.direction(theta, param.grad.flatten().tolist(), slots, self.t)
            with torch.no_grad():
                param.sub_(torch.tensor(omega).reshape(param.shape), alpha=self.rate)


def lion(beta1, beta2, decay):
    """Chen et al. 2023, algorithm 2."""

    def direction(theta, gradient, slots, _):
        omega = []
        for i, g in enumerate(gradient):
            mean = beta1 * slots[0][i] + (1 - beta1) * g
            omega.append((mean > 0) - (mean < 0) + decay * theta[i])
            slots[0][i] = beta2 * slots[0][i] + (1 - beta2) * g
        return omega

    return direction


def lamb(beta1, beta2, epsilon, decay):
    """You et al. 2020, algorithm 2, φ the identity."""

    def norm(numbers):
        return math.sqrt(math.fsum(x * x for x in numbers))

    def direction(theta, gradient, slots, t):
        raw = []
        for i, g in enumerate(gradient):
            slots[0][i] = beta1 * slots[0][i] + (1 - beta1) * g
            slots[1][i] = beta2 * slots[1][i] + (1 - beta2) * g * g
            mean, square = slots[0][i] / (1 - beta1**t), slots[1][i] / (1 - beta2**t)
            raw.append(mean / (math.sqrt(square) + epsilon) + decay * theta[i])
        size, length = norm(theta), norm(raw)
        ratio = size / length if size > 0 and length > 0 else 1.0
        return [ratio * r for r in raw]

    return direction


def muon(params, rate, factor, betas=(0.9, 0.95), epsilon=1e-10, decay=0.1, **options):
    torch.bfloat16 = torch.float64  # what torch.optim.Muon orthogonalizes in
    others = [params["b"], params["v"]]
    return [
        torch.optim.Muon([params["w"]], lr=rate, weight_decay=decay, **options),
        torch.optim.AdamW(others, lr=rate * factor, betas=betas, eps=epsilon, weight_decay=decay),
    ]


def one(optimizer, **options):
    return lambda params: [optimizer(list(params.values()), **options)]


def plain(rate, direction):
    return lambda params: [Plain(params, rate, direction)]


def groups(params):
    return [
        torch.optim.AdamW(
            [{"params": [params["w"], params["v"]]}, {"params": [params["b"]], "weight_decay": 0, "lr": 0.003}],
            lr=0.01,
            betas=(0.8, 0.9),
            weight_decay=0.3,
        )
    ]


def clip_norm(params, bound=0.2):
    norm = math.sqrt(sum(param.grad.square().sum().item() for param in params))
    for param in params:
        param.grad *= min(1, bound / norm)


def clip_value(params):
    torch.nn.utils.clip_grad_value_(params, 0.05)


O = torch.optim
#: name, options for raphson, learning rate, what makes the trace; and extras
CASES = [
    ("sgd", {}, 0.1, one(O.SGD, lr=0.1)),
    ("sgd", {"weightDecay": 0.1}, 0.3, one(O.SGD, lr=0.3, weight_decay=0.1)),
    ("momentum", {}, 0.05, one(O.SGD, lr=0.05, momentum=0.9)),
    ("momentum", {"beta": 0.7, "weightDecay": 0.1}, 0.1, one(O.SGD, lr=0.1, momentum=0.7, weight_decay=0.1)),
    ("nesterov", {}, 0.05, one(O.SGD, lr=0.05, momentum=0.9, nesterov=True)),
    (
        "nesterov",
        {"beta": 0.7, "weightDecay": 0.1},
        0.1,
        one(O.SGD, lr=0.1, momentum=0.7, nesterov=True, weight_decay=0.1),
    ),
    ("adam", {}, 0.01, one(O.Adam, lr=0.01)),
    (
        "adam",
        {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4, "weightDecay": 0.1},
        0.03,
        one(O.Adam, lr=0.03, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1),
    ),
    ("adamW", {}, 0.01, one(O.AdamW, lr=0.01)),
    (
        "adamW",
        {"beta1": 0.8, "beta2": 0.95, "weightDecay": 0.3},
        0.03,
        one(O.AdamW, lr=0.03, betas=(0.8, 0.95), weight_decay=0.3),
    ),
    ("amsgrad", {}, 0.01, one(O.Adam, lr=0.01, amsgrad=True)),
    (
        "amsgrad",
        {"beta2": 0.6, "weightDecay": 0.3, "decoupled": True},
        0.03,
        one(O.AdamW, lr=0.03, betas=(0.9, 0.6), weight_decay=0.3, amsgrad=True),
    ),
    ("nadam", {}, 0.01, one(O.NAdam, lr=0.01)),
    (
        "nadam",
        {"beta1": 0.8, "momentumDecay": 0.1, "weightDecay": 0.3, "decoupled": True},
        0.03,
        one(O.NAdam, lr=0.03, betas=(0.8, 0.999), momentum_decay=0.1, weight_decay=0.3, decoupled_weight_decay=True),
    ),
    ("radam", {}, 0.05, one(O.RAdam, lr=0.05)),
    (
        "radam",
        {"beta2": 0.9, "epsilon": 1e-4, "weightDecay": 0.1},
        0.03,
        one(O.RAdam, lr=0.03, betas=(0.9, 0.9), eps=1e-4, weight_decay=0.1),
    ),
    ("adagrad", {}, 0.05, one(O.Adagrad, lr=0.05)),
    (
        "adagrad",
        {"learningRateDecay": 0.1, "initialAccumulator": 0.2, "epsilon": 1e-3, "weightDecay": 0.1},
        0.1,
        one(O.Adagrad, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.2, eps=1e-3, weight_decay=0.1),
    ),
    ("adadelta", {}, 1, one(O.Adadelta)),
    (
        "adadelta",
        {"rho": 0.7, "epsilon": 1e-3, "weightDecay": 0.1},
        0.5,
        one(O.Adadelta, lr=0.5, rho=0.7, eps=1e-3, weight_decay=0.1),
    ),
    ("rmsprop", {}, 0.01, one(O.RMSprop, lr=0.01)),
    (
        "rmsprop",
        {"rho": 0.9, "epsilon": 1e-3, "momentum": 0.5, "centered": True, "weightDecay": 0.1},
        0.01,
        one(O.RMSprop, lr=0.01, alpha=0.9, eps=1e-3, momentum=0.5, centered=True, weight_decay=0.1),
    ),
    ("lion", {}, 0.01, plain(0.01, lion(0.9, 0.99, 0.0))),
    ("lion", {"beta1": 0.8, "beta2": 0.9, "weightDecay": 0.3}, 0.02, plain(0.02, lion(0.8, 0.9, 0.3))),
    ("adafactor", {}, 0.01, one(O.Adafactor)),
    (
        "adafactor",
        {"beta2Decay": -0.5, "epsilon1": 1e-3, "epsilon2": 0.5, "clipThreshold": 1.1, "weightDecay": 0.3},
        0.1,
        one(O.Adafactor, lr=0.1, beta2_decay=-0.5, eps=(1e-3, 0.5), d=1.1, weight_decay=0.3),
    ),
    ("lamb", {}, 0.01, plain(0.01, lamb(0.9, 0.999, 1e-6, 0.01))),
    ("lamb", {"beta1": 0.8, "epsilon": 1e-3, "weightDecay": 0.3}, 0.05, plain(0.05, lamb(0.8, 0.999, 1e-3, 0.3))),
    ("muon", {}, 0.02, lambda params: muon(params, 0.02, 0.015)),
    (
        "muon",
        {"adjust": "matchRmsAdamW", "nesterov": False, "momentum": 0.8, "iterations": 3, "weightDecay": 0.3},
        0.05,
        lambda params: muon(
            params, 0.05, 1, decay=0.3, adjust_lr_fn="match_rms_adamw", nesterov=False, momentum=0.8, ns_steps=3
        ),
    ),
    (
        "adamW",
        {
            "beta1": 0.8,
            "beta2": 0.9,
            "weightDecay": 0.3,
            "groups": [{"match": "b", "weightDecay": 0, "learningRateFactor": 0.3}],
        },
        0.01,
        groups,
    ),
    ("adam", {}, 0.01, one(O.Adam, lr=0.01), {"accumulate": 3}),
    ("momentum", {}, 0.1, one(O.SGD, lr=0.1, momentum=0.9), {"clip": {"norm": 0.2}}),
    ("momentum", {}, 0.1, one(O.SGD, lr=0.1, momentum=0.9), {"clip": {"value": 0.05}}),
]


def schedules():
    """Learning rates of torch's schedulers for 30 steps, by raphson's name and options."""
    S = torch.optim.lr_scheduler
    made = [
        ("step", {"every": 7, "factor": 0.5, "value": 0.2}, lambda o: S.StepLR(o, 7, 0.5)),
        ("cosine", {"steps": 20, "final": 0.1, "value": 0.2}, lambda o: S.CosineAnnealingLR(o, 20, 0.02)),
        ("exponential", {"factor": 0.9, "value": 0.2}, lambda o: S.ExponentialLR(o, 0.9)),
        (
            "linear",
            {"steps": 20, "start": 0.3, "final": 0.9, "value": 0.2},
            lambda o: S.LinearLR(o, 0.3, 0.9, 20),
        ),
        ("polynomial", {"steps": 20, "power": 2, "value": 0.2}, lambda o: S.PolynomialLR(o, 20, 2)),
    ]
    found = []
    for name, options, make in made:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
        scheduler = make(optimizer)
        rates = []
        # CosineAnnealingLR rises again after its end; ours stays.
        for _ in range(21 if name == "cosine" else 30):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        found.append({"schedule": name, "options": options, "rates": rates})
    return found


def main():
    cases = []
    for optimizer, options, rate, make, *extras in CASES:
        extra = extras[0] if extras else {}
        bound = extra.get("clip", {})
        clip = clip_norm if "norm" in bound else clip_value if "value" in bound else None
        steps = trace(make, extra.get("accumulate", 1), clip)
        cases.append({"optimizer": optimizer, "options": options, "learningRate": rate, **extra, "trace": steps})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    rates = ",\n".join(json.dumps(case, separators=(",", ":")) for case in schedules())
    head = f'"torch":"{torch.__version__}","steps":{list(KEPT)}'
    text = f'{{{head},\n"cases":[\n{lines}\n],\n"schedules":[\n{rates}\n]}}\n'
    pathlib.Path(__file__).with_suffix(".json").write_text(text)


main()
