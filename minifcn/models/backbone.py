"""What a segmentation network keeps of a classifier: nodes with named features, where skips can begin."""

from dataclasses import dataclass


@dataclass
class Backbone:
    """The nodes of a backbone, and what a network over it has to know.

    prefix: that of its node names in the network, "vgg" for "vgg.conv1_1". nodes: its table, reading
    "image". features: {name: (node, channels, stride)} of the maps that networks read, always named after VGG's layers, as in the
    paper: "pool1" at 1/2 and "pool2" at 1/4 (not of all backbones), "pool3" at 1/8, "pool4" at 1/16, "fc7" at 1/32. input_pad:
    zeros to put around the image, for a backbone whose own padding is not the place for them. cells: whether a map divides the
    image, padded to a multiple of the strides, into cells with their values in the middle; else pixel i of a map lies on pixel
    stride · i.
    """

    prefix: str
    nodes: dict
    features: dict
    input_pad: int = 0
    cells: bool = True
