"""What the layers share through which a window slides: where a value lies, what it depends on, and their ONNX attributes."""

from fractions import Fraction
from math import ceil

from ..ops.geometry import pads, pair
from .base import Leaf
from .coordinates import downsampled, upsampled

ONNX_PAIRS = {"stride": "strides", "dilation": "dilations", "output_pad": "output_padding"}
ONNX_NUMBERS = {"groups": "group", "ceil_mode": "ceil_mode", "count_include_pad": "count_include_pad"}


class Windowed(Leaf):
    """A convolution or a pool. kernel: (height, width). settings: stride, pad and the rest, as its operation takes them."""

    onnx_operator = None

    def along_height(self):
        """(kernel, stride, dilation) down the rows."""
        stride, dilation = (pair(key, self.settings.get(key, 1))[0] for key in ("stride", "dilation"))
        return self.kernel[0], stride, dilation

    def coordinates(self):
        kernel, stride, dilation = self.along_height()
        return downsampled(kernel, stride, pads(self.settings["pad"])[0][0], dilation)

    def receptive_field(self, field, step):
        kernel, stride, dilation = self.along_height()
        return field + dilation * (kernel - 1) * step, step * stride

    def onnx(self):
        attributes, pad = {"kernel_shape": list(self.kernel)}, self.settings["pad"]
        if pad == "same":
            attributes["auto_pad"] = "SAME_UPPER"
        else:
            attributes["pads"] = [begin for begin, _ in pads(pad)] + [end for _, end in pads(pad)]
        for key, value in self.settings.items():
            if key in ONNX_PAIRS:
                attributes[ONNX_PAIRS[key]] = list(pair(key, value, least=0))
            if key in ONNX_NUMBERS:
                attributes[ONNX_NUMBERS[key]] = int(value)
        return self.onnx_operator, attributes


class Transposed(Windowed):
    """A convolution the other way round: every input value stamps the kernel, the stamps `stride` apart."""

    onnx_operator = "ConvTranspose"

    def output_size(self, size):
        """The (height, width) of the output, for an input's."""
        stride, dilation = (pair(key, self.settings.get(key, 1)) for key in ("stride", "dilation"))
        more = pair("output_pad", self.settings.get("output_pad", 0), least=0)
        return tuple(
            (n - 1) * s - sum(p) + d * (k - 1) + 1 + o
            for n, s, p, d, k, o in zip(
                size, stride, pads(self.settings["pad"]), dilation, self.kernel, more, strict=True
            )
        )

    def coordinates(self):
        kernel, stride, dilation = self.along_height()
        return upsampled(kernel, stride, pads(self.settings["pad"])[0][0], dilation)

    def receptive_field(self, field, step):
        kernel, stride, _ = self.along_height()
        neighbours = ceil(Fraction(kernel, stride)) - 1  # that a value is made of, beside the first
        return field + neighbours * step, step / stride
