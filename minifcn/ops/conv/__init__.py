"""Convolution and its adjoint: the operations (`conv2d`), the algorithms that compute them, and the choice among those.

Each algorithm is a module with the same three functions, for arrays on a CPU and for a device that runs our kernels:

    forward(x, w, window, bias=None, activation="none", cached=None) -> y
    input_gradient(dy, w, window) -> dx
    weight_gradient(x, dy, window) -> dw

x (N, C, H, W), w (K, C/groups, kh, kw), bias (K,), y and dy (N, K, Ho, Wo); activation, cached: as in conv2d_forward.
A transposed convolution uses the same three in other roles.
"""
