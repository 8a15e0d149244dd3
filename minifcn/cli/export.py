"""Write a trained network as an ONNX file, which other programs can run on a server, on a phone or in a browser. It takes batches of any
number of images of any size and gives scores; with --pixels it takes photographs as bytes and gives labels. docs/onnx.md says how to run
it. Needs the package onnx."""

from pathlib import Path

from .. import models, weights
from ..errors import InputError
from ..layers import BatchNorm2d
from ..weights.checks import require_ending
from .progress import notice

HELP = "write a network as an ONNX file"


def add_arguments(parser):
    add = parser.add_argument
    source = "weights, .npz or .safetensors; or the name of a network that comes with minifcn: "
    add("source", metavar="FROM", help=source + ", ".join(models.trained()))
    add("target", metavar="TO", help="file to write, .onnx; must not exist")
    fold = "fold batch normalisation into the convolutions: fewer nodes, but no further training"
    add("--fold", action="store_true", help=fold)
    pixels = "take (N, H, W, 3) uint8 RGB and give labels (N, H, W) uint8, with the preprocessing inside the file"
    add("--pixels", action="store_true", help=pixels)


def run(args):
    target = Path(args.target)
    require_ending(target, ".onnx")
    if target.exists():
        raise InputError(f"{target}: exists already; choose another name")
    network = models.pretrained(args.source) if models.is_trained(args.source) else models.load(args.source)
    if args.fold and not network.layers_of(BatchNorm2d):
        raise InputError(f"{args.source}: has no normalisation to fold; leave --fold out")
    weights.save_onnx(target, network, fold=args.fold, pixels=args.pixels)
    size = network.card and network.card.longest
    shrink = f"; shrink images to a longer side of {size} pixels for it, as in its training" if size else ""
    notice(f"written: {target}, {target.stat().st_size / 1e6:.1f} MB{shrink}")
    return 0
