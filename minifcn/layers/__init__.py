"""An operation with its parameters and one cache: what a network's table is made of."""

from . import coordinates, init
from .base import Layer, Leaf, Parameter
from .fused import FusedConv2d
from .general import Clip, Multiply, Pad, Resize, Slice, SliceLike, Softmax
from .joins import Add, Concat, CropLike, ResizeLike, Scale
from .parametric import BatchNorm2d, Conv2d, ConvTranspose2d, LearnedUpsample, Linear, Upsample
from .plain import (
    LRN,
    AdaptiveAvgPool2d,
    AvgPool2d,
    Dropout,
    ExactSize,
    Flatten,
    GlobalAvgPool,
    MaxPool2d,
    PadToMultiple,
    ReLU,
    ReLU6,
)

# fmt: off
__all__ = [
    "coordinates", "init", "Layer", "Leaf", "Parameter", "FusedConv2d", "Add", "Concat", "CropLike", "ResizeLike",
    "Scale", "BatchNorm2d", "Conv2d", "ConvTranspose2d", "LearnedUpsample", "Linear", "Upsample", "LRN",
    "AdaptiveAvgPool2d", "AvgPool2d", "Dropout", "ExactSize", "Flatten", "GlobalAvgPool", "MaxPool2d", "PadToMultiple", "ReLU",
    "ReLU6", "Clip", "Multiply", "Pad", "Resize", "Slice", "SliceLike", "Softmax",
]
