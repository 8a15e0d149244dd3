"""An operation with its parameters and one cache: what a network's table is made of."""

from . import coordinates, init
from .base import Layer, Leaf, Parameter
from .fused import FusedConv2d
from .general import Clip, Mean, Pad, Resize, Slice, Softmax
from .joins import Add, Concat, Constant, CropLike, Divide, Multiply, ResizeLike, Scale, Subtract
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
    "coordinates", "init", "Layer", "Leaf", "Parameter", "FusedConv2d", "Add", "Concat", "Constant", "CropLike", "Divide", "Multiply", "ResizeLike",
    "Scale", "Subtract", "BatchNorm2d", "Conv2d", "ConvTranspose2d", "LearnedUpsample", "Linear", "Upsample", "LRN",
    "AdaptiveAvgPool2d", "AvgPool2d", "Dropout", "ExactSize", "Flatten", "GlobalAvgPool", "MaxPool2d", "PadToMultiple", "ReLU",
    "ReLU6", "Clip", "Mean", "Pad", "Resize", "Slice", "Softmax",
]
