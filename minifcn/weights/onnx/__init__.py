"""ONNX files: networks are written for other programs, and theirs are read. The package onnx does the parsing and writing."""

from .reader import load_onnx
from .writer import save_onnx

__all__ = ["load_onnx", "save_onnx"]
