"""How fast minifcn is on a CPU, and how much memory it takes, beside PyTorch and DeZero where these are installed.

Convolutions and whole networks, forward and backward, as listed in `works.py`. Each library does the same work in its own
process with the same number of threads. They take turns, and the results are ratios between medians: a single time says
little on a machine that does other things too.

    python benchmarks/cpu.py                       # everything; leave the machine alone meanwhile
    python benchmarks/cpu.py --only layers,mini    # a part of it
    python benchmarks/cpu.py --check               # only whether PyTorch's networks compute the same as minifcn's
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import record
import table
import works
from rounds import measure

HERE = Path(__file__).parent
PACKAGES = {"minifcn": "minifcn", "PyTorch": "torch", "DeZero": "dezero", "NumPy": "numpy"}


def installed(library):
    return importlib.util.find_spec(PACKAGES[library]) is not None


def check():
    """Compare the networks with PyTorch's, in a process of its own: this one stays small, as children inherit its peak."""
    if not installed("PyTorch"):
        print("PyTorch is not installed: nothing to compare the networks with")
        return
    subprocess.run([sys.executable, str(HERE / "check.py")], check=True)


def run(groups, rounds, threads, smoke, save):
    """Measure these groups of comparisons, printing as it goes, and save what there is after each."""
    print(f"{rounds} rounds, {threads} threads; times are medians")
    sgemm = record.entry(works.SGEMM, measure(works.SGEMM, works.SGEMM.sides, rounds, threads, smoke))
    print(table.line(sgemm), flush=True)
    found = {**record.machine(threads), "rounds": rounds, "sgemm": sgemm, "comparisons": [], "averages": []}
    missing = [library for library in PACKAGES if not installed(library)]
    for library in missing:
        print(f"{library} is not installed and left out")
    for comparison in works.comparisons(smoke):
        sides = [side for side in comparison.sides if side.library not in missing]
        if comparison.group not in groups or comparison.group == "dezero" and len(sides) < 2:
            continue
        measured = measure(comparison, sides, rounds, threads, smoke)
        for side in measured:
            if side["threads"] != threads:
                print(f"{side['label']} uses {side['threads']} threads instead of {threads}", file=sys.stderr)
        entry = record.entry(comparison, measured, sgemm["sides"][0]["gflops"])
        found["comparisons"].append(entry)
        found["averages"] = record.averages(found["comparisons"])
        print(table.line(entry), flush=True)
        save(found)
    for average in found["averages"]:
        print(table.average_line(average))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    parser.add_argument("--threads", type=int, default=cores, help=f"of every library (default: {cores}, all cores)")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds, at least 5 (default: %(default)s)")
    parser.add_argument("--only", default=",".join(works.GROUPS), help="groups, with commas (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "records" / "cpu.json", help="the record, JSON")
    parser.add_argument("--markdown", type=Path, default=HERE / "records" / "cpu.md", help="the tables")
    parser.add_argument("--check", action="store_true", help="only compare the networks' logits with PyTorch's")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round, nothing kept: only that it runs")
    args = parser.parse_args()
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(works.GROUPS):
        parser.error(f"--only: expected some of {', '.join(works.GROUPS)}; got {', '.join(sorted(unknown))}")
    if args.rounds < 5:
        parser.error(f"--rounds: expected at least 5, got {args.rounds}")
    return args


def main():
    args = parse()
    if args.check or args.smoke:
        check()
    if args.check:
        return
    with tempfile.TemporaryDirectory() as scratch:
        if args.smoke:
            args.rounds, args.out, args.markdown = 1, Path(scratch, "cpu.json"), Path(scratch, "cpu.md")

        def save(found):
            args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            args.markdown.write_text(table.markdown(found), encoding="utf-8")

        run(args.only, args.rounds, args.threads, args.smoke, save)


if __name__ == "__main__":
    main()
