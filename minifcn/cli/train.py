"""Train one FCN on a folder of labelled images. Everything is kept in --out: settings, metrics, checkpoint, the best
weights, figures and report.html. Ctrl-C leaves a checkpoint; --resume goes on from it, bit by bit as if never
stopped."""

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import inference
from ..errors import InputError
from ..files import make_folder
from ..metrics import ConfusionMatrix
from ..report import figures, page, tables
from ..training.config import Config
from ..training.run import Run, read_metrics
from . import devices, options
from .progress import INTERRUPTED, do, notice

HELP = "train one network"


class Result(NamedTuple):
    """What the report needs of a run at its end, so that its network and optimiser can go."""

    folder: Path
    config: Config
    classes: tuple
    palette: np.ndarray
    matrix: ConfusionMatrix
    seconds: float
    samples: list  # some validation images
    predictions: list  # label maps of these


def add_arguments(parser):
    devices.add_option(parser)
    options.add_training(parser, single=True)


def run(args):
    """Train one network, or go on with one; then write its figures and page."""
    if not args.resume and not args.data:
        raise InputError("train: expected --data FOLDER, or --resume FOLDER; got neither")
    run = Run.resume(args.resume) if args.resume else Run(options.config_of(args), args.out)
    title = f"FCN-{run.config.options['variant']}"
    result = finish(run, title, go_on=f"minifcn train --resume {run.folder}")
    if result is None:
        return INTERRUPTED
    write_report(run.folder, title, {title: result})
    return 0


def finish(run, title, go_on):
    """Do a run to its end. -> its Result, None if Ctrl-C stopped it"""
    seconds, stopped = do(run, title, go_on)
    if stopped:
        return None
    matrix, network = run.matrix or run.evaluate(), run.model.prepare()
    samples = [run.val_data[i] for i in range(min(5, len(run.val_data)))]
    predictions = [inference.predict(network, sample.image) for sample in samples]
    card = run.model.card
    return Result(run.folder, run.config, card.classes, card.palette, matrix, seconds, samples, predictions)


def write_report(folder, title, results):
    """Figures, page and table of one Result or several by name, on the validation images of the last."""
    place = make_folder(folder / "figures")
    last = list(results.values())[-1]
    rows = [
        (sample.image, sample.label, {name: result.predictions[i] for name, result in results.items()})
        for i, sample in enumerate(last.samples)
    ]
    pictures = {
        place / "side_by_side.png": "Validation images, their labels, and the predictions of each network.",
        place / "curves.png": "Loss on the training batches, and mean IU on the validation images.",
        place / "confusion.png": f"Confusion of {list(results)[-1]}, in percent of each true class.",
    }
    side_by_side, curves, confusion = pictures
    figures.side_by_side(rows, last.classes, side_by_side, last.palette)
    figures.curves({name: read_metrics(result.folder) for name, result in results.items()}, curves)
    figures.confusion(last.matrix, last.classes, confusion)
    scores = {name: (result.matrix, result.seconds) for name, result in results.items()}
    settings = {**asdict(last.config), "network": last.config.network["builder"], **last.config.options}
    page.write_page(folder / "report.html", title, scores, last.classes, list(pictures.items()), settings)
    print(tables.scores_table(scores))
    notice(f"report: {folder / 'report.html'}")
