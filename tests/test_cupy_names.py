"""Every name of CuPy's that the library uses exists there with the arguments used, and views are views there too.

CuPy installs and imports on a machine without a GPU; these tests need nothing more.
"""

import ast
import inspect
import warnings

import cupy_calls
import numpy as np
import pytest
from conftest import NO_GPU

from minifcn import backend, gradcheck, inference, models, ops
from minifcn.backend import registry
from minifcn.testing import strict
from minifcn.training import loop, optimizers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CuPy warns of the GPU that is missing
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed, so that its names cannot be looked up")


def wrong_names(text, room=True):
    """What a source text asks of CuPy that CuPy does not have, a line each."""
    tree = ast.parse(text)
    found = []
    for node, name, call in cupy_calls.module_uses(tree):
        function = cupy
        for part in name.split("."):
            function = getattr(function, part, None)
        if function is None:
            found.append(f"line {node.lineno}: cupy.{name} does not exist")
        elif (
            call and not isinstance(function, type) and (why := cupy_calls.fits(function, *cupy_calls.arguments(call)))
        ):
            found.append(f"line {node.lineno}: cupy.{name}: {why}")
    for call in cupy_calls.method_calls(tree) if room else []:
        name, (positional, keywords) = call.func.attr, cupy_calls.arguments(call)
        method = getattr(cupy.ndarray, name, None)
        if method is None:
            found.append(f"line {call.lineno}: cupy.ndarray.{name} does not exist")
        elif why := cupy_calls.fits(method, positional + 1, keywords):
            found.append(f"line {call.lineno}: cupy.ndarray.{name}: {why}")
    return found


@pytest.mark.parametrize("path", cupy_calls.sources(), ids=lambda p: p.relative_to(cupy_calls.PACKAGE).as_posix())
def test_every_name_in_the_source_is_cupys_too(path):
    assert wrong_names(path.read_text(encoding="utf-8"), cupy_calls.is_in_a_room_of_arrays(path)) == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("xp.einsum('ij->i', a, out=b)", "unexpected keyword argument 'out'"),
        ("xp.add(a, b, where=c)", "unexpected keyword argument 'where'"),
        ("array_module(a).sum(a, initial=0)", "unexpected keyword argument 'initial'"),
        ("a.sum(axis=0, where=b)", "unexpected keyword argument 'where'"),
        ("a.getfield(b)", "cupy.ndarray.getfield does not exist"),
        ("xp.lib.stride_tricks.as_strided(a, b, c, writeable=True)", "unexpected keyword argument 'writeable'"),
        ("with xp.errstate(all='ignore'): pass", "cupy.errstate does not exist"),
        ("xp.add(a, b, out=c); a.sum(0, keepdims=True); a.reshape(2, *b); xp.take_along_axis(a, b, axis=1)", None),
    ],
)
def test_a_wrong_use_is_found(line, why):
    found = wrong_names(line)
    assert (found == []) if why is None else (len(found) == 1 and why in found[0]), found


# --- The stand-in has what CuPy has, and nothing else ----------------------------------------------------------------


ONLY_NAMES_DIFFER = {"a", "ar", "arr", "array", "arrays", "m", "newshape", "shape", "start_or_stop", "x1", "x2"}
NEVER_GIVEN = {"device", "kwargs", "like", "subok"}


@pytest.mark.parametrize("name", strict.FUNCTIONS.split())
def test_the_stand_in_refuses_every_argument_that_cupy_lacks(name):
    numpys, cupys = getattr(np, name), set(cupy_calls.signature(getattr(cupy, name)).parameters)
    if isinstance(numpys, np.ufunc) and not numpys.signature:
        known = {"out", "dtype", "casting", *strict.UFUNC_LACKS.split()}
    elif name == "einsum":
        known = {"out", "dtype", "order", "casting", "optimize"}
    else:
        known = set(inspect.signature(numpys).parameters)
    assert known - cupys - ONLY_NAMES_DIFFER - NEVER_GIVEN <= strict.lacking(name)
    assert not strict.lacking(name) & cupys


@pytest.mark.parametrize("name", strict.METHODS.split())
def test_the_stand_ins_methods_are_cupys(name):
    assert hasattr(cupy.ndarray, name)


# --- What the library does while it runs -----------------------------------------------------------------------------

NETWORKS = {
    "mini, 8s, paper": ({"backbone": "mini", "variant": "8s", "alignment": "paper", "width": 2}, "adam"),
    "mini, 16s, learned": ({"backbone": "mini", "variant": "16s", "upsampling": "learned", "width": 2}, "sgd"),
    "mini, 32s, same": ({"backbone": "mini", "variant": "32s", "alignment": "same", "width": 3}, "adamw"),
    "lite0, 8s, same": ({"backbone": "efficientnet_lite0", "variant": "8s", "alignment": "same"}, "sgd"),
    "alexnet, 32s": ({"backbone": "alexnet", "variant": "32s"}, None),
}


@pytest.fixture(scope="module")
def recorded():
    """What views are taken on the stand-in by training, prediction and a gradient check of these networks, by each algorithm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_devices", dict(registry._devices))
        patch.setattr(registry, "_current", registry._current)
        backend.register(strict.DEVICE)
        backend.use("strict")
        found = cupy_calls.record(patch)
        rng = np.random.default_rng(0)
        image = rng.integers(0, 255, (45, 70, 3), np.uint8)
        labels = np.where(rng.random((2, 45, 70)) < 0.1, 255, rng.integers(0, 3, (2, 45, 70))).astype(np.uint8)
        for config, optimizer in NETWORKS.values():
            network = models.fcn(num_classes=3, **config)
            if optimizer is not None:
                images = np.stack([network.card.preprocessing.apply(image)] * 2)
                loop.update(network, images, labels, optimizers.OPTIMIZERS[optimizer](network.parameters()), 0.01)
            inference.predict(network, image)
        for algorithm in ("im2col", "winograd", "gemm", "depthwise", "naive"):
            with ops.conv_algorithm(algorithm):
                x, w = (backend.to_device(rng.standard_normal(s)) for s in ((2, 2, 5, 6), (3, 2, 3, 3)))
                y, cache = ops.conv2d_forward(x, w, pad=1)
                ops.conv2d_backward(y, cache)
        tiny = models.fcn("8s", "mini", 2, "same", width=1)
        gradcheck.check_layer(
            tiny, backend.to_device(rng.standard_normal((1, 3, 32, 33))), rng, directions=1, elements=0
        )
    return found


@pytest.mark.skipif(not NO_GPU, reason="a GPU is there, on which arrays without memory must not be touched")
def test_what_is_a_view_here_is_the_same_view_on_cupy(recorded):
    """The operations write into views. Were one of them a copy on CuPy, what is written would be lost without a word."""
    wrong = []
    for (name, *whole, _, _), (args, kwargs, expected) in recorded.items():
        found = cupy_calls.view_of_cupy(name, whole, args, kwargs)
        if expected is not None and not cupy_calls.same_view(found, expected):
            wrong.append(f"{name} of {whole} with {args} {kwargs}: {expected} here, {found} on CuPy")
    assert wrong == []
    assert len(recorded) > 300
    assert any(expected is None for _, _, expected in recorded.values())
