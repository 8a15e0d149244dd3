"""Finds a C++ compiler and keeps the libraries that it makes in the user's cache folder, by the hash of all that they depend on."""

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

log = logging.getLogger("minifcn.kernels")
CXX = "CXX"  # the environment variable that names another compiler


VARIABLE = "MINIFCN_NATIVE"
_wanted = None  # what `use_native` was told
_failed = None  # why nothing could be compiled


def use_native(on: bool | None = True) -> None:
    """From now on use compiled code on the CPU, or (False) leave it all to NumPy; None: as the environment says.

    MINIFCN_NATIVE=0 in the environment means NumPy. Results differ by rounding.
    """
    global _wanted
    _wanted = on
    _environment_allows.cache_clear()


def is_wanted() -> bool:
    """Whether compiled code may be used."""
    return _environment_allows() if _wanted is None else _wanted


@cache
def _environment_allows():
    return os.environ.get(VARIABLE, "").strip() != "0"


def problem() -> str | None:
    """Why nothing compiled is used on the CPU, in words; None where it is, or will be tried once it is needed (`native.problem`)."""
    if not is_wanted():
        return "switched off" if _wanted is False else f"{VARIABLE}=0"
    if compiler():
        return _failed
    if asked := os.environ.get(CXX, "").strip():
        return (
            f"{CXX}={asked}: expected the command of a C++ compiler, got none of this name; unset {CXX}, or correct it"
        )
    return "no C++ compiler was found (g++, clang++, or pip install ziglang)"


def give_up(error: Exception) -> None:
    """Leave all to NumPy from now on, because something did not compile; logged the first time."""
    global _failed
    if _failed is None:
        _failed = str(error).strip().splitlines()[0]
        log.warning("kernels are left to NumPy: %s", _failed)


class CompileError(RuntimeError):
    """A source did not compile; the message has the compiler's first words."""


@cache
def compiler() -> tuple[str, ...]:
    """The command of a C++ compiler: what CXX names, g++, clang++, c++, or the one of the package ziglang. () without one."""
    asked = os.environ.get(CXX, "").split()
    for command in [asked] if asked else [["g++"], ["clang++"], ["c++"]]:
        if found := shutil.which(command[0]):
            return (found, *command[1:])
    return (sys.executable, "-m", "ziglang", "c++") if not asked and find_spec("ziglang") else ()


def opened(name: str, text: str, options: tuple[str, ...], machine: str = "") -> ctypes.CDLL:
    """`library`, loaded; a damaged one, such as a power cut leaves in the cache, is compiled once more. Raises as it does."""
    path = library(name, text, options, machine)
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        path.unlink(missing_ok=True)
        return ctypes.CDLL(str(library(name, text, options, machine)))


def library(name: str, text: str, options: tuple[str, ...], machine: str = "") -> Path:
    """The shared library of a C++ text, compiled unless the cache has it.

    machine: what it depends on besides text, compiler and options.

    Another process may be compiling the same: each writes a file of its own, and puts it in place in one step.
    Raises CompileError, also where there is no folder to keep it in; OSError where the disk is full.
    """
    command = compiler()
    parts = [text, machine, *command, _version(command), *options]
    try:
        where = folder()
        cached = where / f"{name}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:32]}.so"
        if cached.exists():
            return cached
        where.mkdir(parents=True, exist_ok=True)
        room = tempfile.TemporaryDirectory(dir=where)
    except (OSError, RuntimeError) as error:  # read-only, or no home
        raise CompileError(
            f"no folder to keep compiled kernels in ({error}); set XDG_CACHE_HOME to one that can be written to"
        ) from error
    _announce()
    with room as workplace:
        code, made = Path(workplace) / "kernels.cpp", Path(workplace) / "kernels.so"
        code.write_text(text, encoding="utf-8")
        done = subprocess.run([*command, *options, "-o", made, code], capture_output=True, text=True, errors="replace")
        if not done.returncode:
            os.replace(made, cached)
    if done.returncode:
        with suppress(OSError):  # it has others' libraries
            where.rmdir()
        raise CompileError(
            f"{name}: {' '.join(command)}: {done.stderr[:2000].strip() or f'exit code {done.returncode}'}"
        )
    return cached


@cache
def _announce():
    """Say, once, what takes so long."""
    log.info("compiling the kernels for this processor, once; this may take a minute")


@cache
def _version(command):
    """A compiler's version text: after an update, libraries are compiled anew."""
    return subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace").stdout


def folder() -> Path:
    """The folder of compiled libraries, in the user's cache. Raises RuntimeError where there is no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minifcn"
