"""Weights on disk: the library's own format, and those of others."""

from .foreign import Loaded, load_any, load_caffemodel, load_safetensors, load_torchvision, save_safetensors
from .npz import load, save
from .pretrained import load_pretrained

__all__ = [
    "Loaded",
    "load",
    "load_any",
    "load_caffemodel",
    "load_pretrained",
    "load_safetensors",
    "load_torchvision",
    "save",
    "save_safetensors",
]
