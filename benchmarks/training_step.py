"""How long one training step takes here, beside the same network in PyTorch where that is installed.

Both run in turn, the figures are medians over the rounds, and the ratio is between medians of the same rounds:
a lone time says little on a machine that does other things too.

    python benchmarks/training_step.py [--size 128] [--batch 6] [--width 12] [--rounds 15]
"""

import argparse
import statistics
import time

import numpy as np

from minifcn import data, models
from minifcn.training import loop, optim

try:
    import torch
    import torch.nn.functional as F
except ModuleNotFoundError:
    torch = None


def ours(images, labels, width):
    """A function that does one step with minifcn."""
    model = models.fcn("8s", "mini", 6, "same", width=width)
    optimizer = optim.Adam(model.parameters())
    return lambda: loop.update(model, images, labels, optimizer, 1e-3)


def theirs(images, labels, width):
    """A function that does one step with the same network in PyTorch."""
    channels = (width, 2 * width, 4 * width, 8 * width, 8 * width)
    nn = torch.nn

    def block(inputs, outputs, kernel=3):
        return [
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(True),
        ]

    pool = nn.MaxPool2d(2, ceil_mode=True)
    groups, inputs = [], 3
    for outputs, depth in zip(channels, (1, 1, 2, 2, 1), strict=True):
        parts = []
        for _ in range(depth):
            parts += block(inputs, outputs)
            inputs = outputs
        groups.append(nn.Sequential(*parts, pool))
    top = nn.Sequential(*block(inputs, inputs, 7), nn.Dropout(0.1), *block(inputs, inputs, 1), nn.Dropout(0.1))
    pool3, rest = nn.Sequential(*groups[:3]), groups[3:]
    scores = [nn.Conv2d(c, 6, 1) for c in (channels[2], channels[3], inputs)]
    network = nn.ModuleList([pool3, *rest, top, *scores])
    kernels = {s: torch.tensor(_bilinear(s)).repeat(6, 1, 1, 1) for s in (2, 8)}

    def up(x, s):
        return F.conv_transpose2d(x, kernels[s], stride=s, padding=s // 2, groups=6)

    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    x, target = torch.tensor(images), torch.tensor(labels.astype(np.int64))

    def step():
        tap3 = pool3(x)
        tap4 = rest[0](tap3)
        score = up(scores[2](top(rest[1](tap4))), 2) + scores[1](tap4)
        logits = up(up(score, 2) + scores[0](tap3), 8)
        loss = F.cross_entropy(logits, target, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _bilinear(factor):
    line = 1 - np.abs(np.arange(2 * factor) - (factor - 0.5)) / factor
    return np.outer(line, line).astype(np.float32)[None, None]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128, help="side of the crops, a multiple of 32")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--width", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round: only that it runs")
    args = parser.parse_args()
    if args.smoke:
        args.size, args.batch, args.width, args.rounds = 32, 2, 2, 1
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.batch, 3, args.size, args.size)).astype(np.float32)
    labels = rng.integers(0, 6, (args.batch, args.size, args.size)).astype(np.uint8)
    labels[:, :2] = data.VOID
    steps = {"minifcn": ours(images, labels, args.width)}
    if torch:
        steps["PyTorch"] = theirs(images, labels, args.width)
    times = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(args.rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(t) for name, t in times.items()}
    for name, median in medians.items():
        print(
            f"{name}: {1e3 * median:.0f} ms a step, {args.batch / median:.0f} images a second (median of {args.rounds})"
        )
    if torch:
        print(f"PyTorch / minifcn: {medians['PyTorch'] / medians['minifcn']:.2f}")


if __name__ == "__main__":
    main()
