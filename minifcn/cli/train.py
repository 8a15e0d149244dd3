"""Train one FCN, U-Net, DeepLab or panoptic network on a folder of labelled images. Everything is kept in --out: settings, metrics,
checkpoint, the best weights, figures and report.html. Ctrl-C leaves a checkpoint; --resume continues from it, bit for bit as if never
stopped: with compiled kernels (minifcn info) on any number of threads, without them on the same number (MINIFCN_THREADS). If the data have
moved, --resume takes their new place by --data (and --sbd)."""

import shlex
from pathlib import Path
from typing import NamedTuple

from .. import inference
from ..card import Card
from ..errors import InputError
from ..files import make_folder
from ..metrics import ConfusionMatrix
from ..report import figures, page, tables
from ..tasks import PanopticScores
from ..training.config import NETWORKS, Config, check_count
from ..training.run import MOVABLE, Run, read_metrics
from . import launch, options
from .progress import INTERRUPTED, do, leads, notice

HELP = "train one network"


class Result(NamedTuple):
    """What the report needs from a finished run, so that its network and optimiser can be freed."""

    folder: Path
    config: Config
    card: Card
    matrix: ConfusionMatrix
    seconds: float
    samples: list  # some validation images
    predictions: list  # label map of each
    objects: list = []  # the Objects in each, of a panoptic network


PROCESSES = (
    "train in N processes on this host, each with its part of every batch, through mpirun; on two cores, 2 took 0.94 of the time of two "
    "threads for EfficientNet-Lite0 with --frozen-statistics, 0.84 and 0.95 for mini"
)


def add_arguments(parser):
    options.add_device(parser)
    launch.add_processes(parser, PROCESSES)
    options.add_training(parser, single=True)


def run(args):
    """Train one network, or go on with one; then write its figures and page."""
    given = options.given_settings(args)
    if not args.resume and "data" not in given:
        raise InputError("train: expected --data FOLDER, or --resume FOLDER; got neither")
    if args.resume and args.out:
        raise InputError("out: --resume goes on in the folder of the run; leave --out out")
    if not args.resume:
        config = options.config_of(args)
        check_count(given, config.flat())
    moved = {name: given.pop(name) for name in MOVABLE if args.resume and name in given}
    run = Run.resume(args.resume, **moved) if args.resume else Run(config, args.out or options.OUT)
    if run.config.network["builder"] not in NETWORKS:
        raise InputError(f"train: {run.folder} holds the first stage of minifcn reproduce; go on with that command")
    own = run.config.flat()
    if other := [name for name, value in given.items() if own.get(name) != value]:
        raise InputError(
            f"train: --resume goes on with the settings of {args.resume}, got another --{' --'.join(other).replace('_', '-')}; "
            f"for other settings start a new run from its weights: --start {Path(args.resume, 'best.npz')} --out FOLDER"
        )
    title = run.model.card.title
    go_on = f"minifcn train --resume {shlex.quote(str(run.folder))}"
    go_on += f" --processes {args.processes}" if args.processes else ""
    result = finish(run, title, go_on)
    if result is None:
        return INTERRUPTED
    if leads():
        write_report(run.folder, title, {title: result})
    return 0


def finish(run, title, go_on):
    """Run to the end. -> its Result, None if Ctrl-C stopped it"""
    if (seconds := seconds_of(run, title, go_on)) is None:
        return None
    return result_of(run, run.network, run.matrix or run.evaluate(), seconds)


def seconds_of(run, title, go_on):
    """Run to the end. -> the seconds that it took, including the updates before it was resumed; None if Ctrl-C stopped it"""
    earlier = 0.0
    if run.done and run.writes and run.metrics.exists():  # other processes may not see the run's folder
        earlier = sum(record.get("seconds", 0.0) for record in read_metrics(run.folder))
    seconds = do(run, title, go_on)
    return None if seconds is None else earlier + seconds


def result_of(run, network, matrix, seconds):
    """The Result of a network on a run's data, with its predictions for some of them."""
    network = network.prepare()
    samples = [run.val_data[i] for i in range(min(5, len(run.val_data)))]
    if network.card.builder == "panoptic":
        objects = [inference.panoptic(network, sample.image) for sample in samples]
        predictions = [found.labels for found in objects]
    else:
        objects, predictions = [], [inference.predict(network, sample.image) for sample in samples]
    return Result(run.folder, run.config, run.model.card, matrix, seconds, samples, predictions, objects)


def write_report(folder, title, results, staged=None, more=None):
    """Figures, page and table of one Result or several by name, on the validation images of the last.

    staged: the names of those that were trained one after the other, all unless given. more: {picture: caption} of others.
    """
    place = make_folder(folder / "figures")
    name, last = list(results.items())[-1]
    classes, palette = last.card.classes, last.card.palette
    pictures = {
        place / "side_by_side.png": "Validation images, their labels, and the predictions of each network.",
        place / "curves.png": "Loss on the training batches, and mean IU on the validation images.",
        place / "confusion.png": f"Confusion of {name}, in percent of each true class.",
    }
    side_by_side, curves, confusion = pictures
    pictures = {side_by_side: pictures[side_by_side], **(more or {}), **pictures}
    if last.objects:
        objects = place / "objects.png"
        pictures[objects] = f"The true objects, and those that {name} finds, numbered from the highest centre on."
        figures.objects(last.samples, last.objects, classes, objects)
    predictions = {name: result.predictions for name, result in results.items()}
    figures.side_by_side(last.samples, predictions, classes, side_by_side, palette)
    figures.curves({name: read_metrics(results[name].folder) for name in staged or results}, curves)
    figures.confusion(last.matrix, classes, confusion)
    scores = {name: (result.matrix, result.seconds) for name, result in results.items()}
    page.write_page(folder / "report.html", title, scores, classes, pictures, last.config.flat())
    print(tables.scores_table(scores))
    if judged := {name: matrix for name, (matrix, _) in scores.items() if isinstance(matrix, PanopticScores)}:
        print(tables.panoptic_table(judged))
    notice(f"report: {folder / 'report.html'}")
