"""Options that say of what shape a network is, for all commands that build one: one table."""

import argparse

from .. import models
from ..errors import InputError
from ..training.config import NETWORKS, OPTIONS, check_count, own_options


def at_least(minimum):
    """The type of an option that takes integers from `minimum` on."""

    def integer(text):
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"expected at least {minimum}, got {text}")
        return int(text)

    return integer


NETWORK_OPTIONS = {  # of the builders in NETWORKS: their help, and what argparse takes besides
    "variant": ("which FCN or DeepLab", {"choices": (*models.VARIANTS, *models.DEEPLABS)}),
    "backbone": ("the network without its classifier", {"choices": tuple(models.BACKBONES)}),
    "width": (
        "channels in mini's first group, 12; of U-Net at the image's own scale, 64, or 16 over a backbone",
        {"type": at_least(1)},
    ),
    "alignment": ("of FCN; paper: pad 100 and crop; same: nothing wasted", {"choices": models.ALIGNMENTS}),
    "upsampling": (
        "of FCN, bilinear kernels, frozen or learned; of U-Net, learned or bilinear",
        {"choices": tuple(dict.fromkeys(models.UPSAMPLING + models.UNET_UPSAMPLING))},
    ),
    "at_once": ("scale FCN's skips, to train 8s without stages", {"action": "store_true"}),
    "depth": ("how often U-Net halves its maps without a backbone", {"type": at_least(1)}),
    "padding": (
        "of U-Net; same: images of any size; valid: unpadded, as in its paper, crops of 188 + 16k at depth 4",
        {"choices": models.PADDINGS},
    ),
    "batch_norm": ("normalise in U-Net", {"action": argparse.BooleanOptionalAction}),
    "output_stride": (
        "of DeepLab: image pixels from one value of the trunk's last map to the next; 8 unless given over vgg16, 16 over efficientnet_lite0",
        {"type": int, "choices": models.OUTPUT_STRIDES},
    ),
    "rates": (
        "of DeepLab's 3×3 convolutions; unless given 12 (largefov), 6 12 18 24 (aspp), 3 6 9 (v3, v3plus), at its usual output stride",
        {"type": at_least(1), "nargs": "*"},
    ),
    "decoder": ("of the panoptic network: what finds the classes", {"choices": models.DECODERS}),
    "peak_window": (
        "pixels a side in which the panoptic network finds one centre at most: an odd number",
        {"type": at_least(1), "metavar": "PIXELS"},
    ),
    "least": (
        "pixels of an object that the panoptic network finds, at least",
        {"type": at_least(1), "metavar": "PIXELS"},
    ),
    "image_pooling": ("DeepLab's v3 and v3plus see the image's mean", {"action": argparse.BooleanOptionalAction}),
}
STAGED = ("backbone", "width", "alignment", "upsampling")  # what stages have in common


WHOLE = {"unet", "panoptic"}  # which name their backbone themselves; the others are asked for by its name


def add_network(parser, *builders):
    """Add the options of some of NETWORKS, to be built over a classifier's name; those that are not given are the builders'."""
    for name, (help, more) in NETWORK_OPTIONS.items():
        if any(name in NETWORKS[builder] for builder in builders) and (name != "backbone" or WHOLE & set(builders)):
            parser.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, help=help, **more)
    classes = "1000 for a classifier, 2 for a U-Net, else 21, unless given"
    parser.add_argument("--num-classes", type=at_least(1), help=classes)


def given_options(args):
    """{name: value} of the options of add_network that were given."""
    classes = {"num_classes": args.num_classes} if args.num_classes else {}
    return {name: value for name, value in vars(args).items() if name in (*OPTIONS, "channels")} | classes


def network_of(args):
    """The classifier, with --variant the FCN or DeepLab over it, the U-Net or the panoptic network that the arguments name.

    Raises InputError for an option that another network has.
    """
    given = given_options(args)
    if args.network in WHOLE:
        builder = args.network
    else:
        variant = given.get("variant")
        builder = "deeplab" if variant in models.DEEPLABS else "fcn" if variant else args.network
    known = [name for name in NETWORKS.get(builder, ()) if name != "backbone" or builder in WHOLE]
    known += ["num_classes"] + ["channels"] * (builder in WHOLE)
    own_options(builder, given, known)
    if builder == "panoptic":  # as minifcn train has it
        given.setdefault("backbone", None if given.get("decoder") == "unet" else "mini")
    check_count(given, {**NETWORKS.get(builder, {}), **given})
    if builder == "fcn" and args.network not in models.BACKBONES:
        known = ", ".join(models.BACKBONES)
        raise InputError(f"{args.command}: there is no FCN over {args.network}; choose one of {known}")
    if builder in ("fcn", "deeplab"):
        given["backbone"] = args.network
    if builder in models.CLASSIFIERS:
        given.setdefault("num_classes", 1000)
    return models.build(builder, given)
