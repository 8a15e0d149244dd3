"""Networks as tables of layers: classifiers, backbones and what is built over them."""

from ..card import Card
from ..errors import InputError
from . import surgery
from .alexnet import alexnet, alexnet_torchvision
from .efficientnet_lite0 import efficientnet_lite0
from .explain import explain
from .fcn import ALIGNMENTS, BACKBONES, UPSAMPLING, VARIANTS, fcn
from .graph import Graph, Node, Sequential, coordinates
from .vgg import vgg16

CLASSIFIERS = {
    "vgg16": vgg16,
    "alexnet": alexnet,
    "alexnet_torchvision": alexnet_torchvision,
    "efficientnet_lite0": efficientnet_lite0,
}


def build(builder, options):
    """A network with freshly drawn weights by its builder's name: "fcn" or a classifier's. See `Card`.

    A classifier with the option "convolutional" is the heat-map network made of it. Raises InputError for an unknown
    builder, TypeError for options that it does not have.
    """
    builders = {"fcn": fcn, **CLASSIFIERS}
    if builder not in builders:
        raise InputError(f"expected a network out of {', '.join(builders)}, got {builder!r}")
    options = dict(options)
    convolutional, window = options.pop("convolutional", False), options.pop("window", None)
    network = builders[builder](**options)
    return surgery.convolutionalize(network, window) if convolutional else network
