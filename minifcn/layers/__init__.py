"""An operation with its parameters and one cache: what a network's table is made of."""

from . import coordinates, init
from .base import Layer, Leaf, Parameter
from .fused import FusedConv2d
from .joins import Add, Concat, CropLike, ResizeLike, Scale
from .parametric import BatchNorm2d, Conv2d, ConvTranspose2d, LearnedUpsample, Linear, Upsample
from .plain import (
    LRN,
    AdaptiveAvgPool2d,
    AvgPool2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    MaxPool2d,
    PadToMultiple,
    ReLU,
    ReLU6,
)

__all__ = [
    "LRN",
    "AdaptiveAvgPool2d",
    "Add",
    "AvgPool2d",
    "BatchNorm2d",
    "Concat",
    "Conv2d",
    "ConvTranspose2d",
    "CropLike",
    "Dropout",
    "Flatten",
    "FusedConv2d",
    "GlobalAvgPool",
    "Layer",
    "Leaf",
    "LearnedUpsample",
    "Linear",
    "MaxPool2d",
    "PadToMultiple",
    "Parameter",
    "ReLU",
    "ReLU6",
    "ResizeLike",
    "Scale",
    "Upsample",
    "coordinates",
    "init",
]
