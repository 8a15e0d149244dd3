"""A diagnosis of the doctor of data sets, as lines of text and as one picture."""

import textwrap
from collections import Counter

import numpy as np

from ..data.doctor.files import read_labels
from ..data.doctor.findings import KINDS
from ..data.images import in_colours, read_image
from ..data.labels import VOID
from ..data.transforms import shrink
from ..errors import InputError
from .figures import new_figure, plain_text, save

MAX_ENTRIES = 3  # names printed for each finding
_MODES = {"P": "palette", "L": "grey", "1": "black and white", "I;16": "16-bit grey"}


def summary(diagnosis):
    """What there is: lists, files, classes with their pixels and masks. -> lines of text"""
    dataset = diagnosis.dataset
    images, masks = zip(*diagnosis.files.values(), strict=True) if diagnosis.files else ((), ())
    sizes = sorted({image.size for image in images if image and image.size}, key=lambda size: size[0] * size[1])
    extent = " to ".join(f"{width}x{height}" for width, height in dict.fromkeys(sizes[:1] + sizes[-1:]))
    lines = [
        f"{dataset.folder}: {dataset.layout}, {dataset.num_classes} classes",
        f"lists    {_counts(diagnosis.lists) or 'none'}",
        f"images   {_formats(images)}{', ' if extent else ''}{extent}",
        f"masks    {_formats(masks)}",
    ]
    if diagnosis.pixels.any():
        lines += ["", *_class_lines(diagnosis)]
    return lines


def _counts(lists):
    return ", ".join(f"{name} {len(ids)}" for name, ids in lists.items())


def _formats(reports):
    """ "12 (9 PNG palette, 3 PNG grey)" """
    formats = Counter(report.format for report in reports if report)
    parts = []
    for format, count in formats.most_common():
        name, _, mode = format.partition(" ")
        parts.append(f"{count} {name} {_MODES.get(mode, mode)}".strip())
    return f"{formats.total()} ({', '.join(parts)})" if parts else "0"


def _class_lines(diagnosis):
    """The histogram of classes, as shares of the pixels that are not void, and the number of masks that show each."""
    classes, pixels = diagnosis.dataset.classes, diagnosis.pixels
    columns = {split: max(len(split), 5) + 7 for split in diagnosis.lists if split != "trainval"}  # their widths
    name_width = max(len(name) for name in (*classes, "class"))
    labelled = max(pixels[: len(classes)].sum(), 1)
    titles = "".join(f"{f'{split} masks':>{width}}" for split, width in columns.items())
    lines = [f"{'class':{name_width + 5}}{'pixels':>13}{'share':>9}{titles}"]
    for number, name in enumerate(classes):
        if pixels[number]:
            shown = "".join(f"{diagnosis.mask_counts[s][number]:{width}}" for s, width in columns.items())
            share = _percent(pixels[number] / labelled)
            lines.append(f"{number:3}  {name:{name_width}}{pixels[number]:13}{share:>9}{shown}")
    void = _percent(pixels[VOID] / pixels.sum())
    return [*lines, f"     {'void':{name_width}}{pixels[VOID]:13}{void:>9} of all pixels"]


def _percent(share):
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else "<0.1 %"


def findings(diagnosis, limit=MAX_ENTRIES):
    """Errors, then warnings: each with its count, what it means, and the first names. -> lines of text"""
    lines, found = [], diagnosis.findings
    for kind in found.errors + found.warnings:
        title = f"{'error' if kind in found.errors else 'warning'} {kind} ({len(found[kind])}): {KINDS[kind][1]}"
        lines += textwrap.wrap(title, 118, subsequent_indent="    ") + _first(found[kind], limit)
    return lines


def fixed(lists, left_out, target, limit=MAX_ENTRIES):
    """What `write_fixed` wrote into the folder `target` and what it left out. -> lines of text"""
    written = len(set().union(*lists.values()))
    lines = [f"repaired copy, for --data {target}: {written} images with their masks ({_counts(lists)})"]
    return lines + ([f"left out ({len(left_out)}):", *_first(left_out, limit)] if left_out else [])


def _first(entries, limit):
    """The first of some (name, detail), a line each, and how many more there are."""
    lines = [f"    {name}{f': {detail}' if detail else ''}" for name, detail in entries[:limit]]
    return lines + ([f"    and {len(entries) - limit} more"] if len(entries) > limit else [])


def verdict(diagnosis):
    """One line: how much is wrong."""
    found = diagnosis.findings
    errors, warnings = (sum(len(found[kind]) for kind in kinds) for kinds in (found.errors, found.warnings))
    start = f"{_plural(errors, 'error')} of {_plural(len(found.errors), 'kind')}" if errors else "no errors"
    return f"{start}, {_plural(warnings, 'warning')}"


def _plural(count, what):
    return f"{count} {what}{'' if count == 1 else 's'}"


def picture(diagnosis, path):
    """Write a PNG with a panel for each class: its number and name over a bar of its colour and, if a mask shows the class, the
    part of an image with most of it beside its mask, other classes pale.

    Raises InputError for a data set whose description could not be used.
    """
    dataset = diagnosis.dataset
    if dataset is None:
        raise InputError(f"{path}: no picture of a data set whose description is wrong")
    with plain_text(dataset.classes) as names:
        columns = min(5, dataset.num_classes)
        rows = -(-dataset.num_classes // columns)
        figure = new_figure(3 * columns, 1.8 * rows + 0.4)
        figure.suptitle(f"{dataset.layout}, {dataset.num_classes} classes", fontsize=11)
        grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
        for axes in grid[dataset.num_classes :]:
            axes.set_axis_off()
        for number, (axes, name) in enumerate(zip(grid, names, strict=False)):
            panel, seen = np.full((24, 240, 3), dataset.palette[number]), number in diagnosis.samples
            if seen:
                image, label = _sample(diagnosis, number)
                colours = dataset.palette[label]
                pale = (0.2 * colours + 0.8 * 235).astype(np.uint8)
                mask = np.where((label == number)[:, :, None], colours, pale)
                panel = np.pad(
                    np.hstack([image, mask]), ((len(label) // 6 + 1, 0), (0, 0), (0, 0)), constant_values=255
                )
                panel[: len(label) // 8] = dataset.palette[number]
            axes.imshow(panel, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{number} {name}{'' if seen else ': in no mask'}", loc="left", fontsize=9)
        save(figure, path)


def _sample(diagnosis, number):
    """A square crop, where a class is densest, of the image that shows most of it. -> (image, label)"""
    image, mask = diagnosis.files[diagnosis.samples[number]]
    image = in_colours(read_image(image.path, diagnosis.dataset.exif))
    label = read_labels(mask, diagnosis.dataset)
    there = label == number
    side = int(min(*label.shape, max(64, 2 * np.sqrt(there.sum()))))
    sums = np.pad(there.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # over all above and to the left
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    best = [int(np.median(axis)) for axis in np.nonzero(inside == inside.max())]
    part = tuple(slice(start, start + side) for start in best)
    return shrink(image[part], label[part], 240)
