"""A toy data set in VOC's layout: textured scenes of simple shapes, drawn here, so that anyone can train without a download.

Each class is a shape with a coat of its own: spots, stripes, checks … of any colour on a ground of about the class's hue.
Its place, rotation, size and lighting are random. Behind it is a dull background with clutter of all hues; other shapes
or the image's edge may hide part of it.
"""

import shutil
from colorsys import hsv_to_rgb
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ..errors import InputError
from ..files import check_empty
from .images import write_mask
from .labels import VOID
from .sets.voc import OBJECTS

BORDER = 1.0  # pixels on each side of an outline that are void, as in VOC's own masks


def _cross(x, y):
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 1, y - 0.33), np.maximum(x - 0.33, y - 1))


# class -> (signed distance to the outline of the unit shape, negative inside; coat: where the second colour goes)
SHAPES = {
    "disc": (
        lambda x, y: np.hypot(x, y) - 1,
        lambda x, y: np.hypot((x * 2.6) % 1 - 0.5, (y * 2.6) % 1 - 0.5) < 0.33,  # spots
    ),
    "ring": (
        lambda x, y: np.abs(np.hypot(x, y) - 0.72) - 0.28,
        lambda x, y: (x * 3.2) % 1 < 0.5,  # stripes
    ),
    "square": (
        lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.8,
        lambda x, y: (np.hypot(x, y) * 3.0) % 1 < 0.5,  # rings
    ),
    "triangle": (
        lambda x, y: np.maximum(np.sqrt(3) / 2 * np.abs(x) + y / 2, -y) - 0.55,
        lambda x, y: ((x * 2.2) % 1 < 0.5) ^ ((y * 2.2) % 1 < 0.5),  # checks
    ),
    "cross": (_cross, lambda x, y: (y * 2.4 + 0.25 * np.sin(9 * x)) % 1 < 0.4),  # waves
}
CLASSES = ("background", *SHAPES)


def write_toyvoc(
    root: str | Path, train: int = 800, val: int = 50, size: int = 128, seed: int = 0, instances: bool = False
) -> None:
    """Write a VOCdevkit tree that data.VOC reads: root/VOC2012 with JPEG photographs, palette masks, lists, class names.

    train, val: number of images in each split. size: their typical height and width in pixels; each varies by a quarter.
    instances: draw other scenes, in which shapes of a class touch and overlap, and write their instance maps to SegmentationObject.
    The same arguments write the same scenes. Raises InputError rather than write into a folder that holds something.
    """
    finished = Path(root) / "VOC2012"
    check_empty(finished)
    if (
        any(number != int(number) for number in (train, val, size, seed))
        or train < 1
        or val < 1
        or size < 16
        or seed < 0
    ):
        raise InputError(
            "toy data: expected whole numbers, train and val of at least 1, size of at least 16 and seed of at least 0; "
            f"got {train}, {val}, {size} and {seed}"
        )
    folder = finished.with_name(
        f".{finished.name}.part"
    )  # so that scenes of an interrupted drawing are not taken for all
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("JPEGImages", "SegmentationClass", *([OBJECTS] if instances else []), "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    ids = {split: [f"toy_{split}_{i:05d}" for i in range(count)] for split, count in (("train", train), ("val", val))}
    for number, names in enumerate(ids.values()):
        for i, id in enumerate(names):
            image, label, objects = draw_objects(np.random.default_rng([seed, number, i]), size, crowds=instances)
            Image.fromarray(image).save(folder / "JPEGImages" / f"{id}.jpg", quality=90)
            write_mask(folder / "SegmentationClass" / f"{id}.png", label)
            if instances:
                write_mask(folder / OBJECTS / f"{id}.png", objects)
    ids["trainval"] = ids["train"] + ids["val"]
    for split, names in ids.items():
        path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.write_text("\n".join(names) + "\n", encoding="utf-8")
    folder.replace(finished)


def draw_scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image (H, W, 3) uint8, label (H, W) uint8, void along the outlines."""
    image, label, _ = draw_objects(rng, size)
    return image, label


def draw_objects(
    rng: np.random.Generator, size: int, crowds: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One scene as `draw_scene` makes it, and its instance map (H, W) uint8: object numbers from 1, void along the outlines.

    crowds: draw smaller shapes, most of them beside or over another of their class.
    """
    height, width = (int(size * rng.uniform(0.75, 1.25)) for _ in range(2))
    image = _ground(height, width, rng)
    label, numbers = np.zeros((2, height, width), np.uint8)
    for _ in range(rng.integers(4, 10)):
        _clutter(image, size, rng)
    if crowds:
        _crowds(image, label, numbers, size, rng)
    else:
        for i in range(rng.integers(1, 4)):
            kind, radius = int(rng.integers(1, len(CLASSES))), rng.uniform(0.2, 0.4) * size
            _object(image, label, numbers, i + 1, kind, radius, None, rng)
    shade = 0.75 + 0.5 * _smooth_noise((height, width), 2, rng)
    noisy = image * shade[:, :, None] + rng.normal(0, 6, image.shape)
    photo = Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.6)))
    return np.asarray(photo), label, numbers


def _ground(height, width, rng):
    """A mottled background of two colours that run into each other."""
    colours = rng.uniform(40, 215, (2, 1)) + rng.normal(0, 15, (2, 3))
    mix = 0.6 * _smooth_noise((height, width), 4, rng) + 0.4 * _smooth_noise((height, width), 24, rng)
    return colours[0] + mix[:, :, None] * (colours[1] - colours[0])


def _clutter(image, size, rng):
    """A plain blot or stick, which belongs to the background."""
    x, y, _ = _coordinates(image.shape[:2], rng.uniform(0.02, 0.1) * size, rng)
    stretch = rng.choice([1, 1, 4])
    inside = np.hypot(x / stretch, y) < 1
    image[inside] = _hue(rng.uniform(), rng)


def _crowds(image, label, numbers, size, rng):
    """One or two kinds of shapes, one to three of each, every one after the first near the one before it."""
    count = 0
    for _ in range(rng.integers(1, 3)):
        kind, before = int(rng.integers(1, len(CLASSES))), None
        for _ in range(rng.integers(1, 4)):
            radius, place = rng.uniform(0.15, 0.25) * size, None
            if before:
                angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.1) * (radius + before[1])
                place = before[0] + away * np.array([np.sin(angle), np.cos(angle)])
                place = place.clip(0, np.array(label.shape) - 1)
            count += 1
            before = _object(image, label, numbers, count, kind, radius, place, rng), radius


def _object(image, label, numbers, count, kind, radius, centre, rng):
    """Draw a shape in its coat over whatever was there; its outline becomes void. centre: None for a random one. -> its centre"""
    shape, coat = SHAPES[CLASSES[kind]]
    x, y, centre = _coordinates(image.shape[:2], radius, rng, centre)
    distance = shape(x, y) * radius
    base, other = _hue((kind - 1) / len(SHAPES) + rng.normal(0, 0.03), rng), rng.uniform(20, 235, 3)
    while np.abs(base - other).sum() < 150:  # a coat that cannot be seen would teach nothing
        other = rng.uniform(20, 235, 3)
    coloured = np.where(coat(x, y)[:, :, None], other, base)
    inside = distance < 0
    image[inside] = coloured[inside]
    label[inside], numbers[inside] = kind, count
    outline = np.abs(distance) < BORDER
    label[outline] = numbers[outline] = VOID
    return centre


def _hue(hue, rng):
    """A colour (3,) of this hue (0 … 1, red to red), of random saturation and brightness."""
    return 255 * np.array(hsv_to_rgb(hue % 1, rng.uniform(0.5, 1), rng.uniform(0.5, 1)))


def _coordinates(shape, radius, rng, centre=None):
    """(x, y, centre): every pixel's coordinates around a centre (random unless given), rotated at random, in units of `radius`."""
    height, width = shape
    if centre is None:
        centre = np.array([rng.uniform(0, height), rng.uniform(0, width)])
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width] - centre[:, None, None]
    x, y = (np.cos(angle) * x - np.sin(angle) * y) / radius, (np.sin(angle) * x + np.cos(angle) * y) / radius
    return x, y, centre


def _smooth_noise(shape, cells, rng):
    """A random field between 0 and 1 that changes over about 1/cells of the image."""
    coarse = Image.fromarray(rng.uniform(0, 1, (cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)).clip(0, 1)
