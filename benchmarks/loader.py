"""How fast batches are made, and how fast the small network takes them: samples per second.

For each data set three things take turns, a second or so each: the loader alone; training on one batch that is already
there; and training while the loader makes the batches in its own thread. The results are medians over the rounds.

    python benchmarks/loader.py [--voc VOCdevkit]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from minifcn import data, models
from minifcn.training import loop, throughput
from minifcn.training.optimizers import Adam

BATCH, LR = 8, 1e-3
NOTHING_CACHED = 0  # bytes: every image is read and decoded each time, as with a data set that does not fit in memory


def cases(toy, voc):
    """(name, data set, side of the training crops) of what is measured."""
    yield "toy, 128x128, kept in memory", data.CachedDataset(data.VOC(toy)), 128
    yield "toy, 128x128, read each time", data.CachedDataset(data.VOC(toy), limit=NOTHING_CACHED), 128
    if voc:
        yield "VOC, --resize 320 --crop 224, kept", data.CachedDataset(data.VOC(voc), longest=320), 224
        yield (
            "VOC, --resize 320 --crop 224, read",
            data.CachedDataset(data.VOC(voc), longest=320, limit=NOTHING_CACHED),
            224,
        )
        yield "VOC, whole size, --crop 128, read", data.CachedDataset(data.VOC(voc), limit=NOTHING_CACHED), 128


class Case:
    """One data set with its loader and its network. Each of the three works does so many batches. -> seconds"""

    def __init__(self, dataset, crop):
        for i in range(len(dataset)):  # the cache is full from the second epoch on
            dataset[i]
        classes = len(dataset.dataset.classes)
        self.model = models.fcn("8s", "mini", classes, "same")
        self.optimizer = Adam(self.model.parameters())
        rng = np.random.default_rng(0)
        augment = data.Augment(flip=True)
        self.stream = data.BatchStream(
            dataset, BATCH, self.model.card.preprocessing, rng, crop=(crop, crop), augment=augment
        )
        self.fixed = next(self.stream)

    def loader(self, batches):
        return throughput.seconds(self.stream.__next__, batches)

    def training(self, batches):
        return throughput.seconds(lambda: loop.update(self.model, *self.fixed, self.optimizer, LR), batches)

    def in_turn(self, batches):
        """Training that makes each batch when it needs it, without a thread."""
        start = time.perf_counter()
        for _ in range(batches):
            loop.update(self.model, *next(self.stream), self.optimizer, LR)
        return time.perf_counter() - start

    def both(self, batches):
        """Training with the batches made ahead. -> (seconds, how many of them it waited for data)"""
        with data.Prefetch(self.stream) as made:
            loop.update(self.model, *next(made), self.optimizer, LR)
            steps = loop.train(self.model, made, self.optimizer, lambda i: LR, batches)
            seconds, waited = zip(*((step.seconds, step.waited) for step in steps), strict=True)
        self.waited = sum(waited)
        return sum(seconds)


WORKS = {
    "loader alone": (Case.loader, 4),
    "training on one batch": (Case.training, 1),
    "training, batches made in turn": (Case.in_turn, 1),
    "training, batches made ahead": (Case.both, 1),
}


def measure(case, rounds, batches):
    """-> ({work: median samples a second}, median share of its time that training waited for data)"""
    found, waits = {work: [] for work in WORKS}, []
    for _ in range(rounds):
        for work, (run, factor) in WORKS.items():
            count = batches * factor
            seconds = run(case, count)
            found[work].append(BATCH * count / seconds)
            if run is Case.both:
                waits.append(case.waited / seconds)
    return {work: statistics.median(rates) for work, rates in found.items()}, statistics.median(waits)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voc", type=Path, metavar="FOLDER", help="VOCdevkit folder, to measure photographs, too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=12, help="of training in a turn (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="few scenes, one round of two batches: only that it runs")
    args = parser.parse_args()
    if args.smoke:
        args.rounds, args.batches = 1, 2
    with tempfile.TemporaryDirectory() as scratch:
        data.write_toyvoc(scratch, train=8 if args.smoke else 200, val=1, seed=0)
        for name, dataset, crop in cases(scratch, args.voc):
            rates, waited = measure(Case(dataset, crop), args.rounds, args.batches)
            loader, training, *_ = rates.values()
            print(f"{name}: the loader makes {loader / training:.1f} times what training takes")
            for work, rate in rates.items():
                print(f"  {rate:8.0f} samples/s  {work}")
            print(f"  {100 * waited:8.1f} % of the last waiting for data", flush=True)


if __name__ == "__main__":
    main()
