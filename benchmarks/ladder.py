"""The ladder from FCN-32s to DeepLabv3+: the command that trains each rung, and what each rung is worth.

All are over EfficientNet-Lite0 with its last 1×1 convolution, with the same number of updates.

    python benchmarks/ladder.py commands voc --data VOC2012 > ladder.sh     # then sh ladder.sh
    python benchmarks/ladder.py table voc --data VOC2012                    # from the last weights of the runs that are there
    python benchmarks/ladder.py commands camvid --data CamVid               # …, and its table on val, or with --split test

VOC is read with the seven classes of animals.toml, put into VOC2012 as dataset.toml. The multiply-adds are those of an image of the crop's
size, summed over all views where several are averaged. `table` also gives the seconds per image, since the CRF's multiply-adds are not
counted.
"""

import argparse
import shlex
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from minifcn import cli, data, inference, models
from minifcn.metrics import BoundaryIoU
from minifcn.training.run import read_metrics

DEEPLAB = "--network deeplab --variant"


class Rung(NamedTuple):
    """A run's folder, its network's options, and what is done at test time: the CRF, and the recipe's views."""

    folder: str
    options: str
    crf: bool = False
    views: bool = False


RUNGS = {
    "FCN-32s": Rung("32s", "--variant 32s"),
    "FCN-8s": Rung("8s", "--variant 8s --at-once"),
    "output stride 16 by dilation": Rung("os16", f"{DEEPLAB} v3 --no-image-pooling --rates"),
    "+ ASPP": Rung("aspp", f"{DEEPLAB} v3 --no-image-pooling"),
    "+ image pooling (v3)": Rung("v3", f"{DEEPLAB} v3"),
    "+ decoder (v3+)": Rung("v3plus", f"{DEEPLAB} v3plus"),
    "+ CRF": Rung("v3plus", "", crf=True),
    "+ multi-scale and flip": Rung("v3plus", "", crf=True, views=True),
    "v3+, multi-scale and flip alone": Rung("v3plus", "", views=True),
}
SOLVER = "--start imagenet --frozen-statistics --optimizer adamw --lr 2e-3 --batch-size 6 --seed 0"
# data set -> (the crop's side, the scales of the views, which are mirrored too, its recipe)
RECIPES = {
    "voc": (
        320,
        [0.75, 1, 1.25],
        f"{SOLVER} --backbone-rate 0.04 --weight-decay 1e-4 --average 0.998 --scale 0.5 1.25 --colour 0.2 --iterations 3000 --eval-every 1000 "
        "--class-weights 1,1,2,1,1.5,1.5,1.5",
    ),
    "camvid": (
        320,
        [1, 1.5, 2],
        f"{SOLVER} --backbone-rate 0.05 --weight-decay 0.01 --average 0.998 --scale 0.9 2.2 --colour 0.35 --iterations 2200 --eval-every 1100 "
        "--class-weights 1,1,2.5,1,1,1,2,1.5,1,2,1.5",
    ),
    "smoke": (64, [0.75, 1, 1.25], "--batch-size 2 --iterations 1 --eval-every 1"),
}
TITLES = ("", "mean IU", "within 1 px", "2", "4", "8", "minutes", "s an update", "multiply-adds", "s an image")


def commands(args):
    """The command that trains each rung, as the arguments of minifcn."""
    side, _, recipe = RECIPES[args.recipe]
    for rung in RUNGS.values():
        if rung.options:
            where = ["train", "--data", args.data, "--out", f"{args.out}/{args.recipe}/{rung.folder}"]
            yield [*where, *f"--backbone efficientnet_lite0_head --crop {side} {rung.options} {recipe}".split()]


def folder_of(rung, args):
    return Path(args.out, args.recipe, rung.folder)


def row(name, rung, args):
    """The cells of a rung."""
    folder, (side, scales, _) = folder_of(rung, args), RECIPES[args.recipe]
    averages = ({"crf": {}} if rung.crf else {}) | ({"scales": scales, "flip": True} if rung.views else {})
    network = models.load_segmenter(folder / "checkpoint.npz")
    samples = data.open_dataset(args.data, args.split, limit=args.limit)
    boundary, start = BoundaryIoU(len(samples.classes)), time.perf_counter()
    found = inference.evaluate(network.prepare(), samples, len(samples.classes), boundary=boundary, **averages)
    seconds = (time.perf_counter() - start) / len(samples)
    scores = [matrix.mean_iou() for matrix in (found, *boundary.matrices.values())]
    trained = [event["seconds"] for event in read_metrics(folder) if event["event"] == "step"]
    views = 2 * sum(scale**2 for scale in scales) if rung.views else 1
    work = views * models.explain(network, side).multiply_adds / 1e9
    times = f"{sum(trained) / 60:.1f}", f"{statistics.median(trained):.2f}", f"{work:.2f} G", f"{seconds:.2f}"
    return [name, *(f"{100 * score:.1f}" for score in scores), *times]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "what", choices=("commands", "table", "smoke"), help="smoke: tiny runs of all rungs, and their table"
    )
    parser.add_argument("recipe", nargs="?", choices=RECIPES, default="smoke")
    parser.add_argument("--data", help="the data set's folder")
    parser.add_argument("--out", default="runs/ladder", help="where the runs are (default: %(default)s)")
    parser.add_argument("--split", default="val", help="which images the table is of (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="only the first so many of them")
    args = parser.parse_args()
    if args.what != "smoke" and (args.recipe == "smoke" or not args.data):
        parser.error(f"{args.what}: expected voc or camvid, and --data with its folder")
    with tempfile.TemporaryDirectory() as scratch:
        if args.what == "smoke":
            args.recipe, args.data, args.out = "smoke", f"{scratch}/toy", f"{scratch}/runs"
            data.write_toyvoc(args.data, train=2, val=1, size=64)
        for given in () if args.what == "table" else commands(args):
            print(shlex.join(["minifcn", *given]), flush=True)
            if args.what == "smoke" and (code := cli.main(given)):
                raise SystemExit(code)
        if args.what != "commands":
            trained = {
                name: rung for name, rung in RUNGS.items() if (folder_of(rung, args) / "checkpoint.npz").exists()
            }
            if not trained:
                parser.error(f"{args.out}/{args.recipe}: expected the runs of `ladder.py commands`, found none")
            print(f"| {' | '.join(TITLES)} |\n{'|---' * len(TITLES)}|")
            for name, rung in trained.items():
                print(f"| {' | '.join(row(name, rung, args))} |", flush=True)


if __name__ == "__main__":
    main()
