"""From measured seconds to a record: medians, ratios, rates, goals, and on which machine."""

import datetime
import importlib.metadata
import os
import platform
import statistics
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info
from works import AVERAGE_GOALS

PACKAGES = ("numpy", "torch", "dezero")


def machine(threads):
    """Where and with what all this is measured."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "versions": versions,
        "blas": _blas(),
    }


def _cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _blas():
    """The library that multiplies NumPy's matrices, such as "openblas 0.3.31 (Haswell)"."""
    np.ones((2, 2)) @ np.ones((2, 2))
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return ", ".join(f"{p['internal_api']} {p['version']} ({p.get('architecture')})" for p in pools) or "unknown"


def entry(comparison, sides, sgemm=None):
    """The record of one comparison: what `measure` gave, with medians, rates and ratios. sgemm: its GFLOP/s."""
    flops = sides[0].pop("flops")
    for side in sides:
        side.pop("flops", None)
        side["median"] = statistics.median(side["seconds"])
        side["gflops"] = flops / side["median"] / 1e9
        if sgemm:
            side["of_sgemm"] = side["gflops"] / sgemm
    first, *others = sides
    found = {
        "group": comparison.group,
        "name": comparison.name,
        "task": getattr(comparison.sides[0].work, "task", None),
        "flops": flops,
        "sides": sides,
    }
    if others:
        best = min(others, key=lambda side: side["median"])
        found |= {
            "against": best["label"],
            "ratio": first["median"] / best["median"],
            "memory_ratio": first["peak_mb"] / best["peak_mb"],
        }
        found |= _verdict("goal", "met", comparison.goal, found["ratio"])
        found |= _verdict("memory_goal", "memory_met", comparison.memory_goal, found["memory_ratio"])
    return found


def averages(entries):
    """The mean ratio of the forwards and of the backwards of each group that has an average for a goal."""
    found = []
    for (group, task), goal in AVERAGE_GOALS.items():
        ratios = [e["ratio"] for e in entries if (e["group"], e["task"]) == (group, task) and "ratio" in e]
        if ratios:
            mean = statistics.mean(ratios)
            found.append({"group": group, "task": task, "ratio": mean, **_verdict("goal", "met", goal, mean)})
    return found


def _verdict(name, answer, goal, ratio):
    return {} if goal is None else {name: goal, answer: ratio <= goal}
