"""The switch between array modules, and who may import what."""

import ast
import logging
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

import minifcn
from minifcn import backend
from minifcn.backend.strict import StrictArray, xp

PACKAGE = Path(minifcn.__file__).parent

# What a `cupy` package may look like on a machine where it does not work -> what the reason must say.
BROKEN = {
    "a CUDA library is missing": (
        "raise ImportError('libcudart.so.12: cannot open shared object file\\nlong explanation\\nof many lines')",
        "does not load: ImportError: libcudart.so.12",
    ),
    "a module it needs is missing": ("import no_such_module_anywhere", "does not load: ModuleNotFoundError"),
    "the set-up is broken": ("raise RuntimeError()", "does not load: RuntimeError: no message"),
    "no driver": (
        """
class cuda:
    class runtime:
        def getDeviceCount():
            raise RuntimeError('cudaErrorInsufficientDriver: CUDA driver version is insufficient\\nmore')
""",
        "no working GPU: RuntimeError: cudaErrorInsufficientDriver",
    ),
    "no GPU": (
        """
class cuda:
    class runtime:
        def getDeviceCount():
            return 0
""",
        "finds no GPU",
    ),
    "an incomplete package": ("", "no working GPU: AttributeError"),
}
WORKING = """
from numpy import *
from numpy import asarray as asnumpy
__version__ = "0.0"
float32 = {dtype}
class cuda:
    class runtime:
        def getDeviceCount():
            return 1
        def getDevice():
            return 0
        def getDeviceProperties(device):
            return {{"name": b"Pretend"}}
"""
SCRIPT = """
import logging, sys
from minifcn import backend
logging.basicConfig(level=logging.INFO, format="LOG %(levelname)s %(name)s %(message)s", stream=sys.stdout)
print("RETURNED", backend.use("auto"))
print("DEVICE", type(backend.to_device([1.0])).__module__)
try:
    backend.use("cupy")
except RuntimeError as error:
    print("RAISED", error)
"""


def run_with_cupy(source, folder):
    """Run SCRIPT in a new process whose `cupy` is this source, or cannot be found (None). -> its lines"""
    if source is None:
        script = "import sys; sys.modules['cupy'] = None" + SCRIPT
    else:
        (folder / "cupy.py").write_text(source)
        script = SCRIPT
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(PACKAGE.parent)])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_cupy_falls_back_to_numpy_with_one_warning_that_says_why(source, reason, tmp_path):
    logged, returned, device, raised = run_with_cupy(source, tmp_path)
    assert logged.startswith("LOG WARNING minifcn.backend backend auto: using numpy (CuPy is installed but")
    assert reason in logged
    assert returned == logged.replace("LOG WARNING minifcn.backend", "RETURNED")
    assert device == "DEVICE numpy"
    assert raised.startswith("RAISED backend: CuPy cannot be used: ")
    assert reason in raised


def test_without_cupy_auto_is_numpy_and_no_warning(tmp_path):
    logged, returned, device, raised = run_with_cupy(None, tmp_path)
    assert logged == "LOG INFO minifcn.backend backend auto: using numpy (CuPy is not installed)"
    assert returned == "RETURNED backend auto: using numpy (CuPy is not installed)"
    assert device == "DEVICE numpy"
    assert raised == "RAISED backend: CuPy cannot be used: CuPy is not installed"


def test_a_cupy_that_works_is_taken_and_named(tmp_path):
    lines = run_with_cupy(WORKING.format(dtype="float32"), tmp_path)
    assert lines[0] == "LOG INFO minifcn.backend backend auto: using cupy (GPU Pretend, CuPy 0.0)"
    assert not any(line.startswith("RAISED") for line in lines)


def test_a_gpu_that_multiplies_wrongly_is_not_taken(tmp_path):
    lines = run_with_cupy(WORKING.format(dtype="bool_"), tmp_path)  # a sum of booleans is not 64
    assert "multiplies wrongly" in lines[0]
    assert lines[-1].startswith("RAISED")


def test_use_chooses_where_to_device_places_arrays(device):
    placed = backend.to_device(np.ones((2, 3), np.float32))
    assert backend.array_module(placed) is device.xp
    assert placed.dtype == np.float32
    assert backend.to_device(placed) is placed
    host = backend.to_host(placed)
    assert type(host) is np.ndarray
    np.testing.assert_array_equal(host, np.ones((2, 3)))


def test_use_returns_and_logs_the_same_single_line(caplog):
    with caplog.at_level(logging.INFO, logger="minifcn.backend"):
        line = backend.use("numpy")
    assert [record.getMessage() for record in caplog.records] == [line]
    assert line == "backend numpy: using numpy (as asked)"


@pytest.mark.parametrize("name", ["torch", "", "CUPY", None])
def test_an_unknown_name_is_refused_and_changes_nothing(device, name):
    with pytest.raises(ValueError, match="expected one of auto, cupy, numpy") as caught:
        backend.use(name)
    assert repr(name) in str(caught.value)
    assert backend.array_module(backend.to_device(np.ones(1))) is device.xp


def test_a_failed_use_keeps_the_choice(device, monkeypatch):
    monkeypatch.setattr(backend.cupy_kernels, "probe", lambda: (None, "pretended failure"))
    with pytest.raises(RuntimeError, match="^backend: CuPy cannot be used: pretended failure$"):
        backend.use("cupy")
    assert backend.array_module(backend.to_device(np.ones(1))) is device.xp


@pytest.mark.parametrize("thing", [[1.0, 2.0], 3.0, None, "text", np.float32(1)])
def test_array_module_refuses_what_is_not_an_array(thing):
    with pytest.raises(TypeError, match=f"expected an array .*got {type(thing).__name__}"):
        backend.array_module(thing)


def test_array_module_refuses_arrays_of_a_device_that_nobody_registered():
    with pytest.raises(TypeError, match="got StrictArray"):
        backend.array_module(xp.ones(3))


def test_array_module_follows_the_array_not_the_choice(device):
    backend.use("numpy")
    assert backend.array_module(device.put(np.ones(3))) is device.xp


def test_to_device_of_follows_the_other_array_not_the_choice(device):
    there = device.put(np.ones(3))
    backend.use("numpy")
    assert backend.array_module(backend.to_device_of(there, np.zeros(2))) is device.xp


def test_to_device_brings_arrays_from_another_device(device):
    away = xp.arange(4)
    np.testing.assert_array_equal(device.get(backend.to_device(away)), np.arange(4))
    assert isinstance(backend.to_device(away), StrictArray) == (device.name == "strict")


@pytest.mark.parametrize("number", [2, 2.5, np.float32(2.5), [1, 2]])
def test_to_host_passes_numbers_through(number):
    assert type(backend.to_host(number)) is np.ndarray
    np.testing.assert_array_equal(backend.to_host(number), number)


def test_every_tile_runs_exactly_once(device):
    done = device.put(np.zeros(20), writable=True)

    def task(start, stop):
        done[start:stop] += 1

    backend.run_tiles(done, task, [(i, i + 4) for i in range(0, 20, 4)])
    np.testing.assert_array_equal(device.get(done), np.ones(20))


@pytest.mark.parametrize("tiles", [[(0,)], [(0,), (1,), (2,)]])
def test_an_error_in_a_tile_reaches_the_caller(device, tiles):
    def task(_):
        raise ValueError("from a tile")

    with pytest.raises(ValueError, match="from a tile"):
        backend.run_tiles(device.put(np.zeros(1)), task, tiles)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_tiles_own_tiles_run_exactly_once_in_its_thread(count, device, tiling):
    tiling(threads=count)
    done, strangers = device.put(np.zeros((4, 5)), writable=True), []

    def inner(i, j, owner):
        done[i, j] += 1
        if threading.current_thread() is not owner:
            strangers.append((i, j))

    def outer(i):
        backend.run_tiles(done, inner, [(i, j, threading.current_thread()) for j in range(5)])

    backend.run_tiles(done, outer, [(i,) for i in range(4)])
    np.testing.assert_array_equal(device.get(done), np.ones((4, 5)))
    assert strangers == []


def test_tiles_share_as_many_threads_as_were_asked_for(tiling):
    for count in (1, 3):
        tiling(threads=count)
        everybody, seen = threading.Barrier(count, timeout=10), set()

        def task(_, everybody=everybody, seen=seen):
            everybody.wait()  # each thread takes one tile, as none goes on before all have come
            seen.add(threading.current_thread())

        backend.run_tiles(np.zeros(1), task, [(i,) for i in range(count)])
        assert len(seen) == count
        assert threading.current_thread() in seen


@pytest.mark.parametrize("size", range(8))
@pytest.mark.parametrize("count", range(1, 9))
def test_cut_leaves_nothing_out(size, count):
    parts = backend.cut(size, count)
    assert [i for part in parts for i in range(size)[part]] == list(range(size))
    assert len(parts) <= count
    assert all(part.stop > part.start for part in parts) or size == 0


@pytest.mark.parametrize(("tile_bytes", "threads"), [(None, None), (1, 1), (100, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 2), (2, 3, 7), (5, 4, 5), (1, 6, 9), (150, 20, 130)])
def test_a_matrix_product_in_parts_is_the_matrix_product(shape, bias, tile_bytes, threads, device, rng, tiling):
    tiling(tile_bytes if shape[0] < 100 else None, threads)
    rows, depth, columns = shape
    a, b, c = (rng.standard_normal(s) for s in ((rows, depth), (depth, columns), (columns,)))
    expected = a @ b + (c if bias else 0)
    there = [device.put(a), device.put(b.T).T]
    out = device.put(np.zeros((columns, rows)), writable=True).T
    given = device.put(c) if bias else None
    np.testing.assert_allclose(device.get(backend.matmul(*there, bias=given)), expected, rtol=1e-12, atol=1e-12)
    assert backend.matmul(*there, out, given) is out
    np.testing.assert_allclose(device.get(out), expected, rtol=1e-12, atol=1e-12)


def test_what_is_kept_is_made_again_once_its_array_has_changed():
    made = []

    def double(array):
        made.append(array.copy())
        return 2 * array

    array, other = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3)
    first = backend.kept(array, double)
    assert backend.kept(array, double) is first
    assert backend.kept(array, np.negative).tolist() == (-array).tolist()
    assert backend.kept(other, double) is not first
    array[1, 2] = 7
    assert backend.kept(array, double).tolist() == [[0, 2, 4], [6, 8, 14]]
    assert backend.kept(other, double).tolist() == [[0, 2, 4], [6, 8, 10]]
    assert len(made) == 3


def test_what_is_kept_goes_with_its_array():
    before = len(backend.numpy_kernels._kept)
    array = np.arange(6.0)
    gone = weakref.ref(backend.kept(array, lambda array: 2 * array))
    assert gone() is not None
    del array
    assert gone() is None
    assert len(backend.numpy_kernels._kept) == before


def test_what_is_kept_is_made_anew_for_another_array_at_the_same_place():
    for value in range(20):  # arrays that come and go get each other's memory, and so each other's id
        array = np.full(1000, float(value))
        assert backend.kept(array, np.negative)[0] == -value


def imports(path):
    """The top-level names of everything that a source file imports, by statement or by `import_module`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            found.update(str(argument.value).split(".")[0] for argument in node.args if hasattr(argument, "value"))
    return found


IMPORTS = {path.relative_to(PACKAGE): imports(path) for path in sorted(PACKAGE.rglob("*.py"))}


def test_only_the_backend_imports_cupy():
    importers = {path for path, names in IMPORTS.items() if names & {"cupy", "cupyx", "cupy_backends"}}
    assert Path("backend/cupy_kernels.py") in importers
    assert {path.parts[0] for path in importers} == {"backend"}


@pytest.mark.parametrize(
    "framework", ["torch", "torchvision", "onnx", "onnxruntime", "dezero", "chainer", "tensorflow", "jax"]
)
def test_no_other_framework_is_imported(framework):
    assert [path for path, names in IMPORTS.items() if framework in names] == []


def test_importing_the_library_loads_neither_cupy_nor_a_framework():
    script = "import sys, minifcn; print(sorted({'cupy', 'torch', 'onnx', 'dezero'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
