"""One side of a comparison in a process of its own: does its work for every line it is sent, and says how long it took.

A turn repeats the work for half a second, as in a loop over images or batches, and its time is the median of the runs:
after a wait caches are cold and cores slow, and work of milliseconds would always be measured as a first run.

Answers are JSON, one line each: first what there is to know about this side, then for each turn the seconds of doing the
work once, and when its input ends its peak memory. Between turns it waits and uses no processor.

    python benchmarks/worker.py layers "conv1_2 forward" minifcn     # then Enter for each turn, Ctrl-D to end
"""

import argparse
import importlib
import json
import resource
import statistics
import sys
import time

import works

TURN = 0.5  # seconds
MODULES = {"minifcn": "in_minifcn", "PyTorch": "in_pytorch", "DeZero": "in_dezero", "NumPy": "in_numpy"}


def say(answer):
    print(json.dumps(answer), flush=True)


def turn(run, at_least):
    """Seconds of a run: the median of enough runs to take `at_least` seconds together, at least one."""
    taken = []
    while not taken or sum(taken) < at_least:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def find(group, name, label, smoke):
    """The Side of that label in the comparison of that name."""
    for comparison in [works.SGEMM, *works.comparisons(smoke)]:
        if (comparison.group, comparison.name) == (group, name):
            return next(side for side in comparison.sides if side.label == label)
    raise SystemExit(f"no comparison is called {group} {name!r}")


def peak_mb():
    """The most memory this process has ever held, in MB (macOS counts bytes, Linux kibibytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", choices=("sgemm", *works.GROUPS))
    parser.add_argument("name", help="the comparison")
    parser.add_argument("label", help="the side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    side = find(args.group, args.name, args.label, args.smoke)
    run, facts = importlib.import_module(MODULES[side.library]).prepare(side, args.threads)
    say(facts)
    for _ in sys.stdin:
        say({"seconds": turn(run, 0 if args.smoke else TURN)})
    say({"peak_mb": peak_mb()})


if __name__ == "__main__":
    main()
