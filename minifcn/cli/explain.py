"""Print each layer's output shape, parameters, multiply-adds, memory and receptive field, with totals. The
network is a classifier, or with --variant the FCN or DeepLab over it as a backbone; U-Net; or a panoptic network. Memory is that of
float32 activations, without a convolution's workspace."""

from argparse import SUPPRESS

import numpy as np

from .. import data, models
from ..errors import InputError
from ..training import throughput
from ..training.config import NETWORKS
from . import networks

HELP = "show what a network would cost, without running it"


def add_arguments(parser):
    add = parser.add_argument
    a_network = "a classifier (with --variant, the backbone of an FCN or DeepLab), unet or panoptic"
    add("network", choices=(*networks.BACKBONES, "unet", "panoptic"), help=a_network)
    networks.add_network(parser, *NETWORKS)
    add("--channels", type=networks.at_least(1), default=SUPPRESS, help="channels of the input images (default: 3)")
    size = "image size: one side, or height and width (default: the classifier's native size, 572 for an unpadded U-Net, else 500)"
    add("--size", type=networks.at_least(1), nargs="+", metavar="PIXELS", help=size)
    add("--batch", type=networks.at_least(1), default=1, help="images in a batch")
    keeps_up = "for a segmentation network, measure whether reading these data keeps up with training"
    add("--data", metavar="PATH", help=keeps_up)


def run(args):
    dataset = None
    if args.size and len(args.size) > 2:
        raise InputError(f"size: expected one side, or height and width; got {len(args.size)} numbers")
    if args.data:
        if args.network == "panoptic" or not (hasattr(args, "variant") or args.network == "unet"):
            raise InputError("explain: --data is for a semantic network; expected --variant, too, or unet")
        dataset = data.open_dataset(args.data)
        args.num_classes = args.num_classes or dataset.num_classes
    model = networks.network_of(args)
    unpadded = model.card.options.get("padding") == "valid"
    size = args.size or [model.card.native or (572 if unpadded else 500)]
    crop = (size[0], size[-1])
    try:
        print(models.explain(model, crop, args.batch))
    except InputError as error:
        native = model.card.native
        raise InputError(f"{error}; use --size {native}, or --variant" if native else str(error)) from error
    if dataset:
        stream = data.BatchStream(dataset, args.batch, model.card.preprocessing, np.random.default_rng(0), crop=crop)
        found = throughput.measure(model, stream)
        verdict = "the data are the bottleneck; images shrunk beforehand or a faster disk would help"
        if found.loader > found.training:
            verdict = "the data keep up"
        print(
            f"{args.data}: {found.loader:.1f} samples a second are read and cropped; "
            f"the network trains on {found.training:.1f}: {verdict}"
        )
    return 0
