"""The switch between array modules."""

import logging
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

import minifcn
from minifcn import backend
from minifcn.backend import cuda
from minifcn.errors import DeviceError, InputError
from minifcn.testing.strict import StrictArray, xp

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
    "a sum of booleans": (WORKING.format(dtype="bool_"), "multiplies wrongly"),
}


@pytest.fixture
def use_with_cupy(choose, monkeypatch, tmp_path, caplog):
    """use_with_cupy(source, name): backend.use(name) where `import cupy` runs this source. -> its line; logged at level"""

    def use(source, name):
        monkeypatch.setitem(sys.modules, "cupy", None)
        if source is not None:
            (tmp_path / "cupy.py").write_text(source)
            monkeypatch.syspath_prepend(tmp_path)
            del sys.modules["cupy"]
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="minifcn.backend"):
            line = choose(name)
        ((logger, level, logged),) = caplog.record_tuples
        assert (logger, logged) == ("minifcn.backend", line)
        return logging.getLevelName(level), line

    return use


@pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_cupy_falls_back_to_numpy_with_one_warning_that_says_why(source, reason, use_with_cupy):
    level, line = use_with_cupy(source, "auto")
    assert level == "WARNING"
    assert line.startswith("backend auto: using numpy (CuPy is installed but") and reason in line
    assert type(backend.to_device([1.0])) is np.ndarray
    with pytest.raises(DeviceError, match="CuPy cannot be used: ") as caught:
        backend.use("cupy")
    assert reason in str(caught.value)


def test_auto_takes_a_cupy_that_works_and_misses_none_that_is_not_there(use_with_cupy):
    assert use_with_cupy(None, "auto") == ("INFO", "backend auto: using numpy (CuPy is not installed)")
    with pytest.raises(DeviceError, match="CuPy is not installed"):
        backend.use("cupy")
    found = use_with_cupy(WORKING.format(dtype="float32"), "auto")
    assert found == ("INFO", "backend auto: using cupy (GPU Pretend, CuPy 0.0)")


def test_use_chooses_where_to_device_places_arrays(device):
    placed = backend.to_device(np.ones((2, 3), np.float32))
    assert backend.array_module(placed) is device.xp
    assert placed.dtype == np.float32
    assert backend.to_device(placed) is placed
    host = backend.to_host(placed)
    assert type(host) is np.ndarray
    np.testing.assert_array_equal(host, np.ones((2, 3)))


@pytest.mark.parametrize("name", ["torch", "", None, "cupy"])
def test_a_failed_use_keeps_the_choice(name, device, monkeypatch):
    monkeypatch.setattr(cuda, "probe", lambda: (None, "pretended failure"))
    with pytest.raises((InputError, DeviceError)) as caught:
        backend.use(name)
    told = "CuPy cannot be used: pretended failure" if name == "cupy" else "expected one of auto, cupy, numpy"
    assert told in str(caught.value)
    assert backend.array_module(backend.to_device(np.ones(1))) is device.xp


@pytest.mark.parametrize("thing", [[1.0, 2.0], 3.0, None, "text", np.float32(1), xp.ones(3)])
def test_array_module_refuses_what_is_no_array_of_a_registered_device(thing):
    with pytest.raises(TypeError, match=f"expected an array .*got {type(thing).__name__}"):
        backend.array_module(thing)


def test_array_module_and_to_device_of_follow_the_array_not_the_choice(device):
    there = device.put(np.ones(3))
    backend.use("numpy")
    assert backend.array_module(there) is device.xp
    assert backend.array_module(backend.to_device_of(there, np.zeros(2))) is device.xp


def test_to_device_brings_arrays_from_another_device(device):
    away = xp.arange(4)
    np.testing.assert_array_equal(device.get(backend.to_device(away)), np.arange(4))
    assert isinstance(backend.to_device(away), StrictArray) == (device.name == "strict")


@pytest.mark.parametrize("number", [2, 2.5, np.float32(2.5), [1, 2]])
def test_to_host_passes_numbers_through(number):
    assert type(backend.to_host(number)) is np.ndarray
    np.testing.assert_array_equal(backend.to_host(number), number)


@pytest.mark.parametrize("tiles", [1, 5])
def test_every_tile_runs_exactly_once_and_its_error_reaches_the_caller(tiles, device):
    done = device.put(np.zeros(20), writable=True)

    def task(start, stop):
        done[start:stop] += 1

    def fails(start, stop):
        raise ValueError("from a tile")

    places = [(i, i + 20 // tiles) for i in range(0, 20, 20 // tiles)]
    backend.run_tiles(done, task, places)
    np.testing.assert_array_equal(device.get(done), np.ones(20))
    with pytest.raises(ValueError, match="from a tile"):
        backend.run_tiles(done, fails, places)


def test_cut_leaves_nothing_out():
    for size, count in product(range(8), range(1, 9)):
        parts = backend.cut(size, count)
        assert [i for part in parts for i in range(size)[part]] == list(range(size))
        assert len(parts) <= count
        assert all(part.stop > part.start for part in parts) or size == 0


def test_importing_the_library_loads_neither_cupy_nor_a_framework():
    script = "import sys; from minifcn import *; print(sorted({'cupy', 'torch', 'onnx', 'dezero'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def modules_after(statement):
    """The modules that a Python of its own has loaded after this statement."""
    script = f"import contextlib, sys\nwith contextlib.suppress(SystemExit): {statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()[-1].split()


def test_a_part_of_the_library_is_loaded_when_it_is_asked_for():
    assert [name for name in modules_after("import minifcn") if name.startswith(("minifcn", "numpy"))] == ["minifcn"]
    assert "minifcn.ops.pool" in modules_after("import minifcn; minifcn.ops")
    assert set(minifcn.__all__) <= set(dir(minifcn))
    with pytest.raises(AttributeError, match="module 'minifcn' has no attribute 'opps'"):
        minifcn.opps  # noqa: B018


def test_help_loads_neither_plots_nor_frameworks():
    loaded = modules_after("from minifcn import cli; cli.main(['--help'])")
    assert not {"matplotlib", "scipy", "torch", "onnx", "onnxruntime", "mpi4py", "cupy"} & set(loaded)
    assert len(loaded) < 600
