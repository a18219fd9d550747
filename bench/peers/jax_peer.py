"""JAX's side of the benchmarks (with optax): `jax_peer.py jit THREADS`, spoken to as `protocol.py` says.

A whole step is one jitted function with donated parameters and state. Images are NHWC and kernels HWIO, dense weights
[in, out]: the layouts that XLA's CPU code is fastest with.
"""

import sys

import protocol

THREADS = int(sys.argv[2])
protocol.limit_threads(THREADS)

import jax  # noqa: E402  (after the threads)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax import lax  # noqa: E402

jax.config.update("jax_platforms", "cpu")


def conv2d(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def mlp(sizes, p, x):
    for layer in range(0, len(p), 2):
        x = x @ p[layer] + p[layer + 1]
        if layer + 2 < len(p):
            x = jax.nn.relu(x)
    return x


def cnn(sizes, p, x):
    x = max_pool(jax.nn.relu(conv2d(x, p[0]) + p[1]))
    x = max_pool(jax.nn.relu(conv2d(x, p[2]) + p[3]))
    return jax.nn.relu(x.reshape(x.shape[0], -1) @ p[4] + p[5]) @ p[6] + p[7]


def layer_norm(x, scale, shift):
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * scale + shift


def attention(q, k, v):
    """[batch, heads, positions, width]"""
    length = q.shape[-2]
    scores = jnp.einsum("bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k)
    scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf)
    return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores, -1), v)


def gpt(sizes, p, tokens):
    batch, length = tokens.shape
    width, heads = sizes["width"], sizes["heads"]
    p = iter(p)
    table = next(p)
    x = table[tokens] + next(p)
    for _ in range(sizes["layers"]):
        y = layer_norm(x, next(p), next(p))
        parts = jnp.split(y @ next(p) + next(p), 3, -1)
        q, k, v = (part.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3) for part in parts)
        y = attention(q, k, v).transpose(0, 2, 1, 3).reshape(batch, length, width)
        x = x + y @ next(p) + next(p)
        y = layer_norm(x, next(p), next(p))
        x = x + jax.nn.gelu(y @ next(p) + next(p), approximate=False) @ next(p) + next(p)
    x = layer_norm(x, next(p), next(p))
    return (x @ table.T).reshape(-1, table.shape[0])


def tiny(sizes, p, x):
    return jnp.tanh(x @ p[0] + p[1]) @ p[2] + p[3]


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels.reshape(-1)).mean()


def squared(outputs, targets):
    return jnp.square(outputs - targets).mean()


MODELS = {"mlp": (mlp, cross_entropy), "cnn": (cnn, cross_entropy), "gpt": (gpt, cross_entropy), "tiny": (tiny, squared)}


def own_layout(kind, index, array):
    """A parameter as PyTorch lays it out → as the models above take it."""
    if kind == "cnn" and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if kind == "cnn" and index == 4:  # its inputs are channels × rows × columns there, and channels last here
        side = int((array.shape[1] // 64) ** 0.5)
        return array.reshape(-1, 64, side, side).transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    if array.ndim == 2 and not (kind == "gpt" and index < 2):
        return array.T
    return array


class Step:
    def __init__(self, workload):
        file = protocol.File(workload["file"])
        kind = workload["kind"]
        arrays = (file.array(entry) for entry in workload["params"])
        params = [jnp.array(own_layout(kind, index, array)) for index, array in enumerate(arrays)]
        self.batches = []
        for batch in workload["batches"]:
            x, y = file.array(batch["x"]), file.array(batch["y"])
            self.batches.append((jnp.array(x.transpose(0, 2, 3, 1) if kind == "cnn" else x), jnp.array(y)))
        model, criterion = MODELS[kind]
        optimizer = {"adam": optax.adam, "sgd": optax.sgd}[workload["optimizer"]](workload["alpha"])

        def step(params, state, x, y):
            loss, gradients = jax.value_and_grad(lambda p: criterion(model(workload["sizes"], p, x), y))(params)
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, loss

        self.compiled = jax.jit(step, donate_argnums=(0, 1))
        self.carried = (params, optimizer.init(params))
        self.count = 0

    def step(self):
        x, y = self.batches[self.count % len(self.batches)]
        self.count += 1
        *self.carried, loss = self.compiled(*self.carried, x, y)
        return loss

    def wait(self, loss):
        jax.block_until_ready(self.carried)
        return float(loss)


def with_backward(f, differentiable):
    """f and its product with the last array, back to the first `differentiable` ones."""

    def turn(*arrays):
        rest = arrays[differentiable:-1]
        out, back = jax.vjp(lambda *inputs: f(*inputs, *rest), *arrays[:differentiable])
        return out, *back(arrays[-1])

    return turn


def conv_input(x, w, dy):
    return jax.vjp(lambda x: conv2d(x, w), x)[1](dy)[0]


def conv_weight(x, w, dy):
    return jax.vjp(lambda w: conv2d(x, w), w)[1](dy)[0]


OPS = {
    "matmul": lambda a, b: a @ b,
    "matmul_at": lambda a, b: a.T @ b,
    "matmul_bt": lambda a, b: a @ b.T,
    "elementwise": lambda x, y: jnp.tanh(x * y + x),
    "softmax": lambda x: jax.nn.softmax(x, -1),
    "softmax_train": with_backward(lambda x: jax.nn.softmax(x, -1), 1),
    "layer_norm": layer_norm,
    "layer_norm_train": with_backward(layer_norm, 3),
    "cross_entropy_train": with_backward(cross_entropy, 1),
    "conv": conv2d,
    "conv_input": conv_input,
    "conv_weight": conv_weight,
    "attention": attention,
    "attention_train": with_backward(attention, 3),
    "sum_0": lambda x: x.sum(0),
    "sum_1": lambda x: x.sum(1),
    "sum_all": lambda x: x.sum(),
    "max_1": lambda x: x.max(1),
}


def own_operand(op, array):
    if not op.startswith("conv"):
        return array
    return array.transpose(2, 3, 1, 0) if array.shape[-2:] == (3, 3) else array.transpose(0, 2, 3, 1)


class Op:
    def __init__(self, op, arrays):
        self.op = op
        self.operands = [jnp.array(own_operand(op, array)) for array in arrays]
        self.turn = self.adam() if op == "adam" else jax.jit(OPS[op])

    def adam(self):
        """Each turn is one update of all parameters; the arrays are parameters, then gradients."""
        half = len(self.operands) // 2
        gradients, optimizer = self.operands[half:], optax.adam(1e-3)

        def update(params, state, gradients):
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        compiled = jax.jit(update, donate_argnums=(0, 1))
        carried = [self.operands[:half], optimizer.init(self.operands[:half])]
        self.operands = []

        def turn():
            carried[:] = compiled(*carried, gradients)
            return carried[0]

        return turn

    def run(self):
        return self.turn(*self.operands)

    def wait(self, result):
        jax.block_until_ready(result)

    def arrays(self, result):
        return [np.asarray(array) for array in jax.tree.leaves(result)]


protocol.serve(jax.__version__, Step, Op)
