"""The figures of a run, as PNG files."""

import base64
import logging
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.images import in_colours
from ..data.labels import AMBIGUOUS, VOID, colourise
from ..files import writing

COLOURS = ("#c0392b", "#d68910", "#1f618d", "#117864")
log = logging.getLogger("minifcn.report")


def data_url(content, kind):
    """The bytes of a picture file of this kind ("png", "jpeg") as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def new_figure(width, height):
    """An empty matplotlib Figure of this width and height, in inches."""
    from matplotlib.figure import (
        Figure,  # here, and all of matplotlib below: it takes longer to import than all else together
    )

    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def plain_text(names=()):
    """A context in which figures show texts as they are, in any installed fonts that have their letters.

    Yields the class names as they can be shown: a name with a letter that no font has becomes "class 3", by its index; this is logged.
    """
    from matplotlib import rc_context, rcParams

    shown, families = _readable(tuple(names), tuple(rcParams["font.family"]))
    # Names are not formulas: "us$ and ca$".
    with rc_context({"text.usetex": False, "text.parse_math": False, "font.family": families}):
        yield shown


@cache
def _readable(names, families):
    """(the names as they can be shown, families of fonts that have their letters, those given first)"""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    usual = FT2Font(font_manager.findfont(font_manager.FontProperties(family=list(families))))
    missing = {
        letter for name in names for letter in name if letter.isprintable() and not usual.get_char_index(ord(letter))
    }
    families, known = list(families), _letters_of_fonts(missing)
    while missing and (best := max(known, key=lambda family: len(known[family] & missing), default=None)):
        if not known[best] & missing:
            break
        families.append(best)
        missing -= known[best]
    shown = [f"class {i}" if missing.intersection(name) else name for i, name in enumerate(names)]
    if changed := [f"{new} for {name}" for name, new in zip(names, shown, strict=True) if name != new]:
        log.warning(
            "figures: no installed font has all letters of these classes: %s; a font of the language helps, such as Noto Sans CJK",
            ", ".join(changed),
        )
    return shown, families


def _letters_of_fonts(letters):
    """{family of an installed font: which of the letters it has}"""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    found = {}
    for font in font_manager.fontManager.ttflist if letters else ():
        if not font.name.startswith("Last Resort"):  # which has a box for everything
            try:
                made = FT2Font(font.fname)
            except (OSError, RuntimeError):  # a font file that is gone or broken
                continue
            found.setdefault(font.name, set()).update(c for c in letters if made.get_char_index(ord(c)))
    return found


@plain_text()
def curves(runs, path):
    """Loss (thin: each step, thick: its running mean) and validation mean IU over iterations.

    runs: {name: the events that read_metrics gave}. Stages of staged training stand one after the other.
    """
    figure = new_figure(10, 3.6)
    left, right = figure.subplots(1, 2)
    start = 0
    for (name, records), colour in zip(runs.items(), COLOURS, strict=False):
        steps = [r for r in records if r["event"] == "step"]
        scores = [r for r in records if r["event"] == "evaluated"]
        x, loss = np.array([start + r["iteration"] for r in steps]), np.array([r["loss"] for r in steps])
        left.plot(x, loss, color=colour, alpha=0.25, linewidth=0.8)
        left.plot(x, _running_mean(loss), color=colour, label=name)
        x, mean_iou = (
            [start + r["iteration"] for r in scores],
            np.array([r["scores"]["mean_iou"] for r in scores], float),
        )
        right.plot(x, mean_iou, "o-", color=colour, label=name)
        start += steps[-1]["iteration"] if steps else 0
    left.set(title="training loss", xlabel="iteration", ylabel="cross-entropy per pixel", ylim=(0, None))
    right.set(title="validation mean IU", xlabel="iteration", ylim=(0, 1))
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    save(figure, path)


def save(figure, path):
    """Write a figure as a PNG. Raises OSError, naming the file, where it cannot be written."""
    with writing(path):
        figure.savefig(path, dpi=110)


def _running_mean(values, window=20):
    """The mean of the last `window` values at each point."""
    return np.array([np.mean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)])


def side_by_side(samples, predictions, classes, path, palette=None):
    """Image | truth | one column for each network, with a legend of the classes that occur.

    samples: Samples. predictions: {network name: [label map (H, W) of each sample]}. palette: (256, 3) uint8, VOC's unless given.
    """
    with plain_text(classes) as classes:
        maps = {"truth": [sample.label for sample in samples], **predictions}
        coloured = {name: [colourise(one, palette) for one in column] for name, column in maps.items()}
        columns = {"image": [in_colours(sample.image) for sample in samples], **coloured}
        aspect = [sample.label.shape[0] / sample.label.shape[1] for sample in samples]
        figure = new_figure(2.2 * len(columns), 2.2 * sum(aspect) + 1.0)
        grid = figure.subplots(len(samples), len(columns), squeeze=False, height_ratios=aspect)
        for axes, (title, pictures) in zip(grid.T, columns.items(), strict=True):
            axes[0].set_title(title, fontsize=10)
            for panel, picture in zip(axes, pictures, strict=True):
                panel.imshow(picture, interpolation="nearest")
                panel.set_axis_off()
        seen = {int(label) for column in maps.values() for one in column for label in np.unique(one)}
        add_legend(figure, seen, classes, palette)
        save(figure, path)


def add_legend(figure, labels, classes, palette=None):
    """Below a figure, a patch of colour and a name for each label, in as many columns as there is room for."""
    from matplotlib.patches import Patch

    colours = colourise(np.arange(256, dtype=np.uint8), palette) / 255
    names = {**dict(enumerate(classes)), VOID: "void"}
    patches = [Patch(facecolor=colours[i], edgecolor="0.5", linewidth=0.5, label=names[i]) for i in sorted(labels)]
    columns = max(2, int(figure.get_figwidth() / 1.4))
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def outlined(image, instances, width=1):
    """An image (H, W, 3) uint8 with each object outlined in its own colour.   instances (H, W), 0 for none; width: in pixels"""
    from matplotlib.colors import hsv_to_rgb

    height, length = instances.shape
    around = np.pad(instances, width)  # objects cut by the image's edge are outlined there
    shifts = [(i, j) for n in range(1, width + 1) for i, j in ((n, 0), (-n, 0), (0, n), (0, -n))]
    sides = [around[width + i : width + i + height, width + j : width + j + length] for i, j in shifts]
    edge = (instances > 0) & np.logical_or.reduce([side != instances for side in sides])
    hues = instances[edge] * 0.618034 % 1  # steps of the golden ratio: close numbers get distant colours
    image = image.copy()
    image[edge] = 255 * hsv_to_rgb(np.stack([hues, np.ones_like(hues), np.ones_like(hues)], axis=-1))
    return image


def numbered(image, instances, width=1):
    """`outlined`, with each object's number at its middle: its pixel nearest to the mean of its pixels."""
    picture = Image.fromarray(outlined(image, instances, width))
    draw, size = ImageDraw.Draw(picture), max(10, min(image.shape[:2]) // 20)
    for number in np.unique(instances[instances > 0]):
        places = np.argwhere(instances == number)
        row, column = places[((places - places.mean(axis=0)) ** 2).sum(axis=1).argmin()]
        where = {"font": ImageFont.load_default(size), "anchor": "mm", "stroke_width": 2, "stroke_fill": "black"}
        draw.text((int(column), int(row)), str(number), fill="white", **where)
    return np.asarray(picture)


def objects(samples, found, classes, path):
    """A row for each image: its true objects outlined, and the predicted ones with numbers, classes and scores.

    samples: ObjectSamples. found: the Objects of each.
    """
    with plain_text(classes) as classes:
        aspect = [sample.label.shape[0] / sample.label.shape[1] for sample in samples]
        figure = new_figure(8, 4 * sum(aspect) + 0.3 * len(samples))
        grid = figure.subplots(len(samples), 2, squeeze=False, height_ratios=aspect)
        for (left, right), sample, one in zip(grid, samples, found, strict=True):
            known = np.where(sample.instances == AMBIGUOUS, 0, sample.instances)
            image = in_colours(sample.image)
            left.imshow(outlined(image, known), interpolation="nearest")
            left.set_title(f"true: {np.count_nonzero(np.unique(known))}", fontsize=9)
            right.imshow(numbered(image, one.instances), interpolation="nearest")
            named = zip(one.classes[:4], one.scores[:4], strict=True)
            names = [f"{i} {classes[c]} {score:.2f}" for i, (c, score) in enumerate(named, start=1)]
            right.set_title(", ".join(names) + (", …" if len(one.classes) > 4 else ""), fontsize=9)
            for panel in (left, right):
                panel.set_axis_off()
        save(figure, path)


@plain_text()
def heat_map(image, heats, path, peak=None):
    """A photograph beside heat-maps laid over it.   image (H, W, 3), heats {title: (rows, columns)}

    peak: (row, column) of a pixel to mark in them.
    """
    height, width = image.shape[:2]
    columns = 1 + len(heats)
    panel = 4.8 * min(max(height / width, 0.1), 10)  # a strip leaves room: its own shape would be too high to draw
    figure = new_figure(4.8 * columns + 1, panel + 0.4)  # beside the bar, and above
    first, *others = figure.subplots(1, columns)
    first.imshow(image)
    for panel, (title, heat) in zip(others, heats.items(), strict=True):
        panel.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
        heat = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC))
        strength = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-12)
        picture = panel.imshow(strength, cmap="inferno", alpha=0.25 + 0.5 * strength)
        if peak:
            panel.plot(peak[1], peak[0], "+", color="w", markersize=14, markeredgewidth=2)
        panel.set_title(title, fontsize=10)
    for panel in (first, *others):
        panel.set_axis_off()
    bar = figure.colorbar(picture, ax=others[-1], shrink=0.8, ticks=[0, 1])
    bar.ax.set_yticklabels(["lowest", "highest"])
    bar.solids.set_alpha(1)
    save(figure, path)


def confusion(matrix, classes, path):
    """The confusion matrix: for each true class (row), the share of its pixels predicted as each class (column)."""
    with plain_text(classes) as classes:
        counts = matrix.counts.astype(float)
        present = np.flatnonzero(counts.sum(axis=1) + counts.sum(axis=0) + (not counts.any()))
        counts = counts[np.ix_(present, present)]
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        size = 2.2 + 0.55 * len(present)
        figure = new_figure(size + 0.6, size)
        axes = figure.subplots()
        picture = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
        names = [classes[i] for i in present]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="true")
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "w" if share > 0.5 else "k"
                axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)
        figure.colorbar(picture, shrink=0.7, label="share of the true class")
        save(figure, path)
