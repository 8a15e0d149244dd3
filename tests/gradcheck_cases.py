"""The operations and layers whose gradients are checked, each in several settings."""

from functools import partial

import numpy as np

from minifcn import layers, ops
from minifcn.gradcheck import check_op
from minifcn.layers.graph import Graph, Sequential
from minifcn.layers.sizes import dimension, rounded
from minifcn.models.efficientnet_lite0 import _inverted_residual

TOLERANCE = 1e-6
ROUNDING = 1e-12


def spread(shape, seed=0):
    """Shuffled values between −2 and 2, all different and none near 0: away from the kinks of ReLU and max pooling."""
    size = int(np.prod(shape))
    return ((np.random.default_rng(seed).permutation(size) + 0.25) / size * 4 - 2).reshape(shape)


def spreads(*shapes):
    return [spread(shape, seed) for seed, shape in enumerate(shapes)]


def check(forward, backward, *arrays, **options):
    return check_op(forward, backward, arrays, np.random.default_rng(1), **options)


def both(name, **settings):
    return partial(getattr(ops, f"{name}_forward"), **settings), getattr(ops, f"{name}_backward")


def _dropout(p, train=True):
    """Seeded anew in every forward, so that the mask is a constant of the check."""
    return lambda x: ops.dropout_forward(x, p, np.random.default_rng(3), train), ops.dropout_backward


def _batch_norm(train, **settings):
    mean, var = spread((3,), seed=7), abs(spread((3,), seed=8))
    forward, backward = both("batch_norm", train=train, **settings)
    return lambda x, gamma, beta: forward(x, gamma, beta, mean, var), backward


def _relu6():
    """Of 4x, so that some values lie above 6."""
    return lambda x: ops.relu6_forward(4 * x), lambda dy, cache: 4 * ops.relu6_backward(dy, cache)


LABELS = np.array([[[0, 3, 255], [2, 2, 0]], [[255, 1, 2], [0, 0, 3]]], np.uint8)
SIGNED = np.where(LABELS == 255, -1, LABELS.astype(np.int32))
WEIGHTS = np.array([0.5, 2.0, 1.0, 0.25])
OF_PIXELS = np.array([[[1, 0.5, 3], [2, 0, 7]], [[1, 1, 0.25], [4, 10, 1]]])


def _loss(op, labels=LABELS, **settings):
    forward, backward = both(op, **settings)
    return lambda logits: forward(logits, labels), backward


def _numbers(op):
    """The loss of two channels against targets, a pixel of weight 0 among the weights."""
    forward, backward = both(op)
    target, weight = spread((2, 2, 2, 3), seed=6) + 0.05, abs(spread((2, 2, 3), seed=7))  # no x is at the kink
    weight[0, 1, 1] = 0
    return lambda x: forward(x, target, weight), backward


SOFTMAX, SIGMOID = "softmax_cross_entropy", "sigmoid_cross_entropy"
LOGITS = [(2, 4, 2, 3)]
YES_NO = np.where(spread(LOGITS[0], seed=4) > 1.5, 255, spread(LOGITS[0], seed=4) > 0)
OF_0_TO_1 = (spread(LOGITS[0], seed=5) + 2) / 4
OTHERS = {  # name: (forward, backward), shapes of the arrays
    "relu": (both("relu"), [(2, 3, 4, 5)]),
    "relu6": (_relu6(), [(2, 3, 4, 5)]),
    "linear": (both("linear"), [(5, 3), (4, 3), (4,)]),
    "linear-no-bias": (both("linear"), [(5, 3), (4, 3)]),
    "dropout": (_dropout(0.4), [(2, 3, 4, 5)]),
    "dropout-none": (_dropout(0.0), [(2, 3, 4)]),
    "dropout-eval": (_dropout(0.4, train=False), [(2, 3, 4)]),
    "max_pool2d": (both("max_pool2d", kernel=2), [(2, 2, 4, 6)]),
    "max_pool2d-overlapping": (both("max_pool2d", kernel=3, stride=2), [(1, 2, 7, 5)]),
    "max_pool2d-ceil": (both("max_pool2d", kernel=2, ceil_mode=True), [(2, 1, 5, 3)]),
    "max_pool2d-skipping": (both("max_pool2d", kernel=(1, 2), stride=(3, 4)), [(1, 2, 6, 9)]),
    "max_pool2d-pad": (both("max_pool2d", kernel=3, stride=2, pad=1, ceil_mode=True), [(1, 2, 6, 5)]),
    "max_pool2d-pad-asymmetric": (both("max_pool2d", kernel=(2, 3), stride=1, pad=((0, 1), (1, 0))), [(1, 2, 3, 4)]),
    "max_pool2d-dilation": (both("max_pool2d", kernel=2, stride=1, dilation=(2, 3), pad=1), [(1, 2, 5, 5)]),
    "avg_pool2d": (both("avg_pool2d", kernel=2), [(2, 2, 4, 6)]),
    "avg_pool2d-overlapping": (both("avg_pool2d", kernel=(3, 2), stride=(2, 1)), [(1, 2, 7, 4)]),
    "avg_pool2d-ceil": (both("avg_pool2d", kernel=2, ceil_mode=True), [(2, 1, 5, 3)]),
    "avg_pool2d-pad": (both("avg_pool2d", kernel=3, stride=2, pad=1), [(1, 2, 6, 5)]),
    "avg_pool2d-pad-not-counted": (
        both("avg_pool2d", kernel=3, stride=2, pad=((1, 0), (0, 1)), ceil_mode=True, count_include_pad=False),
        [(1, 2, 6, 5)],
    ),
    "adaptive_avg_pool2d": (both("adaptive_avg_pool2d", size=(2, 3)), [(2, 2, 4, 6)]),
    "adaptive_avg_pool2d-shared-rows": (both("adaptive_avg_pool2d", size=(3, 2)), [(2, 2, 7, 5)]),
    "adaptive_avg_pool2d-enlarging": (both("adaptive_avg_pool2d", size=4), [(1, 2, 3, 1)]),
    "global_avg_pool": (both("global_avg_pool"), [(2, 3, 4, 5)]),
    "lrn": (both("lrn", alpha=0.5), [(2, 7, 2, 3)]),
    "lrn-even": (both("lrn", size=4, alpha=0.5, beta=0.6, k=2.0), [(2, 7, 2, 3)]),
    "lrn-one-channel": (both("lrn", size=1, alpha=0.5), [(1, 3, 2, 2)]),
    "lrn-wider-than-channels": (both("lrn", size=3, alpha=2.0), [(1, 2, 2, 3)]),
    "batch_norm": (_batch_norm(True), [(3, 3, 4, 2), (3,), (3,)]),
    "batch_norm-large-eps": (_batch_norm(True, eps=0.5), [(4, 3, 1, 1), (3,), (3,)]),
    "batch_norm-eval": (_batch_norm(False), [(3, 3, 4, 2), (3,), (3,)]),
    "batch_norm-eval-one-value": (_batch_norm(False, eps=1e-3), [(1, 3, 1, 1), (3,), (3,)]),
    "concat": ((lambda *xs: ops.concat_forward(xs), ops.concat_backward), [(2, 2, 3, 2), (2, 1, 3, 2)]),
    "resize_bilinear": (both("resize_bilinear", size=(3, 7)), [(2, 2, 5, 4)]),
    "resize_bilinear-corners": (both("resize_bilinear", size=(7, 2), align_corners=True), [(1, 2, 4, 5)]),
    "resize": (both("resize", size=(3, 7), scale=(0.7, 1.8), positions="asymmetric"), [(1, 2, 5, 4)]),
    "resize-nearest": (both("resize", size=(7, 3), nearest="round_prefer_floor"), [(1, 2, 4, 5)]),
    "crop": (both("crop", offset=(1, 2), size=(2, 3)), [(2, 2, 4, 6)]),
    "crop-nothing": (both("crop", offset=0, size=(3, 4)), [(2, 2, 3, 4)]),
    "pad": (both("pad", pad=((1, 2), (0, 3))), [(2, 2, 3, 2)]),
    "upsample": (both("upsample", kernel_1d=layers.init.bilinear_1d(4).astype(float), stride=2), [(2, 2, 3, 2)]),
    "upsample-pad": (both("upsample", kernel_1d=spread((5,)), stride=3, pad=2), [(1, 2, 2, 4)]),
    "upsample-pad-asymmetric": (
        both("upsample", kernel_1d=spread((4,)), stride=2, pad=((0, 2), (1, 0))),
        [(1, 2, 3, 4)],
    ),
    "softmax_cross_entropy-mean": (_loss(SOFTMAX), LOGITS),
    "softmax_cross_entropy-mean-weighted": (_loss(SOFTMAX, weight=WEIGHTS), LOGITS),
    "softmax_cross_entropy-mean-of-weighted-pixels": (_loss(SOFTMAX, weight=WEIGHTS, pixel_weight=OF_PIXELS), LOGITS),
    "softmax_cross_entropy-sum": (_loss(SOFTMAX, reduction="sum"), LOGITS),
    "softmax_cross_entropy-none-weighted": (_loss(SOFTMAX, reduction="none", weight=WEIGHTS), LOGITS),
    "softmax_cross_entropy-ignore-negative": (_loss(SOFTMAX, SIGNED, ignore=-1), LOGITS),
    "softmax_cross_entropy-ignore-class": (_loss(SOFTMAX, LABELS % 4, ignore=2, reduction="none"), LOGITS),
    "sigmoid_cross_entropy-mean": (_loss(SIGMOID, YES_NO), LOGITS),
    "sigmoid_cross_entropy-mean-weighted": (
        _loss(SIGMOID, YES_NO, weight=WEIGHTS, pixel_weight=OF_PIXELS),
        LOGITS,
    ),
    "sigmoid_cross_entropy-none-of-numbers": (_loss(SIGMOID, OF_0_TO_1, weight=WEIGHTS, reduction="none"), LOGITS),
    "hardest_cross_entropy": (_loss("hardest_cross_entropy", hardest=0.4), LOGITS),
    "hardest_cross_entropy-weighted": (
        _loss("hardest_cross_entropy", hardest=0.7, weight=WEIGHTS, pixel_weight=OF_PIXELS),
        LOGITS,
    ),
    "squared_error": (_numbers("squared_error"), [(2, 2, 2, 3)]),
    "absolute_error": (_numbers("absolute_error"), [(2, 2, 2, 3)]),
    "dice-mean": (_loss("dice"), LOGITS),
    "dice-smooth-ignore-class": (_loss("dice", LABELS % 4, ignore=2, smooth=2.0), LOGITS),
    "dice-none-absent-class": (_loss("dice", reduction="none"), [(2, 5, 2, 3)]),
    "dice-sum-two-axes": (_loss("dice", LABELS[0, 0], reduction="sum"), [(3, 4)]),
}
_LINEAR_OPS = (
    "crop",
    "pad",
    "resize",
    "resize_bilinear",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "global_avg_pool",
    "upsample",
)
LINEAR = [name for name in OTHERS if name.split("-")[0] in _LINEAR_OPS]


def _chain(rng):
    return Sequential(
        conv=layers.Conv2d(2, 3, 3, rng, pad=1),
        relu=layers.ReLU(),
        again=layers.Conv2d(3, 3, 3, rng, bias=False),
        norm=layers.BatchNorm2d(3),
        relu6=layers.ReLU6(),
        pool=layers.MaxPool2d(2),
    )


def _join(join, *inputs):
    """A graph of a join and what it reads, out of the image, a 1×1 convolution of it and a pool of it."""

    def build(rng):
        nodes = {"conv": (layers.Conv2d(2, 2, 1, rng), ["image"]), "pool": (layers.AvgPool2d(2), ["image"])}
        nodes["mean"] = (layers.AdaptiveAvgPool2d(1), ["image"])
        return Graph({**{name: nodes[name] for name in nodes if name in inputs}, "join": (join, list(inputs))})

    return build, (2, 2, 5, 4)


def _by_constant(join, shape, first=False):
    """A graph of a join of the image and a learned array, which come in this order or the other."""

    def build(rng):
        constant = layers.Constant(layers.Parameter(spread(shape).astype(np.float32)))
        inputs = ["constant", "image"] if first else ["image", "constant"]
        return Graph({"constant": (constant, ["image"]), "join": (join, inputs)})

    return build


def _frozen(rng):
    """With statistics that are not the batch's."""
    norm = layers.BatchNorm2d(3, eps=1e-3, frozen=True)
    norm.running_mean, norm.running_var = (spread((3,), seed).astype(np.float32) for seed in (7, 8))
    norm.running_var = abs(norm.running_var)
    return norm


def _conv_of_parameters(rng):
    weight, bias = (layers.Parameter(spread(shape).astype(np.float32)) for shape in ((3, 2, 2, 2), (3,)))
    return layers.Conv2d.of(weight, bias, stride=2, pad=1)


def _same(size, kernel, stride, **settings):
    return lambda rng: layers.Conv2d(2, 2, kernel, rng, stride=stride, pad="same", **settings), (1, 2, *size)


def _block(*arguments):
    """inputs, outputs, kernel, stride, expansion."""
    return lambda rng: Graph(_inverted_residual("block", "image", *arguments, rng)[0])


LAYERS = {  # name: rng -> layer, shape of x
    "AdaptiveAvgPool2d": (lambda rng: layers.AdaptiveAvgPool2d((2, 3)), (2, 2, 5, 4)),
    "LRN": (lambda rng: layers.LRN(alpha=0.5), (2, 7, 2, 3)),
    "AvgPool2d": (lambda rng: layers.AvgPool2d(3, stride=2, pad=1, count_include_pad=False), (1, 2, 6, 5)),
    "BatchNorm2d": (lambda rng: layers.BatchNorm2d(3), (3, 3, 4, 2)),
    "BatchNorm2d-frozen": (_frozen, (3, 3, 4, 2)),
    "Conv2d": (lambda rng: layers.Conv2d(4, 6, (3, 2), rng, stride=(2, 1), pad=1, groups=2), (2, 4, 5, 4)),
    "Conv2d-no-bias": (lambda rng: layers.Conv2d(2, 3, 2, rng, dilation=2, bias=False), (2, 2, 4, 5)),
    "Conv2d-of-parameters": (_conv_of_parameters, (1, 2, 4, 5)),
    "Conv2d-depthwise": (lambda rng: layers.Conv2d(3, 3, 5, rng, stride=2, pad=2, groups=3), (2, 3, 6, 3)),
    "Conv2d-same": _same((5, 4), 3, 1),
    "Conv2d-same-stride-2": _same((6, 5), 3, 2),
    "Conv2d-same-even-kernel": _same((4, 5), (2, 4), (1, 2)),
    "Conv2d-same-dilation": _same((6, 5), 3, 2, dilation=2),
    "Conv2d-same-dilation-only": _same((6, 5), 3, 1, dilation=(2, 3)),
    "Conv2d-same-depthwise": _same((4, 7), 5, 2, groups=2, bias=False),
    "ConvTranspose2d": (
        lambda rng: layers.ConvTranspose2d(4, 6, 3, rng, stride=2, pad=1, output_pad=1, groups=2),
        (2, 4, 2, 3),
    ),
    "ConvTranspose2d-no-bias": (lambda rng: layers.ConvTranspose2d(2, 3, (2, 3), rng, bias=False), (2, 2, 3, 2)),
    "Add": _join(layers.Add(), "conv", "image"),
    "Concat": _join(layers.Concat(), "image", "conv", "image"),
    "CropLike": _join(layers.CropLike(1), "image", "pool"),
    "ResizeLike": _join(layers.ResizeLike(), "pool", "image"),
    "ResizeLike-corners": _join(layers.ResizeLike(align_corners=True), "image", "pool"),
    "Scale": (lambda rng: layers.Scale(0.25), (2, 3, 2, 2)),
    "Clip": (lambda rng: layers.Clip(-1, 1.5), (2, 3, 4, 5)),
    "Multiply": _join(layers.Multiply(), "conv", "image"),
    "Multiply-by-map": _join(layers.Multiply(), "image", "mean"),
    "Multiply-map-first": _join(layers.Multiply(), "mean", "image"),
    "Add-broadcast": _join(layers.Add(broadcast=True), "mean", "image"),
    "Subtract": _join(layers.Subtract(), "conv", "image"),
    "Subtract-map": _join(layers.Subtract(), "image", "mean"),
    "Divide": (_by_constant(layers.Divide(), (2, 1, 1)), (2, 2, 5, 4)),
    "Constant": (_by_constant(layers.Divide(), (1, 1), first=True), (2, 2, 5, 4)),
    "Concat-rows": _join(layers.Concat(2), "image", "conv"),
    "Pad-number": (lambda rng: layers.Pad(1), (2, 2, 3, 2)),
    "Pad": (lambda rng: layers.Pad(((1, 2), (0, 3)), value=0.5), (2, 2, 3, 2)),
    "Pad-by-sizes": _join(
        layers.Pad(((0, dimension(1, 2) - dimension(0, 2)), (1, -dimension(0, 3) % 4))), "pool", "image"
    ),
    "Mean": (lambda rng: layers.Mean((1, 3)), (2, 3, 4, 2)),
    "Mean-without-axes": (lambda rng: layers.Mean((1,), keep=False), (2, 3, 4, 2)),
    "Resize": (lambda rng: layers.Resize(scale=(2, 1.5)), (1, 2, 3, 5)),
    "Resize-corners": (lambda rng: layers.Resize(scale=(0.6, 1.5), positions="align_corners"), (1, 2, 4, 5)),
    "Resize-nearest": (lambda rng: layers.Resize(size=(7, 3), nearest="floor", positions="asymmetric"), (1, 2, 4, 5)),
    "Resize-by-sizes": _join(
        layers.Resize(size=(dimension(1, 2) - 1, rounded("Div", dimension(0, 3), 2)), positions="pytorch_half_pixel"),
        "image",
        "pool",
    ),
    "Slice": (lambda rng: layers.Slice((slice(None), slice(1, None), slice(0, 99, 2), slice(-3, -1))), (2, 3, 5, 4)),
    "Slice-by-sizes": _join(
        layers.Slice((slice(None), slice(1, None), slice(1, 1 + dimension(1, 2)))), "image", "pool"
    ),
    "Softmax": (lambda rng: layers.Softmax(), (2, 4, 2, 3)),
    "Dropout": (lambda rng: layers.Dropout(0.4, rng), (2, 3, 4)),
    "Flatten": (lambda rng: layers.Flatten(), (2, 3, 2, 4)),
    "GlobalAvgPool": (lambda rng: layers.GlobalAvgPool(), (2, 3, 4, 5)),
    "InvertedResidual": (_block(3, 3, 3, 1, 2), (2, 3, 4, 5)),
    "InvertedResidual-stride-2": (_block(2, 3, 5, 2, 2), (2, 2, 6, 5)),
    "InvertedResidual-not-widened": (_block(3, 2, 3, 1, 1), (2, 3, 4, 4)),
    "InvertedResidual-odd-size": (_block(3, 2, 5, 2, 1), (2, 3, 7, 8)),
    "LearnedUpsample": (lambda rng: layers.LearnedUpsample(3, 2, kernel=4, pad=1), (2, 3, 3, 2)),
    "ExactSize": (lambda rng: layers.ExactSize(4, 2, 1), (2, 2, 6, 4)),
    "Linear": (lambda rng: layers.Linear(3, 4, rng), (5, 3)),
    "MaxPool2d": (lambda rng: layers.MaxPool2d(3, stride=2, pad=1, ceil_mode=True), (1, 2, 6, 5)),
    "PadToMultiple": (lambda rng: layers.PadToMultiple(4), (2, 2, 5, 4)),
    "PadToMultiple-pad": (lambda rng: layers.PadToMultiple(4, pad=3), (2, 2, 5, 4)),
    "ReLU": (lambda rng: layers.ReLU(), (2, 3, 4, 5)),
    "ReLU6": (lambda rng: layers.ReLU6(), (2, 3, 4, 5)),
    "Sequential": (_chain, (3, 2, 6, 7)),
    "Upsample": (lambda rng: layers.Upsample(4, kernel=8, pad=2), (2, 3, 2, 3)),
    "Upsample-asymmetric": (lambda rng: layers.Upsample(4, kernel=7, pad=((1, 2), (1, 2))), (2, 3, 2, 3)),
}
