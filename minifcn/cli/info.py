"""Print what there is to compute with: Python, NumPy, BLAS, the number of threads and where it comes from, the compiler of the CPU's
kernels, the GPU's driver, CuPy and CUDA's libraries; and if a GPU cannot be used, the command that fixes it."""

import platform
import sys

import numpy as np

from .. import backend
from ..backend import compiler, diagnosis

HELP = "show what there is to compute with"


def add_arguments(parser):
    """There are none."""


def run(args):
    found, why = diagnosis.inspect(), backend.native_problem()
    packages = [f"{name} {version}" for name, version in found.packages.items()]
    cuda = found.cuda and f"runs CUDA up to {'.'.join(map(str, found.cuda))}"
    lines = [
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("NumPy", np.__version__),
        *(("BLAS", library) for library in diagnosis.blas() or ["none that threadpoolctl knows"]),
        ("threads", f"{backend.threads()} ({backend.threads_because()}); BLAS gets 1 in each"),
        (
            "kernels",
            f"left to NumPy: {why}"
            if why
            else f"compiled by {' '.join(compiler.compiler())}, kept in {compiler.folder()}",
        ),
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
