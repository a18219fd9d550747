"""Reference values of PyTorch (f64) for convolutions and pooling: `python __test__/parity/convolutions.py` writes convolutions.json.

The format, and how inputs are drawn, stand in reference.py.
"""

import torch
import torch.nn.functional as F

from reference import case, op, write

TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d}
PLAIN = {1: F.conv1d, 2: F.conv2d}
SMALL = (-64, 64)


def torch_padding(x, padding, n):
    """x, padded by hand where the sides differ, and what is left to the op."""
    if isinstance(padding, list) and any(isinstance(p, list) for p in padding):
        sides = [p if isinstance(p, list) else [p, p] for p in padding]
        return F.pad(x, [side for pair in reversed(sides) for side in pair]), 0
    return x, padding


def conv(n):
    def f(x, i, a):
        padding = a.get("padding", 0)
        data, rest = (x[0], padding) if isinstance(padding, str) else torch_padding(x[0], padding, n)
        return PLAIN[n](data, x[1], stride=a.get("stride", 1), padding=rest, dilation=a.get("dilation", 1), groups=a.get("groups", 1))
    return f


def transposed(n):
    return lambda x, i, a: TRANSPOSED[n](x[0], x[1], stride=a.get("stride", 1), padding=a.get("padding", 0),
                                         output_padding=a.get("outputPadding", 0), groups=a.get("groups", 1), dilation=a.get("dilation", 1))


op("conv1d", *[case(conv(1), list(s), SMALL, a) for s, a in [
    (((2, 3, 7), (4, 3, 3)), {}), (((2, 3, 8), (4, 3, 3)), {"stride": 2, "padding": 1}), (((1, 2, 9), (3, 2, 3)), {"dilation": 2, "padding": 2}),
    (((2, 4, 6), (4, 2, 3)), {"groups": 2, "padding": "same"}), (((2, 3, 6), (6, 1, 3)), {"groups": 3}), (((2, 2, 5), (3, 2, 1)), {}),
    (((1, 2, 5), (2, 2, 2)), {"padding": [[2, 0]]}), (((1, 1, 11), (1, 1, 3)), {"stride": 3, "dilation": 2, "padding": 1}), (((1, 2, 5), (2, 2, 5)), {"padding": "valid"})]])
op("conv2d", *[case(conv(2), list(s), SMALL, a) for s, a in [
    (((2, 3, 5, 6), (4, 3, 3, 3)), {}), (((1, 2, 7, 6), (3, 2, 3, 3)), {"stride": 2, "padding": 1}), (((1, 2, 8, 7), (2, 2, 3, 2)), {"dilation": [2, 3], "padding": [2, 1]}),
    (((2, 4, 5, 4), (6, 2, 3, 3)), {"groups": 2, "padding": 1}), (((2, 3, 5, 5), (3, 1, 3, 3)), {"groups": 3, "stride": [2, 1], "padding": 1}),
    (((2, 3, 4, 4), (5, 3, 1, 1)), {}), (((1, 1, 6, 7), (2, 1, 2, 4)), {"padding": "same"}), (((1, 2, 4, 5), (2, 2, 2, 3)), {"padding": [[1, 0], [0, 2]]}),
    (((3, 1, 9, 8), (2, 1, 5, 4)), {"stride": [3, 2], "padding": [2, 1]})]])
op("convTranspose1d", *[case(transposed(1), list(s), SMALL, a) for s, a in [
    (((2, 3, 5), (3, 4, 3)), {}), (((2, 3, 4), (3, 2, 3)), {"stride": 2, "padding": 1, "outputPadding": 1}), (((1, 2, 5), (2, 3, 3)), {"dilation": 2, "padding": 1}),
    (((2, 4, 4), (4, 3, 3)), {"groups": 2, "stride": 3}), (((1, 1, 6), (1, 1, 1)), {"stride": 2})]])
op("convTranspose2d", *[case(transposed(2), list(s), SMALL, a) for s, a in [
    (((2, 3, 3, 4), (3, 4, 3, 3)), {}), (((1, 2, 4, 3), (2, 3, 3, 3)), {"stride": 2, "padding": 1, "outputPadding": 1}),
    (((1, 2, 3, 4), (2, 2, 2, 3)), {"stride": [1, 2], "dilation": [2, 1], "padding": [0, 1]}), (((2, 4, 3, 3), (4, 2, 3, 2)), {"groups": 2, "stride": 2})]])
for n, most, mean in [(1, F.max_pool1d, F.avg_pool1d), (2, F.max_pool2d, F.avg_pool2d)]:
    sizes = {1: [(2, 3, 8), (2, 7), (1, 2, 9)], 2: [(2, 2, 6, 8), (2, 5, 7), (1, 2, 9, 6)]}[n]
    argued = list(zip(sizes, [{"window": 2}, {"window": 3, "stride": 2, "padding": 1}, {"window": 3, "stride": 1}]))
    op(f"maxPool{n}d", *[case(lambda x, i, a: most(x[0], a["window"], a.get("stride"), a.get("padding", 0)), [s], args=a) for s, a in argued])
    op(f"avgPool{n}d", *[case(lambda x, i, a: mean(x[0], a["window"], a.get("stride"), a.get("padding", 0), count_include_pad=a.get("countIncludePad", True)), [s], args=a)
                         for s, a in [*argued, (sizes[1], {"window": 3, "stride": 2, "padding": 1, "countIncludePad": False})]])
# blocks side by side, long enough to be reduced as an axis
op("maxPoolBlocks", case(lambda x, i, a: F.max_pool2d(x[0], 4), [(2, 8, 12)]))
op("avgPoolBlocks", case(lambda x, i, a: F.avg_pool2d(x[0], 4), [(2, 8, 12)]))
op("adaptiveAvgPool2d", *[case(lambda x, i, a: F.adaptive_avg_pool2d(x[0], a["size"]), [s], args={"size": n}) for s, n in [((2, 2, 7, 5), [3, 2]), ((1, 3, 4, 6), 2), ((2, 2, 3, 3), 1)]])
op("adaptiveMaxPool2d", *[case(lambda x, i, a: F.adaptive_max_pool2d(x[0], a["size"]), [s], args={"size": n}) for s, n in [((2, 2, 7, 5), [3, 2]), ((1, 3, 4, 6), 2), ((2, 2, 3, 3), 1)]])

write("convolutions.json")
