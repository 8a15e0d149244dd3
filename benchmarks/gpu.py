"""How fast minifcn is on a GPU, and how much memory it takes, compared with PyTorch with cuDNN in the same precision.

Each layer of VGG16 at 500 × 500, forward and backward; FCN-8s-VGG16, forward and training step, at batch 1 and 8; a step of
FCN-8s-mini at batch 32. Times are taken with the device's own events, as medians over rounds in which the sides take turns. For
the five heaviest layers the roofline is given beside the time: operations over the rate of a large cuBLAS product, and bytes
over the bandwidth of a large copy, both measured in the same run.

    python benchmarks/gpu.py              # needs a GPU with CuPy; PyTorch with CUDA to compare with
    python benchmarks/gpu.py --tf32       # products in TF32 on both sides, instead of float32 proper
    python benchmarks/gpu.py --dry-run    # tiny sizes on the host: only that the script runs; no figure is shown
"""

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
from pathlib import Path

import gpu_table
import gpu_works
import numpy as np
from gpu_sides import WARM_UP, Minifcn, PyTorch

from minifcn import backend
from minifcn.backend import diagnosis

HERE = Path(__file__).parent
ENOUGH = 0.3  # seconds of runs in a turn


def sides(dry, tf32):
    """The libraries to measure, minifcn first; says which are left out."""
    if dry:
        backend.use("cpu")
        found = [Minifcn(None)]
    else:
        backend.use("cupy")
        backend.use_tf32(tf32)
        import cupy

        found = [Minifcn(cupy)]
    if importlib.util.find_spec("torch"):
        import torch

        if dry or torch.cuda.is_available():
            return [*found, PyTorch(torch, "cpu" if dry else "cuda", tf32)]
    print("PyTorch with CUDA is not installed: minifcn alone is measured")
    return found


def measure(work, libraries, rounds, enough):
    """{library: seconds of doing the work once, in the faster of its memory formats}, {library: peak bytes, in the leaner}.

    A library that runs out of memory is left out. enough: seconds of runs in a turn.
    """
    prepared, peaks, times = [], {}, {}
    for side in libraries:
        for layout in side.layouts:
            gc.collect()
            held = {each: each.forget() for each in libraries}[side]  # all give back what they hold, to be fair
            try:
                run = side.prepare(work, layout)
                first = side.seconds(run, WARM_UP if enough else 1)[-1]
            except Exception as error:
                if not backend.out_of_memory(error):
                    raise
                print(f"  {side.name} {layout}: {backend.out_of_memory(error)}")
                continue
            peaks[side.name] = min(side.peak_bytes() - held, peaks.get(side.name, sys.maxsize))
            prepared.append((side, run, max(1, min(50, int(enough / max(first, 1e-6)))), []))
    for number in range(rounds):
        first = number % max(1, len(prepared))
        for side, run, count, taken in prepared[first:] + prepared[:first]:
            try:
                taken.append(statistics.median(side.seconds(run, count)))
            except Exception as error:
                if not backend.out_of_memory(error):
                    raise
                print(f"  {side.name}: {backend.out_of_memory(error)}")
    for side, _, _, taken in prepared:
        if len(taken) < rounds:  # memory ran out when both libraries were there
            continue
        times[side.name] = min(statistics.median(taken), times.get(side.name, float("inf")))
    return times, peaks


def ceilings(minifcn, size, copied):
    """(operations a second of a product of `size` cubed, bytes a second of a copy of `copied` bytes), by the same library."""
    xp = minifcn.cupy or np
    a = xp.ones((size, size), "float32")
    rate = 2 * size**3 / min(minifcn.seconds(lambda: a @ a, 10))
    source = xp.ones(copied // 4, "float32")
    target = xp.empty_like(source)

    def copy():
        target[...] = source

    return rate, 2 * copied / min(minifcn.seconds(copy, 10))


def run(libraries, dry, rounds, tf32=False):
    """Measure everything, printing as it goes. -> the record"""
    rate, bandwidth = ceilings(libraries[0], *((64, 1 << 16) if dry else (8192, 1 << 30)))
    record = {
        **machine(),
        "precision": "TF32" if tf32 else "float32",
        "rate": rate,
        "bandwidth": bandwidth,
        "entries": [],
    }
    for title, work in gpu_works.all_works(dry):
        times, peaks = measure(work, libraries, rounds, 0 if dry else ENOUGH)
        entry = {"name": title, **times, "peaks": peaks, "layer": isinstance(work, gpu_works.Layer)}
        if entry["layer"]:
            bound = gpu_works.roofline(work, rate, bandwidth)
            entry |= {"flops": work.flops, "bytes": work.bytes, "bound": bound.seconds, "limit": bound.limit}
        else:
            entry["batch"] = work.batch
        record["entries"].append(entry)
        print(f"{title}: ran" if dry else gpu_table.line(entry), flush=True)
    return record


def machine():
    """What all this was measured on."""
    found = diagnosis.inspect()
    torch = importlib.util.find_spec("torch") and importlib.metadata.version("torch")
    packages = ", ".join(f"{name} {version}" for name, version in found.packages.items())
    return {"device": found.works, "driver": found.driver, "cuda": found.cuda, "cupy": packages, "torch": torch}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="medians are of so many turns (default: %(default)s)")
    parser.add_argument("--tf32", action="store_true", help="products in TF32 on both sides")
    parser.add_argument("--out", type=Path, help="the record, JSON (default: records/gpu.json, or gpu_tf32.json)")
    parser.add_argument("--markdown", type=Path, help="the tables (default: beside the record)")
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny sizes on the host, nothing kept: only that it runs"
    )
    args = parser.parse_args()
    if os.environ.get("CUPY_TF32", "0") != "0":
        return refuse("the precision is --tf32's to say: unset CUPY_TF32")
    try:
        libraries = sides(args.dry_run, args.tf32)
    except RuntimeError as error:
        return refuse(f"needs a GPU: {error}; minifcn info says what to do")
    record = run(libraries, args.dry_run, 1 if args.dry_run else args.rounds, args.tf32)
    tables = gpu_table.markdown(record)
    if args.dry_run:
        print("dry run: everything ran on the host; nothing was measured and nothing is kept")
        return 0
    print(tables)
    out = args.out or HERE / "records" / ("gpu_tf32.json" if args.tf32 else "gpu.json")
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (args.markdown or out.with_suffix(".md")).write_text(tables, encoding="utf-8")
    return 0


def refuse(why):
    print(f"gpu.py: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
