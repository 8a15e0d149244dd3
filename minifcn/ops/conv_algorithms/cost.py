"""What a pass of a 3×3 convolution costs by im2col and by Winograd's way, so that the cheaper one can be taken.

Either way the time goes into three things: values that are copied or transformed on their way to the products, the
products, and values on their way from the products. im2col's patches hold 9 values a pixel, for 9 products each with
every output channel. Winograd's tiles hold 36 values for 16 pixels, a quarter of the products, but every value costs
more, its transform being a product with 36 × 36 numbers; and the kernels too have to be brought to 36 points. So
im2col wins where channels are few (the values outweigh the products) and where pixels are few (the kernels do), and
Winograd's way wins in between, where a network spends its time.

The constants are nanoseconds of one core for a value or a multiply-add. They were fitted to the times of both ways on
26 shapes, of 1 to 512 channels and 4 to 256 pixels a side, on two cores with AVX2; a core that is faster at everything
chooses the same. `benchmarks/choices.py` compares the choices with the fastest way for every layer of the networks.
"""

from math import prod

CALL = 100_000  # more for Winograd's way, whatever the shape

PATCH_VALUE, PATCH_PRODUCT, PATCH_RESULT, PATCH_KERNEL = 0.9, 0.026, 1.2, 1.8
TILE_VALUE, TILE_PRODUCT, TILE_RESULT, TILE_KERNEL = 3.3, 0.011, 2.5, 2.4
TILE_SUMS = 1.35  # times as much for a weight gradient, where the values at the points do not stay in a cache


def im2col(images, inputs, outputs, size):
    """Nanoseconds for `images` of results of `size` (height, width), from `inputs` to `outputs` channels."""
    pixels, kernels = images * prod(size), 9 * inputs * outputs
    values = 9 * pixels * inputs
    return (
        PATCH_VALUE * values
        + PATCH_PRODUCT * values * outputs
        + PATCH_RESULT * pixels * outputs
        + PATCH_KERNEL * kernels
    )


def winograd(images, inputs, outputs, size):
    """The same for Winograd's way; what lies beyond the image in the last tiles is worked out too."""
    tiles, kernels = images * prod(-(-n // 4) for n in size), 36 * inputs * outputs
    values, results = 36 * tiles * inputs, 36 * tiles * outputs
    return CALL + TILE_VALUE * values + TILE_PRODUCT * values * outputs + TILE_RESULT * results + TILE_KERNEL * kernels
