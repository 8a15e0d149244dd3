"""One test body for every array module: the fixture `device`."""

import sys
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest

from minifcn import backend, data
from minifcn.backend import compiler, registry, tuning
from minifcn.errors import DeviceError
from minifcn.testing import strict


def gpu_problem():
    """Why no test can run on a GPU here; None if it can. The registry stays as it is."""
    before = dict(registry._devices), registry._current
    try:
        backend.use("cupy")
    except DeviceError as error:
        return str(error)
    finally:
        registry._devices, registry._current = before
    return None


NO_GPU = gpu_problem()
NAMES = (
    "numpy",
    *(["compiled"] if compiler.compiler() else []),
    "strict",
    *(() if NO_GPU else [pytest.param("cupy", marks=pytest.mark.gpu)]),
)
backend.use_native(False)  # the NumPy path is tested on its own, and compiled kernels where a test asks for them


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A small data set for runs from the command line."""
    root = tmp_path_factory.mktemp("toy")
    data.write_toyvoc(root, train=6, val=2, size=40, seed=3)
    return root


class ChosenDevice:
    """Where the arrays of a test live: `name`, the array module `xp`, and the ways there and back."""

    def __init__(self, name, xp):
        self.name = name
        self.xp = xp

    def put(self, host, writable=False):
        """A copy of a NumPy array on the device, read-only wherever the device knows such a lock. None stays None."""
        if host is None:
            return None
        if self.name in ("numpy", "compiled"):
            array = np.array(host)
            array.flags.writeable = writable
            return array
        array = self.xp.asarray(np.asarray(host))
        return array.lock() if self.name == "strict" and not writable else array

    def get(self, array):
        """The values as a NumPy array. Fails if the array is not on this device."""
        if not (self.xp is np and isinstance(array, np.generic)):
            assert backend.array_module(array) is self.xp, f"expected an array on {self.name}, got {type(array)}"
        return backend.to_host(array)

    @contextmanager
    def numpy_alone(self):
        """A context in which no kernel is compiled for arrays on the host: what the device's results are compared with."""
        backend.use_native(False)
        try:
            yield
        finally:
            backend.use_native(self.name == "compiled")


@pytest.fixture
def choose(monkeypatch):
    """choose(device): use a Device, or one of that name, during the test; afterwards the registry is as before."""
    monkeypatch.setattr(registry, "_devices", dict(registry._devices))
    monkeypatch.setattr(registry, "_current", registry._current)

    def use(device):
        if isinstance(device, backend.Device):
            backend.register(device)
            device = device.name
        return backend.use(device)

    return use


@pytest.fixture
def compiled():
    """The kernels that are compiled for the CPU are used during the test."""
    if problem := compiler.compiler() == () and "no C++ compiler is installed":
        pytest.skip(problem)
    backend.use_native(True)
    yield
    backend.use_native(False)


@pytest.fixture(params=NAMES)
def device(request, choose):
    """NumPy, with compiled kernels too, the strict stand-in for a GPU, and CuPy where there is a GPU; chosen during the test."""
    choose(strict.DEVICE)
    name = request.param
    if name == "compiled":
        request.getfixturevalue("compiled")
    backend.use("numpy" if name == "compiled" else name)
    return ChosenDevice(name, backend.array_module(backend.to_device(np.zeros(1))))


@pytest.fixture
def tiling(monkeypatch):
    """tiling(tile_bytes, threads): cut the work into tiles of this size, for so many threads; None leaves it as it is."""
    before = backend.threads()

    def cut_into(tile_bytes=None, threads=None):
        if tile_bytes is not None:
            for name in ("TILE_BYTES", "BLOCK_BYTES", "PIECE_BYTES", "WORKSPACE"):
                monkeypatch.setattr(tuning, name, tile_bytes)
            for name in ("BYTES_WORTH_A_THREAD", "BYTES_WORTH_A_HELPER", "WORTH_A_THREAD"):
                monkeypatch.setattr(tuning, name, 0)
            for name in ("WINOGRAD_TILES", "WINOGRAD_TILES_A_THREAD"):
                monkeypatch.setattr(tuning, name, 1)
        if threads is not None:
            backend.set_threads(threads)

    yield cut_into
    backend.set_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pytest_collection_finish():
    """PyTorch's idle threads spin, and would slow down the library's."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    """Say why tests were skipped, a line for each reason instead of one for each place."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])
    )
    if NO_GPU:
        terminalreporter.write_line(f"cases on CuPy left out: {NO_GPU}")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped {count}: {reason}")


@pytest.fixture
def blank(monkeypatch):
    """Zeros in place of drawn weights, where only shapes matter."""
    monkeypatch.setattr(
        "minifcn.layers.parametric.he_normal", lambda shape, rng, fan_in=None: np.zeros(shape, np.float32)
    )


@pytest.fixture
def quick(monkeypatch):
    """Weights of the usual size, drawn in float32: a hundred million of them in a second."""

    def draw(shape, rng, fan_in=None):
        return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))

    monkeypatch.setattr("minifcn.layers.parametric.he_normal", draw)
