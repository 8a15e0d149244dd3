"""What a run leaves for people: PNG figures and one self-contained HTML page."""

import base64
import html
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from ..data.labels import VOID, colourise
from ..files import atomic_write, writing

SCORES = {
    "pixel_accuracy": "pixel acc.",
    "mean_accuracy": "mean acc.",
    "mean_iou": "mean IU",
    "frequency_weighted_iou": "f.w. IU",
}
LINES = ("#c0392b", "#d68910", "#1f618d", "#117864")


def curves(runs, path):
    """Loss (thin: each step, thick: its running mean) and validation mean IU over iterations.

    runs: {name: the events that read_metrics gave}. Stages of staged training stand one after the other.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    start = 0
    for (name, records), colour in zip(runs.items(), LINES, strict=False):
        steps = [r for r in records if r["event"] == "step"]
        scores = [r for r in records if r["event"] == "evaluated"]
        x, loss = np.array([start + r["iteration"] for r in steps]), np.array([r["loss"] for r in steps])
        left.plot(x, loss, color=colour, alpha=0.25, linewidth=0.8)
        left.plot(x, _running_mean(loss), color=colour, label=name)
        right.plot(
            [start + r["iteration"] for r in scores],
            [r["scores"]["mean_iou"] for r in scores],
            "o-",
            color=colour,
            label=name,
        )
        start += steps[-1]["iteration"] if steps else 0
    left.set(title="training loss", xlabel="iteration", ylabel="cross-entropy per pixel")
    left.set_ylim(bottom=0)
    right.set(title="validation mean IU", xlabel="iteration", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    _save(figure, path)


def _save(figure, path):
    with writing(path):
        figure.savefig(path, dpi=110)


def _running_mean(values, window=20):
    """The mean of the last `window` values at each point."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (total[ends] - total[starts]) / (ends - starts)


def side_by_side(rows, classes, path, palette=None):
    """Image | truth | one column for each network, with a legend of the classes that occur.

    rows: [(image (H, W, 3), label (H, W), {network name: prediction (H, W)})]. palette: (256, 3) uint8, VOC's unless given.
    """
    names = list(rows[0][2])
    columns = ["image", "truth", *names]
    aspect = [row[0].shape[0] / row[0].shape[1] for row in rows]
    figure = Figure(figsize=(2.2 * len(columns), 2.2 * sum(aspect) + 1.0), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False, height_ratios=aspect)
    seen = set()
    for axes, (image, label, predictions) in zip(grid, rows, strict=True):
        maps = [label, *(predictions[name] for name in names)]
        for panel, picture in zip(axes, [image, *(colourise(one, palette) for one in maps)], strict=True):
            panel.imshow(picture, interpolation="nearest")
            panel.set_axis_off()
        for one in maps:
            seen.update(np.unique(one).tolist())
    for panel, title in zip(grid[0], columns, strict=True):
        panel.set_title(title, fontsize=10)
    add_legend(figure, seen, classes, palette)
    _save(figure, path)


def add_legend(figure, labels, classes, palette=None):
    """Below a figure, a patch of colour and a name for each label, in as many columns as there is room for."""
    colours = colourise(np.arange(256, dtype=np.uint8), palette) / 255
    names = {**dict(enumerate(classes)), VOID: "void"}
    patches = [Patch(facecolor=colours[i], edgecolor="0.5", linewidth=0.5, label=names[i]) for i in sorted(labels)]
    columns = max(2, int(figure.get_figwidth() / 1.4))
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def heat_map(image, heat, peak, title, path):
    """A photograph, and its heat-map laid over it with the highest place marked.   image (H, W, 3), heat (rows, columns)"""
    height, width = image.shape[:2]
    figure = Figure(figsize=(9.6, 4.8 * height / width + 0.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image)
    right.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    heat = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC))
    strength = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-12)
    picture = right.imshow(strength, cmap="inferno", alpha=0.25 + 0.5 * strength)
    right.plot(peak[1], peak[0], "+", color="w", markersize=14, markeredgewidth=2)
    right.set_title(title, fontsize=10)
    for panel in (left, right):
        panel.set_axis_off()
    bar = figure.colorbar(picture, ax=right, shrink=0.8, ticks=[0, 1])
    bar.ax.set_yticklabels(["lowest", "highest"])
    bar.solids.set_alpha(1)
    _save(figure, path)


def confusion(matrix, classes, path):
    """Of each true class's pixels (rows), the share that was predicted as each class (columns)."""
    counts = matrix.counts.astype(float)
    present = np.flatnonzero(counts.sum(axis=1) + counts.sum(axis=0))
    counts = counts[np.ix_(present, present)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 2.2 + 0.55 * len(present)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    names = [classes[i] for i in present]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    for (i, j), share in np.ndenumerate(shares):
        if share >= 0.005:
            axes.text(
                j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color="w" if share > 0.5 else "k"
            )
    figure.colorbar(picture, shrink=0.7, label="share of the true class")
    _save(figure, path)


def scores_table(results):
    """The four scores and the seconds of each network as lines of text. results: {name: (ConfusionMatrix, seconds)}"""
    lines = [f"{'':10s}" + "".join(f"{title:>12s}" for title in SCORES.values()) + f"{'seconds':>10s}"]
    for name, (matrix, seconds) in results.items():
        scores = matrix.scores()
        lines.append(f"{name:10s}" + "".join(f"{100 * scores[key]:12.1f}" for key in SCORES) + f"{seconds:10.1f}")
    return "\n".join(lines)


def class_table(matrix, classes):
    """IoU, accuracy and pixels of each class that occurs, as lines of text."""
    lines = [f"{'class':16s}{'IU':>8s}{'acc.':>8s}{'pixels':>12s}"]
    counts, iou = matrix.counts, matrix.per_class_iou()
    for i in np.flatnonzero(~np.isnan(iou)):
        total = counts[i].sum()
        accuracy = f"{100 * counts[i, i] / total:8.1f}" if total else f"{'-':>8s}"
        lines.append(f"{classes[i]:16s}{100 * iou[i]:8.1f}{accuracy}{total:12d}")
    return "\n".join(lines)


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
h1, h2 {{ font-weight: 600; line-height: 1.2; }} h2 {{ margin-top: 2.2rem; }}
table {{ border-collapse: collapse; }} th, td {{ padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }} thead th {{ border-bottom: 2px solid #888; }}
figure {{ margin: 1rem 0; overflow-x: auto; }} img {{ max-width: 100%; height: auto; }} figcaption {{ color: #555; }}
.settings {{ columns: 3 14rem; font-size: .9rem; padding: 0; list-style: none; }} .settings b {{ font-weight: 600; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def write_page(path, title, results, classes, figures, settings):
    """One HTML page with everything inside it.

    results: {name: (ConfusionMatrix, seconds)}. figures: [(PNG path, caption)]. settings: {name: value}.
    """
    body = ["<h2>Scores on the validation images</h2>", _scores_html(results)]
    for picture, caption in figures:
        body.append(f"<figure>{embedded(picture, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>")
    body += ["<h2>IU by class</h2>", _classes_html(results, classes), "<h2>Settings</h2>", _settings_html(settings)]
    page = _PAGE.format(title=html.escape(title), body="\n".join(body))
    with atomic_write(path) as file:
        file.write(page.encode("utf-8"))


def embedded(picture, alt):
    """A PNG file as an <img> that holds it, for pages of one file."""
    data = base64.b64encode(Path(picture).read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def _table(header, rows):
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return (
        f"<table><thead>{line(header, 'th')}</thead><tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"
    )


def _scores_html(results):
    rows = []
    for name, (matrix, seconds) in results.items():
        scores = matrix.scores()
        rows.append([name, *(f"{100 * scores[key]:.1f}" for key in SCORES), f"{seconds:.1f}"])
    return _table(["network", *SCORES.values(), "seconds"], rows)


def _classes_html(results, classes):
    columns = [matrix.per_class_iou() for matrix, _ in results.values()]
    rows = [
        [name, *("–" if np.isnan(column[i]) else f"{100 * column[i]:.1f}" for column in columns)]
        for i, name in enumerate(classes)
        if not all(np.isnan(column[i]) for column in columns)
    ]
    return _table(["class", *results], rows)


def _settings_html(settings):
    items = "".join(f"<li><b>{html.escape(k)}</b> {html.escape(str(v))}</li>" for k, v in settings.items())
    return f'<ul class="settings">{items}</ul>'
