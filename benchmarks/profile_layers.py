"""Where the time of a network goes in minifcn: every layer's forward and backward, the longest first.

Also how far the five longest are from what the machine can do: a large matrix product and a large copy, timed in between.

python benchmarks/profile_layers.py vgg               # or mini, lite0: a training step of the networks of works.py
python benchmarks/profile_layers.py vgg --forward     # inference
"""

import argparse
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from math import prod

import in_minifcn
import numpy as np
import works

from minifcn import backend

NETWORKS = {
    "vgg": replace(works.VGG, task="step"),
    "mini": works.MINI,
    "lite0": works.LITE0_STEP,
}
FORWARDS = {"vgg": works.VGG, "mini": replace(works.MINI, task="forward"), "lite0": works.LITE0}


class Stopwatch:
    """Adds up the seconds of the functions that it wraps, by name; `take` gives the sums and starts again."""

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
    """Time the passes of every step of forward and backward. The instances get their own functions; the classes stay as they are."""
    for step in steps:
        layer, kind = step.layer, type(step.layer).__name__
        layer.forward = stopwatch.around((step.name, kind, "forward"), layer.forward)
        layer.backward = stopwatch.around((step.name, kind, "backward"), layer.backward)


def prepared(work, stopwatch):
    """(a function that does the work once, with its layers watched; {step: as `least`})"""
    backend.keep_freed_memory()  # as `minifcn train` does
    network, forward = in_minifcn.build(work), work.task == "forward"
    if forward:
        network = network.prepare()
    steps = network.inference if forward else network.training
    watch(stopwatch, steps)
    shapes = network.shapes((work.batch, 3, work.height, work.width))
    wanted = network._wanted(False)  # whose gradients are
    amounts = {step.name: least(step, shapes, 1 if wanted.isdisjoint(step.inputs) else 2) for step in steps}
    if forward:
        images, _ = in_minifcn.batch(work)
        return lambda: network.forward(images), amounts
    return in_minifcn.training_step(network, work), amounts


def least(step, shapes, gradients):
    """({pass: floating-point operations by the definition}, {pass: bytes that have to be read or written}) of a step."""
    layer, inputs = getattr(step.layer, "conv", step.layer), [shapes[name] for name in step.inputs]
    values = sum(map(prod, (*inputs, shapes[step.name]))) + sum(p.value.size for p in layer.parameters().values())
    operations = 2 * layer.multiply_adds(*inputs)
    return {"forward": operations, "backward": gradients * operations}, {"forward": 4 * values, "backward": 8 * values}


def limits():
    """{"sgemm": a function that multiplies matrices, "copy": one that copies}, and what each does: operations, bytes."""
    a, b, c = (np.ones((2048, 2048), np.float32) for _ in range(3))
    x, y = (np.ones(1 << 25, np.float32) for _ in range(2))
    run = {"sgemm": lambda: backend.matmul(a, b, c), "copy": lambda: backend.run_blocks(np.copyto, y, x)}
    return run, {"sgemm": 2 * 2048**3, "copy": 2 * x.nbytes}


def measure(work, rounds, warm_up=2):
    """-> ({(layer, kind, pass): median seconds}, median seconds of the whole, {"sgemm", "copy": a second's amount}, amounts)"""
    stopwatch = Stopwatch()
    run, amounts = prepared(work, stopwatch)
    bounds, of_bounds = limits()
    timed = [stopwatch.around(name, function) for name, function in {"whole": run, **bounds}.items()]
    taken = []
    for _ in range(warm_up + rounds):
        for function in timed:
            function()
        taken.append(stopwatch.take())
    medians = {name: statistics.median(t[name] for t in taken[warm_up:]) for name in taken[0]}
    rates = {name: amount / medians.pop(name) for name, amount in of_bounds.items()}
    return medians, medians.pop("whole"), rates, amounts


def far_from(medians, rates, amounts, count=5):
    """Lines of text: for the longest, operations and bytes a second, and what part of the machine's they are."""
    lines = ["", f"{'of what the machine can do':60}{'GFLOP/s':>10}{'of sgemm':>10}{'GB/s':>8}{'of copy':>9}"]
    for (name, kind, which), seconds in sorted(medians.items(), key=lambda item: -item[1])[:count]:
        operations, size = (amount[which] / seconds for amount in amounts[name])
        parts = operations / rates["sgemm"], size / rates["copy"]
        lines.append(
            f"{name:32}{kind:18}{which:10}{operations / 1e9:10.0f}{100 * parts[0]:9.0f}%{size / 1e9:8.1f}{100 * parts[1]:8.0f}%"
        )
    return [*lines, f"{'the machine':60}{rates['sgemm'] / 1e9:10.0f}{'':10}{rates['copy'] / 1e9:8.1f}"]


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
    medians, whole, *bounds = measure(work, args.rounds)
    print("\n".join(table(medians, whole) + far_from(medians, *bounds)))


if __name__ == "__main__":
    main()
