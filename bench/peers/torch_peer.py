"""PyTorch's side of the benchmarks: `torch_peer.py eager|compile THREADS`, spoken to as `protocol.py` says.

Eager runs the fused optimizers; compile adds torch.compile around the loss. Inputs keep PyTorch's own layouts.
"""

import sys

import protocol

MODE, THREADS = sys.argv[1], int(sys.argv[2])
protocol.limit_threads(THREADS)

import torch  # noqa: E402  (after the threads)
import torch.nn.functional as F  # noqa: E402

torch.set_num_threads(THREADS)


def mlp(sizes, p, x):
    for layer in range(0, len(p), 2):
        x = F.linear(x, p[layer], p[layer + 1])
        if layer + 2 < len(p):
            x = F.relu(x)
    return x


def cnn(sizes, p, x):
    x = F.max_pool2d(F.relu(F.conv2d(x, p[0], p[1], padding=1)), 2)
    x = F.max_pool2d(F.relu(F.conv2d(x, p[2], p[3], padding=1)), 2)
    return F.linear(F.relu(F.linear(x.flatten(1), p[4], p[5])), p[6], p[7])


def gpt(sizes, p, tokens):
    batch, length = tokens.shape
    width, heads = sizes["width"], sizes["heads"]
    p = iter(p)
    table = next(p)
    x = F.embedding(tokens, table) + next(p)
    for _ in range(sizes["layers"]):
        y = F.layer_norm(x, (width,), next(p), next(p))
        parts = F.linear(y, next(p), next(p)).split(width, -1)
        q, k, v = (part.view(batch, length, heads, width // heads).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, width)
        x = x + F.linear(y, next(p), next(p))
        y = F.layer_norm(x, (width,), next(p), next(p))
        x = x + F.linear(F.gelu(F.linear(y, next(p), next(p))), *(next(p), next(p)))
    x = F.layer_norm(x, (width,), next(p), next(p))
    return F.linear(x, table).flatten(0, 1)


def tiny(sizes, p, x):
    return F.linear(torch.tanh(F.linear(x, p[0], p[1])), p[2], p[3])


def cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels.flatten())


MODELS = {"mlp": (mlp, cross_entropy), "cnn": (cnn, cross_entropy), "gpt": (gpt, cross_entropy), "tiny": (tiny, F.mse_loss)}


class Step:
    def __init__(self, workload):
        file = protocol.File(workload["file"])
        tensor = lambda entry: torch.from_numpy(file.array(entry))
        self.params = [tensor(entry).requires_grad_() for entry in workload["params"]]
        self.batches = []
        for batch in workload["batches"]:
            x, y = tensor(batch["x"]), tensor(batch["y"])
            self.batches.append((x, y.long() if y.dtype == torch.int32 else y))
        model, criterion = MODELS[workload["kind"]]
        loss = lambda params, x, y: criterion(model(workload["sizes"], params, x), y)
        self.loss = wrap(loss)
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[workload["optimizer"]]
        self.optimizer = kind(self.params, lr=workload["alpha"], fused=True)
        self.count = 0

    def step(self):
        x, y = self.batches[self.count % len(self.batches)]
        self.count += 1
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.params, x, y)
        loss.backward()
        self.optimizer.step()
        return loss

    def wait(self, loss):
        return loss.item()



def wrap(f):
    return torch.compile(f) if MODE == "compile" else f


def with_backward(f, differentiable):
    """f and its product with the last array, back to the first `differentiable` ones."""
    f = wrap(f)

    def turn(*arrays):
        inputs = [array.detach().requires_grad_() for array in arrays[:differentiable]]
        out = f(*inputs, *arrays[differentiable:-1])
        return out, *torch.autograd.grad(out, inputs, arrays[-1])

    return turn


def convolution_backward(which):
    def turn(x, w, dy):
        mask = [which == "input", which == "weight", False]
        sides = ([0], [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        out = torch.ops.aten.convolution_backward(dy, x, w, *sides, mask)
        return out[0] if which == "input" else out[1]

    return turn


def layer_norm(x, scale, shift):
    return F.layer_norm(x, x.shape[-1:], scale, shift)


def attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


OPS = {
    "matmul": lambda a, b: a @ b,
    "matmul_at": lambda a, b: a.T @ b,
    "matmul_bt": lambda a, b: a @ b.T,
    "elementwise": lambda x, y: torch.tanh(x * y + x),
    "softmax": lambda x: F.softmax(x, -1),
    "softmax_train": with_backward(lambda x: F.softmax(x, -1), 1),
    "layer_norm": layer_norm,
    "layer_norm_train": with_backward(layer_norm, 3),
    "cross_entropy_train": with_backward(lambda x, labels: F.cross_entropy(x, labels), 1),
    "conv": lambda x, w: F.conv2d(x, w, padding=1),
    "conv_input": convolution_backward("input"),
    "conv_weight": convolution_backward("weight"),
    "attention": attention,
    "attention_train": with_backward(attention, 3),
    "sum_0": lambda x: x.sum(0),
    "sum_1": lambda x: x.sum(1),
    "sum_all": lambda x: x.sum(),
    "max_1": lambda x: x.amax(1),
}


class Op:
    def __init__(self, op, arrays):
        tensors = [torch.from_numpy(array) for array in arrays]
        self.tensors = [tensor.long() if tensor.dtype == torch.int32 else tensor for tensor in tensors]
        if op == "adam":
            self.turn = self.adam()
        else:
            own = op.endswith("_train") or op.startswith("conv_")  # wrapped inside, or PyTorch's kernel itself
            self.turn = OPS[op] if own else wrap(OPS[op])

    def adam(self):
        """Each turn is one update of all parameters; the arrays are parameters, then gradients."""
        half = len(self.tensors) // 2
        params = [tensor.requires_grad_() for tensor in self.tensors[:half]]
        for param, gradient in zip(params, self.tensors[half:]):
            param.grad = gradient
        optimizer = torch.optim.Adam(params, lr=1e-3, fused=True)
        update = wrap(optimizer.step)

        def turn(*_):
            update()
            return params

        return turn

    def run(self):
        return self.turn(*self.tensors)

    def wait(self, result):
        pass

    def arrays(self, result):
        results = result if isinstance(result, (tuple, list)) else [result]
        return [tensor.detach().numpy() for tensor in results]


protocol.serve(torch.__version__, Step, Op)
