"""What this machine can compute with, and what to do if a GPU cannot be used: facts first, then advice.

Nothing here needs CuPy, a driver or a GPU; what is missing is reported as missing.
"""

import ctypes
import importlib.metadata
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_info

from . import cuda

# CUDA's major version -> the oldest driver release that runs it (NVIDIA's release notes, "CUDA Toolkit and
# Minimum Required Driver Version").
OLDEST_DRIVER = {12: 525, 13: 580}
PACKAGES = {f"cupy-cuda{major}x": major for major in (11, *OLDEST_DRIVER)}  # and plain "cupy", built by its user
INSTALL = 'pip install ".[cuda{}]"'  # in the folder of minifcn's sources


@dataclass(frozen=True)
class Environment:
    """driver: its release, "580.65.06"; cuda: the newest CUDA version that it runs, (13, 0); None for what is missing.

    packages: {name: version} of every CuPy that is installed. libraries: {name: path, or None where it is missing} of what
    CuPy has to load, {} where that is unknown. devices: the names of the GPUs. works: the GPU that passed the test;
    or, in `problem`, why none did.
    """

    driver: str | None
    cuda: tuple | None
    packages: dict
    libraries: dict
    devices: list
    works: str | None
    problem: str | None
    visible: str | None  # CUDA_VISIBLE_DEVICES


def inspect():
    """What this machine has. -> Environment"""
    cupy, message = cuda.probe()
    return Environment(
        driver=_driver_release(),
        cuda=driver_cuda(),
        packages=_packages(),
        libraries=cuda.libraries(),
        devices=cuda.devices(),
        works=message if cupy else None,
        problem=None if cupy else message,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )


def remedy(env):
    """What to do so that the GPU can be used, in one line; None if it can."""
    if env.works:
        return None
    if env.cuda is None:
        then = _pip(env, max(OLDEST_DRIVER)) if env.packages else " or ".join(map(INSTALL.format, OLDEST_DRIVER))
        problem = "no NVIDIA driver was found; if there is an NVIDIA GPU"
        return f"{problem}, install its driver ({OLDEST_DRIVER[13]} or newer), then: {then or 'minifcn info'}"
    if env.cuda[0] < min(OLDEST_DRIVER):
        newest = ".".join(map(str, env.cuda))
        return f"the driver runs CUDA up to {newest}: install driver {OLDEST_DRIVER[12]} or newer, then: minifcn info"
    if command := _pip(env, env.cuda[0]):
        return command
    if env.devices:
        again = f"pip install --force-reinstall --no-cache-dir {' '.join(env.packages)}"
        return f"CuPy does not work as it is installed: {again}"
    if env.visible is not None:
        return f"the driver shows no GPU because CUDA_VISIBLE_DEVICES={env.visible!r}: unset CUDA_VISIBLE_DEVICES"
    return "the driver shows no GPU: see whether nvidia-smi lists one (in a container: docker run --gpus all)"


def _pip(env, major):
    """The command that installs one CuPy with its libraries, for a driver that runs CUDA `major`; None if it is there."""
    extra = max(version for version in OLDEST_DRIVER if version <= major)
    if not env.packages:
        return INSTALL.format(extra)
    names, missing = list(env.packages), None in env.libraries.values()
    built_for = PACKAGES.get(names[0], extra)
    if len(names) > 1 or built_for not in OLDEST_DRIVER or built_for > major or (names == ["cupy"] and missing):
        return f"pip uninstall -y {' '.join(names)} && {INSTALL.format(extra)}"
    return INSTALL.format(built_for) if missing else None


def blas():
    """The libraries that multiply NumPy's matrices: "openblas 0.3.31 (Haswell), 2 threads"."""
    return [
        f"{pool['internal_api']} {pool['version'] or 'of unknown version'} ({pool.get('architecture', 'unknown')}), "
        f"{pool['num_threads']} thread{'s' * (pool['num_threads'] > 1)} of its own"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]


def _packages():
    found = {}
    for name in ("cupy", *PACKAGES):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def driver_cuda():
    """The newest CUDA version that the driver runs, (major, minor), from the driver's library, which needs no GPU."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        version = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value:
            return version.value // 1000, version.value % 1000 // 10
    return None


def _driver_release(path=Path("/proc/driver/nvidia/version")):
    """The driver's release, "580.65.06", on Linux; None where it is unknown."""
    try:
        numbers = re.search(r"\b(\d{3}(?:\.\d+)+)\b", path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return numbers and numbers[1]
