"""Every operation, forward and backward, against PyTorch over a grid of settings, in float64 and float32."""

from functools import partial
from itertools import product

import conv_cases
import numpy as np
import pytest
from gradcheck_cases import both, spread

from minifcn import layers, ops
from minifcn.ops.geometry import pads, same_pads

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.torch
every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def close(result, reference, dtype, what):
    reference = reference.detach().numpy()
    assert result.shape == reference.shape, what
    scale = max(abs(reference).max(initial=0), 1e-3)  # so that near zero the error is held against the typical value
    np.testing.assert_allclose(
        result, reference, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * min(scale, 1), err_msg=what
    )


def compare(forward, backward, reference, arrays, dtype, seed=1, told=""):
    """forward(*arrays) -> (y, cache) and backward(dy, cache) -> gradients against reference(*tensors)."""
    arrays = [a.astype(dtype) for a in arrays]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, cache = forward(*arrays)
    expected = reference(*tensors)
    close(y, expected, dtype, f"result{told}")
    dy = np.asarray(np.random.default_rng(seed).standard_normal(y.shape), dtype)
    gradients = backward(dy, cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    expected.backward(torch.tensor(dy))
    for i, (gradient, tensor) in enumerate(zip(gradients, tensors, strict=False)):
        close(gradient, tensor.grad, dtype, f"gradient of argument {i}{told}")
    return cache


@pytest.mark.parametrize(("shape", "outputs", "kernel", "settings"), conv_cases.CONV.values(), ids=conv_cases.CONV)
def test_conv2d_of_every_kind(shape, outputs, kernel, settings, rng, tiling):
    theirs = dict(settings)
    (top, bottom), (left, right) = pads(theirs.pop("pad", 0))
    weights = (outputs, shape[1] // settings.get("groups", 1), *kernel), (outputs,)
    arrays = [rng.standard_normal(s) for s in (shape, *weights)]
    for tile_bytes, dtype in product((None, 1), TOLERANCE):
        tiling(tile_bytes)
        compare(
            lambda x, w, b: ops.conv2d_forward(x, w, b, **settings),
            ops.conv2d_backward,
            lambda x, w, b: F.conv2d(F.pad(x, (left, right, top, bottom)), w, b, **theirs),
            arrays,
            dtype,
        )


@every_dtype
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (5, 1)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_convolution_of_stride_1(dilation, kernel, dtype, rng):
    compare(
        lambda x, w: ops.conv2d_forward(x, w, pad=same_pads((7, 8), kernel, 1, dilation), dilation=dilation),
        ops.conv2d_backward,
        lambda x, w: F.conv2d(x, w, padding="same", dilation=dilation),
        [rng.standard_normal(shape) for shape in ((2, 3, 7, 8), (4, 3, *kernel))],
        dtype,
    )


@every_dtype
@pytest.mark.parametrize(
    ("shape", "outputs", "kernel", "settings"), conv_cases.TRANSPOSED.values(), ids=conv_cases.TRANSPOSED
)
def test_conv_transpose2d_of_every_kind(shape, outputs, kernel, settings, dtype, rng):
    theirs = dict(settings)
    (top, bottom), (left, right) = pads(theirs.pop("pad", 0))
    theirs["output_padding"] = theirs.pop("output_pad", 0)
    compare(
        lambda x, w, b: ops.conv_transpose2d_forward(x, w, b, **settings),
        ops.conv_transpose2d_backward,
        lambda x, w, b: F.pad(F.conv_transpose2d(x, w, b, **theirs), (-left, -right, -top, -bottom)),
        [
            rng.standard_normal(s)
            for s in (shape, (shape[1], outputs // settings.get("groups", 1), *kernel), (outputs,))
        ],
        dtype,
    )


SIZES = [(8, 8), (7, 10), (5, 4)]
POOLS = [  # kernel, stride, pad, dilation
    *((2, 2, 0, 1), (3, 2, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), ((2, 3), (3, 2), (1, 1), 1), (2, 3, 1, 1)),
    *((2, 1, 0, 2), (2, 2, 1, (2, 3))),
]


def grid():
    """(operation, size of the maps, settings, PyTorch's function of x) of what has an image and settings."""
    for size, ceil_mode, (kernel, stride, pad, dilation) in product(SIZES, (False, True), POOLS):
        settings = {"stride": stride, "ceil_mode": ceil_mode}
        ours = {**settings, "kernel": kernel, "pad": pad}
        theirs = {**settings, "kernel_size": kernel, "padding": pad}
        function = partial(F.max_pool2d, dilation=dilation, **theirs)
        yield "max_pool2d", size, {**ours, "dilation": dilation}, function
        for counted in (False, True) if dilation == 1 else ():
            function = partial(F.avg_pool2d, count_include_pad=counted, **theirs)
            yield "avg_pool2d", size, {**ours, "count_include_pad": counted}, function
    for size, parts in product([(6, 6), (7, 7), (5, 9), (1, 3)], [1, 2, 3, 6, 7, (2, 5), (11, 1)]):
        yield "adaptive_avg_pool2d", size, {"size": parts}, partial(F.adaptive_avg_pool2d, output_size=parts)
    for size, (alpha, beta, k) in product([1, 2, 3, 5, 9], [(1e-4, 0.75, 1.0), (2.0, 0.75, 1.0), (0.5, 0.4, 2.0)]):
        settings = {"size": size, "alpha": alpha, "beta": beta, "k": k}
        yield "lrn", (3, 4), settings, partial(F.local_response_norm, **settings)
    for size, to, align_corners in product([(7, 5), (1, 4)], [(1, 1), (2, 9), (7, 5), (16, 3)], (False, True)):
        settings = {"size": to, "align_corners": align_corners}
        yield "resize_bilinear", size, settings, partial(F.interpolate, mode="bilinear", **settings)


@pytest.mark.parametrize("op", dict.fromkeys(op for op, *_ in grid()))
def test_pools_normalisation_and_resizing(op):
    for size, settings, reference in (rest for name, *rest in grid() if name == op):
        for dtype in TOLERANCE:
            told = f" of {size}, {settings}"
            compare(*both(op, **settings), reference, [spread((2, 7, *size))], dtype, told=told)


@every_dtype
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("eps", "momentum"), [(1e-5, 0.1), (1e-3, 0.01)])
def test_batch_norm(eps, momentum, train, dtype, rng):
    mean, var = rng.standard_normal(4).astype(dtype), (rng.random(4) + 0.5).astype(dtype)
    their_mean, their_var = torch.tensor(mean), torch.tensor(var)
    cache = compare(
        lambda x, g, b: ops.batch_norm_forward(x, g, b, mean, var, eps=eps, momentum=momentum, train=train),
        ops.batch_norm_backward,
        lambda x, g, b: F.batch_norm(x, their_mean, their_var, g, b, train, momentum, eps),
        [2 * rng.standard_normal((3, 4, 5, 2)) + 1, rng.standard_normal(4), rng.standard_normal(4)],
        dtype,
    )
    close(cache.running_mean, their_mean, dtype, "running mean")
    close(cache.running_var, their_var, dtype, "running variance")


@every_dtype
@pytest.mark.parametrize("ignore", [255, 1, -100])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(reduction, weighted, ignore, dtype, rng):
    labels = rng.integers(0, 5, (2, 4, 6))
    labels[rng.random(labels.shape) < 0.3] = ignore
    weight = (rng.random(5) + 0.1).astype(dtype) if weighted else None
    theirs = {"weight": torch.tensor(weight) if weighted else None, "ignore_index": ignore, "reduction": reduction}
    compare(
        lambda x: ops.softmax_cross_entropy_forward(x, labels, ignore=ignore, weight=weight, reduction=reduction),
        ops.softmax_cross_entropy_backward,
        lambda x: F.cross_entropy(x, torch.tensor(labels), **theirs),
        [3 * rng.standard_normal((2, 5, 4, 6))],
        dtype,
    )


@every_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_of_weighted_pixels(reduction, dtype, rng):
    labels, of_pixels = rng.integers(0, 5, (2, 4, 6)), (11 * rng.random((2, 4, 6))).astype(dtype)
    labels[rng.random(labels.shape) < 0.3] = 255
    weight = (rng.random(5) + 0.1).astype(dtype)

    def reference(x):
        share = torch.tensor(of_pixels * np.where(labels == 255, 0, weight[labels % 255]))
        losses = share * F.cross_entropy(x, torch.tensor(labels), ignore_index=255, reduction="none")
        return {"mean": losses.sum() / share.sum(), "sum": losses.sum(), "none": losses}[reduction]

    settings = {"weight": weight, "pixel_weight": of_pixels, "reduction": reduction}
    compare(
        lambda x: ops.softmax_cross_entropy_forward(x, labels, **settings),
        ops.softmax_cross_entropy_backward,
        reference,
        [3 * rng.standard_normal((2, 5, 4, 6))],
        dtype,
    )


@every_dtype
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("integers", [True, False])
def test_sigmoid_cross_entropy(integers, reduction, weighted, dtype, rng):
    targets = rng.integers(0, 2, (2, 5, 4, 6)) if integers else rng.random((2, 5, 4, 6)).astype(dtype)
    weight = (5 * rng.random(5)).astype(dtype) if weighted else None
    theirs = {"pos_weight": torch.tensor(weight[:, None, None]) if weighted else None, "reduction": reduction}
    compare(
        lambda x: ops.sigmoid_cross_entropy_forward(x, targets, weight=weight, reduction=reduction),
        ops.sigmoid_cross_entropy_backward,
        lambda x: F.binary_cross_entropy_with_logits(x, torch.tensor(targets.astype(dtype)), **theirs),
        [3 * rng.standard_normal((2, 5, 4, 6))],
        dtype,
    )


@every_dtype
@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(2, 5, 4, 6), (2, 3, 200, 300)])
def test_dice(shape, reduction, smooth, dtype, rng):
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    labels[rng.random(labels.shape) < 0.3] = 255

    def reference(x):
        p = torch.softmax(x, dim=1) * torch.tensor(labels != 255)[:, None]
        q = torch.tensor(labels[:, None] == np.arange(shape[1])[:, None, None])
        both, total = (a.sum(dim=(0, 2, 3)) for a in (p * q, p + q))
        return getattr(1 - (2 * both + smooth) / (total + smooth), reduction)()

    compare(
        lambda x: ops.dice_forward(x, labels, smooth=smooth, reduction=reduction),
        ops.dice_backward,
        reference,
        [3 * rng.standard_normal(shape)],
        dtype,
    )


@every_dtype
@pytest.mark.parametrize(
    ("factor", "kernel", "before", "after"),
    [(2, 4, 0, 0), (2, 4, 1, 1), (16, 32, 0, 0), (32, 63, 17, 14), (2, 3, 0, 1), (16, 31, 1, 14)],
)
def test_upsample(factor, kernel, before, after, dtype, rng):
    kernel_1d = layers.init.bilinear_1d(kernel).astype(dtype)
    w = torch.tensor(np.outer(kernel_1d, kernel_1d)).expand(3, 1, kernel, kernel)
    compare(
        lambda x: ops.upsample_forward(x, kernel_1d, stride=factor, pad=((before, after), (after, before))),
        ops.upsample_backward,
        lambda x: F.pad(F.conv_transpose2d(x, w, stride=factor, groups=3), (-after, -before, -before, -after)),
        [rng.standard_normal((2, 3, 4, 3))],
        dtype,
    )


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsample_interpolates_between_pixels(factor, rng):
    """With a pad of half the factor it is bilinear interpolation, except where the border lacks a neighbour."""
    x = rng.standard_normal((1, 2, 6, 5))
    kernel_1d = layers.init.bilinear_1d(2 * factor).astype("float64")
    y, _ = ops.upsample_forward(x, kernel_1d, stride=factor, pad=factor // 2)
    expected = F.interpolate(torch.tensor(x), scale_factor=factor, mode="bilinear", align_corners=False).numpy()
    inner = np.s_[:, :, factor // 2 : -factor // 2, factor // 2 : -factor // 2]
    np.testing.assert_allclose(y[inner], expected[inner], atol=1e-12)


@every_dtype
@pytest.mark.parametrize("channels", [(3,), (1, 4), (2, 1, 3)])
def test_concat(channels, dtype, rng):
    maps = [rng.standard_normal((2, count, 3, 4)) for count in channels]
    compare(lambda *xs: ops.concat_forward(xs), ops.concat_backward, lambda *xs: torch.cat(xs, dim=1), maps, dtype)
