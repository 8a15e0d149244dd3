"""Where the time of a network goes in minifcn: every layer's forward and backward, the longest first.

python benchmarks/profile_layers.py vgg               # or mini, lite0: a training step of the networks of works.py
python benchmarks/profile_layers.py vgg --forward     # inference
"""

import argparse
import statistics
import time
from collections import defaultdict
from dataclasses import replace

import in_minifcn
import works

NETWORKS = {
    "vgg": replace(works.VGG, task="step"),
    "mini": works.MINI,
    "lite0": works.LITE0_STEP,
}
FORWARDS = {"vgg": works.VGG, "mini": replace(works.MINI, task="forward"), "lite0": works.LITE0}


class Stopwatch:
    """Adds up the seconds of whatever it is laid around, by name; `take` gives the sums and starts again."""

    def __init__(self):
        self.seconds = defaultdict(float)

    def around(self, name, function):
        """The same function, timed under that name."""

        def timed(*args, **settings):
            start = time.perf_counter()
            try:
                return function(*args, **settings)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return timed

    def take(self):
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken


def watch(stopwatch, steps):
    """Time the passes of every step of forward and backward. The instances get functions of their own; the classes stay."""
    for step in steps:
        layer, kind = step.layer, type(step.layer).__name__
        layer.forward = stopwatch.around((step.name, kind, "forward"), layer.forward)
        layer.backward = stopwatch.around((step.name, kind, "backward"), layer.backward)


def prepared(work, stopwatch):
    """A function that does the work once, with its layers, its loss and its update watched."""
    network = in_minifcn.build(work)
    watch(stopwatch, network.inference if work.task == "forward" else network.training)
    if work.task == "forward":
        images, _ = in_minifcn.batch(work)
        return lambda: network.forward(images)
    return in_minifcn.training_step(network, work)


def measure(work, rounds, warm_up=2):
    """-> ({(layer, kind, pass): median seconds}, median seconds of the whole)"""
    stopwatch = Stopwatch()
    run = stopwatch.around("whole", prepared(work, stopwatch))
    taken = []
    for _ in range(warm_up + rounds):
        run()
        taken.append(stopwatch.take())
    medians = {name: statistics.median(t[name] for t in taken[warm_up:]) for name in taken[0]}
    return medians, medians.pop("whole")


def table(medians, whole):
    """Lines of text: seconds and shares, the longest first, and what is left for everything between the layers."""
    rows = sorted(medians.items(), key=lambda item: -item[1])
    rows.append((("joins, loss, update", "", ""), whole - sum(medians.values())))
    lines, so_far = [f"{'layer':32}{'kind':18}{'pass':10}{'ms':>10}{'share':>9}{'so far':>9}"], 0.0
    for (name, kind, which), seconds in rows:
        so_far += seconds
        lines.append(
            f"{name:32}{kind:18}{which:10}{1e3 * seconds:10.2f}{100 * seconds / whole:8.1f}%{100 * so_far / whole:8.1f}%"
        )
    lines += ["", f"{'the whole':60}{1e3 * whole:10.2f}"]
    return lines + _by(medians, whole, 2) + _by(medians, whole, 1)


def _by(medians, whole, part):
    """The sums over all layers of one pass (part 2) or of one kind (part 1)."""
    sums = defaultdict(float)
    for name, seconds in medians.items():
        sums[name[part]] += seconds
    ordered = sorted(sums.items(), key=lambda item: -item[1])
    return [f"{'all of ' + name:60}{1e3 * seconds:10.2f}{100 * seconds / whole:8.1f}%" for name, seconds in ordered]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--forward", action="store_true", help="inference instead of a training step")
    parser.add_argument("--rounds", type=int, default=5, help="medians are of so many (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round: only that it runs")
    args = parser.parse_args()
    work = (FORWARDS if args.forward else NETWORKS)[args.network]
    if args.smoke:
        work, args.rounds = works.tiny(work), 1
    print("\n".join(table(*measure(work, args.rounds))))


if __name__ == "__main__":
    main()
