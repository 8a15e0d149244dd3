"""A diagnosis of the doctor of data sets, as lines of text and as one picture."""

import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..data.doctor.files import read_labels
from ..data.images import read_image
from ..data.labels import VOID
from ..data.transforms import shrink
from ..errors import InputError

MAX_ENTRIES = 3  # names printed for each finding
_MODES = {"P": "palette", "L": "grey", "1": "black and white", "I;16": "16-bit grey"}


def summary(diagnosis):
    """What there is: lists, files, classes with their pixels and masks. -> lines of text"""
    inventory = diagnosis.inventory
    lines = [
        f"{inventory.folder}: {inventory.layout}, {len(inventory.classes)} classes",
        f"lists    {', '.join(f'{name} {len(ids)}' for name, ids in inventory.splits.items()) or 'none'}",
        f"images   {_formats(diagnosis, 0)}{_sizes(diagnosis)}",
        f"masks    {_formats(diagnosis, 1)}",
    ]
    if diagnosis.pixels.any():
        lines += ["", *_class_lines(diagnosis)]
    return lines


def _formats(diagnosis, which):
    """ "12 (9 PNG palette, 3 PNG grey)" """
    formats = diagnosis.formats(which)
    parts = []
    for format, count in formats.most_common():
        name, _, mode = format.partition(" ")
        parts.append(f"{count} {name} {_MODES.get(mode, mode)}".strip())
    return f"{formats.total()} ({', '.join(parts)})" if parts else "0"


def _sizes(diagnosis):
    sizes = [image.size for image, _ in diagnosis.files.values() if image and image.size]
    if not sizes:
        return ""
    small, large = (pick(sizes, key=lambda size: size[0] * size[1]) for pick in (min, max))
    return f", {small[0]}x{small[1]}" + (f" to {large[0]}x{large[1]}" if large != small else "")


def _class_lines(diagnosis):
    """The histogram of classes, as shares of the pixels that are not void, and the number of masks that show each."""
    inventory, pixels = diagnosis.inventory, diagnosis.pixels
    columns = {split: max(len(split), 5) + 7 for split in inventory.splits if split != "trainval"}  # their widths
    name_width = max(len(name) for name in (*inventory.classes, "class"))
    labelled = max(pixels[: len(inventory.classes)].sum(), 1)
    titles = "".join(f"{f'{split} masks':>{width}}" for split, width in columns.items())
    lines = [f"{'class':{name_width + 5}}{'pixels':>13}{'share':>9}{titles}"]
    for number, name in enumerate(inventory.classes):
        if pixels[number]:
            shown = "".join(f"{diagnosis.mask_counts[s][number]:{width}}" for s, width in columns.items())
            share = _percent(pixels[number] / labelled)
            lines.append(f"{number:3}  {name:{name_width}}{pixels[number]:13}{share:>9}{shown}")
    lines.append(
        f"{'':3}  {'void':{name_width}}{pixels[VOID]:13}{_percent(pixels[VOID] / pixels.sum()):>9} of all pixels"
    )
    return lines


def _percent(share):
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else "<0.1 %"


def findings(diagnosis, limit=MAX_ENTRIES):
    """Errors, then warnings: each with its count, what it means, and the first names. -> lines of text"""
    lines = []
    for finding in diagnosis.findings:
        title = f"{'error' if finding.error else 'warning'} {finding.kind} ({len(finding.entries)}): {finding.meaning}"
        lines += textwrap.wrap(title, 118, subsequent_indent="    ") + _first(finding.entries, limit)
    return lines


def fixed(result, target, limit=MAX_ENTRIES):
    """What `write_fixed` wrote into the folder `target` and what it left out. -> lines of text"""
    lists = ", ".join(f"{name} {count}" for name, count in result.lists.items())
    lines = [f"repaired copy, for --data {target}: {result.written} images with their masks ({lists})"]
    if result.left_out:
        lines += [f"left out ({len(result.left_out)}):", *_first(result.left_out, limit)]
    return lines


def _first(entries, limit):
    """The first of some (name, detail), a line each, and how many more there are."""
    lines = [f"    {name}{f': {detail}' if detail else ''}" for name, detail in entries[:limit]]
    return lines + ([f"    and {len(entries) - limit} more"] if len(entries) > limit else [])


def verdict(diagnosis):
    """One line: how much is wrong."""
    errors, warnings = diagnosis.findings.errors, diagnosis.findings.warnings
    counts = [sum(len(finding.entries) for finding in some) for some in (errors, warnings)]
    start = f"{_plural(counts[0], 'error')} of {_plural(len(errors), 'kind')}" if errors else "no errors"
    return f"{start}, {_plural(counts[1], 'warning')}"


def _plural(count, what):
    return f"{count} {what}{'' if count == 1 else 's'}"


def picture(diagnosis, path):
    """A PNG: every class's colour and name and, where a mask shows the class, the place with most of it, and its mask.

    Raises InputError for a data set whose description could not be used.
    """
    inventory = diagnosis.inventory
    if inventory is None:
        raise InputError(f"{path}: no picture of a data set whose description is wrong")
    columns = min(5, len(inventory.classes))
    rows = -(-len(inventory.classes) // columns)
    figure = Figure(figsize=(3 * columns, 1.8 * rows + 0.4), layout="constrained")
    figure.suptitle(f"{inventory.layout}, {len(inventory.classes)} classes", fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes in grid:
        axes.set_axis_off()
    for number, axes in enumerate(grid[: len(inventory.classes)]):
        _draw_class(axes, diagnosis, number)
    figure.savefig(path, dpi=110)


def _draw_class(axes, diagnosis, number):
    """A patch of the class's colour, its number and name; below, image and mask side by side, other classes pale."""
    inventory = diagnosis.inventory
    axes.add_patch(
        Rectangle((0, -0.19), 0.2, 0.15, facecolor=inventory.palette[number] / 255, edgecolor="0.5", linewidth=0.5)
    )
    axes.text(0.25, -0.115, f"{number} {inventory.classes[number]}", va="center", fontsize=9, parse_math=False)
    if number in diagnosis.samples:
        image, label = _sample(diagnosis, number)
        colours = inventory.palette[label]
        pale = (0.2 * colours + 0.8 * 235).astype(np.uint8)
        mask = np.where((label == number)[:, :, None], colours, pale)
        for left, panel in ((0, image), (1.05, mask)):
            axes.imshow(panel, extent=(left, left + 1, 1, 0), interpolation="nearest")
    else:
        axes.text(0, 0.1, "in no mask", fontsize=8, color="0.5")
    axes.set(xlim=(0, 2.05), ylim=(1, -0.22), aspect="equal")


def _sample(diagnosis, number):
    """A square part of the image with most of a class, where most of it is. -> (image, label)"""
    inventory, id = diagnosis.inventory, diagnosis.samples[number]
    image, label = read_image(inventory.images[id]), read_labels(diagnosis.files[id][1], inventory)
    there = label == number
    side = int(min(*label.shape, max(64, 2 * np.sqrt(there.sum()))))
    sums = np.pad(there.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # over all above and to the left
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    best = [int(np.median(axis)) for axis in np.nonzero(inside == inside.max())]
    part = tuple(slice(start, start + side) for start in best)
    return shrink(image[part], label[part], 240)
