"""Weights on disk."""

from .npz import load, save

__all__ = ["load", "save"]
