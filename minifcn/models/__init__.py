"""Networks as tables of layers: classifiers, backbones and what is built over them."""

from ..card import Card
from ..layers.graph import Graph, Node, Sequential, coordinates
from . import surgery
from .alexnet import alexnet, alexnet_torchvision
from .catalogue import CLASSIFIERS, SEGMENTERS, build, is_trained, load, load_segmenter, numbered, pretrained, trained
from .deeplab import DEEPLABS, OUTPUT_STRIDES, deeplab
from .efficientnet_lite0 import efficientnet_lite0
from .explain import explain
from .fcn import ALIGNMENTS, BACKBONES, UPSAMPLING, VARIANTS, fcn
from .panoptic import DECODERS, HEADS, INSTANCE, PANOPTIC_BACKBONES, panoptic
from .unet import PADDINGS, UNET_BACKBONES, UNET_UPSAMPLING, unet
from .vgg import mini, vgg16

# fmt: off
__all__ = [
    "Card", "surgery", "alexnet", "alexnet_torchvision", "CLASSIFIERS", "SEGMENTERS", "build", "is_trained", "load", "load_segmenter", "numbered",
    "pretrained", "trained", "DEEPLABS", "OUTPUT_STRIDES", "deeplab", "efficientnet_lite0", "explain", "ALIGNMENTS", "BACKBONES", "UPSAMPLING", "VARIANTS", "fcn", "Graph",
    "DECODERS", "HEADS", "INSTANCE", "PANOPTIC_BACKBONES", "panoptic",
    "Node", "Sequential", "coordinates", "PADDINGS", "UNET_BACKBONES", "UNET_UPSAMPLING", "unet", "mini", "vgg16",
]
