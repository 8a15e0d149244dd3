"""The CUDA sources: NVRTC compiles them, and what they hold stays within what `backend/source.py` says of kernels.

What they compute is checked by every test that runs on the stand-in device, where they are compiled as C++.
"""

import ctypes
import gc
import re
import sys
import threading
import tracemalloc
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minifcn
from minifcn import backend, cli, layers, models, ops
from minifcn.backend import compiler, cuda
from minifcn.backend.source import C_TYPES, Source, checked
from minifcn.testing import bounds_checked, strict
from minifcn.training import optimizers

SOURCES = sorted(Path(minifcn.__file__).parent.rglob("*.cu"))
KERNELS = [(path, name) for path in SOURCES for name in re.findall(r"KERNEL void (\w+)\(", path.read_text("utf-8"))]
DTYPES = sorted(C_TYPES)
ARCHITECTURES = (70, 80, 90)  # Volta, Ampere, Hopper

needs_compiler = pytest.mark.skipif(
    not bounds_checked.COMPILER, reason="no C++ compiler is installed, to run kernels without a GPU"
)


class Nvrtc:
    """NVIDIA's run-time compiler, by ctypes."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)

    def check(self, code, what):
        assert code == 0, f"{what}: NVRTC's error {code}"

    def architectures(self):
        count = ctypes.c_int()
        self.check(self.library.nvrtcGetNumSupportedArchs(ctypes.byref(count)), "architectures")
        found = (ctypes.c_int * count.value)()
        self.check(self.library.nvrtcGetSupportedArchs(found), "architectures")
        return set(found)

    def compile(self, text, architecture):
        """(whether it compiles, what the compiler said, the PTX where that is what was asked for)"""
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        code = self.library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
        self.check(code, "create")
        options = [f"--gpu-architecture={architecture}".encode(), b"-std=c++14", b"-ftz=true"]  # the last is CuPy's
        code = self.library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        self.check(self.library.nvrtcGetProgramLogSize(program, ctypes.byref(size)), "log")
        said = ctypes.create_string_buffer(size.value)
        self.check(self.library.nvrtcGetProgramLog(program, said), "log")
        self.check(self.library.nvrtcGetPTXSize(program, ctypes.byref(size)), "PTX")
        ptx = ctypes.create_string_buffer(size.value)
        self.check(self.library.nvrtcGetPTX(program, ptx), "PTX")
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return code == 0, said.value.decode(), ptx.value.decode()


@pytest.fixture(scope="module")
def nvrtc():
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="CuPy is not installed, whose package finds NVRTC")
    try:
        return Nvrtc(pathfinder.load_nvidia_dynamic_lib("nvrtc").abs_path)
    except Exception as error:
        pytest.skip(f"NVRTC is not installed (pip install nvidia-cuda-nvrtc-cu12): {type(error).__name__}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nvrtc_compiles_every_source_without_a_warning(path, dtype, architecture, nvrtc):
    if architecture not in nvrtc.architectures():
        pytest.skip(f"this NVRTC no longer knows sm_{architecture}")
    good, said, _ = nvrtc.compile(Source(path).complete(cuda.PRELUDE, dtype), f"sm_{architecture}")
    assert good, said
    warnings = [line for line in said.splitlines() if "Architectures prior to" not in line]  # NVRTC 12.9 of sm_70
    assert warnings == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_float_arithmetic_is_never_double(path, nvrtc):
    for dtype in DTYPES:
        *_, ptx = nvrtc.compile(Source(path).complete(cuda.PRELUDE, dtype), "compute_80")
        assert ptx.count(".entry") == sum(where == path for where, _ in KERNELS)
        assert (".f64" in ptx) == (dtype == "float64")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_kernels_are_launched_need_no_other_thread_and_write_to_what_is_not_const(path):
    """What the C++ compiler cannot emulate does not occur, and it refuses a kernel that writes to a const argument."""
    package, text = Path(minifcn.__file__).parent, path.read_text("utf-8")
    python = "".join(p.read_text("utf-8") for p in (*package.rglob("ops/**/*.py"), *package.rglob("training/*.py")))
    assert not re.search(r"__shared__|__syncthreads|atomic|__shfl|threadIdx|blockIdx", re.sub(r"//.*", "", text))
    functions = re.findall(r"(KERNEL|DEVICE) void (\w+)\((.*?)\) \{(.*?)\n\}", text, re.S)
    writers = [name for _, name, parameters, _ in functions if re.search(r"ARRAY\(T\)", parameters)]
    for kind, name, parameters, body in functions:
        if kind == "KERNEL":
            assert f'"{name}"' in python
            assert [kernel for _, kernel in KERNELS].count(name) == 1
        for what, array in re.findall(r"ARRAY\(([\w ]+)\) (\w+)", parameters):
            written = re.search(rf"\b({array}\[[^;]*?\]|AT\({array}, [^;]*?\)+)\s*[-+*/]?=\s", body)
            passed_on = re.search(rf"\b({'|'.join(writers)})\([^;]*\b{array}\b", body)  # which is checked in its turn
            assert not written if what.startswith("const ") else written or passed_on, f"{name}: {array}"


def source(tmp_path, text):
    path = tmp_path / "some.cu"
    path.write_text(text)
    return Source(path)


COPY = "KERNEL void copy(RANGE, ARRAY(const T) x, ARRAY(T) y, int shift) { EACH(i) y[i] = x[i + shift]; }"


@needs_compiler
@pytest.mark.parametrize(("count", "shift", "times"), [(5, 1, 1), (5, -2, 2), (9, 0, 8)])
def test_an_access_outside_of_an_array_is_an_error_once(count, shift, times, tmp_path):
    x, y = np.arange(5, dtype="float32"), np.full(5, np.nan, "float32")
    with pytest.raises(IndexError, match=f"some.cu: copy reached outside of an array {times} times"):
        bounds_checked.launch(source(tmp_path, COPY), "copy", count, x, y, shift)
    bounds_checked.launch(source(tmp_path, COPY), "copy", 5, x, y, 0)
    assert y.tolist() == x.tolist()
    bounds_checked.launch(source(tmp_path, COPY), "copy", 2, x, y, 3)  # a kernel runs for every result
    assert y.tolist() == [3, 4, 2, 3, 4]


@needs_compiler
@pytest.mark.parametrize(
    ("body", "told"), [("y[i] = z[i]", r"(?s)some\.cu: .*error.*z"), ("x[i] = y[i] + shift", "read-only")]
)
def test_a_kernel_that_does_not_compile_is_told_with_the_compilers_words(body, told, tmp_path):
    broken = source(tmp_path, COPY.replace("y[i] = x[i + shift]", body))
    with pytest.raises(compiler.CompileError, match=told):
        bounds_checked.launch(broken, "copy", 1, np.zeros(1), np.zeros(1), 0)


@needs_compiler
def test_without_a_folder_to_keep_it_in_nothing_is_compiled(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(compiler.CompileError, match="no folder to keep .* set XDG_CACHE_HOME"):
        bounds_checked.launch(source(tmp_path, COPY + "\n// once more"), "copy", 3, np.arange(3.0), np.zeros(3), 0)


def test_arguments_get_the_kernels_types():
    x = np.zeros(3, "float32")
    dtype, (array, *numbers) = checked("copy", 3, [x, 7, 0.1, True, np.int64(7), np.float64(0.5), np.float32(2)])
    assert dtype == "float32"
    assert array is x
    assert [type(a) for a in numbers] == [np.int32, np.float32, np.int32, np.int32, np.float32, np.float32]
    with pytest.raises(OverflowError):
        checked("copy", 3, [x, 1 << 31])


@pytest.mark.parametrize(
    ("count", "arrays", "told"),
    [
        (1 << 31, [np.zeros(3)], "copy: expected fewer than 2147483648 results at once, got 2147483648"),
        (3, [np.zeros((3, 2)).T], r"copy: expected contiguous arrays, got strides \[\(8, 16\)\]"),
        (
            3,
            [np.zeros(3, "float32"), np.zeros(3, "int64"), np.zeros(3)],
            r"one floating dtype, got .*'float32', 'float64'",
        ),
    ],
    ids=["too many", "gaps", "two dtypes"],
)
def test_what_a_kernel_cannot_take_is_told(count, arrays, told):
    with pytest.raises((ValueError, TypeError), match=told):
        checked("copy", count, arrays)


@needs_compiler
def test_a_kernel_on_the_stand_in_takes_no_array_of_the_hosts(tmp_path, choose):
    on_device = strict.xp.zeros(3, "float32")
    with pytest.raises(TypeError, match=r"copy: .* was given a NumPy array of shape \(3,\)"):
        strict.launch(source(tmp_path, COPY), "copy", 3, on_device, np.zeros(3, "float32"), 0)
    choose(strict.DEVICE)
    backend.launch(Source(Path("no such file.cu")), "copy", 0, on_device)  # nothing is launched for no result


@pytest.fixture
def launched(choose):
    """The stand-in as the backend; -> the names of the kernels that are launched on it, as they come."""
    if not bounds_checked.COMPILER:
        pytest.skip("no C++ compiler is installed, to run kernels without a GPU")
    names = []

    def launch(source, name, count, *arguments):
        names.append(name)
        strict.launch(source, name, count, *arguments)

    choose(replace(strict.DEVICE, launch=launch))
    yield names
    strict.set_tf32(False)


CONVOLUTIONS = {  # x, w, settings
    "winograd": ((2, 3, 9, 7), (4, 3, 3, 3), {"pad": 1}),
    "im2col": ((2, 3, 9, 7), (4, 3, 3, 3), {"stride": 2}),
    "depthwise": ((2, 4, 9, 7), (4, 1, 3, 3), {"groups": 4}),
    "gemm": ((2, 3, 9, 7), (4, 3, 1, 1), {}),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("algorithm", CONVOLUTIONS)
def test_an_activation_is_done_by_the_kernel(algorithm, bias, launched, rng):
    (x, w, settings) = CONVOLUTIONS[algorithm]
    x, w, b = (backend.to_device(3 * rng.standard_normal(shape)) for shape in (x, w, w[:1]))
    with ops.conv_algorithm(algorithm):
        y, _ = ops.conv2d_forward(x, w, b if bias else None, **settings)
        plain = len(launched)
        clipped, _ = ops.conv2d_forward(x, w, b if bias else None, **settings, activation="relu6")
    y, clipped = backend.to_host(y), backend.to_host(clipped)
    assert y.max() > 6
    np.testing.assert_array_equal(clipped, np.clip(y, 0, 6))
    apart = algorithm in ("im2col", "gemm")  # the others do it as they write their results
    assert launched.count("add_bias_and_clip") == apart * (1 + bias)
    assert len(launched) - plain - plain == (apart and not bias)


def test_tf32_rounds_the_products_of_float32_and_nothing_else(launched, rng):
    x, w = rng.standard_normal((1, 96, 48, 48)), rng.standard_normal((96, 96, 3, 3))
    exact, _ = ops.conv2d_forward(x, w, pad=1)

    def error(dtype, algorithm="auto"):
        with ops.conv_algorithm(algorithm):
            y, _ = ops.conv2d_forward(*(backend.to_device(a.astype(dtype)) for a in (x, w)), pad=1)
        return np.linalg.norm(backend.to_host(y) - exact) / np.linalg.norm(exact)

    assert "values_at_points" not in launched
    assert error("float32") < 1e-5
    assert "values_at_points" in launched  # Winograd's way is what "auto" takes
    launched.clear()
    backend.use_tf32()
    assert 1e-4 < error("float32") < 5e-4
    assert "values_at_points" not in launched
    assert 1e-4 < error("float32", "gemm") < 5e-4  # which leaves a 3×3 to "auto"
    assert 1e-3 < error("float32", "winograd") < 5e-3
    assert error("float64") < 1e-13
    backend.use_tf32(False)
    assert error("float32") < 1e-5


def test_tf32_is_refused_where_nothing_multiplies_in_it(capsys):
    backend.use("numpy")
    with pytest.raises(ValueError, match="TF32: only a GPU multiplies in it, and the device is numpy"):
        backend.use_tf32()
    assert cli.main(["gradcheck", "--device", "cpu", "--tf32"]) == 2
    assert capsys.readouterr().err == "minifcn: TF32: only a GPU multiplies in it, and the device is numpy\n"


def test_a_network_is_a_few_hundred_launches(launched, monkeypatch, rng):
    """Of our own kernels and of everything else that the array module is asked to do, views apart."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import launches

    network = models.fcn("8s", "mini", 3, "same", width=2)
    image = backend.to_device(rng.standard_normal((1, 3, 64, 64), np.float32))
    launched.clear()
    calls = launches.count(monkeypatch)
    network.forward(image)
    assert len(launched) > 20
    assert calls.total() + len(launched) < 150, calls
    network.forward(image, train=True)
    network.backward(backend.to_device(rng.standard_normal((1, 3, 64, 64), np.float32)))
    assert calls.total() + len(launched) < 600, calls


def test_what_is_done_value_by_value_is_done_in_one_piece(launched):
    pieces = []
    backend.run_blocks(
        lambda *arrays: pieces.append(arrays), *(backend.to_device(np.zeros((3, 1 << 20))) for _ in "ab")
    )
    assert [[a.shape for a in piece] for piece in pieces] == [[(3, 1 << 20)] * 2]


WORKPLACES = {  # x, w, settings, what is not counted as workspace: the kernels at the points and sums of that size
    "winograd": ((4, 32, 61, 61), (32, 32, 3, 3), {"pad": 1}, 36 * 32 * 32),
    "winograd, fewer outputs": ((4, 64, 61, 61), (16, 64, 3, 3), {"pad": 1}, 36 * 64 * 16),
    "im2col": ((4, 16, 61, 61), (24, 16, 5, 5), {"stride": 2}, 0),
    "im2col, groups": ((4, 32, 61, 61), (24, 16, 3, 3), {"groups": 2, "dilation": 2}, 0),
}


@pytest.mark.parametrize("kind", WORKPLACES)
def test_a_convolution_keeps_to_its_workspace(kind, launched, monkeypatch, rng):
    """Counted are the bytes that are alive at once, beside arguments and results."""
    x, w, settings, apart = WORKPLACES[kind]
    workspace = 1 << 20
    monkeypatch.setattr(backend.tuning, "WORKSPACE", workspace)
    x, w = (backend.to_device(rng.standard_normal(shape, np.float32)) for shape in (x, w))
    x = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)  # channels last, so that nothing has to be packed
    with ops.conv_algorithm(kind.split(",")[0]):
        y, cache = ops.conv2d_forward(x, w, **settings)
        passes = {
            "forward": (lambda: ops.conv2d_forward(x, w, **settings)[0], y),
            "to the input": (lambda: ops.conv2d_backward(y, cache, weights=False)[0], x),
            "to the weights": (lambda: ops.conv2d_backward(y, cache, inputs=False)[1], w),
        }
        for name, (run, like) in passes.items():
            assert y.nbytes + x.nbytes > workspace / 2  # there is more than one part
            run()  # what a first call makes and keeps is no workspace
            gc.collect()
            tracemalloc.start()
            result = run()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert result.shape == like.shape
            beside = peak - result.nbytes - 3 * 4 * apart
            assert beside < 1.1 * workspace, f"{name}: {beside / workspace:.2f} of the workspace"


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_step_of_adam_is_as_exact_as_numpys(decoupled, launched, rng):
    """float32 has no exact 0.999, and 1 - 0.999 in float32 is off by 1e-5."""
    value, gradient = (rng.standard_normal(500, np.float32) for _ in range(2))

    def moments(dtype, device):
        backend.use(device)
        p = layers.Parameter(value.astype(dtype))
        p.grad = backend.to_device(gradient.astype(dtype))
        solver = (optimizers.AdamW if decoupled else optimizers.Adam)({"p": p}, weight_decay=0.1)
        solver.step(0.01)
        return [backend.to_host(a) for a in (*solver.arrays.values(), p.value)]

    for found, exact in zip(moments("float32", "strict"), moments("float64", "numpy"), strict=True):
        np.testing.assert_allclose(found, exact, rtol=2e-6, atol=5e-9)


def test_a_window_of_many_taps_knows_its_winner(launched):
    x = np.zeros((1, 1, 200, 200))
    x[0, 0, 199, 199] = 1  # the last of 40,000 taps
    y, cache = ops.max_pool2d_forward(backend.to_device(x), 200)
    dx = backend.to_host(ops.max_pool2d_backward(y, cache))
    np.testing.assert_array_equal(dx, x)


# --- How CuPy is asked, with something in its place -------------------------------------------------------------------


class PretendCupy:
    """The parts of CuPy that launch a kernel; what they are asked is written down."""

    def __init__(self):
        self.compiled, self.launched, self.modes = [], [], []
        self.capability = "80"
        device = SimpleNamespace(get_cublas_handle=lambda: "handle")
        self.cuda = SimpleNamespace(device=device, Device=lambda: SimpleNamespace(compute_capability=self.capability))

    def RawModule(self, *, code, options):  # CuPy's name for it
        self.compiled.append((code, options))
        return SimpleNamespace(get_function=lambda name: lambda *call: self.launched.append((name, *call)))


@pytest.fixture
def cupy(monkeypatch):
    pretended = PretendCupy()
    cublas = SimpleNamespace(
        setMathMode=lambda *call: pretended.modes.append(call), getMathMode=lambda handle: pretended.modes[-1][1]
    )
    monkeypatch.setitem(sys.modules, "cupy", pretended)
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", SimpleNamespace(cublas=cublas))
    cuda._kernel.cache_clear()
    yield pretended
    cuda._kernel.cache_clear()


def test_a_launch_on_cupy_has_a_thread_for_each_result_and_typed_arguments(cupy, tmp_path):
    some = source(tmp_path, COPY)
    place = threading.Lock()  # what a Device is here: something to be inside of

    def array():
        return SimpleNamespace(dtype=np.dtype("float32"), flags=np.zeros(600).flags, device=place)

    x, y = array(), array()
    for _ in range(2):
        cuda.launch(some, "copy", 513, x, y, 7)
    ((code, options),) = cupy.compiled  # once
    assert code == some.complete(cuda.PRELUDE, "float32")
    assert code.index("typedef float T;") < code.index("#define EACH") < code.index("KERNEL void copy(")
    assert options == ("-std=c++14",)
    name, grid, block, (count, *arguments) = cupy.launched[1]
    assert (name, grid, block) == ("copy", (3,), (256,))
    assert arguments[0] is x
    assert arguments[1] is y
    assert [type(a) for a in (count, arguments[2])] == [np.uint32, np.int32]
    assert (count, arguments[2]) == (513, 7)


def test_tf32_is_a_mode_of_cublas_and_asks_for_ampere(cupy, monkeypatch):
    cuda.set_tf32(True)
    assert cuda.in_tf32()
    cuda.set_tf32(False)
    assert not cuda.in_tf32()
    assert cupy.modes == [("handle", 3), ("handle", 0)]
    for value, asked in (("", False), ("0", False), ("1", True)):  # CuPy's own variable
        monkeypatch.setenv("CUPY_TF32", value)
        assert cuda.in_tf32() == asked
    cupy.capability = "75"
    with pytest.raises(ValueError, match=r"TF32: needs a GPU of compute capability 8.0 or more, this one has 7.5"):
        cuda.set_tf32(True)
    cuda.set_tf32(False)
    assert [mode for _, mode in cupy.modes] == [3, 0, 0]


def test_what_is_pretended_is_there_in_cupy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns of the GPU that is missing
        real = pytest.importorskip("cupy", reason="CuPy is not installed, so that its names cannot be looked up")
    assert callable(real.cuda.device.get_cublas_handle)
    assert hasattr(real.cuda.Device, "compute_capability")
    cublas = find_spec("cupy_backends.cuda.libs.cublas")  # which cannot be imported without cuBLAS
    text = Path(cublas.origin).read_bytes()
    assert b"setMathMode(intptr_t handle, int mode)" in text
    assert b"getMathMode(intptr_t handle)" in text
    assert callable(real.RawModule.get_function)
    assert "code=None" in real.RawModule.__doc__.splitlines()[0]
    assert "tuple options" in real.RawModule.__doc__.splitlines()[0]
