"""The article's story on any folder of labelled images: a classifier of windows, the classifier as a dense predictor,
FCN-32s trained from it, FCN-16s from that, FCN-8s from that; the article's Table 2 and Figure 4 at your scale. After Ctrl-C the same
command resumes where it stopped. The classifier stage is for the backbone mini; any other --start replaces it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import inference, models
from ..data.labels import VOID
from ..data.targets import scipy_ndimage
from ..errors import InputError
from ..files import clear_leftovers, json_text, make_folder, write_text
from ..inference import classify
from ..report import figures, tables
from ..tasks import PanopticScores
from ..training import checkpoint
from ..training.config import NETWORKS, check_count, own_options
from ..training.run import Run
from . import options
from .progress import INTERRUPTED, notice
from .train import finish, result_of, seconds_of, write_report

HELP = "train a classifier, FCN-32s from it, then FCN-16s, then FCN-8s, and compare them"
CLASSIFIER = "classifier"
OBJECTS = "panoptic FCN-8s"
MAPS = 3  # classes whose heat-maps are drawn


def add_arguments(parser):
    options.add_device(parser)
    options.add_training(parser, single=False)
    add = parser.add_argument
    add("--from-scratch", action="store_true", help="begin with FCN-32s from random weights, without a classifier")
    control = (
        "also train FCN-32s for one and two more stages of updates: what 16s and 8s would gain without their skips"
    )
    add("--control", action="store_true", help=control)
    instances = "also train a panoptic network from FCN-8s, which separates objects of one class; needs scipy"
    add("--instances", action="store_true", help=instances)


def run(args):
    """All stages in turn, then the comparison. Finished stages are not done again."""
    config, folder, results, more = options.config_of(args), Path(args.out), {}, {}
    clear_leftovers(folder)
    last = _panoptic(config, folder / "panoptic") if args.instances else None
    check_count(options.given_settings(args), (last or config).flat())
    start = config.start
    if config.options["backbone"] == "mini" and not (start or args.from_scratch):
        if not (folder / "32s/checkpoint.npz").exists():
            # Refuse now what the next stage would refuse, before a classifier is trained for it.
            Run(replace(config.with_options(variant="32s"), frozen_statistics=False), folder / "32s")
        found = _classifier(config, folder)
        if found is None:
            return INTERRUPTED
        results[CLASSIFIER], more, start = found
    stages = [("32s", "FCN-32s", "32s", start)]
    if args.control:
        stages += [("32s-2x", "FCN-32s 2x", "32s", "32s"), ("32s-3x", "FCN-32s 3x", "32s", "32s-2x")]
    stages += [("16s", "FCN-16s", "16s", "32s"), ("8s", "FCN-8s", "8s", "16s")]
    if args.instances:
        stages += [("panoptic", OBJECTS, None, "8s")]
    checkpoints = {}
    for name, title, variant, start in stages:
        start = checkpoints.get(start, start)
        settings = config.with_options(variant=variant) if variant else last
        run = _stage(replace(settings, start=start), folder / name)
        checkpoints[name] = str(run.checkpoint)
        result = finish(run, title, go_on="the same command")
        if result is None:
            return INTERRUPTED
        results[title] = result
        if not variant:
            connected = PanopticScores(len(result.card.classes), inference.things_of(run.network))
            inference.evaluate_panoptic(run.network, run.val_data, len(result.card.classes), connected=connected)
        del run  # or it would stay in memory during the next stage
    table = {name: {**result.matrix.scores(), "seconds": result.seconds} for name, result in results.items()}
    write_text(folder / "scores.json", json_text(table, indent=2) + "\n")
    staged = [*(f"FCN-{variant}" for variant in models.VARIANTS), *([OBJECTS] if args.instances else [])]
    write_report(
        folder, "From a classifier to FCN-8s" if more else "FCN-32s, FCN-16s and FCN-8s", results, staged, more
    )
    if args.instances:
        print(tables.panoptic_table({"connected": connected}))
    return 0


def _panoptic(config, folder):
    """The settings of the panoptic stage: FCN-8s with a branch for objects, for twice as many updates.

    Raises InputError for what that stage would refuse: settings, data, a missing SciPy.
    """
    given = {name: value for name, value in config.options.items() if value != NETWORKS["fcn"][name]}
    own_options("panoptic", given, NETWORKS["panoptic"])
    scipy_ndimage("reproduce --instances")
    network = {"builder": "panoptic", "options": NETWORKS["panoptic"] | {"backbone": "mini"} | given}
    settings = replace(config, network=network, iterations=2 * config.iterations)
    if not (folder / "checkpoint.npz").exists():
        Run(replace(settings, start=None), folder)  # nothing is written before its first event
    return settings


def _stage(config, folder):
    """The Run of one stage: resumed where it was stopped, else from the start."""
    if not (folder / "checkpoint.npz").exists():
        return Run(config, folder)
    run = Run.resume(folder)
    if run.config != config:
        raise InputError(f"{folder}: holds a run with other settings; choose another --out")
    return run


def _classifier(config, folder):
    """Train a classifier on windows: which class is in the middle? Then make it a dense predictor, and train nothing more.

    -> (the Result of the dense predictor, {picture of heat-maps: its caption}, the classifier's checkpoint); None if Ctrl-C
    stopped it. Windows have a quarter of the pixels of FCN-32s's crops at their usual size, so four times as many make a batch.
    """
    width = config.options["width"]
    network = {"builder": "mini", "options": {} if width is None else {"width": width}}
    crop, batch_size = models.mini(1).card.native, 4 * config.batch_size
    run = _stage(replace(config, network=network, crop=crop, batch_size=batch_size), folder / CLASSIFIER)
    if (seconds := seconds_of(run, CLASSIFIER, "the same command")) is None:
        return None
    windows = run.matrix or run.evaluate()
    if windows.counts.any():
        right = 100 * windows.pixel_accuracy()
        notice(f"{CLASSIFIER}: of windows of {crop} pixels of the validation images it tells {right:.1f} % right")
    card = run.network.card
    dense = models.fcn(**{**config.options, "variant": "32s", "num_classes": card.num_classes})
    dense.card.classes, dense.card.palette = card.classes, card.palette
    checkpoint.start_from(str(run.checkpoint), dense)
    matrix = inference.evaluate(dense, run.val_data, card.num_classes)
    return result_of(run, dense, matrix, seconds), _heat_maps(run, folder), str(run.checkpoint)


def _heat_maps(run, folder):
    """Draw where a classifier finds the classes of one validation image, the first with the most of them. -> {path: caption}"""
    samples = [run.val_data[i] for i in range(min(5, len(run.val_data)))]
    shown = [[c for c in np.unique(sample.label) if c not in (0, VOID)][:MAPS] for sample in samples]
    image, classes = max(zip((sample.image for sample in samples), shown, strict=True), key=lambda pair: len(pair[1]))
    names = {run.network.card.classes[c]: c for c in classes or [0]}
    heats = {name: classify.heat_map(run.network, image, [c], window=1) for name, c in names.items()}
    path = make_folder(folder / "figures") / "heat_maps.png"
    figures.heat_map(image, heats, path)
    return {
        path: f"The classifier, run as a convolution, says where: its scores for {', '.join(names)}, 32 pixels a cell."
    }
