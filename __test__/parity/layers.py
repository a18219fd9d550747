"""Reference values of PyTorch (f64) for layers and losses: `python __test__/parity/layers.py` writes layers.json.

The format, and how inputs are drawn, stand in reference.py. The inputs of a layer's case are its data and then its
parameters, under the names in `args["names"]`; derivatives are taken in all of them.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.func import functional_call

from reference import case, op, write

SMALL, POSITIVE = (-64, 64), (16, 160)


def layer(name, *cases):
    with sdpa_kernel(SDPBackend.MATH):  # the kernel that has second derivatives
        op(name, *cases, kind="layer")


def loss(name, *cases):
    op(name, *cases, kind="loss")


def module(make, shape, names, args=None, pick=lambda y: y, call=None, indices=(), training=True, domain=SMALL):
    """A case of a torch module: our parameter names for torch's, in torch's order where the layouts agree."""
    m = make().train(training)
    own = dict(m.named_parameters())
    assert set(names.values()) == set(own), (names, list(own))
    shapes = [shape] + [tuple(own[t].shape) for t in names.values()]

    def f(x, i, a):
        values = dict(zip(names.values(), x[1:]))
        buffers = {k: v.clone() for k, v in m.named_buffers()}
        return pick(functional_call(m, {**values, **buffers}, call(x[0], i) if call else (x[0],)))

    return case(f, shapes, domain, args={"names": list(names), **(args or {})}, indices=indices)


WB = {"weight": "weight", "bias": "bias"}
SS = {"scale": "weight", "shift": "bias"}
layer("linear", module(lambda: nn.Linear(4, 3), (5, 4), WB, {"in": 4, "out": 3}),
      module(lambda: nn.Linear(2, 3, bias=False), (2, 3, 2), {"weight": "weight"}, {"in": 2, "out": 3, "bias": False}))
layer("embedding", case(lambda x, i, a: F.embedding(i[0], x[0]), [(5, 3)], SMALL, indices=[((2, 3), [0, 4, 2, 2, 1, 0])]))
layer("layerNorm", module(lambda: nn.LayerNorm(5), (3, 5), SS, {"sizes": [5]}),
      module(lambda: nn.LayerNorm((3, 2), eps=0.125), (2, 3, 2), SS, {"sizes": [3, 2], "epsilon": 0.125}))
layer("rmsNorm", module(lambda: nn.RMSNorm(5, eps=0.001), (3, 5), {"scale": "weight"}, {"sizes": [5], "epsilon": 0.001}))
layer("groupNorm", *[module(lambda s=s, g=g: nn.GroupNorm(g, s[1]), s, SS, {"groups": g, "channels": s[1]})
                     for s, g in [((2, 4), 2), ((2, 6, 3), 3), ((2, 4, 2, 3), 1)]])
layer("batchNorm1d", *[module(lambda s=s: nn.BatchNorm1d(s[1]), s, SS, {"channels": s[1]}) for s in [(6, 3), (2, 3, 4)]])
layer("batchNorm2d", module(lambda: nn.BatchNorm2d(3), (2, 3, 2, 2), SS, {"channels": 3}))


def running(x, i, a):
    m = nn.BatchNorm1d(3, momentum=0.25)
    for part in x:
        m(part)
    return torch.cat([m.running_mean, m.running_var, m.eval()(x[0]).reshape(-1)]).detach()


layer("batchNormRunning", case(running, [(4, 3), (5, 3)], args={"channels": 3, "momentum": 0.25}, derivatives=False))
layer("prelu", *[case(lambda x, i, a: F.prelu(x[0], x[1]), [s, (c,)], SMALL, args={"channels": c}) for s, c in [((3, 4), 1), ((2, 3, 2), 3)]])

# ---- attention
QKV = [(2, 3, 4), (2, 5, 4), (2, 5, 3)]
SEEN = [1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1]  # every query sees a key
layer("attention", case(lambda x, i, a: F.scaled_dot_product_attention(*x), QKV, SMALL),
      case(lambda x, i, a: F.scaled_dot_product_attention(*x, is_causal=True), [(2, 4, 3)] * 3, SMALL, args={"causal": True}),
      case(lambda x, i, a: F.scaled_dot_product_attention(*x, scale=0.25), [(1, 2, 3, 4)] * 3, SMALL, args={"scale": 0.25}),
      case(lambda x, i, a: F.scaled_dot_product_attention(*x, attn_mask=i[0].bool()), QKV, SMALL, args={"masked": True}, indices=[((3, 5), SEEN)]))


def rotate(x, i, a):
    *_, t, w = x[0].shape
    angles = torch.outer(torch.arange(t) + float(a.get("start", 0)), a.get("base", 10000.0) ** (-2 * torch.arange(w // 2) / w))
    turned = torch.complex(x[0][..., : w // 2], x[0][..., w // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], -1)


layer("rotary", case(rotate, [(5, 4)]), case(rotate, [(2, 3, 6)], args={"start": 7, "base": 100.0}))
HEADS = {"inputs.weight": "in_proj_weight", "inputs.bias": "in_proj_bias", "output.weight": "out_proj.weight", "output.bias": "out_proj.bias"}


def heads(causal=False, masked=False):
    def call(x, i):
        t = x.shape[1]
        hide = torch.triu(torch.ones(t, t, dtype=torch.bool), 1) if causal else None
        return (x, x, x, (i[0] == 0) if masked else None, False, hide)
    return module(lambda: nn.MultiheadAttention(4, 2, batch_first=True), (2, 3, 4), HEADS, {"width": 4, "heads": 2, "causal": causal, "masked": masked},
                  pick=lambda y: y[0], call=call, indices=[((2, 3), [1, 1, 0, 1, 0, 1])] if masked else ())


layer("multiHeadAttention", heads(), heads(causal=True), heads(masked=True), heads(causal=True, masked=True))
BLOCK = {"norm1.scale": "norm1.weight", "norm1.shift": "norm1.bias", **{"attention." + k: "self_attn." + v for k, v in HEADS.items()},
         "norm2.scale": "norm2.weight", "norm2.shift": "norm2.bias", "expand.weight": "linear1.weight", "expand.bias": "linear1.bias",
         "contract.weight": "linear2.weight", "contract.bias": "linear2.bias"}
torch.backends.mha.set_fastpath_enabled(False)
layer("transformerBlock", module(lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation="gelu", batch_first=True, norm_first=True), (2, 3, 4), BLOCK,
                                 {"width": 4, "heads": 2, "hidden": 6}))


# ---- recurrent
def chain(i, suffix):
    return {f"cells.{i}.{ours}": f"{theirs}_{suffix}" for ours, theirs in
            dict(inputWeight="weight_ih", hiddenWeight="weight_hh", inputBias="bias_ih", hiddenBias="bias_hh").items()}


for name, make in dict(rnn=nn.RNN, lstm=nn.LSTM, gru=nn.GRU).items():
    layer(name, module(lambda: make(3, 2, batch_first=True), (2, 4, 3), chain(0, "l0"), {"in": 3, "hidden": 2}, pick=lambda y: y[0]),
          module(lambda: make(2, 2, num_layers=2, bidirectional=True, batch_first=True), (1, 3, 2),
                 {**chain(0, "l0"), **chain(1, "l0_reverse"), **chain(2, "l1"), **chain(3, "l1_reverse")},
                 {"in": 2, "hidden": 2, "layers": 2, "bidirectional": True}, pick=lambda y: y[0]))
layer("rnnRelu", module(lambda: nn.RNN(3, 2, nonlinearity="relu", batch_first=True), (2, 4, 3), chain(0, "l0"), {"in": 3, "hidden": 2}, pick=lambda y: y[0]))
layer("lstmStates", module(lambda: nn.LSTM(3, 2, batch_first=True), (2, 4, 3), chain(0, "l0"), {"in": 3, "hidden": 2},
                           pick=lambda y: torch.cat([y[1][0][0], y[1][1][0]], -1)))

# ---- losses
LOGITS, LABELS = (4, 3), ((4,), [2, 0, 1, 2])
REDUCTIONS = ["mean", "sum", "none"]
weights = lambda a: torch.tensor(a["weights"]) if "weights" in a else None


def entropy(f, args=None, labels=LABELS):
    return case(lambda x, i, a: f(x[0], i[0], weight=weights(a), ignore_index=a.get("ignore", -100), reduction=a.get("reduction", "mean"),
                                  **({"label_smoothing": a["smoothing"]} if "smoothing" in a else {})), [LOGITS], args=args, indices=[labels])


IGNORED = ((4,), [2, -100, 1, -100])
for name, f in dict(crossEntropy=F.cross_entropy, nll=F.nll_loss).items():
    loss(name, *[entropy(f, {"reduction": r}) for r in REDUCTIONS], entropy(f, {"weights": [0.5, 1.0, 2.0]}), entropy(f, {"ignore": -100}, IGNORED),
         entropy(f, {"weights": [0.5, 1.0, 2.0], "ignore": -100}, IGNORED), entropy(f, {"weights": [0.5, 1.0, 2.0], "reduction": "none"}))
loss("crossEntropySmooth", *[entropy(F.cross_entropy, {"smoothing": 0.25, **a}) for a in [{}, {"weights": [0.5, 1.0, 2.0]}, {"ignore": -100}]])
loss("crossEntropyProbabilities", *[case(lambda x, i, a: F.cross_entropy(x[0], x[1].softmax(-1), weight=weights(a), label_smoothing=a.get("smoothing", 0.0)), [LOGITS, LOGITS], args=a)
                                    for a in [{}, {"smoothing": 0.25}, {"weights": [0.5, 1.0, 2.0]}]])


def pair(name, f, extra=({},), domain=(-128, 128), shape=(3, 4)):
    loss(name, *[case(lambda x, i, a: f(x[0], x[1], a, reduction=a.get("reduction", "mean")), [shape, shape], domain, args={"reduction": r, **e})
                 for e in extra for r in REDUCTIONS])


pair("mse", lambda x, t, a, **r: F.mse_loss(x, t, **r))
pair("l1", lambda x, t, a, **r: F.l1_loss(x, t, **r))
pair("huber", lambda x, t, a, **r: F.huber_loss(x, t, delta=a["delta"], **r), [{"delta": 1.0}, {"delta": 0.51}])
pair("smoothL1", lambda x, t, a, **r: F.smooth_l1_loss(x, t, beta=a["beta"], **r), [{"beta": 1.0}, {"beta": 0.51}])
pair("bce", lambda x, t, a, **r: F.binary_cross_entropy(x, t, **r), domain=[(4, 60), (0, 63)])
pair("bceWithLogits", lambda x, t, a, **r: F.binary_cross_entropy_with_logits(x, t, pos_weight=torch.tensor(a["positive"]) if "positive" in a else None, **r),
     [{}, {"positive": [0.5, 1.0, 2.0, 3.0]}], [(-128, 128), (0, 63)])
pair("poissonNll", lambda x, t, a, **r: F.poisson_nll_loss(x, t, log_input=a["log"], **r), [{"log": True}], [(-128, 128), POSITIVE])
pair("poissonNllRate", lambda x, t, a, **r: F.poisson_nll_loss(x, t, log_input=a["log"], **r), [{"log": False}], POSITIVE)
pair("hinge", lambda x, t, a, reduction: (lambda y: y if reduction == "none" else getattr(y, reduction)())((a["margin"] - x * t).clamp(min=0)), [{"margin": 1.0}, {"margin": 0.51}])


def divergence(x, t, a, reduction):
    each = F.kl_div(x, t, reduction="none", log_target=a["log"]).sum(-1)
    return each if reduction == "none" else getattr(each, reduction)()


pair("kl", divergence, [{"log": False}], [(-128, 128), POSITIVE])
pair("klLog", divergence, [{"log": True}])
loss("cosineEmbedding", *[case(lambda x, i, a: F.cosine_embedding_loss(x[0], x[1], i[0], margin=a["margin"], reduction=a["reduction"]), [(4, 3), (4, 3)],
                               args={"margin": m, "reduction": r}, indices=[((4,), [1, -1, -1, 1])]) for m in [0.0, 0.25] for r in REDUCTIONS])
loss("tripletMargin", *[case(lambda x, i, a: F.triplet_margin_loss(*x, margin=a["margin"], p=a["p"], swap=a["swap"], reduction=a["reduction"]), [(4, 3)] * 3,
                             args={"margin": m, "p": p, "swap": s, "reduction": r}) for m, p, s, r in [(1.0, 2, False, "mean"), (0.51, 2, True, "sum"), (1.0, 3, False, "none")]])

write("layers.json")
