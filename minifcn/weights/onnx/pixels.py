"""The nodes before a network in an ONNX file that turn the bytes of photographs into its input."""

import numpy as np

from ...layers.graph import IMAGE

PIXELS = "pixels"


def preprocess(file, preprocessing):
    """Add the nodes from pixels to the network's input, bit for bit as `Preprocessing.stretched` and `apply`."""
    x = _stretch(file) if preprocessing.stretch else PIXELS
    x = file.cast("pixels.cast", x, file.dtype)
    if preprocessing.order == "BGR":
        x = file.node("Gather", "pixels.bgr", [x, file.integers("pixels.order", 2, 1, 0)], axis=3)
    if preprocessing.order == "grey":  # integers and one division, so that grey pixels keep their value
        shares = file.node("Mul", "pixels.shares", [x, file.array("pixels.luma", [299, 587, 114])])
        total = file.node("ReduceSum", "pixels.total", [shares], axes=[3])
        x = file.node("Div", "pixels.grey", [total, file.array("pixels.thousand", 1000)])
    x = file.node("Sub", "pixels.centred", [x, file.array("pixels.mean", preprocessing.mean)])
    x = file.node("Mul", "pixels.scaled", [x, file.array("pixels.scale", preprocessing.scale)])
    file.node("Transpose", IMAGE, [x], perm=[0, 3, 1, 2])


def _stretch(file):
    """`preprocessing.spread`: the ⌈n / 100⌉th smallest of each image's n values becomes 0, the ⌈998 n / 1000⌉th 255."""

    def number(name, *value):
        return file.integers(f"stretch.{name}", *value)

    def value_of_rank(name, rank, largest):
        """The value of this rank in each image, (N, 1, 1, 1)."""
        found = file.node("TopK", f"stretch.{name}s", [flat, rank], f"stretch.{name}_places", axis=1, largest=largest)
        last = file.node("Gather", f"stretch.{name}_last", [found, number(f"{name}_place", -1)], axis=1)
        return file.node("Unsqueeze", f"stretch.{name}", [last], axes=[2, 3])

    x = file.cast("stretch.values", PIXELS, np.float64)
    flat = file.node("Flatten", "stretch.flat", [x])
    count = file.dimension(flat, 1)
    hundredth = file.node("Add", "stretch.count99", [count, number("99", 99)])
    low = value_of_rank("low", file.node("Div", "stretch.low_rank", [hundredth, number("100", 100)]), largest=0)
    # The ⌈998 n / 1000⌉th smallest is the (⌊2 n / 1000⌋ + 1)th largest.
    doubled = file.node("Mul", "stretch.count2", [count, number("2", 2)])
    above = file.node("Div", "stretch.above", [doubled, number("1000", 1000)])
    high = value_of_rank("high", file.node("Add", "stretch.high_rank", [above, number("1", 1)]), largest=1)
    one, least, most = (
        file.array(f"stretch.{name}", n, np.float64) for name, n in (("one", 1), ("least", 0), ("most", 255))
    )
    width = file.node("Max", "stretch.width", [file.node("Sub", "stretch.range", [high, low]), one])
    gain = file.node("Div", "stretch.gain", [most, width])
    x = file.node("Mul", "stretch.scaled", [file.node("Sub", "stretch.moved", [x, low]), gain])
    x = file.node("Min", "stretch.clipped", [file.node("Max", "stretch.positive", [x, least]), most])
    return file.cast("stretch.bytes", x, np.uint8)
