"""What layers with a sliding window share: where a value lies, what it depends on, and their ONNX attributes."""

from fractions import Fraction
from math import ceil, gcd

import numpy as np

from ..ops.geometry import pads, pair, same_pads
from .base import Operation, Parameter
from .coordinates import Affine, downsampled, upsampled

ONNX_PAIRS = {"stride": "strides", "dilation": "dilations", "output_pad": "output_padding"}
ONNX_NUMBERS = {"groups": "group", "ceil_mode": "ceil_mode", "count_include_pad": "count_include_pad"}


class Windowed(Operation):
    """A convolution or a pool. kernel: (height, width). settings: stride, pad and the rest, as its operation takes them."""

    weight: Parameter  # of a convolution; others say what their kernel is

    @property
    def kernel(self) -> tuple:
        return self.weight.value.shape[2:]

    def along_height(self) -> tuple:
        """(kernel, stride, pad above, dilation) down the rows.

        Padding "same" counts as what the weights were trained for: a division of the input into cells of `stride` pixels, with
        each value in the middle of its cell, which may fall on half a pixel. (The window leans to the bottom and right of
        that, but the weights make up for it: a trained EfficientNet's heat-map peaks at these middles.)
        """
        kernel, pad = self.kernel[0], self.settings["pad"]
        stride, dilation = (pair(key, self.settings.get(key, 1))[0] for key in ("stride", "dilation"))
        above = Fraction(dilation * (kernel - 1) + 1 - stride, 2) if pad == "same" else pads(pad)[0][0]
        return kernel, stride, above, dilation

    def coordinates(self) -> Affine:
        return downsampled(*self.along_height())

    def receptive_field(self, field: float, step: Fraction) -> tuple:
        kernel, stride, _, dilation = self.along_height()
        return field + dilation * (kernel - 1) * step, step * stride

    def along(self, axis: int, shape: tuple) -> tuple:
        """(taps, stride, pad before) of the window along an axis of an input of this shape. taps: their distances from the first."""
        stride, rate = (pair(key, self.settings.get(key, 1)) for key in ("stride", "dilation"))
        pad, i = self.settings["pad"], axis - 2
        both = same_pads(shape[2:], self.kernel, stride, rate) if pad == "same" else pads(pad)
        return rate[i] * np.arange(self.kernel[i]), stride[i], both[i][0]

    def reads(self, cells: np.ndarray, axis: int, shapes: list, position: int = 0) -> tuple[np.ndarray, np.ndarray]:
        taps, stride, before = self.along(axis, shapes[0])
        read = cells[:, None] * stride - before + taps
        return _ends(read, (read >= 0) & (read < shapes[0][axis]))

    @property
    def onnx_attributes(self) -> dict:
        attributes: dict = {"kernel_shape": list(self.kernel)}
        pad = self.settings["pad"]
        if pad == "same" and pair("stride", self.settings["stride"]) == (1, 1):  # then it is the same at any size
            pad = same_pads(self.kernel, self.kernel, 1, self.settings["dilation"])
        if pad == "same":
            attributes["auto_pad"] = "SAME_UPPER"
        else:
            attributes["pads"] = [begin for begin, _ in pads(pad)] + [end for _, end in pads(pad)]
        for key, value in self.settings.items():
            if key in ONNX_PAIRS:
                attributes[ONNX_PAIRS[key]] = list(pair(key, value, least=0))
            if key in ONNX_NUMBERS:
                attributes[ONNX_NUMBERS[key]] = int(value)
        return attributes


class Transposed(Windowed):
    """A convolution the other way round: every input value stamps the kernel, the stamps `stride` apart."""

    onnx_operator = "ConvTranspose"

    def output_size(self, size: tuple) -> tuple:
        """The (height, width) of the output, for an input's."""
        stride, dilation = (pair(key, self.settings.get(key, 1)) for key in ("stride", "dilation"))
        more = pair("output_pad", self.settings.get("output_pad", 0), least=0)
        settings = zip(size, stride, pads(self.settings["pad"]), dilation, self.kernel, more, strict=True)
        return tuple((n - 1) * s - sum(p) + d * (k - 1) + 1 + o for n, s, p, d, k, o in settings)

    def coordinates(self) -> Affine:
        return upsampled(*self.along_height())

    def receptive_field(self, field: float, step: Fraction) -> tuple:
        kernel, stride, _, dilation = self.along_height()
        shared = gcd(stride, dilation)
        stamps = ceil(Fraction(kernel * shared, stride))  # that meet at a value, dilation / shared inputs apart
        return field + (stamps - 1) * dilation // shared * step, step / stride

    def reads(self, cells: np.ndarray, axis: int, shapes: list, position: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Cell i of the input stamps from i · stride − before on."""
        taps, stride, before = self.along(axis, shapes[0])
        read, rest = np.divmod(cells[:, None] + before - taps, stride)
        return _ends(read, (rest == 0) & (read >= 0) & (read < shapes[0][axis]))


def _ends(read, inside):
    """The first and the last of the cells that are read and lie inside the map.   read, inside (output cells, taps)

    A dilated window's outermost tap may lie in the padding, with the next one inside. Where none is, the first is after the last.
    """
    first = np.where(inside, read, np.iinfo(np.int32).max).min(axis=1)
    return first, np.where(inside, read, -1).max(axis=1)
