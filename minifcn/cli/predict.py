"""Segment images. For each image (or each image in a folder) write NAME.png, a palette mask in the colours of the data
set that the network was trained on, and NAME_overlay.jpg."""

import numpy as np
from PIL import Image
from tqdm import tqdm

from .. import inference
from ..data.images import read_image, write_mask
from ..data.labels import colourise
from ..files import make_folder
from ..training import checkpoint
from . import options
from .progress import notice

HELP = "segment any images"


def add_arguments(parser):
    options.add_device(parser)
    options.add_segmenter(parser)
    parser.add_argument("--out", default="predictions", metavar="FOLDER", help="folder for masks and overlays")
    options.add_images(parser, "IMAGE")


def run(args):
    model = checkpoint.load_segmenter(args.weights)
    named, network, out = options.named_images(args.images), model.prepare(), make_folder(args.out)
    for path, name in tqdm(named, unit="image", disable=None):
        image = read_image(path)
        labels = inference.predict(network, image)
        write_mask(out / f"{name}.png", labels, model.card.palette)
        coloured = colourise(labels, model.card.palette)
        overlay = np.where(coloured.any(axis=2, keepdims=True), image * 0.4 + coloured * 0.6, image)
        Image.fromarray(overlay.astype(np.uint8)).save(out / f"{name}_overlay.jpg", quality=92)
    notice(f"{len(named)} masks and overlays written to {out}")
    return 0
