"""Layers: operations with parameters and one cache each, and chains of them."""

from . import init
from .base import Layer, Leaf, Parameter
from .blocks import BatchNorm2d, Conv2d, ConvTranspose2d, LearnedUpsample, Linear, Upsample
from .chain import Sequential, run_chain
from .plain import (
    LRN,
    AdaptiveAvgPool2d,
    AvgPool2d,
    Crop,
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
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Crop",
    "Dropout",
    "Flatten",
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
    "Sequential",
    "Upsample",
    "init",
    "run_chain",
]
