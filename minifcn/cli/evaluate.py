"""Score a trained network: pixel accuracy, mean accuracy, mean IU, frequency-weighted IU, and the IU of each class. If the
data set has objects, these are scored, too: TP / (TP + FP + FN) where an IoU above 0.5 is a hit, the mean of that over
the thresholds 0.50:0.05:0.95 (both averaged over images), and the average precision at 0.5; this needs scipy. For a panoptic
network it is the panoptic quality, AP^r, and COCO's AP over 0.50:0.05:0.95 and at 0.5, for all things together and for each class.
Where the network sees images shrunk, its prediction is scored at their own size, as `predict` writes it.
Under mpirun, the processes divide the images among themselves; the scores are the same as those of one process."""

import time
from pathlib import Path

from .. import inference, models
from ..data.labels import class_numbers
from ..errors import InputError
from ..files import clear_leftovers
from ..inference.shared_work import PredictionCache, computed, fingerprint
from ..metrics import BoundaryIoU, ConfusionMatrix
from ..report import tables
from ..tasks import PanopticScores
from . import launch, options
from .progress import notice, shared_out

HELP = "score a trained network on labelled images"


def add_arguments(parser):
    options.add_device(parser)
    options.add_segmenter(parser)
    options.add_labelled(parser)
    options.add_averages(parser)
    launch.add_processes(parser, launch.IMAGES)
    add = parser.add_argument
    add("--boundary", action="store_true", help="also print the mean IU near outlines, within 1, 2, 4 and 8 pixels")
    connected = (
        "for a panoptic network: also score the connected components of each class as objects, to compare; needs scipy"
    )
    add("--connected", action="store_true", help=connected)
    resume = "store every image's prediction here; after a stop, reuse those made with the same weights and settings"
    add("--resume", metavar="FOLDER", help=resume)
    add("--classes", metavar="LIST", help="also print the mean IU over these classes, by number or name: 0,8,person")


def run(args):
    model = models.load_segmenter(args.weights)
    panoptic = model.card.builder == "panoptic"
    options.check_averages(args, model.card)
    if args.connected and not panoptic:
        raise InputError(f"connected: expected a panoptic network, got {args.weights}; leave --connected out")
    samples, classes = options.labelled(args, model.card)
    chosen = class_numbers(args.classes, classes) if args.classes is not None else []
    network, averages, cached = model.prepare(), options.averages_of(args), computed
    longest, objects = options.longest_of(args, model.card), not panoptic and samples[0].instances is not None
    if args.resume:
        names = ("data", "split", "year", "tile", "exif", "connected")
        settings = {"resize": longest, "objects": objects, **{name: getattr(args, name) for name in names}}
        cached = PredictionCache(Path(args.resume) / fingerprint(model, **settings, **averages))

    def scored(i):
        """The scores of one image: those of the classes, of what else is judged, or None, and of objects, if there are any."""
        sample, more = [samples[i]], {"longest": longest, "cached": cached, **averages}
        if panoptic:
            connected = PanopticScores(len(classes), inference.things_of(model)) if args.connected else None
            more["connected"] = connected
            return inference.evaluate_panoptic(network, sample, len(classes), args.tile, **more), connected
        boundary = BoundaryIoU(len(classes)) if args.boundary else None
        if objects:
            matrix = ConfusionMatrix(len(classes))
            more["matrices"] = [matrix, boundary] if boundary else [matrix]
            return matrix, boundary, *inference.evaluate_objects(network, sample, args.tile, **more)
        return inference.evaluate(network, sample, len(classes), args.tile, boundary=boundary, **more), boundary

    start = time.perf_counter()
    found = total(shared_out(scored, len(samples)))
    if found:
        if args.resume:
            for folder in {cached.folder, *(part.parent for part in cached.folder.rglob(".*.part"))}:
                clear_leftovers(folder)
        matrix, more, *of_objects = found
        if not matrix.counts.any():
            notice(f"{args.data}: no pixel of split {args.split} is labelled, so there is nothing to score (nan)")
        print(tables.scores_table({model.card.title: (matrix, time.perf_counter() - start)}))
        if chosen:
            names = ", ".join(classes[i] for i in chosen)
            print(f"mean IU over {len(chosen)} classes ({names}): {100 * matrix.mean_iou(chosen):.1f}")
        if args.boundary:
            print(tables.boundary_row(more))
        print()
        print(tables.class_table(matrix, classes))
        if panoptic:
            print()
            print(tables.panoptic_table({"centres": matrix, **({"connected": more} if more else {})}))
            print()
            print(tables.panoptic_classes(matrix, classes))
        if objects:
            print()
            print(tables.objects_table(*of_objects))
    return 0


def total(results):
    """The scores of all images, from those of each: tuples of metrics, or None. -> such a tuple; None in a process other than 0"""
    together = next(results, None)
    for scores in results:
        for own, other in zip(together, scores, strict=True):
            if own:
                own.merge(other)
    return together
