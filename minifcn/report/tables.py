"""The scores of networks, as lines of text."""

import numpy as np

from ..metrics.confusion import ratio

OBJECT_SCORES = {
    "pq": "PQ",
    "pq_things": "PQ things",
    "sq_things": "SQ things",
    "rq_things": "RQ things",
    "apr_50": "AP^r 0.5",
    "apr_70": "AP^r 0.7",
    "apr_vol": "AP^r vol",
    "coco_ap": "COCO AP",
    "coco_ap_50": "COCO AP50",
    "bowl_50": "Bowl 0.5",
    "bowl": "Bowl",
}
SCORES = {
    "pixel_accuracy": "pixel acc.",
    "mean_accuracy": "mean acc.",
    "mean_iou": "mean IU",
    "frequency_weighted_iou": "f.w. IU",
}


def _lines(rows, first, width, last=None):
    """Rows [[name, *cells]] as lines of text. first: the width of the names; width: of a cell; last: of the last one, if another"""
    return "\n".join(
        f"{name:{first}}{''.join(f'{cell:>{width}}' for cell in cells)}{end:>{last or width}}"
        for name, *cells, end in rows
    )


def _cell(share):
    """A share in percent, "-" where there is none."""
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


def score_rows(results):
    """[[name, the four scores in percent, seconds]] as strings. results: {name: (ConfusionMatrix, seconds)}"""
    found = {name: (matrix.scores(), seconds) for name, (matrix, seconds) in results.items()}
    return [
        [name, *(f"{100 * scores[key]:.1f}" for key in SCORES), f"{seconds:.1f}"]
        for name, (scores, seconds) in found.items()
    ]


def scores_table(results):
    """The four scores and the seconds of each network as lines of text. results: as score_rows takes them"""
    rows = [["", *SCORES.values(), "seconds"], *score_rows(results)]
    widest = max(12, *(len(name) + 1 for name in results))
    return _lines(rows, widest, 12, last=10)


def objects_table(bowl, precision):
    """The scores of objects as lines of text. bowl: InstanceScores, precision: AveragePrecision"""
    scores = {"IoU > 0.5": bowl.at(0.5), "0.50:0.95": bowl.mean(), "AP at 0.5": precision.ap(0.5)}
    return _lines([["", *scores], ["objects", *(f"{100 * score:.1f}" for score in scores.values())]], 12, 12)


def panoptic_rows(results):
    """[[name, each of OBJECT_SCORES in percent]] as strings. results: {name: PanopticScores}"""
    found = {name: scores.scores() for name, scores in results.items()}
    return [[name, *(f"{100 * scores[key]:.1f}" for key in OBJECT_SCORES)] for name, scores in found.items()]


def panoptic_table(results):
    """The scores of objects, for each method that found them, as lines of text. results: {name: PanopticScores}"""
    rows = [["objects by", *OBJECT_SCORES.values()], *panoptic_rows(results)]
    widest = max(12, *(len(name) + 1 for name in results))
    return _lines(rows, widest, 11)


def panoptic_classes(scores, classes):
    """Panoptic quality, AP^r and COCO's AP of each class that occurs, as lines of text. scores: PanopticScores"""
    columns = {
        "PQ": scores.quality.pq(),
        "SQ": scores.quality.sq(),
        "RQ": scores.quality.rq(),
        "AP^r 0.5": scores.regions.ap(0.5),
        "AP^r 0.7": scores.regions.ap(0.7),
        "COCO AP": scores.coco.ap(),
        "COCO AP50": scores.coco.ap(0.5),
    }
    present = np.flatnonzero(~np.isnan(columns["PQ"]))
    rows = [[classes[i], *(_cell(column[i]) for column in columns.values())] for i in present]
    return _lines([["class", *columns], *rows], 16, 11)


def boundary_row(boundary):
    """The mean IU near outlines as a line of text. boundary: BoundaryIoU"""
    scores = (f"{band} px {100 * score:.1f}" for band, score in boundary.scores().items())
    return "mean IU within so many pixels of outlines: " + ", ".join(scores)


def class_table(matrix, classes):
    """IoU, accuracy and pixels of each class that occurs, as lines of text."""
    iou, totals = matrix.per_class_iou(), matrix.counts.sum(axis=1)
    accuracy, present = ratio(np.diag(matrix.counts), totals), np.flatnonzero(~np.isnan(iou))
    rows = [[classes[i], _cell(iou[i]), _cell(accuracy[i]), totals[i]] for i in present]
    return _lines([["class", "IU", "acc.", "pixels"], *rows], 16, 8, last=12)
