"""What holds for every operation on every device: dtypes follow, arguments stay untouched, caches can be used again."""

from contextlib import contextmanager

import numpy as np
import pytest
from gradcheck_cases import LABELS, OTHERS, YES_NO, both

from minifcn import backend, ops


def by(algorithm, pair):
    """The same pair, run by the named algorithm of convolution."""

    def within(function):
        def run(*arguments):
            with ops.conv_algorithm(algorithm):
                return function(*arguments)

        return run

    return within(pair[0]), within(pair[1])


def batch_norm(**settings):
    forward, backward = both("batch_norm", **settings)
    return lambda x, gamma, beta, mean, var: forward(x, gamma, beta, mean, var * var), backward


def weighted_loss(op, **settings):
    forward, backward = both(op, **settings)
    return (
        lambda logits, labels, weight, pixel_weight: forward(
            logits, labels, weight=weight * weight, pixel_weight=pixel_weight * pixel_weight
        ),
        backward,
    )


def of_numbers(op):
    forward, backward = both(op)
    return lambda x, target, weight: forward(x, target, weight * weight), backward


CONV = [(2, 4, 6, 5), (6, 2, 3, 2), (6,)]
CONV_SETTINGS = {"stride": (2, 1), "pad": ((1, 0), (0, 2)), "groups": 2}
TRANSPOSED = [(2, 4, 3, 3), (4, 3, 3, 2), (6,)]
TRANSPOSED_SETTINGS = {"stride": 2, "pad": 1, "output_pad": 1, "groups": 2}
LOGITS = (2, 4, 2, 3)
LOSS, SIGMOID, NORM = "softmax_cross_entropy", "sigmoid_cross_entropy", [(2, 3, 5, 4), (3,), (3,), (3,), (3,)]
CASES = {  # name: (forward, backward), arguments (shapes, or arrays of integers)
    "conv2d": (both("conv2d", **CONV_SETTINGS), CONV),
    "conv2d naive": (by("naive", both("conv2d", **CONV_SETTINGS)), CONV),
    "conv2d 3x3": (both("conv2d", pad=1), [(1, 3, 9, 8), (4, 3, 3, 3), (4,)]),
    "conv2d winograd": (by("winograd", both("conv2d", pad=((2, 0), (1, 1)))), [(2, 3, 9, 8), (4, 3, 3, 3), (4,)]),
    "conv2d im2col": (by("im2col", both("conv2d", pad=1)), [(2, 3, 5, 6), (4, 3, 3, 3), (4,)]),
    "conv2d, more kernels than pixels": (both("conv2d", stride=2), [(1, 2, 5, 4), (9, 2, 3, 2), (9,)]),
    "conv2d 1x1": (both("conv2d"), [(2, 4, 3, 2), (5, 4, 1, 1), (5,)]),
    "conv2d depthwise": (both("conv2d", groups=3, pad=1), [(2, 3, 6, 5), (3, 1, 3, 3), (3,)]),
    "conv2d depthwise, strided": (
        both("conv2d", groups=3, stride=2, pad=((1, 2), (2, 1)), dilation=(1, 2)),
        [(1, 3, 7, 6), (3, 1, 5, 3)],
    ),
    "conv2d without bias": (both("conv2d"), CONV[:1] + [(3, 4, 2, 2)]),
    "conv_transpose2d": (both("conv_transpose2d", **TRANSPOSED_SETTINGS), TRANSPOSED),
    "conv_transpose2d naive": (by("naive", both("conv_transpose2d", **TRANSPOSED_SETTINGS)), TRANSPOSED),
    "conv_transpose2d winograd": (by("winograd", both("conv_transpose2d", pad=1)), [(1, 3, 6, 7), (3, 2, 3, 3), (2,)]),
    "conv_transpose2d depthwise": (
        both("conv_transpose2d", groups=3, stride=2, pad=1, output_pad=1),
        [(2, 3, 3, 4), (3, 1, 4, 4), (3,)],
    ),
    "max_pool2d that needs no copy": (both("max_pool2d", kernel=1), [(2, 3, 5, 4)]),
    "pad nothing": (both("pad", pad=0), [(2, 3, 5, 4)]),
    "batch_norm train": (batch_norm(train=True), NORM),
    "batch_norm eval": (batch_norm(train=False), NORM),
    "loss mean": (both(LOSS), [LOGITS, LABELS]),
    "loss mean weighted": (weighted_loss(LOSS), [LOGITS, LABELS, (4,), LABELS.shape]),
    "loss sum": (both(LOSS, reduction="sum"), [LOGITS, LABELS.astype(np.int64)]),
    "loss none weighted": (weighted_loss(LOSS, reduction="none"), [LOGITS, LABELS, (4,), LABELS.shape]),
    "loss, all ignored": (both(LOSS), [LOGITS, np.full_like(LABELS, 255)]),
    "sigmoid_cross_entropy mean": (both(SIGMOID), [LOGITS, YES_NO]),
    "sigmoid_cross_entropy none weighted": (
        weighted_loss(SIGMOID, reduction="none"),
        [LOGITS, YES_NO.astype(np.uint8), (4,), LABELS.shape],
    ),
    "hardest_cross_entropy": (both("hardest_cross_entropy"), [LOGITS, LABELS]),
    "hardest_cross_entropy weighted": (
        weighted_loss("hardest_cross_entropy", hardest=0.5),
        [LOGITS, LABELS, (4,), LABELS.shape],
    ),
    "hardest_cross_entropy, all ignored": (both("hardest_cross_entropy"), [LOGITS, np.full_like(LABELS, 255)]),
    "squared_error": (of_numbers("squared_error"), [LOGITS, LOGITS, LABELS.shape]),
    "absolute_error": (of_numbers("absolute_error"), [LOGITS, LOGITS, LABELS.shape]),
    "dice mean": (both("dice"), [LOGITS, LABELS]),
    "dice none": (both("dice", reduction="none", smooth=1.0), [LOGITS, LABELS.astype(np.int64)]),
    "dice, all ignored": (both("dice"), [LOGITS, np.full_like(LABELS, 255)]),
    "upsample": (both("upsample", stride=2, pad=1), [(2, 3, 3, 2), (4,)]),
    "upsample asymmetric": (both("upsample", stride=3, pad=((0, 2), (1, 0))), [(2, 3, 3, 2), (5,)]),
}
HOLDING = (
    "batch_norm",
    "upsample",
    "softmax",
    "sigmoid",
    "dice",
    "hardest",
    "squared",
    "absolute",
)  # arrays of the host, where here all are arguments
CASES |= {name.replace("-", " ", 1): case for name, case in OTHERS.items() if not name.startswith(HOLDING)}
every_op = pytest.mark.parametrize("case", CASES)


def make(given, dtype, rng):
    return [g if isinstance(g, np.ndarray) else rng.standard_normal(g).astype(dtype) for g in given]


def run(case, dtype, device, rng):
    """-> host arguments, device arguments, y, cache, host dy, device dy, backward"""
    (forward, backward), given = CASES[case]
    hosts = make(given, dtype, rng)
    arrays = [device.put(a) for a in hosts]
    y, cache = forward(*arrays)
    host_dy = np.asarray(rng.standard_normal(y.shape), dtype)
    return hosts, arrays, y, cache, host_dy, device.put(host_dy), backward


def as_tuple(gradients):
    return gradients if isinstance(gradients, tuple) else (gradients,)


def test_every_public_operation_is_among_the_cases():
    covered = {case.replace("loss", "softmax_cross_entropy").split()[0].rstrip(",") for case in CASES}
    assert covered == {name.removesuffix("_forward") for name in dir(ops) if name.endswith("_forward")}


@every_op
def test_results_and_gradients_have_the_dtype_and_shape_of_their_arguments(case, device, rng):
    """Which stay as they were: NumPy and the stand-in hold read-only arrays, so that a write raises; the values show one
    on a GPU."""
    for dtype in ("float32", "float64"):
        hosts, arrays, y, cache, host_dy, dy, backward = run(case, dtype, device, rng)
        assert y.dtype == dtype
        before = device.get(y).copy()
        floats = [a for a in arrays if a.dtype == dtype]
        for gradient, argument in zip(as_tuple(backward(dy, cache)), floats, strict=False):
            assert gradient.dtype == dtype
            assert gradient.shape == argument.shape
            device.get(gradient)
        for array, host in zip([*arrays, dy, y], [*hosts, host_dy, before], strict=True):
            np.testing.assert_array_equal(device.get(array), host)


@every_op
def test_every_device_computes_what_numpy_computes(case, device, rng):
    """And twice the same from one cache."""
    hosts, _, y, cache, host_dy, dy, backward = run(case, "float64", device, rng)
    forward, _ = CASES[case][0]
    with device.numpy_alone():
        expected, host_cache = forward(*hosts)
        references = as_tuple(backward(host_dy, host_cache))
    np.testing.assert_allclose(device.get(y), expected, rtol=1e-12, atol=1e-12)
    first = [None if g is None else device.get(g).copy() for g in as_tuple(backward(dy, cache))]
    again = as_tuple(backward(dy, cache))
    for gradient, once, reference in zip(again, first, references, strict=True):
        assert (gradient is None) == (once is None) == (reference is None)
        if reference is not None:
            np.testing.assert_array_equal(device.get(gradient), once)
            np.testing.assert_allclose(once, reference, rtol=1e-12, atol=1e-12)


@every_op
def test_operations_follow_their_data_and_not_the_chosen_backend(case, device, rng):
    """With arrays of one device and another one chosen, a call to the chosen one would mix the two."""
    (forward, backward), given = CASES[case]
    arrays = [device.put(a) for a in make(given, "float32", rng)]
    backend.use("numpy" if device.name != "numpy" else "strict")
    y, cache = forward(*arrays)
    device.get(y)
    for gradient in as_tuple(backward(device.put(np.ones(y.shape, np.float32)), cache)):
        if gradient is not None:
            device.get(gradient)


def spaced(host, put):
    return put(np.repeat(host, 2, axis=-1))[..., ::2] if host.ndim else put(host)


def channels_last(host, put):
    if host.ndim < 3:
        return put(host)
    return put(np.ascontiguousarray(np.moveaxis(host, 1, -1))).transpose(0, host.ndim - 1, *range(1, host.ndim - 1))


def last_axis_first(host, put):
    return put(np.ascontiguousarray(host.T)).T if host.ndim else put(host)


def backwards(host, put):
    return put(host[::-1].copy())[::-1] if host.ndim else put(host)


@every_op
def test_arrays_of_any_order_in_memory_give_the_same(case, device, rng):
    (forward, backward), given = CASES[case]
    hosts = make(given, "float64", rng)
    expected, host_cache = forward(*hosts)
    dy = np.asarray(rng.standard_normal(expected.shape))
    references = as_tuple(backward(dy, host_cache))
    for lay in (spaced, channels_last, last_axis_first, backwards):
        y, cache = forward(*(lay(host, device.put) for host in hosts))
        np.testing.assert_allclose(device.get(y), expected, rtol=1e-12, atol=1e-12, err_msg=lay.__name__)
        gradients = as_tuple(backward(lay(dy, device.put), cache))
        for gradient, reference in zip(gradients, references, strict=True):
            if reference is not None:
                np.testing.assert_allclose(
                    device.get(gradient), reference, rtol=1e-12, atol=1e-12, err_msg=lay.__name__
                )


LOSSES = ("loss", "sigmoid", "dice", "hardest", "squared", "absolute")


@contextmanager
def refused(error, message, case):
    """pytest.raises, which says the case where it fails."""
    try:
        with pytest.raises(error, match=message):
            yield
    except BaseException as failure:
        failure.add_note(case)
        raise


def test_dtypes_and_shapes_that_do_not_fit_are_refused(device, rng):
    for case, ((forward, _), given) in CASES.items():
        if case.split()[0] not in ("crop", "pad"):
            for dtype in ("int64", "float16"):
                with refused(TypeError, f"expected float32 or float64, got {dtype}", case):
                    forward(*map(device.put, make(given, dtype, rng)))
        floats, arrays = [i for i, g in enumerate(given) if not isinstance(g, np.ndarray)], make(given, "float32", rng)
        for position in floats if len(floats) > 1 else ():
            mixed = [a.astype("float64") if i == position else a for i, a in enumerate(arrays)]
            with refused(TypeError, r"expected float(32|64) like its input, got float(64|32)", case):
                forward(*map(device.put, mixed))
        if not case.startswith(("concat", "crop", "dropout", *LOSSES)):
            _, _, y, cache, _, _, backward = run(case, "float32", device, rng)
            dy = device.put(np.ones(y.shape[:-1] + (y.shape[-1] + 1,), np.float32))
            with refused(ValueError, r"backward: expected dy of shape \(.*\), got \(", case):
                backward(dy, cache)
            if not case.startswith("pad"):
                for dtype in ("int32", "float64"):
                    with refused(
                        TypeError, f"expected an upstream gradient of float32, like the output, got {dtype}", case
                    ):
                        backward(device.put(np.ones(y.shape, dtype)), cache)
