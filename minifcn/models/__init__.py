"""The networks."""

from . import alignment, surgery
from .alexnet import alexnet, alexnet_torchvision
from .build import ALIGNMENTS, BACKBONES, CLASSIFIERS, UPSAMPLING, fcn
from .classifier import Classifier
from .efficientnet_lite0 import efficientnet_lite0
from .explain import explain
from .fcn import FCN, VARIANTS
from .vgg import VGG, vgg16

__all__ = [
    "ALIGNMENTS",
    "BACKBONES",
    "CLASSIFIERS",
    "FCN",
    "UPSAMPLING",
    "VARIANTS",
    "VGG",
    "Classifier",
    "alexnet",
    "alexnet_torchvision",
    "alignment",
    "efficientnet_lite0",
    "explain",
    "fcn",
    "from_config",
    "surgery",
    "vgg16",
]


def from_config(config):
    """The network that a `config` describes: an FCN, a classifier, or the heat-map network made of one.

    Raises ValueError or TypeError for what describes none.
    """
    options = dict(config)
    if "variant" in options:
        return fcn(**options)
    name = options.pop("network", None)
    convolutional, window = options.pop("convolutional", False), options.pop("window", None)
    if name not in CLASSIFIERS:
        raise ValueError(f"expected a network out of {', '.join(CLASSIFIERS)}, got {name!r}")
    network = CLASSIFIERS[name](**options)
    return surgery.convolutionalize(network, window) if convolutional else network
