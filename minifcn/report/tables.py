"""The scores of networks, as lines of text."""

import numpy as np

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
    return "\n".join(
        f"{name:{widest}}{''.join(f'{cell:>12}' for cell in cells)}{last:>10}" for name, *cells, last in rows
    )


def objects_table(bowl, precision):
    """The scores of objects as lines of text. bowl: InstanceScores, precision: AveragePrecision"""
    scores = {"IoU > 0.5": bowl.at(0.5), "0.50:0.95": bowl.mean(), "AP at 0.5": precision.ap(0.5)}
    lines = ["", *scores], ["objects", *(f"{100 * score:.1f}" for score in scores.values())]
    return "\n".join(f"{name:12}{''.join(f'{cell:>12}' for cell in cells)}" for name, *cells in lines)


def panoptic_rows(results):
    """[[name, each of OBJECT_SCORES in percent]] as strings. results: {name: PanopticScores}"""
    found = {name: scores.scores() for name, scores in results.items()}
    return [[name, *(f"{100 * scores[key]:.1f}" for key in OBJECT_SCORES)] for name, scores in found.items()]


def panoptic_table(results):
    """The scores of objects, for each method that found them, as lines of text. results: {name: PanopticScores}"""
    rows = [["objects by", *OBJECT_SCORES.values()], *panoptic_rows(results)]
    widest = max(12, *(len(name) + 1 for name in results))
    return "\n".join(f"{name:{widest}}{''.join(f'{cell:>11}' for cell in cells)}" for name, *cells in rows)


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
    lines = [f"{'class':16s}" + "".join(f"{name:>11s}" for name in columns)]
    for i in np.flatnonzero(~np.isnan(columns["PQ"])):
        cells = ["-" if np.isnan(column[i]) else f"{100 * column[i]:.1f}" for column in columns.values()]
        lines.append(f"{classes[i]:16s}" + "".join(f"{cell:>11s}" for cell in cells))
    return "\n".join(lines)


def boundary_row(boundary):
    """The mean IU near outlines as a line of text. boundary: BoundaryIoU"""
    scores = (f"{band} px {100 * score:.1f}" for band, score in boundary.scores().items())
    return "mean IU within so many pixels of outlines: " + ", ".join(scores)


def class_table(matrix, classes):
    """IoU, accuracy and pixels of each class that occurs, as lines of text."""
    lines = [f"{'class':16s}{'IU':>8s}{'acc.':>8s}{'pixels':>12s}"]
    counts, iou = matrix.counts, matrix.per_class_iou()
    for i in np.flatnonzero(~np.isnan(iou)):
        total = counts[i].sum()
        accuracy = f"{100 * counts[i, i] / total:8.1f}" if total else f"{'-':>8s}"
        lines.append(f"{classes[i]:16s}{100 * iou[i]:8.1f}{accuracy}{total:12d}")
    return "\n".join(lines)
