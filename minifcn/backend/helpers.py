"""Threads that share the work of the CPU, ready within a microsecond or two: helpers.cpp, compiled, and its Python side.

A helper is a Python thread that stays inside C, without the interpreter's lock. There it runs C jobs (parts of kernels); it
returns to Python for jobs written in Python (tiles). Without compiled code, `cpu` uses threads of the standard library.
"""

import ctypes
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import cache
from pathlib import Path

from . import compiler

_OPTIONS = ("-std=c++14", "-O2", "-shared", "-fPIC", "-pthread")
_serving = []  # the helpers
_job = None  # the open job, if it is a Python one


def ready(count: int) -> int:
    """Start helpers until there are `count`. -> how many there are, at most `count`; 0 without compiled code

    There are fewer if no thread can be started (a limit, or the interpreter's end).
    """
    if count < 1 or sys.is_finalizing() or not compiler.is_wanted() or _library() is None:
        return 0
    with suppress(RuntimeError):
        while len(_serving) < count:
            thread = threading.Thread(target=_serve, name="minifcn", daemon=True)
            thread.start()
            _serving.append(thread)
    return min(count, len(_serving))


@cache
def share() -> int | None:
    """The address of C's `share`, through which kernels are shared out; None without compiled code."""
    return ctypes.cast(_library().share, ctypes.c_void_p).value if _library() else None


def run(task: Callable, count: int) -> None:
    """Call task() here and in up to `count` helpers, each in a copy of this context; alone while they have another job.

    The first exception is raised again once all that began have ended.
    """
    global _job
    library, errors, contexts = _library(), [], [copy_context() for _ in range(count + 1)]

    def job():
        try:
            context = contexts.pop()
        except IndexError:  # a helper that came twice
            return
        try:
            context.run(task)
        except BaseException as error:
            errors.append(error)

    if not library.reserve():
        copy_context().run(task)
        return
    _job = job
    try:
        library.post(count)
        job()
    finally:
        while True:  # an interruption has to wait: helpers may still be at work
            try:
                library.wait_for_helpers()
                break
            except KeyboardInterrupt as error:
                errors.insert(0, error)
        _job = None
        library.release()
    if errors:
        raise errors[0]


def _serve():
    library, seen = _library(), 0
    while True:
        seen = library.serve(seen)
        try:
            _job()
        finally:
            library.leave()


@cache
def _library():
    if compiler.problem():
        return None
    try:
        text = Path(__file__).with_name("helpers.cpp").read_text(encoding="utf-8")
        return compiler.opened("helpers", text, _OPTIONS)
    except (compiler.CompileError, OSError) as error:
        compiler.give_up(error)
        return None


def after_fork() -> None:
    """A child process has none of the threads."""
    if _serving:
        _serving.clear()
        _library().start_anew()
