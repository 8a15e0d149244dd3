"""What each command does, once its arguments are read. Tables go to stdout, notices and progress to stderr."""

import json
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from . import data, gradcheck, inference, models, weights
from .data import images
from .data.imagenet import IMAGENET_CLASSES
from .data.labels import class_numbers, colourise
from .data.transforms import shrink
from .errors import InputError
from .files import atomic_write, clear_leftovers, writing
from .inference import classify as classification
from .inference import sliding_window
from .metrics import ConfusionMatrix
from .report import figures as report
from .running import do, notice
from .training import checkpoint, throughput
from .training.config import Config
from .training.run import Run, read_metrics

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended


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


def train(args, config):
    """Train one network, or go on with one; then write its figures and page."""
    run = Run.resume(args.resume) if args.resume else Run(config, args.out)
    title = f"FCN-{run.config.options['variant']}"
    result = _finish(run, title, go_on=f"minifcn train --resume {run.folder}")
    if result is None:
        return INTERRUPTED
    _write_report(run.folder, title, {title: result})
    return 0


def reproduce(args, config):
    """FCN-32s from nothing, FCN-16s from that, FCN-8s from that; then the comparison. Finished stages are not done again."""
    folder, start, results = Path(args.out), config.start, {}
    clear_leftovers(folder)
    for variant in models.VARIANTS:
        run, earlier = _stage(replace(config.with_options(variant=variant), start=start), folder / variant)
        title, start = f"FCN-{variant}", str(run.checkpoint)
        result = _finish(run, title, go_on="the same command")
        if result is None:
            return INTERRUPTED
        results[title] = result._replace(seconds=result.seconds + earlier)
        del run  # or the next stage would train beside it
    table = {name: {**result.matrix.scores(), "seconds": result.seconds} for name, result in results.items()}
    with atomic_write(folder / "scores.json") as file:
        file.write((json.dumps(table, indent=2) + "\n").encode("utf-8"))
    _write_report(folder, "FCN-32s, FCN-16s and FCN-8s", results)
    return 0


def _stage(config, folder):
    """(the Run of one stage, seconds its earlier part took): where a stopped one stands, else from the start."""
    if not (folder / "checkpoint.npz").exists():
        return Run(config, folder), 0.0
    run = Run.resume(folder)
    if run.config != config:
        raise InputError(f"{folder}: holds a run with other settings; choose another --out")
    return run, sum(record.get("seconds", 0.0) for record in read_metrics(folder))


def _finish(run, title, go_on):
    """Do a run to its end. -> its Result, None if Ctrl-C stopped it"""
    seconds, stopped = do(run, title, go_on)
    if stopped:
        return None
    matrix, network = run.matrix or run.evaluate(), run.model.prepare()
    samples = [run.val_data[i] for i in range(min(5, len(run.val_data)))]
    predictions = [inference.predict(network, sample.image) for sample in samples]
    card = run.model.card
    return Result(run.folder, run.config, card.classes, card.palette, matrix, seconds, samples, predictions)


def _write_report(folder, title, results):
    """Figures, page and table of one Result or several by name, on the validation images of the last."""
    figures = folder / "figures"
    with writing(figures):
        figures.mkdir(parents=True, exist_ok=True)
    last = list(results.values())[-1]
    rows = [
        (sample.image, sample.label, {name: result.predictions[i] for name, result in results.items()})
        for i, sample in enumerate(last.samples)
    ]
    pictures = {
        figures / "side_by_side.png": "Validation images, their labels, and the predictions of each network.",
        figures / "curves.png": "Loss on the training batches, and mean IU on the validation images.",
        figures / "confusion.png": f"Confusion of {list(results)[-1]}, in percent of each true class.",
    }
    side_by_side, curves, confusion = pictures
    report.side_by_side(rows, last.classes, side_by_side, last.palette)
    report.curves({name: read_metrics(result.folder) for name, result in results.items()}, curves)
    report.confusion(last.matrix, last.classes, confusion)
    scores = {name: (result.matrix, result.seconds) for name, result in results.items()}
    settings = {**asdict(last.config), "network": last.config.network["builder"], **last.config.options}
    report.write_page(folder / "report.html", title, scores, last.classes, list(pictures.items()), settings)
    print(report.scores_table(scores))
    notice(f"report: {folder / 'report.html'}")


def evaluate(args):
    """The four scores and the IU of each class, of a trained network on a labelled split."""
    model = checkpoint.load_segmenter(args.weights)
    classes = model.card.classes
    sliding_window.check_tile(args.tile)
    dataset = data.open_dataset(args.data, args.split, args.year, limit=args.limit or None)
    if dataset.classes != classes:
        raise InputError(
            f"{args.weights}: a network for {len(classes)} classes ({', '.join(classes[:3])}, …), "
            f"but {dataset.folder} has {len(dataset.classes)} ({', '.join(dataset.classes[:3])}, …)"
        )
    chosen = class_numbers(args.classes, classes) if args.classes else []
    start = time.perf_counter()
    samples = data.Kept(dataset, longest=args.resize, limit=0)
    matrix = inference.evaluate(model, tqdm(samples, unit="image", disable=None), len(classes), args.tile)
    print(report.scores_table({f"FCN-{model.card.options['variant']}": (matrix, time.perf_counter() - start)}))
    if chosen:
        print(
            f"mean IU over {len(chosen)} classes ({', '.join(classes[i] for i in chosen)}): {100 * matrix.mean_iou(chosen):.1f}"
        )
    print()
    print(report.class_table(matrix, classes))
    return 0


def _stems(paths):
    """A name for what is made of each image: its stem, or more where two images would overwrite each other's."""
    choices = [(p.stem, p.name, "_".join(p.parts[-2:]), "_".join(p.absolute().parts[1:])) for p in paths]
    counts = [Counter(level) for level in zip(*choices, strict=True)]
    return [
        next((name for name, count in zip(names, counts, strict=True) if count[name] == 1), names[-1])
        for names in choices
    ]


def predict(args):
    """A palette mask and an overlay for each image."""
    model = checkpoint.load_segmenter(args.weights)
    paths = [path for given in args.images for path in images.image_files(given)]
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    stems, network = _stems(paths), model.prepare()
    for path, stem in zip(tqdm(paths, unit="image", disable=None), stems, strict=True):
        image = images.read_image(path)
        labels = inference.predict(network, image)
        images.write_mask(out / f"{stem}.png", labels, model.card.palette)
        coloured = colourise(labels, model.card.palette)
        overlay = np.where(coloured.any(axis=2, keepdims=True), image * 0.4 + coloured * 0.6, image)
        Image.fromarray(overlay.astype(np.uint8)).save(out / f"{stem}_overlay.jpg", quality=92)
    notice(f"{len(paths)} masks and overlays written to {out}")
    return 0


def classify(args):
    """The likeliest ImageNet classes of each photograph, and a picture of where one of them is."""
    model = models.CLASSIFIERS[args.network]()
    if args.weights:
        notice(weights.load_any(args.weights, model))
    elif args.network == "efficientnet_lite0":
        weights.load_pretrained(model)
    else:
        raise InputError(f"classify: {args.network} has no weights that come with a package; expected --weights FILE")
    if args.top < 1:
        raise InputError(f"top: expected at least 1 class, got {args.top}")
    chosen = class_numbers(args.heatmap, IMAGENET_CLASSES) if args.heatmap is not None else []
    paths = [path for given in args.images for path in images.image_files(given)]
    if chosen:
        Path(args.out).mkdir(parents=True, exist_ok=True)
    for path, stem in zip(paths, _stems(paths), strict=True):
        image = images.read_image(path)
        print(path)
        for number, share in classification.top(model, image, args.top):
            print(f"  {100 * share:5.1f} %  {IMAGENET_CLASSES[number]} ({number})")
        if chosen:
            image = shrink(image, image[:, :, 0], args.resize)[0]
            heat = classification.heat_map(model, image, chosen)
            names = ", ".join(IMAGENET_CLASSES[i] for i in chosen)
            picture = Path(args.out) / f"{stem}_heatmap.png"
            report.heat_map(image, heat, classification.peak(heat, image.shape[:2]), f"score of {names}", picture)
            notice(f"heat-map: {picture}")
    return 0


def explain(args):
    """What a network would cost, layer by layer; with --data, whether reading them keeps up with training it."""
    dataset = None
    if args.data:
        if not args.variant:
            raise InputError("explain: --data is for an FCN; expected --variant, too")
        dataset = data.open_dataset(args.data)
        args.num_classes = args.num_classes or dataset.num_classes
    model = _network(args)
    size = args.size or [model.card.native or 500]
    if len(size) > 2:
        raise InputError(f"size: expected one side, or height and width; got {len(size)} numbers")
    print(models.explain(model, tuple(size) if len(size) == 2 else size[0], args.batch))
    if dataset:
        crop = (size[0], size[-1])
        stream = data.BatchStream(dataset, args.batch, model.card.preprocessing, np.random.default_rng(0), crop=crop)
        print(_keeps_up(args.data, throughput.measure(model, stream)))
    return 0


def _keeps_up(name, found):
    """One line that says which of the two waits for the other."""
    told = f"{name}: {found.loader:.1f} samples a second are read and cut; the network trains on {found.training:.1f}"
    if found.data_keep_up:
        return f"{told}: the data keep up"
    return f"{told}: the data are the bottleneck; images shrunk beforehand or a faster disk would help"


def _network(args):
    """The classifier, or with --variant the FCN over its trunk, that the arguments name."""
    if args.num_classes is not None and args.num_classes < 1:
        raise InputError(f"num-classes: expected at least 1, got {args.num_classes}")
    if args.variant:
        if args.network not in models.BACKBONES:
            raise InputError(
                f"{args.command}: there is no FCN over {args.network}, but over {', '.join(models.BACKBONES)}"
            )
        classes, more = args.num_classes or 21, {"at_once": args.at_once, "upsampling": args.upsampling}
        return models.fcn(args.variant, args.network, classes, args.alignment, **more)
    if args.network not in models.CLASSIFIERS:
        raise InputError(
            f"{args.command}: {args.network} is a trunk only; expected --variant {', '.join(models.VARIANTS)}"
        )
    return models.CLASSIFIERS[args.network](args.num_classes or 1000)


def convert(args):
    """Weights from one file format into another, by way of the network they belong to."""
    source, target = Path(args.source), Path(args.target)
    writers = {".npz": weights.save, ".safetensors": weights.save_safetensors}
    if target.suffix not in writers:
        raise InputError(f"{target}: expected a file ending in {' or '.join(writers)}")
    if target.exists():
        raise InputError(f"{target}: exists already")
    if source.suffix == ".npz" or (source.suffix == ".safetensors" and not args.network):
        model = checkpoint.load_network(source)
        told = f"{source}: {len(model.state_dict())} arrays"
    elif args.network:
        model = _network(args)
        told = weights.load_any(source, model)
    else:
        raise InputError(f"{source}: expected --network, which network these weights are for")
    writers[target.suffix](target, model)
    notice(told)
    notice(f"written: {target}")
    return 0


def check_gradients(args):
    """Finite differences against the backward passes of a whole network, printed by variant."""
    rng = np.random.default_rng(args.seed)
    worst = 0.0
    for variant in models.VARIANTS if args.variant == "all" else (args.variant,):
        model = models.fcn(variant, "mini", 4, args.alignment, seed=args.seed, width=2)
        for name, parameter in model.parameters().items():
            if name.startswith("score"):  # zero at the start, so that nothing behind them would be tested
                parameter.value = rng.standard_normal(parameter.value.shape).astype(np.float32)
        found = gradcheck.check_layer(model, rng.standard_normal((3, 3, 64, 70)), rng, directions=2, elements=2)
        print(f"FCN-{variant}: {found}")
        worst = max(worst, found.max_relative_error)
    if not worst <= gradcheck.TOLERANCE:
        raise InputError(f"gradcheck: the worst relative error {worst:.1e} is above {gradcheck.TOLERANCE:.0e}")
    return 0


def make_toy_data(args):
    """Draw the toy data set."""
    data.write_toyvoc(args.root, train=args.train, val=args.val, size=args.size, seed=args.seed)
    notice(f"{args.train} training and {args.val} validation images written to {args.root}")
    return 0
