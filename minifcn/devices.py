"""Devices as people meet them: the option --device, `minifcn info`, and what to lower where memory runs out."""

import platform
import sys

import numpy as np

from . import backend
from .backend import diagnosis
from .errors import DeviceError

LOWERS_MEMORY = ("batch_size", "crop", "resize", "tile")  # options that make a step or an image smaller


def add_option(parser):
    """Add --device to a command."""
    parser.add_argument(
        "--device",
        default="auto",
        help="where arrays live: cpu, cuda (a GPU), cuda:1 (the GPU of that number), or auto, a GPU if one works",
    )
    parser.add_argument(
        "--tf32",
        action="store_true",
        help="let a GPU from Ampere on multiply in TF32: several times as fast, results some 3e-4 off",
    )


def choose(name, tf32=False):
    """Use the device of that name, and TF32 if that is wanted. Raises InputError, with how to go on, where that cannot be."""
    try:
        backend.use(name)
    except DeviceError as error:
        raise DeviceError(f"{error}; minifcn info says what to do") from error
    if tf32:
        backend.use_tf32()


def out_of_memory(error, args):
    """One line for the error of a command that ran out of memory, with what to lower; None for another error."""
    told = backend.out_of_memory(error)
    if told is None:
        return None
    options = ["--" + name.replace("_", "-") for name in LOWERS_MEMORY if hasattr(args, name)]
    if not options:
        return f"{told}; smaller images need less"
    return f"{told}; lower {' or '.join(options)}"


def info(args):
    """Print what was found to compute with, and what to do where the GPU cannot be used."""
    found = diagnosis.inspect()
    packages = [f"{name} {version}" for name, version in found.packages.items()]
    cuda = found.cuda and f"runs CUDA up to {'.'.join(map(str, found.cuda))}"
    lines = [
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("NumPy", np.__version__),
        *(("BLAS", library) for library in diagnosis.blas() or ["none that threadpoolctl knows"]),
        ("threads", f"{backend.threads()} ({backend.threads_because()}); BLAS gets 1 in each"),
        ("driver", ", ".join(filter(None, (found.driver, cuda))) or "no NVIDIA driver"),
        *(("device", f"cuda:{number}, {name}") for number, name in enumerate(found.devices)),
        ("CuPy", ", ".join(packages) or "not installed"),
        *((f"  {name}", path or "missing") for name, path in found.libraries.items()),
        ("GPU", f"works: {found.works}" if found.works else f"cannot be used: {found.problem}"),
    ]
    if advice := diagnosis.remedy(found):
        lines.append(("to do", advice))
    for title, text in lines:
        print(f"{title:10}{text}")
    return 0
