"""Score a trained network: pixel accuracy, mean accuracy, mean IU, frequency-weighted IU, and the IU of each class. Where the
data set has objects, also how well each is found: TP / (TP + FP + FN) where an IoU above 0.5 is a hit, the mean of that over
the thresholds 0.50:0.05:0.95 (both averaged over images), and the average precision at 0.5. That takes scipy."""

import time
from itertools import zip_longest

from tqdm import tqdm

from .. import data, inference, models
from ..data.labels import class_numbers
from ..errors import InputError
from ..inference import sliding_window
from ..report import tables
from . import options
from .progress import notice

HELP = "score a trained network on labelled images"


def add_arguments(parser):
    options.add_device(parser)
    options.add_segmenter(parser)
    add = parser.add_argument
    add("--data", required=True, metavar="PATH", help=options.DATA)
    add("--split", default="val", help=options.SPLIT)
    add("--year", default="2012", help=options.YEAR)
    add("--limit", type=options.at_least(1), help="only the first so many images")
    options.add_size(parser)
    options.add_exif(parser)
    add("--classes", metavar="LIST", help="also print the mean IU over these classes, by number or name: 0,8,person")


def run(args):
    model = models.load_segmenter(args.weights)
    classes = model.card.classes
    sliding_window.check_tile(args.tile)
    dataset = data.open_dataset(args.data, args.split, args.year, limit=args.limit, exif=args.exif)
    if dataset.objects and classes == (*dataset.classes, data.BORDER):
        dataset = data.with_border_class(dataset)
    unnamed = classes == models.numbered(len(dataset.classes))
    classes = dataset.classes if unnamed else classes
    if dataset.classes != classes:
        pairs = enumerate(zip_longest(classes, dataset.classes, fillvalue="no class"))
        number, (ours, theirs) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
        raise InputError(
            f"{args.weights}: a network for {len(classes)} classes, but {dataset.folder} has {len(dataset.classes)}; the "
            f"first difference is class {number}: {ours} in the network, {theirs} in the data"
        )
    chosen = class_numbers(args.classes, classes) if args.classes is not None else []
    start = time.perf_counter()
    samples = data.CachedDataset(dataset, longest=args.resize, limit=0)
    matrix = inference.evaluate(model, tqdm(samples, unit="image", disable=None), len(classes), args.tile, args.turns)
    if not matrix.counts.any():
        notice(f"{dataset.folder}: no pixel of split {args.split} is labelled, so there is nothing to score (nan)")
    print(tables.scores_table({model.card.title: (matrix, time.perf_counter() - start)}))
    if chosen:
        names = ", ".join(classes[i] for i in chosen)
        print(f"mean IU over {len(chosen)} classes ({names}): {100 * matrix.mean_iou(chosen):.1f}")
    print()
    print(tables.class_table(matrix, classes))
    if samples[0].instances is not None:
        bar = tqdm(samples, unit="image", desc="objects", disable=None)
        print()
        print(tables.objects_table(*inference.evaluate_objects(model, bar, args.tile, args.turns)))
    return 0
