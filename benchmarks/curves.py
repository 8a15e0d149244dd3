"""Whether Winograd's other order of summation changes the training: the same run by Winograd and by im2col, step by step.

Any rounding error grows as training goes on, so a difference means nothing by itself. It is compared with noise: a second
im2col run whose initial weights are perturbed in the sixth digit, by as little as Winograd's results are off.

    python benchmarks/curves.py
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from minifcn import data, models, ops
from minifcn.training import loop
from minifcn.training.optimizers import Adam
from minifcn.training.schedule import SCHEDULES

RECORDS = Path(__file__).parent / "records"
NOISE = 1e-6  # relative, like the error of Winograd's float32 results
LR, WEIGHT_DECAY = 4e-3, 5e-4  # of the demo
RUNS = {  # name: (the algorithm of the convolutions, noise on the initial weights)
    "winograd": ("winograd", 0.0),
    "im2col": ("im2col", 0.0),
    "im2col, perturbed": ("im2col", NOISE),
}


def train(dataset, args, algorithm, noise):
    """-> the loss of every step"""
    model = models.fcn("8s", "mini", len(dataset.classes), "same", seed=args.seed, width=args.width)
    rng = np.random.default_rng([args.seed, 2])
    for parameter in model.parameters().values():
        if noise and not parameter.frozen:
            factor = 1 + noise * rng.standard_normal(parameter.value.shape)
            parameter.value = (parameter.value * factor).astype(np.float32)
    stream = data.BatchStream(
        data.CachedDataset(dataset),
        args.batch,
        model.card.preprocessing,
        np.random.default_rng([args.seed, 1]),
        crop=(args.crop, args.crop),
        augment=data.Augment(),
    )
    optimizer = Adam(model.parameters(), weight_decay=WEIGHT_DECAY)
    factor = SCHEDULES["poly"]
    with ops.conv_algorithm(algorithm):
        events = loop.train(model, stream, optimizer, lambda i: LR * factor(i, args.steps), args.steps)
        return [event.loss for event in events]


def differences(losses):
    """{what: {"mean", "largest", "steps"}}: absolute differences of each other run from the one by im2col."""
    base = np.array(losses["im2col"])
    found = {}
    for name in ("winograd", "im2col, perturbed"):
        steps = np.abs(np.array(losses[name]) - base)
        found[name] = {"mean": float(steps.mean()), "largest": float(steps.max()), "steps": steps.tolist()}
    return found


def draw(losses, found, path):
    """Two panels: the losses over each other, and how far they are apart."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, values), style in zip(losses.items(), ("-", "--", ":"), strict=True):
        left.plot(range(1, len(values) + 1), values, style, linewidth=1.2, label=name)
    left.set(title="the loss of each step", xlabel="step", ylabel="loss")
    labels = {
        "winograd": "winograd and im2col",
        "im2col, perturbed": f"im2col from weights changed by {NOISE:g}, and im2col",
    }
    for name, label in labels.items():
        steps = np.maximum(found[name]["steps"], 1e-9)  # a logarithm has no place for a difference of zero
        right.semilogy(range(1, len(steps) + 1), steps, linewidth=1.0, label=label)
    right.set(title="absolute differences", xlabel="step", ylabel="difference of the losses")
    for panel in (left, right):
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--width", type=int, default=16, help="of the mini backbone (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--crop", type=int, default=96, help="side of the training crops (default: %(default)s)")
    parser.add_argument("--images", type=int, default=200, help="scenes to draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RECORDS, help="folder for curves.json and curves.png")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, three steps, nothing kept: only that it runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.smoke:
            args.steps, args.width, args.batch, args.crop, args.images = 3, 2, 2, 32, 4
            args.out = Path(scratch)
        data.write_toyvoc(Path(scratch, "toy"), train=args.images, val=1, size=args.crop, seed=args.seed)
        dataset = data.VOC(Path(scratch, "toy"), "train")
        losses = {}
        for name, (algorithm, noise) in RUNS.items():
            losses[name] = train(dataset, args, algorithm, noise)
            print(f"{name}: loss {losses[name][0]:.4f} at first, {losses[name][-1]:.4f} after {args.steps} steps")
        found = differences(losses)
        for name, difference in found.items():
            print(f"{name} against im2col: largest {difference['largest']:.2e}, mean {difference['mean']:.2e}")
        settings = {name: getattr(args, name) for name in ("steps", "width", "batch", "crop", "images", "seed")}
        record = {**settings, "noise": NOISE, "losses": losses, "differences": found}
        (args.out / "curves.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        draw(losses, found, args.out / "curves.png")


if __name__ == "__main__":
    main()
