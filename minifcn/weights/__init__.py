"""Files of weights: the library's own format and those of other libraries. Nothing in a file is ever executed."""

from .adopt import Loaded
from .formats import load, load_any, load_caffemodel, load_safetensors, load_torchvision, save, save_safetensors
from .onnx import load_onnx, save_onnx
from .pretrained import load_pretrained

__all__ = [
    "Loaded",
    "load",
    "load_any",
    "load_caffemodel",
    "load_onnx",
    "load_pretrained",
    "load_safetensors",
    "load_torchvision",
    "save",
    "save_onnx",
    "save_safetensors",
]
