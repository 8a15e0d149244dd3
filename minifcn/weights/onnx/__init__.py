"""ONNX files: networks written for other programs, and other programs' networks read. The package onnx parses and writes."""

from .reader import load_onnx
from .writer import save_onnx

__all__ = ["load_onnx", "save_onnx"]
