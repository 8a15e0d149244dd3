"""Where a pixel of a feature map lies in the image, and so by how much to crop: the "19, 5, 27, 9, 31" of FCN, derived.

Every layer that slides a window moves coordinates by an affine map. Let a position u in a layer's input (counted in
pixels, pixel centres at whole numbers) belong to position a·u + b in its output:

    convolution, pooling:     a = 1/stride    b = (pad − (k − 1)/2) / stride
    transposed convolution:   a = stride      b = (k − 1)/2 − pad
    crop by an offset:        a = 1           b = −offset
    padding of the image:     a = 1           b = the pad above or on the left

with k the extent of the (dilated) kernel. Layers in a row compose. Two branches that are to be added must have equal
maps; the crop that makes them equal is the difference of their b. Fractions keep it exact. (Caffe's coord_map.py has the
same arithmetic. Why the released FCNs pad by 100: the README of shelhamer/fcn.berkeleyvision.org, "Why pad the input?".)

Upsampling by s with a kernel of 2s (even) puts its values between those of a kernel of 2s − 1 (odd). Only one of the two
lies on the other branch's grid with a whole crop; that is why the published FCN-AlexNet has a kernel of 63 where the VGG
ones have 64.
"""

from fractions import Fraction
from typing import NamedTuple

from ..errors import InputError


class Affine(NamedTuple):
    """u -> a·u + b, along one axis."""

    a: Fraction | int
    b: Fraction | int

    def then(self, later: "Affine") -> "Affine":
        """This map first, then `later`."""
        return Affine(later.a * self.a, later.a * self.b + later.b)


IDENTITY = Affine(Fraction(1), Fraction(0))


def downsampled(kernel: int, stride: int, pad: int | Fraction, dilation: int = 1) -> Affine:
    """The map of a convolution or a pooling, along one axis."""
    return Affine(Fraction(1, stride), (pad - Fraction(dilation * (kernel - 1), 2)) / stride)


def upsampled(kernel: int, stride: int, pad: int | Fraction = 0, dilation: int = 1) -> Affine:
    """The map of a transposed convolution, along one axis."""
    return Affine(Fraction(stride), Fraction(dilation * (kernel - 1), 2) - pad)


def upsampling_kernel(factor: int, at: Affine, target: Affine) -> int:
    """The bilinear kernel's size, 2·factor or 2·factor − 1, that takes maps with coordinates `at` onto the grid of `target`.

    Raises InputError if neither does.
    """
    for kernel in (2 * factor, 2 * factor - 1):
        if (at.then(upsampled(kernel, factor)).b - target.b).denominator == 1:
            return kernel
    raise InputError(f"alignment: no upsampling by {factor} takes offset {at.b} to a whole distance from {target.b}")


def crop_offset(larger: Affine, target: Affine) -> int:
    """By how much to crop a map with coordinates `larger` so that it lies on one with coordinates `target`.

    Raises InputError if the scales differ, or if no whole, non-negative offset does it.
    """
    offset = larger.b - target.b
    if larger.a != target.a or offset.denominator != 1 or offset < 0:
        raise InputError(
            f"alignment: no crop lays a map of scale {larger.a}, offset {larger.b} on scale {target.a}, offset {target.b}"
        )
    return int(offset)
