"""Layers: operations with parameters and one cache each, and chains of them."""

from . import init
from .base import Layer, Leaf, Parameter, Sequential
from .blocks import (
    LRN,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Crop,
    Dropout,
    LearnedUpsample,
    Linear,
    MaxPool2d,
    PadToMultiple,
    ReLU,
    Upsample,
)

__all__ = [
    "LRN",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Crop",
    "Dropout",
    "Layer",
    "Leaf",
    "LearnedUpsample",
    "Linear",
    "MaxPool2d",
    "PadToMultiple",
    "Parameter",
    "ReLU",
    "Sequential",
    "Upsample",
    "init",
]
