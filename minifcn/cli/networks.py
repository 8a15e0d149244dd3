"""The options that determine a network's structure, in one table for all commands that build one."""

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


NETWORK_OPTIONS = {  # of the builders in NETWORKS: the help, and what else argparse takes
    "variant": ("which FCN or DeepLab", {"choices": (*models.VARIANTS, *models.DEEPLABS)}),
    "backbone": ("the network without its classifier", {"choices": tuple(models.BACKBONES)}),
    "width": (
        "channels in mini's first group (12), or of U-Net at full resolution (64; 16 over a backbone)",
        {"type": at_least(1)},
    ),
    "alignment": ("of FCN; paper: pad 100 and crop; same: no such padding", {"choices": models.ALIGNMENTS}),
    "upsampling": (
        "of FCN, bilinear kernels, frozen or learned; of U-Net, learned or bilinear",
        {"choices": tuple(dict.fromkeys(models.UPSAMPLING + models.UNET_UPSAMPLING))},
    ),
    "at_once": ("scale FCN's skips, to train 8s without stages", {"action": "store_true"}),
    "depth": ("how many times U-Net halves its maps, without a backbone", {"type": at_least(1)}),
    "padding": (
        "of U-Net; same: images of any size; valid: unpadded, as in its paper, crops of 188 + 16k at depth 4",
        {"choices": models.PADDINGS},
    ),
    "batch_norm": ("use batch normalisation in U-Net", {"action": argparse.BooleanOptionalAction}),
    "output_stride": (
        "of DeepLab: pixels between neighbouring values of the trunk's last map; if not given, 8 over vgg16, 16 over efficientnet_lite0",
        {"type": int, "choices": models.OUTPUT_STRIDES},
    ),
    "rates": (
        "rates of DeepLab's 3×3 convolutions; if absent, 12 (largefov), 6 12 18 24 (aspp), 3 6 9 (v3, v3plus), at the usual output stride",
        {"type": at_least(1), "nargs": "*"},
    ),
    "decoder": ("of the panoptic network: the decoder that predicts the classes", {"choices": models.DECODERS}),
    "peak_window": (
        "side of the window in which the panoptic network finds one centre at most: an odd number",
        {"type": at_least(1), "metavar": "PIXELS"},
    ),
    "least": (
        "fewest pixels of an object that the panoptic network keeps",
        {"type": at_least(1), "metavar": "PIXELS"},
    ),
    "image_pooling": (
        "DeepLab's v3 and v3plus also see the whole image's mean",
        {"action": argparse.BooleanOptionalAction},
    ),
}
STAGED = ("backbone", "width", "alignment", "upsampling")  # the options that all stages share


BACKBONES = tuple(
    dict.fromkeys((*models.CLASSIFIERS, *models.BACKBONES))
)  # classifiers, and what FCNs and DeepLabs are over
WHOLE = {"unet", "panoptic"}  # these name their backbone by an option; the others are asked for by the backbone's name


def add_network(parser, *builders):
    """Add the options of some of NETWORKS, to be built over a classifier given by name; the builders have the defaults."""
    for name, (help, more) in NETWORK_OPTIONS.items():
        if any(name in NETWORKS[builder] for builder in builders) and (name != "backbone" or WHOLE & set(builders)):
            parser.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, help=help, **more)
    classes = "number of classes (default: 1000 for a classifier, 2 for a U-Net, else 21)"
    parser.add_argument("--num-classes", type=at_least(1), help=classes)


def given_options(args):
    """{name: value} of the options of add_network that were given."""
    classes = {"num_classes": args.num_classes} if args.num_classes else {}
    return {name: value for name, value in vars(args).items() if name in (*OPTIONS, "channels")} | classes


def network_of(args):
    """The network that the arguments name: a classifier, with --variant the FCN or DeepLab over it, a U-Net or a panoptic network.

    Raises InputError for an option that belongs to another network.
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
    if builder == args.network and builder not in (*models.CLASSIFIERS, *WHOLE):
        raise InputError(f"{args.command}: {builder} is a backbone; name what is over it, such as --variant 8s")
    if builder in ("fcn", "deeplab"):
        given["backbone"] = args.network
    if builder in models.CLASSIFIERS:
        given.setdefault("num_classes", 1000)
    return models.build(builder, given)
