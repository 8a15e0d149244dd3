"""How many threads the work is spread over: what the machine grants this process, unless told otherwise."""

import os
from math import ceil
from pathlib import Path

from ..errors import InputError
from . import compiler, tuning

VARIABLE = "MINIFCN_THREADS"
_chosen = None


def threads() -> int:
    """The number of threads that tiles are spread over: at least 1.

    In this order: the number given to `set_threads`, the environment variable MINIFCN_THREADS, and the processors this
    process may run on, of which a container may grant fewer. Raises InputError for a variable that is no such number.
    """
    global _chosen
    count = _chosen
    if count is None:
        asked = os.environ.get(VARIABLE, "").strip()
        count = _chosen = _checked(VARIABLE, asked) if asked else _granted()
    return count


def sum_parts() -> int:
    """How many parts a sum is cut into at least.

    Where compiled helpers share them the number is fixed, so that a sum's bits do not depend on the number of threads.
    Without them there is one part for each thread: more would take longer to begin than they are worth.
    """
    return threads() if compiler.problem() else tuning.SHARES


def order_of_sums() -> str:
    """In words, what the order of sums on the CPU depends on: runs of one order give the same bits."""
    return f"NumPy and {threads()} threads" if compiler.problem() else "compiled kernels"


def set_threads(count: int | None = None) -> None:
    """Spread tiles over `count` threads from now on; None: as the environment and the machine say.

    Raises InputError unless count is a whole number of at least 1.
    """
    global _chosen
    _chosen = None if count is None else _checked("set_threads", count)


def threads_because() -> str:
    """In words, where the number of threads comes from."""
    asked, granted = os.environ.get(VARIABLE, "").strip(), _granted()
    if asked and threads() == _checked(VARIABLE, asked):
        return f"{VARIABLE}={asked}"
    if threads() != granted:
        return "set_threads"
    limits = container_limits()
    available = f"{_processors()} processors may be used"
    return f"{available}, and the container grants the time of {min(limits)}" if limits else available


def _checked(source, value):
    try:
        count = int(str(value))
    except ValueError:
        count = 0
    if count < 1:
        raise InputError(f"{source}: expected a whole number of threads of at least 1, got {value!r}")
    return count


def _granted():
    return max(1, min([_processors(), *container_limits()]))


def _processors():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def container_limits(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """How many processors' worth of time Linux control groups grant, rounded up; nothing where there is no limit.

    Version 2 keeps "quota period" (or "max period") in cpu.max, in every group from this process's own up to the root;
    version 1 two files. Microseconds.
    """
    limits = []
    try:
        path = next(line.split(":", 2)[2] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, UnicodeDecodeError, StopIteration):
        path = "/"
    group = cgroups / path.lstrip("/")
    for place in [group, *group.parents]:
        if cgroups in (place, *place.parents):
            limits += _limit(place / "cpu.max")
    return limits + _limit(cgroups / "cpu" / "cpu.cfs_quota_us", cgroups / "cpu" / "cpu.cfs_period_us")


def _limit(*files):
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        return [ceil(int(quota) / int(period))] if int(quota) > 0 else []
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return []
