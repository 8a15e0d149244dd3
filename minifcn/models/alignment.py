"""Where a pixel of a feature map lies in the image, and so by how much to crop: the "19, 5, 27, 9, 31" of FCN, derived.

Every layer that slides a window moves coordinates by an affine map. Let a position u in a layer's input (counted in
pixels, pixel centres at whole numbers) belong to position a·u + b in its output:

    convolution, pooling:     a = 1/stride    b = (pad − (k − 1)/2) / stride
    transposed convolution:   a = stride      b = (k − 1)/2 − pad
    crop by an offset:        a = 1           b = −offset
    frame around the image:   a = 1           b = its width

with k the extent of the (dilated) kernel. Layers in a row compose. Two branches that are to be added must have equal
maps; the crop that makes them equal is the difference of their b. Fractions keep it exact.

An enlargement by s of kernel 2s (even) puts its values between those of kernel 2s − 1 (odd). Only one of the two lies on
the other branch's grid with a whole crop; that is why the published FCN-AlexNet has a kernel of 63 where the VGG ones have 64.
"""

from fractions import Fraction
from typing import NamedTuple

from .. import layers
from ..errors import InputError
from ..ops.window import pads, pair
from .efficientnet_lite0 import InvertedResidual


class Affine(NamedTuple):
    """u -> a·u + b, along one axis."""

    a: Fraction
    b: Fraction

    def then(self, later):
        """This map first, then `later`."""
        return Affine(later.a * self.a, later.a * self.b + later.b)


IDENTITY = Affine(Fraction(1), Fraction(0))
_UNMOVED = (layers.ReLU, layers.ReLU6, layers.Dropout, layers.LRN, layers.BatchNorm2d)


def affine_of(layer):
    """The coordinate map of one layer, or of a chain of them, along the height (width is alike in square settings).

    A convolution padded "same" counts as what it was trained to be, a division of its input into cells of `stride` pixels,
    each cell's value lying in its middle. (Its window leans half a pixel or more to the bottom and right of that, but the
    weights make up for it: a trained EfficientNet's heat-map peaks where the middles say.)
    Raises TypeError for a layer that has no single map.
    """
    if isinstance(layer, layers.Sequential):
        return affine_of_chain(layer.layers.values())
    if isinstance(layer, InvertedResidual):
        return affine_of(layer.branch)
    if isinstance(layer, _UNMOVED):
        return IDENTITY
    if isinstance(layer, layers.PadToMultiple):
        return Affine(Fraction(1), Fraction(layer.frame))
    if isinstance(layer, layers.Crop):
        return Affine(Fraction(1), Fraction(-layer.offset))
    if isinstance(layer, layers.Conv2d | layers.ConvTranspose2d):
        kernel = layer.weight.value.shape[2]
    elif isinstance(layer, layers.Upsample):
        kernel = layer.line.value.size
    elif isinstance(layer, layers.MaxPool2d | layers.AvgPool2d):
        kernel = pair("kernel", layer.kernel)[0]
    else:
        raise TypeError(f"alignment: a {type(layer).__name__} has no coordinate map")
    stride = pair("stride", layer.settings["stride"])[0]
    dilation = pair("dilation", layer.settings.get("dilation", 1))[0]
    if layer.settings["pad"] == "same":
        return Affine(Fraction(1, stride), Fraction(1 - stride, 2 * stride))
    pad = pads(layer.settings["pad"])[0][0]
    centre = Fraction(dilation * (kernel - 1), 2)  # from a window's first tap to its middle
    if isinstance(layer, layers.ConvTranspose2d | layers.Upsample):
        return Affine(Fraction(stride), centre - pad)
    return Affine(Fraction(1, stride), (pad - centre) / stride)


def affine_of_chain(chain):
    """The coordinate map of layers applied one after the other."""
    total = IDENTITY
    for layer in chain:
        total = total.then(affine_of(layer))
    return total


def enlarged(at, factor, kernel):
    """The coordinate map `at`, followed by a transposed convolution without padding."""
    return at.then(Affine(Fraction(factor), Fraction(kernel - 1, 2)))


def enlarging_kernel(factor, at, target):
    """The bilinear kernel's size, 2·factor or 2·factor − 1, that takes maps with coordinates `at` onto the grid of `target`.

    Raises InputError if neither does.
    """
    for kernel in (2 * factor, 2 * factor - 1):
        if (enlarged(at, factor, kernel).b - target.b).denominator == 1:
            return kernel
    raise InputError(f"alignment: no enlargement by {factor} takes offset {at.b} to a whole distance from {target.b}")


def crop_offset(larger, target):
    """By how much to crop a map with coordinates `larger` so that it lies on one with coordinates `target`.

    Raises InputError if the scales differ, or if no whole, non-negative offset does it.
    """
    offset = larger.b - target.b
    if larger.a != target.a or offset.denominator != 1 or offset < 0:
        raise InputError(
            f"alignment: no crop lays a map of scale {larger.a}, offset {larger.b} on scale {target.a}, offset {target.b}"
        )
    return int(offset)
