"""The networks by name: which trunks and classifiers there are, and an FCN over any trunk."""

import numpy as np

from ..card import Card
from ..errors import InputError
from ..preprocessing import CAFFE, LITE0, Preprocessing
from .alexnet import alexnet, alexnet_torchvision, alexnet_trunk
from .efficientnet_lite0 import efficientnet_lite0, efficientnet_lite0_trunk
from .fcn import FCN, VARIANTS
from .mini import mini
from .vgg import vgg16, vgg16_trunk

# name -> (builder of the trunk, what the trunk's usual weights expect)
BACKBONES = {
    "mini": (mini, Preprocessing()),
    "vgg16": (vgg16_trunk, CAFFE),
    "alexnet": (alexnet_trunk, CAFFE),
    "efficientnet_lite0": (efficientnet_lite0_trunk, LITE0),
}
CLASSIFIERS = {
    "vgg16": vgg16,
    "alexnet": alexnet,
    "alexnet_torchvision": alexnet_torchvision,
    "efficientnet_lite0": efficientnet_lite0,
}
ALIGNMENTS = ("paper", "same")
UPSAMPLING = ("frozen", "learned")


def fcn(
    variant="8s",
    backbone="mini",
    num_classes=21,
    alignment="paper",
    at_once=False,
    seed=0,
    *,
    upsampling="frozen",
    width=None,
):
    """A fully convolutional network with freshly drawn weights.

    variant: "32s", "16s" or "8s". backbone: "mini", "vgg16", "alexnet" (CaffeNet) or "efficientnet_lite0"; width: mini's
    number of channels in its first group.
    alignment: "paper" pads the image by 100 and crops the result; "same" wastes nothing. at_once: scale the skips, to
    train 8s without the stages before it. upsampling: "frozen" bilinear kernels, or "learned" ones that start so.
    The network's `card` holds these arguments. Raises InputError for an unknown name.
    """
    for what, value, known in (
        ("variant", variant, VARIANTS),
        ("backbone", backbone, tuple(BACKBONES)),
        ("alignment", alignment, ALIGNMENTS),
        ("upsampling", upsampling, UPSAMPLING),
    ):
        if value not in known:
            raise InputError(f"fcn: {what}: expected one of {', '.join(known)}; got {value!r}")
    if num_classes < 1:
        raise InputError(f"fcn: num_classes: expected at least 1, got {num_classes}")
    if width is not None and backbone != "mini":
        raise InputError(f"fcn: width: only the mini backbone has one, not {backbone}")
    rng = np.random.default_rng(seed)
    options = {} if width is None else {"width": width}
    trunk, preprocessing = BACKBONES[backbone]
    network = FCN(
        trunk(alignment, rng, **options),
        variant,
        num_classes,
        alignment,
        at_once=at_once,
        upsampling=upsampling,
        rng=rng,
    )
    options = {
        "variant": variant,
        "backbone": backbone,
        "num_classes": num_classes,
        "alignment": alignment,
        "at_once": at_once,
        "seed": seed,
        "upsampling": upsampling,
        "width": width,
    }
    network.card = Card("fcn", options, preprocessing)
    return network
