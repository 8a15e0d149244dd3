"""Segment images. For each image (or each in a folder, such as the frames of a video) print what was found and its share
of the pixels, and write NAME.png, a palette mask, and NAME_overlay.jpg. Without --weights the network that comes with
minifcn looks for cats, cows, dogs, horses, people and sheep. What cannot be read is skipped and named; no image is ever
written over."""

import time
from collections import Counter

import numpy as np
from PIL import Image
from tqdm import tqdm

from .. import inference, models
from ..data.images import write_mask
from ..data.labels import colourise
from ..data.transforms import shrink
from ..errors import InputError
from ..files import make_folder
from ..inference import sliding_window
from . import options
from .progress import notice

HELP = "segment any images"
PRETRAINED, LONGEST = "animals", 500  # and the longer side of the photographs that it was trained on


def add_arguments(parser):
    options.add_device(parser)
    options.add_segmenter(parser, own=PRETRAINED)
    parser.add_argument("--out", default="predictions", metavar="FOLDER", help="folder for masks and overlays")
    options.add_size(parser)
    options.add_exif(parser)
    options.add_images(parser, "IMAGE")


def run(args):
    model = models.load_segmenter(args.weights) if args.weights else models.pretrained(PRETRAINED)
    resize = args.resize or (None if args.weights or args.tile else LONGEST)
    sliding_window.check_tile(args.tile)
    named, network, out = options.named_images(args.images), model.prepare(), make_folder(args.out)
    files = {name: (out / f"{name}.png", out / f"{name}_overlay.jpg") for _, name in named}
    images = {path.resolve() for path, _ in named}
    if lost := [file for both in files.values() for file in both if file.resolve() in images]:
        raise InputError(
            f"{lost[0]}: is one of the images, and would be written over; choose another folder with --out"
        )
    skipped, seen, start = [], Counter(), time.perf_counter()
    bar = tqdm(named, unit="image", disable=None)
    for path, name, image in options.readable(bar, skipped, args.exif):
        labels = predicted(network, image, resize, args.tile)
        shares = shares_of(labels, model.card.classes)
        bar.write(f"{path}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items()))
        seen.update(shares.keys())
        mask, overlaid = files[name]
        write_mask(mask, labels, model.card.palette)
        Image.fromarray(overlay(image, colourise(labels, model.card.palette))).save(overlaid, quality=92)
    done, seconds = len(named) - len(skipped), time.perf_counter() - start
    if done > 1:
        print(f"{done} images: " + ", ".join(f"{name} in {count}" for name, count in seen.most_common()))
    written = f"mask{'s' * (done != 1)} and overlay{'s' * (done != 1)}"
    notice(f"{done} {written} written to {out}, {done / seconds:.1f} images a second")
    return options.tell_skipped(skipped)


def predicted(network, image, resize, tile):
    """The class of every pixel, also where the network sees the image shrunk to `resize` pixels.   -> (H, W) uint8"""
    small = shrink(image, image[:, :, 0], resize)[0] if resize else image
    labels = Image.fromarray(inference.predict(network, small, tile))
    return np.asarray(labels.resize(image.shape[1::-1], Image.Resampling.NEAREST))


def shares_of(labels, classes):
    """{class: its share of the pixels} of the classes that labels (H, W) have, the largest first."""
    counts = np.bincount(labels.reshape(-1), minlength=len(classes))
    return {classes[i]: counts[i] / labels.size for i in np.argsort(-counts, kind="stable") if counts[i]}


def overlay(image, colours):
    """An image with what is not background in its colour over it.   both (H, W, 3) uint8"""
    mixed = Image.blend(Image.fromarray(image), Image.fromarray(colours), 0.6)
    return np.where(colours.any(axis=2, keepdims=True), np.asarray(mixed), image)
