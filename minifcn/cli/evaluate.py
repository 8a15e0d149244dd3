"""Score a trained network: pixel accuracy, mean accuracy, mean IU, frequency-weighted IU, and the IU of each class. Where the
data set has objects, also how well each is found: TP / (TP + FP + FN) where an IoU above 0.5 is a hit, the mean of that over
the thresholds 0.50:0.05:0.95 (both averaged over images), and the average precision at 0.5. That takes scipy."""

import time

from tqdm import tqdm

from .. import inference, models
from ..data.labels import class_numbers
from ..errors import InputError
from ..metrics import BoundaryIoU
from ..report import tables
from ..tasks import PanopticScores
from . import options
from .progress import notice

HELP = "score a trained network on labelled images"


def add_arguments(parser):
    options.add_device(parser)
    options.add_segmenter(parser)
    options.add_labelled(parser)
    options.add_averages(parser)
    add = parser.add_argument
    add("--boundary", action="store_true", help="also print the mean IU near outlines, within 1, 2, 4 and 8 pixels")
    connected = (
        "of a panoptic network: also score the connected parts of each class as objects, to compare; takes scipy"
    )
    add("--connected", action="store_true", help=connected)
    add("--classes", metavar="LIST", help="also print the mean IU over these classes, by number or name: 0,8,person")


def run(args):
    model = models.load_segmenter(args.weights)
    panoptic = model.card.builder == "panoptic"
    options.check_averages(args, model.card)
    if args.connected and not panoptic:
        raise InputError(f"connected: expected a panoptic network, got {args.weights}; leave --connected out")
    samples, classes = options.labelled(args, model.card)
    chosen = class_numbers(args.classes, classes) if args.classes is not None else []
    start = time.perf_counter()
    boundary = BoundaryIoU(len(classes)) if args.boundary else None
    averages, bar = options.averages_of(args), tqdm(samples, unit="image", disable=None)
    if panoptic:
        connected = PanopticScores(len(classes), inference.things_of(model)) if args.connected else None
        matrix = inference.evaluate_panoptic(model, bar, len(classes), args.tile, connected=connected)
    else:
        matrix = inference.evaluate(model, bar, len(classes), args.tile, boundary=boundary, **averages)
    if not matrix.counts.any():
        notice(f"{args.data}: no pixel of split {args.split} is labelled, so there is nothing to score (nan)")
    print(tables.scores_table({model.card.title: (matrix, time.perf_counter() - start)}))
    if chosen:
        names = ", ".join(classes[i] for i in chosen)
        print(f"mean IU over {len(chosen)} classes ({names}): {100 * matrix.mean_iou(chosen):.1f}")
    if boundary:
        print(tables.boundary_row(boundary))
    print()
    print(tables.class_table(matrix, classes))
    if panoptic:
        print()
        judged = {"centres": matrix, **({"connected": connected} if connected else {})}
        print(tables.panoptic_table(judged))
        print()
        print(tables.panoptic_classes(matrix, classes))
    elif samples[0].instances is not None:
        bar = tqdm(samples, unit="image", desc="objects", disable=None)
        print()
        print(tables.objects_table(*inference.evaluate_objects(model, bar, args.tile, **averages)))
    return 0
