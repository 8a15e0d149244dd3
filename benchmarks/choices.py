"""Whether every convolution of the networks gets its fastest algorithm: all that apply, timed against what "auto" picks.

Each distinct convolution of a network's forward, and each of its passes (forward, input gradient, weight gradient), is
measured by itself in float32, its maps with the channels last as they are inside a network. The algorithms take turns,
after one warm-up turn each, which also fills what a prepared network caches, so that the forward is that of inference.
Left out are the loops of "naive", which are never the fastest; the gradient of the image, which nobody needs; and
convolutions that only im2col can compute, which are only counted.

    python benchmarks/choices.py                     # everything; leave the machine alone meanwhile
    python benchmarks/choices.py --network vgg16     # one network anew; what is on record of the others stays
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import in_minifcn
import numpy as np
import record
import works

from minifcn import backend, layers
from minifcn.ops import maps
from minifcn.ops.conv import choice, depthwise, im2col, pointwise, winograd

RECORDS = Path(__file__).parent / "records"
NETWORKS = {
    "vgg16": works.VGG,
    "alexnet": replace(works.VGG, backbone="alexnet"),
    "lite0": works.LITE0,
    "lite0, training": replace(works.LITE0_STEP, task="forward"),
    "mini": works.MINI,
}
SMOKE = ("vgg16", "mini")
GOAL = 1.15  # the pick's time over the fastest one's
TURN = 0.02  # seconds that a turn lasts at least: shorter work is repeated
TITLES = "| layer | x → channels, kernel/stride | pass | pick | fastest | ratio | ms |"


def convolutions(work):
    """{(shape of x, shape of w, Window): names of the layers}, from one forward of a network, layer by layer as in training."""
    network, found = in_minifcn.build(work), {}

    def noting(layer, x, train):
        y, cache = type(layer).run(layer, x, train)
        found.setdefault((x.shape, layer.weight.value.shape, cache[-1]), []).append(layer.name)
        return y, cache

    for layer in network.layers_of(layers.Conv2d):
        layer.run = partial(noting, layer)
    network.forward(
        in_minifcn.batch(work)[0], train=True
    )  # in inference other layers run: convolutions with their ReLU
    return found


def algorithms(window, w_shape):
    """The modules that can compute such a convolution, without the loops."""
    fits = {
        pointwise: pointwise.applies(window),
        depthwise: depthwise.applies(window, w_shape),
        winograd: winograd.applies(window),
    }
    return [im2col, *(module for module, applies in fits.items() if applies)]


def passes(x_shape, w_shape, window):
    """{pass: (the module that "auto" picks, a function that lets a module do the pass)}"""
    rng = np.random.default_rng(0)

    def drawn(*shape):
        drawn = maps.new_maps(np.empty(shape, np.float32), shape[1], shape[2:])
        drawn[...] = rng.standard_normal(shape, np.float32)
        return drawn

    x, dy = drawn(*x_shape), drawn(x_shape[0], w_shape[0], *window.output_size)
    w = rng.standard_normal(w_shape, np.float32)
    forward, of_inputs, of_weights = (
        choice.choose(window, w_shape, len(x), gradient) for gradient in (None, "inputs", "weights")
    )
    cached = {module: {} for module in (im2col, depthwise, pointwise, winograd)}
    found = {"forward": (forward, lambda module: module.forward(x, w, window, cached=cached[module]))}
    if x_shape[1] > 3:
        found["input gradient"] = of_inputs, lambda module: module.input_gradient(dy, w, window)
    return found | {"weight gradient": (of_weights, lambda module: module.weight_gradient(x, dy, window))}


def measure(run, modules, rounds):
    """{module: median seconds of run(module)} of so many rounds, in each of which all take turns."""

    def turn(module, repeats=1):
        start = time.perf_counter()
        for _ in range(repeats):
            run(module)
        return (time.perf_counter() - start) / repeats

    repeats = {module: max(1, round(TURN / turn(module))) for module in modules}  # the warm-up
    seconds = {module: [] for module in modules}
    for number in range(rounds):
        first = number % len(modules)
        for module in modules[first:] + modules[:first]:
            seconds[module].append(turn(module, repeats[module]))
    return {module: statistics.median(taken) for module, taken in seconds.items()}


def compare(work, rounds):
    """-> {"single": how many convolutions only im2col can compute, "rows": [one for each pass of the others]}"""
    rows, single = [], 0
    for (x_shape, w_shape, window), names in convolutions(work).items():
        modules = algorithms(window, w_shape)
        if len(modules) == 1:
            single += 1
            continue
        for which, (pick, run) in passes(x_shape, w_shape, window).items():
            medians = measure(run, modules, rounds)
            fastest = min(medians, key=medians.get)
            row = {
                "layer": names[0] + (f" + {len(names) - 1}" if names[1:] else ""),
                "shape": f"{' × '.join(map(str, x_shape))} → {w_shape[0]}, {w_shape[2]}×{w_shape[3]}/{window.stride[0]}",
                "pass": which,
                "pick": name(pick),
                "fastest": name(fastest),
                "ms": {name(module): 1e3 * seconds for module, seconds in medians.items()},
                "ratio": medians[pick] / medians[fastest],
            }
            print(line(row), flush=True)
            rows.append(row)
    return {"single": single, "rows": rows}


def name(module):
    return module.__name__.rpartition(".")[2]


def line(row):
    times = ", ".join(f"{algorithm} {ms:.2f}" for algorithm, ms in row["ms"].items())
    start = f"{row['layer']:27} | {row['shape']:36} | {row['pass']:15} | {row['pick']:9} | {row['fastest']:9}"
    return f"| {start} | {row['ratio']:5.2f} | {times} |"


def summary(networks):
    """Lines: of each network, how often the pick was the fastest, and the worst ratio; whether all are good enough."""
    for network, found in networks.items():
        ratios = [row["ratio"] for row in found["rows"]]
        yield (
            f"- {network}: the fastest in {ratios.count(1)} of {len(ratios)} passes, at worst {max(ratios):.2f} times its "
            f"time; {found['single']} distinct convolutions that only im2col can compute"
        )
    worst = max(row["ratio"] for found in networks.values() for row in found["rows"])
    yield f"- {'all' if worst <= GOAL else 'NOT all'} picks are within {GOAL - 1:.0%} of the fastest"


def markdown(networks):
    """The tables, after what follows from them."""
    lines = ["# The algorithms that convolutions get", "", *summary(networks)]
    for network, found in networks.items():
        where = f"{found['cpu']}, {found['threads']} threads, {found['date']}; medians of {found['rounds']} rounds"
        lines += ["", f"## {network}", "", where, "", TITLES, "|---" * 7 + "|", *map(line, found["rows"])]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, help="only this one (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="medians are of so many (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RECORDS / "choices.json", help="the record, JSON")
    parser.add_argument("--markdown", type=Path, default=RECORDS / "choices.md", help="the tables")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round, nothing kept: only that it runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.smoke:
            args.rounds, args.out, args.markdown = 1, Path(scratch, "choices.json"), Path(scratch, "choices.md")
        networks = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
        for network in [args.network] if args.network else SMOKE if args.smoke else NETWORKS:
            work = works.tiny(NETWORKS[network]) if args.smoke else NETWORKS[network]
            found = {**record.machine(backend.threads()), "rounds": args.rounds, **compare(work, args.rounds)}
            networks[network] = found
            args.out.write_text(json.dumps(networks, indent=1) + "\n", encoding="utf-8")
            args.markdown.write_text(markdown(networks), encoding="utf-8")
        print("\n".join(summary(networks)))


if __name__ == "__main__":
    main()
