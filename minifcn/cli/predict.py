"""Segment images. For each image (or each image in a folder) write NAME.png, a palette mask in the colours of the data
set that the network was trained on, and NAME_overlay.jpg. What cannot be read is skipped and named; no image is ever
written over."""

import numpy as np
from PIL import Image
from tqdm import tqdm

from .. import inference
from ..data.images import read_image, write_mask
from ..data.labels import colourise
from ..data.transforms import shrink
from ..errors import InputError
from ..files import make_folder
from ..inference import sliding_window
from ..training import checkpoint
from . import options
from .progress import notice

HELP = "segment any images"


def add_arguments(parser):
    options.add_device(parser)
    options.add_segmenter(parser)
    parser.add_argument("--out", default="predictions", metavar="FOLDER", help="folder for masks and overlays")
    options.add_size(parser)
    options.add_exif(parser)
    options.add_images(parser, "IMAGE")


def run(args):
    model = checkpoint.load_segmenter(args.weights)
    sliding_window.check_tile(args.tile)
    named, network, out = options.named_images(args.images), model.prepare(), make_folder(args.out)
    files = {name: (out / f"{name}.png", out / f"{name}_overlay.jpg") for _, name in named}
    images = {path.resolve() for path, _ in named}
    if lost := [file for both in files.values() for file in both if file.resolve() in images]:
        raise InputError(
            f"{lost[0]}: is one of the images, and would be written over; choose another folder with --out"
        )
    skipped = []
    for path, name in tqdm(named, unit="image", disable=None):
        try:
            image = read_image(path, args.exif)
        except InputError as error:
            if len(named) == 1:
                raise
            skipped.append(error)
            continue
        labels = predicted(network, image, args.resize, args.tile)
        mask, overlaid = files[name]
        write_mask(mask, labels, model.card.palette)
        coloured = colourise(labels, model.card.palette)
        overlay = np.where(coloured.any(axis=2, keepdims=True), image * 0.4 + coloured * 0.6, image)
        Image.fromarray(overlay.astype(np.uint8)).save(overlaid, quality=92)
    notice(f"{len(named) - len(skipped)} masks and overlays written to {out}")
    for error in skipped:
        notice(f"skipped: {error}")
    return 1 if skipped else 0


def predicted(network, image, resize, tile):
    """The class of every pixel, also where the network sees the image shrunk to `resize` pixels.   -> (H, W) uint8"""
    small = shrink(image, image[:, :, 0], resize)[0] if resize else image
    labels = Image.fromarray(inference.predict(network, small, tile))
    return np.asarray(labels.resize(image.shape[1::-1], Image.Resampling.NEAREST))
