"""Operations as pure pairs: name_forward(...) -> (result, cache), and name_backward(upstream gradient, cache) -> gradients.

Arrays are NCHW, float32 or float64, NumPy or CuPy; results follow their inputs in both. No operation writes to an argument.
"""

from .activation import relu6_backward, relu6_forward, relu_backward, relu_forward
from .batch_norm import batch_norm_backward, batch_norm_forward
from .conv.choice import conv_algorithm
from .conv.conv2d import conv2d_backward, conv2d_forward, conv_transpose2d_backward, conv_transpose2d_forward
from .linear import dropout_backward, dropout_forward, linear_backward, linear_forward
from .loss import (
    dice_backward,
    dice_forward,
    hardest_cross_entropy_backward,
    hardest_cross_entropy_forward,
    sigmoid_cross_entropy_backward,
    sigmoid_cross_entropy_forward,
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
)
from .lrn import lrn_backward, lrn_forward
from .pool import (
    adaptive_avg_pool2d_backward,
    adaptive_avg_pool2d_forward,
    avg_pool2d_backward,
    avg_pool2d_forward,
    global_avg_pool_backward,
    global_avg_pool_forward,
    max_pool2d_backward,
    max_pool2d_forward,
)
from .regression import absolute_error_backward, absolute_error_forward, squared_error_backward, squared_error_forward
from .resize import resize_backward, resize_bilinear_backward, resize_bilinear_forward, resize_forward
from .shapes import concat_backward, concat_forward, crop_backward, crop_forward, pad_backward, pad_forward
from .upsample import upsample_backward, upsample_forward

# fmt: off
__all__ = [
    "relu6_backward", "relu6_forward", "relu_backward", "relu_forward", "batch_norm_backward", "batch_norm_forward",
    "conv_algorithm", "conv2d_backward", "conv2d_forward", "conv_transpose2d_backward", "conv_transpose2d_forward",
    "absolute_error_backward", "absolute_error_forward", "squared_error_backward", "squared_error_forward",
    "hardest_cross_entropy_backward", "hardest_cross_entropy_forward",
    "dice_backward", "dice_forward", "dropout_backward", "dropout_forward", "linear_backward", "linear_forward",
    "sigmoid_cross_entropy_backward", "sigmoid_cross_entropy_forward", "softmax_cross_entropy_backward",
    "softmax_cross_entropy_forward", "lrn_backward", "lrn_forward", "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool2d_forward", "avg_pool2d_backward", "avg_pool2d_forward", "global_avg_pool_backward",
    "global_avg_pool_forward", "max_pool2d_backward", "max_pool2d_forward", "resize_bilinear_backward",
    "resize_bilinear_forward", "concat_backward", "concat_forward", "crop_backward", "crop_forward", "pad_backward",
    "pad_forward", "resize_backward", "resize_forward", "upsample_backward", "upsample_forward",
]
