"""The widgets of the lessons, in Chromium: what they show is what Python computes."""

import re
import sys
from pathlib import Path

import numpy as np
from browser import in_page, needs_browser

from minifcn import ops
from minifcn.data.toyvoc import CLASSES, draw_scene
from minifcn.metrics import ConfusionMatrix

sys.path.insert(0, str(Path(__file__).parents[1] / "lessons"))

import lesson  # noqa: E402

SIZE, CROP = 150, 40 - 1 - 1.5 - 12 + 3.5  # the padding, two poolings, fc6's three cells, the stamp
LAYERS = [("conv1_1", "conv", 3, 1, 40), ("pool1", "pool", 2, 2, 0), ("conv2_1", "conv", 3, 1, 1)]
LAYERS += [("pool2", "pool", 2, 2, 0), ("fc6", "conv", 7, 1, 0), ("upscore", "deconv", 8, 4, 0)]


def page(folder, name, numbers):
    path = folder / "page.html"
    path.write_text(f"<!DOCTYPE html><html><head></head><body>{lesson.widget_html(name, numbers)}</body></html>")
    return path


def outputs(x):
    """A network of the layers' windows along one axis, all weights 1. -> (its last map, the caches of its layers)"""
    caches = []
    for _, kind, k, s, p in LAYERS:
        w = np.ones((1, 1, k, 1))
        run = ops.conv_transpose2d_forward if kind == "deconv" else ops.conv2d_forward
        hang = (s - 1 if kind == "pool" else 0, 0)  # a pooling keeps the last window that hangs over
        extra = ((p, p + hang[0]), (0, 0)) if kind != "deconv" else 0
        x, cache = run(x, w, stride=(s, 1), pad=extra)
        caches.append(cache)
    return x, caches


def seen(row):
    """{map: its first and last cell on which a row of the output depends}, by a gradient sent back."""
    y, caches = outputs(np.zeros((1, 1, SIZE, 1)))
    dy = np.zeros_like(y)
    dy[0, 0, row] = 1
    found = {}
    for (name, kind, *_), cache in reversed(list(zip(LAYERS, caches, strict=True))):
        found[name] = ends(dy)
        dy = (ops.conv_transpose2d_backward if kind == "deconv" else ops.conv2d_backward)(dy, cache)[0]
    return found | {"image": ends(dy)}


def ends(dy):
    """The first and last cell that a gradient reaches, or None."""
    reached = np.flatnonzero(dy)
    return (reached[0], reached[-1]) if len(reached) else None


def sizes():
    n, found = SIZE, []
    for _, kind, k, s, p in LAYERS:
        n = s * (n - 1) + k - 2 * p if kind == "deconv" else -(-(n + 2 * p - k) // s) + 1
        found.append(n)
    return found


def ruler():
    image, label = draw_scene(np.random.default_rng(3), 40)
    mask = np.pad(np.where(label == 255, 0, label), ((29, 11), (29, 11)))
    layers = [[*layer, n] for layer, n in zip(LAYERS, sizes(), strict=True)]
    colours = np.random.default_rng(0).integers(0, 256, (len(CLASSES), 3)).tolist()
    return {
        "layers": layers,
        "size": SIZE,
        "crop": CROP,
        "image": image,
        "label": label,
        "mask": mask,
        "colours": colours,
    }


@needs_browser
def test_the_ruler_says_what_a_gradient_reaches_and_what_a_crop_costs(tmp_path):
    numbers = ruler()
    y, _ = outputs(np.zeros((1, 1, SIZE, 1)))
    assert y.shape[2] == sizes()[-1]
    script = """
        const root = document.querySelector(".widget"), [row, crop] = root.querySelectorAll("input"), found = [];
        for (const [r, c] of [[75, 29], [0, 29], [149, 40], [75, 0], [0, 0]]) {
          row.value = r; row.dispatchEvent(new Event("input"));
          crop.value = c; crop.dispatchEvent(new Event("input"));
          found.push([r, c, Object.fromEntries([...root.querySelectorAll(".rows div")].map(
            (line) => [line.firstChild.textContent, line.lastChild.textContent])),
            ...[...root.querySelectorAll("output")].map((said) => said.textContent)]);
        }
        return found;
    """
    for row, crop, shown, said, judged in in_page(page(tmp_path, "ruler", numbers), script):
        expected = seen(row + crop)
        assert set(shown) == {"image", "pool1", "pool2", "fc6", "upscore"}
        for name, text in shown.items():
            low, high = expected[name] or (None, None)
            assert text == ("padding" if low is None else str(low) if low == high else f"{low}–{high}"), (
                row,
                crop,
                name,
            )
        low, high = expected["image"] or (None, None)
        assert said.startswith(
            f"Output row {row} sees " + ("only padding" if low is None else f"pixels {low} to {high}")
        )
        height, width = numbers["label"].shape
        matrix = ConfusionMatrix(len(CLASSES))
        matrix.update(numbers["label"], numbers["mask"][crop : crop + height, crop : crop + width])
        assert judged == f"Cropped at {crop}, the mask has a mean IoU of {100 * matrix.mean_iou():.1f} %."


@needs_browser
def test_the_ruler_follows_a_finger_and_names_a_wrong_crop(tmp_path):
    script = """
        const root = document.querySelector(".widget"), [row, crop] = root.querySelectorAll("input");
        const box = root.querySelector(".rows i").getBoundingClientRect();
        const at = box.left + box.width * (0.3 + 40.2 / 150) / 1.6;
        root.querySelector(".rows").dispatchEvent(new PointerEvent("pointerdown", { clientX: at }));
        crop.value = 20; crop.dispatchEvent(new Event("input"));
        return [row.value, root.querySelector("output").textContent];
    """
    row, said = in_page(page(tmp_path, "ruler", ruler()), script, width=500)
    assert row == "40"
    middle = float(re.search(r"stands for pixel ([\d.]+)", said)[1])
    assert middle == 40 + 20 - CROP
