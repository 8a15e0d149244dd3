"""What each command does, once its arguments are read. Tables go to stdout, notices and progress to stderr."""

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from . import backend, data, gradcheck, inference, models, weights
from .data import images
from .data.imagenet import IMAGENET_CLASSES
from .data.labels import class_numbers, colourise
from .data.transforms import shrink
from .errors import InputError
from .files import clear_leftovers, naming, written_whole
from .inference import classify as classification
from .inference import sliding_window
from .report import figures as report
from .running import do, notice
from .training import checkpoint, pace
from .training.run import Run, read_metrics

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended


def train(args, config):
    """Train one network, or go on with one; then write its figures and page."""
    backend.keep_freed_memory()
    run = Run.resume(args.resume) if args.resume else Run(config, args.out)
    title = f"FCN-{run.config.variant}"
    seconds, stopped = do(run, title, go_on=f"minifcn train --resume {run.folder}")
    if stopped:
        return INTERRUPTED
    folder, matrix = run.folder, run.matrix or run.evaluate()
    results = {title: (matrix, seconds)}
    _write_report(folder, title, {title: run}, results)
    print(report.scores_table(results))
    notice(f"report: {folder / 'report.html'}")
    return 0


def reproduce(args, config):
    """FCN-32s from nothing, FCN-16s from that, FCN-8s from that; then the comparison. Finished parts are not done again."""
    backend.keep_freed_memory()
    folder, runs, results = Path(args.out), {}, {}
    clear_leftovers(folder)
    for variant in models.VARIANTS:
        before = list(runs.values())[-1] if runs else None
        stage = replace(config, variant=variant, start=str(before.checkpoint) if before else config.start)
        title = f"FCN-{variant}"
        run, earlier = _stage(stage, folder / variant)
        seconds, stopped = do(run, title, go_on="the same command")
        if stopped:
            return INTERRUPTED
        seconds += earlier
        runs[title], results[title] = run, (run.matrix or run.evaluate(), seconds)
    _write_report(folder, "FCN-32s, FCN-16s and FCN-8s", runs, results)
    table = {name: {**matrix.scores(), "seconds": seconds} for name, (matrix, seconds) in results.items()}
    with written_whole(folder / "scores.json") as file:
        file.write((json.dumps(table, indent=2) + "\n").encode("utf-8"))
    print(report.scores_table(results))
    notice(f"report: {folder / 'report.html'}")
    return 0


def _stage(config, folder):
    """(the Run of one stage, seconds its earlier part took): where a stopped one stands, else from the start."""
    if not (folder / "checkpoint.npz").exists():
        return Run(config, folder), 0.0
    run = Run.resume(folder)
    if run.config != config:
        raise InputError(f"{folder}: holds a run with other settings; choose another --out")
    return run, sum(record.get("seconds", 0.0) for record in read_metrics(folder))


def _write_report(folder, title, runs, results):
    """Figures and page for one run or several stages, on the validation images of the last."""
    figures = folder / "figures"
    with naming(figures):
        figures.mkdir(parents=True, exist_ok=True)
    last = list(runs.values())[-1]
    samples = [last.val_data[i] for i in range(min(5, len(last.val_data)))]
    rows = [
        (s.image, s.label, {name: inference.predict(run.model, s.image) for name, run in runs.items()}) for s in samples
    ]
    name = list(runs)[-1]
    report.side_by_side(rows, last.classes, figures / "side_by_side.png", last.model.card.palette)
    report.curves({key: read_metrics(run.folder) for key, run in runs.items()}, figures / "curves.png")
    report.confusion(results[name][0], last.classes, figures / "confusion.png")
    report.write_page(
        folder / "report.html",
        title,
        results,
        last.classes,
        [
            (figures / "side_by_side.png", "Validation images, their labels, and what each network makes of them."),
            (figures / "curves.png", "Loss on the training batches, and mean IU on the validation images."),
            (figures / "confusion.png", f"Confusion of {name}, in percent of each true class."),
        ],
        last.config.as_dict(),
    )


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
    print(report.scores_table({f"FCN-{model.variant}": (matrix, time.perf_counter() - start)}))
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
    stems = _stems(paths)
    for path, stem in zip(tqdm(paths, unit="image", disable=None), stems, strict=True):
        image = images.read_image(path)
        labels = inference.predict(model, image)
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
        print(_keeps_up(args.data, pace.measure(model, stream)))
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
