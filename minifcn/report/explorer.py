"""The page of `minifcn explore`: one photograph in one network, everything inside one file, which loads nothing else.

The page's parts lie beside this file: explorer.html, explorer.css and explorer.js. Arrays are little-endian, compressed by
deflate (RFC 1950), in base64.
"""

import base64
import html
import io
import json
import re
import zlib
from fractions import Fraction
from importlib.resources import files

import numpy as np
from PIL import Image

from ..data.labels import voc_palette
from ..errors import InputError
from ..files import write_text
from ..inference.contributions import Branch, channels_of
from .figures import data_url

MAPS, SCORES, CHANNELS = 3_900_000, 1_000_000, 500_000  # bytes of the maps, the scores' and the last map's numbers
MOST = 8_000_000  # of the page
WINDOW = 96  # pixels, the longer side of a window that is shown


def write_explorer(path, title, found, network, looks, notes):
    """Write the page. found: an Exploration. title: the photograph's name. notes: sentences on how the page was made.
    looks: {(node, channel): {"windows": [Window], "ascent": image or None}}.   -> its size in bytes"""
    card, blobs = network.card, {}

    def blob(name, *arrays):
        blobs[name] = _packed(*arrays)
        return name

    order = {name: i for i, name in enumerate(found.nodes)}
    nodes = [_node(node, order, f"maps{i}", blobs) for i, node in enumerate(found.nodes.values())]
    palette = voc_palette() if card.palette is None else card.palette
    rows, columns = found.seen.inside
    at = found.nodes[found.output].field.at
    top, left = (int(part.start - (at.b if at else 0)) for part in (rows, columns))
    height, width = found.logits.shape[1:]
    page = {
        "photo": {"height": found.seen.picture.shape[0], "width": found.seen.picture.shape[1]},
        "inside": {"top": top, "left": left, "height": height, "width": width},
        "classes": list(card.classes),
        "colours": palette[: len(card.classes)].tolist(),
        "nodes": nodes,
        "output": order[found.output],
        "prefix": f"{network.backbone_prefix}." if network.backbone_prefix else "",
        **_sum(found, order, blob),
        "looks": [
            {
                "node": order[name],
                "channel": channel,
                "windows": [{"value": w.excitement, "picture": _jpeg(w.pixels, WINDOW)} for w in look["windows"]],
                "ascent": None if look["ascent"] is None else _jpeg(look["ascent"], None),
            }
            for (name, channel), look in looks.items()
        ],
    }
    here = files(__package__)
    parts = {name: (here / f"explorer.{name}").read_text(encoding="utf-8") for name in ("html", "css")}
    parts["js"] = "\n".join(
        (here / f"explorer{part}.js").read_text(encoding="utf-8") for part in ("", "_network", "_main")
    )
    scripts = "\n".join(f'<script type="text/plain" id="{name}">{text}</script>' for name, text in blobs.items())
    values = {
        "title": html.escape(f"{title} in {card.title}"),
        "photo": _jpeg(found.seen.picture, None, 92),
        "alt": html.escape(f"The photograph {title}"),
        "notes": "".join(f"<li>{html.escape(note)}</li>" for note in notes),
        "css": parts["css"],
        "js": parts["js"],
        "data": json.dumps(page, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c"),
        "blobs": scripts,
    }
    text = re.sub(r"<!--(\w+)-->", lambda match: values[match[1]], parts["html"])
    text = text.encode("utf-8", "replace").decode("utf-8")  # a file's name may be no UTF-8
    size = len(text.encode("utf-8"))
    if size > MOST:
        raise InputError(f"{path}: {size:,} bytes, more than {MOST:,}; name fewer --channels, or a smaller --resize")
    write_text(path, text)
    return size


def _node(node, order, name, blobs):
    """A node as JSON; its maps become a blob: the lows and highs of its channels, then their cells."""
    field, pictures = node.field, node.pictures
    blobs[name] = _packed(pictures.low, pictures.high, pictures.cells)
    at = field.at and [float(field.at.a), float(field.at.b)]
    return {
        "name": node.name,
        "label": getattr(node.layer, "conv", node.layer).name.split(".")[-1],
        "kind": _kind(node.layer),
        "inputs": [order[i] for i in node.inputs],
        "shape": list(node.shape[1:]),
        "step": str(Fraction(1) / field.at.a) if field.at else None,
        "at": at,
        "rows": field.rows.T.tolist(),
        "columns": field.columns.T.tolist(),
        "factor": pictures.factor,
        "cells": list(pictures.cells.shape[1:]),
        "maps": name,
    }


def _kind(layer):
    """What a layer does, in the field's terms."""
    parts = getattr(layer, "parts", [layer])  # of a convolution with what follows it
    names = {
        "Conv2d": "convolution",
        "BatchNorm2d": "batch norm",
        "MaxPool2d": "max pooling",
        "Add": "sum",
        "Concat": "concatenation",
    }
    names |= {
        "CropLike": "crop",
        "Upsample": "bilinear upsampling",
        "LearnedUpsample": "learned upsampling",
        "ResizeLike": "bilinear resize",
    }
    names |= {"ConvTranspose2d": "transposed convolution", "AdaptiveAvgPool2d": "mean of the whole map"}
    conv = parts[0]
    kernel = f"{' × '.join(map(str, conv.kernel))} " if type(conv).__name__ == "Conv2d" else ""
    depthwise = "depthwise " if kernel and conv.settings["groups"] > 1 else ""
    return kernel + depthwise + ", ".join(names.get(type(part).__name__, type(part).__name__) for part in parts)


def _sum(found, order, blob):
    """The branches whose sum is the logits, or the logits themselves, on every `step`-th row and column of the output."""
    branches, grid = found.branches, found.logits.shape
    step = 1
    sizes = [branch.scores.shape for branch in branches] or [grid]
    while 4 * sum(min(h * w, -(-grid[1] // step) * -(-grid[2] // step)) * k for k, h, w in sizes) > SCORES:
        step += 1
    inside = [slice(part.start, part.stop, step) for part in found.seen.inside]
    page = {"step": step, "why": found.why, "branches": [], "channels": None}
    if not branches:
        whole = np.eye(grid[1], dtype=np.float32), np.eye(grid[2], dtype=np.float32)
        logits = Branch(found.output, found.output, found.logits, np.zeros(grid[0], np.float32), *whole)
        branches, inside = [logits], [slice(None, None, step)] * 2
    for i, branch in enumerate(branches):
        rows, columns, scores = branch.rows[inside[0]], branch.columns[inside[1]], branch.scores
        if found.read:
            page["channels"] = _channels(*found.read, rows, columns, blob)
        fading = [matrix.sum(axis=1) for matrix in (rows, columns)]
        if rows.shape[0] * columns.shape[0] < scores.shape[1] * scores.shape[2]:
            scores = rows @ scores @ columns.T
            rows, columns = (np.eye(n, dtype=np.float32) for n in scores.shape[1:])
        page["branches"].append(
            {
                "name": branch.name,
                "node": order[branch.name],
                "source": order[branch.source],
                "scores": blob(f"scores{i}", np.float32(scores)),
                "bias": branch.bias.tolist(),
                "size": list(scores.shape[1:]),
                "rows": _taps(rows),
                "columns": _taps(columns),
                "fading": [[round(float(x), 7) for x in line] for line in fading],
            }
        )
    return page


def _channels(maps, weights, rows, columns, blob):
    """What the channels of a single score layer contribute, on every `step`-th row and column of the page's."""
    step, (enlarged, fading) = channels_of(rows, columns, maps, CHANNELS // 4)
    values = blob("channels", np.float32(weights), np.float32(enlarged), np.float32(fading))
    return {"step": step, "size": list(fading.shape), "values": values}


def _taps(matrix):
    """The non-zero weights of a matrix, a few adjacent ones in each row: {"start": [column], "weights": [[…]]}"""
    starts, weights = [], []
    for line in matrix:
        used = np.flatnonzero(line)
        first, last = (used[0], used[-1]) if used.size else (0, 0)
        starts.append(int(first))
        weights.append([float(x) for x in line[first : last + 1]])
    return {"start": starts, "weights": weights}


def _packed(*arrays):
    """Arrays one after the other, compressed, in base64."""
    raw = b"".join(np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)
    return base64.b64encode(zlib.compress(raw, 6)).decode("ascii")


def _jpeg(pixels, longest, quality=85):
    """An image (H, W, 3) uint8 as a data URL, its longer side at most `longest` pixels."""
    image, file = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    if longest:
        image.thumbnail((longest, longest))
    image.save(file, "JPEG", quality=quality)
    return data_url(file.getvalue(), "jpeg")
