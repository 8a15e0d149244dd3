"""The names of ImageNet's 1000 classes, in the order of the challenge's class numbers. Russakovsky et al., 2015."""

from pathlib import Path

IMAGENET_CLASSES = tuple(Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8").splitlines())
