"""The scores of networks, as lines of text."""

import numpy as np

SCORES = {
    "pixel_accuracy": "pixel acc.",
    "mean_accuracy": "mean acc.",
    "mean_iou": "mean IU",
    "frequency_weighted_iou": "f.w. IU",
}


def score_rows(results):
    """[[name, the four scores in percent, seconds]] as strings. results: {name: (ConfusionMatrix, seconds)}"""
    return [
        [name, *(f"{100 * score:.1f}" for score in matrix.scores().values()), f"{seconds:.1f}"]
        for name, (matrix, seconds) in results.items()
    ]


def scores_table(results):
    """The four scores and the seconds of each network as lines of text. results: as score_rows takes them"""
    rows = [["", *SCORES.values(), "seconds"], *score_rows(results)]
    return "\n".join(f"{name:12}{''.join(f'{cell:>12}' for cell in cells)}{last:>10}" for name, *cells, last in rows)


def objects_table(bowl, precision):
    """The scores of objects as lines of text. bowl: InstanceScores, precision: AveragePrecision"""
    scores = {"IoU > 0.5": bowl.at(0.5), "0.50:0.95": bowl.mean(), "AP at 0.5": precision.ap(0.5)}
    lines = ["", *scores], ["objects", *(f"{100 * score:.1f}" for score in scores.values())]
    return "\n".join(f"{name:12}{''.join(f'{cell:>12}' for cell in cells)}" for name, *cells in lines)


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
