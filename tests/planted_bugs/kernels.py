"""In the CUDA sources and in what launches them. Caught on the stand-in device, which compiles them as C++."""

from .bug import CONVS, GPU, LOSSES, OTHER, THEN, Bug

WINOGRAD = "ops/kernels/winograd.cu"
IM2COL = "ops/kernels/im2col.cu"
DEPTHWISE = "ops/kernels/depthwise.cu"
POOL = "ops/kernels/pool.cu"
NORMALIZE = "ops/kernels/normalize.cu"
AGREES = CONVS + "test_fast_algorithms_agree_with_the_loops[strict-conv-{}]"
CONTRACT = "tests/test_ops_contracts.py::test_every_device_computes_what_numpy_computes[strict-{}]"
KERNELS_ = "tests/test_kernels.py::"

# fmt: off
KERNELS = [
    Bug("a tile's values are read one column too far", WINOGRAD, "column + v < width;\n                d[u] = inside ? x",
        "column + v <= width;\n                d[u] = inside ? x", AGREES.format("3x3-winograd-None-None")),
    Bug("a tile beyond the end writes its results", WINOGRAD, "if (row + u < height && column + v < width)\n",
        "if (row + u < height)\n", AGREES.format("3x3-winograd-None-None")),
    Bug("Winograd's way to the points with a wrong sign", WINOGRAD, "odd = d[3] - 4 * d[1];", "odd = d[3] + 4 * d[1];",
        AGREES.format("3x3-winograd-None-None")),
    Bug("Winograd's kernels are not mirrored on the way back", WINOGRAD, "mirrored ? 8 - (3 * u + v) : 3 * u + v",
        "3 * u + v", AGREES.format("3x3-winograd-None-None")),
    Bug("the taps' gradients with a wrong constant", WINOGRAD, "difference / 6 + far_difference / 12",
        "difference / 6 + far_difference / 24", AGREES.format("3x3-winograd-None-None")),
    Bug("every part begins at the first row of tiles", "ops/kernels/winograd.py", "top - RESULTS * rows.start, left",
        "top, left", AGREES.format("3x3-winograd-1-1")),
    Bug("the weight gradient keeps the last part only", "ops/kernels/winograd.py",
        "xp.add(sums, xp.matmul", "xp.add(0 * sums, xp.matmul", AGREES.format("3x3-winograd-1-1")),
    Bug("no ReLU where a kernel could do it", WINOGRAD, "value < low ? low : value > high ? high : value", "value",
        KERNELS_ + "test_relu_is_done_by_the_kernel[winograd-True]"),
    Bug("patches' rows do not go on where the part before ended", "ops/kernels/__init__.py",
        "top - first_row * window.stride[0], left", "top, left", AGREES.format("stride 2-im2col-1-1")),
    Bug("patches without their dilation", IM2COL, "tap / kernel_width * gap_down - top", "tap / kernel_width - top",
        AGREES.format("dilation-im2col-None-None")),
    Bug("patches of the first group for every group", IM2COL, "all_channels + first_channel + channel] : T(0)",
        "all_channels + channel] : T(0)", AGREES.format("groups-im2col-None-None")),
    Bug("patches are added back between the strides", IM2COL, "down % stride_down || ", "",
        AGREES.format("stride 2-im2col-None-None")),
    Bug("patches overwrite what other patches added", IM2COL, "first_channel + channel] += sum;",
        "first_channel + channel] = sum;", AGREES.format("stride 2-im2col-1-1")),
    Bug("the bias of im2col's kernels is left out", "ops/kernels/pointwise.py",
        "if bias is not None or rest is not then:", "if rest is not then:", AGREES.format("stride 2-im2col-None-None")),
    Bug("depthwise taps mirrored", DEPTHWISE, "sum += w[(u * kernel_width + v) * channels + channel] * x[",
        "sum += w[(v * kernel_width + u) * channels + channel] * x[", CONTRACT.format("conv2d depthwise")),
    Bug("depthwise gradient from windows that do not exist", DEPTHWISE,
        "across / stride_across >= columns) continue;", "across / stride_across > columns) continue;",
        CONTRACT.format("conv2d depthwise, strided")),
    Bug("depthwise rows added up at the wrong image", DEPTHWISE, "(line / rows) * height + h", "(line / rows) + h",
        CONTRACT.format("conv2d depthwise")),
    Bug("a tie in a pool goes to the last", POOL, "value > best ||", "value >= best ||",
        OTHER + "test_max_pool_gives_a_tie_to_the_first_pixel_alone[strict-settings0]"),
    Bug("a pool's padding wins", POOL, "if (w < 0 || w >= width) continue;\n                T value = x",
        "if (w >= width) continue;\n                T value = w < 0 ? T(0) : x", OTHER + "test_padding_never_wins_a_max_pool[strict]"),
    Bug("a line's squares about zero", NORMALIZE, "x[first + (long long)column * channels] - mean;",
        "x[first + (long long)column * channels];", OTHER +
        "test_batch_norm_in_training_normalises_each_channel_and_moves_the_running_statistics[strict]"),
    Bug("the normalised gradient keeps its mean", NORMALIZE, "dy[i] - shift[channel] - slope", "dy[i] - slope",
        CONTRACT.format("batch_norm train")),
    Bug("softmax without its highest logit", "ops/kernels/loss.cu", "exp(logits[first + (long long)k * pixels] - highest)",
        "exp(logits[first + (long long)k * pixels])", LOSSES + "test_huge_logits_do_not_overflow[strict-10000.0]"),
    Bug("the one-hot label of the pixel before", "ops/kernels/loss.cu", "T(label[pixel] == k)",
        "T(label[pixel ? pixel - 1 : 0] == k)", CONTRACT.format("loss sum")),
    Bug("an enlarged map begins a pixel late", "ops/kernels/upsample.cu", "int(i / inner % enlarged) + before;",
        "int(i / inner % enlarged) + before + 1;", CONTRACT.format("upsample asymmetric")),
    Bug("the fused update forgets the decay", "training/optim.cu", "decay != 0 ? gradient[i] + decay * value[i] : gradient[i];",
        "gradient[i];", GPU + "test_training_curves_agree_with_the_hosts[adam-float64-strict]"),
    Bug("the fused update of SGD without momentum", "training/optim.cu", "momentum * velocity[i] + rate", "rate",
        GPU + "test_training_curves_agree_with_the_hosts[sgd-float64-strict]"),
    Bug("Adam's share of the new square rounded", "training/optim.cu", "+ share2 * g * g", "+ (1 - beta2) * g * g",
        KERNELS_ + "test_a_step_of_adam_is_as_exact_as_numpys[False]"),
    Bug("a constant looked up by CuPy's Device, which cannot be", "backend/__init__.py",
        'str(getattr(like, "device", ""))', 'getattr(like, "device", "")',
        KERNELS_ + "test_relu_is_done_by_the_kernel[depthwise-False]"),
    Bug("a part's patches live on while the next are made", "ops/kernels/im2col.py",
        "out=pixels[:, mine])\n            del patches", "out=pixels[:, mine])\n            pass",
        KERNELS_ + "test_a_convolution_keeps_to_its_workspace[im2col]"),
    Bug("arrays of two dtypes are taken for one", "backend/cuda.py", "if len(dtypes) != 1:", "if not dtypes:",
        KERNELS_ + "test_arrays_of_two_floating_types_are_refused"),
    Bug("winners of more taps than a short holds", "ops/kernels/pool.cu", "winner[i] = won;", "winner[i] = (short)won;",
        KERNELS_ + "test_a_window_of_many_taps_knows_its_winner"),
    Bug("TF32 by Winograd's way", "ops/conv_algorithms/__init__.py",
        "        module = im2col\n    return _BY", "        pass\n    return _BY",
        KERNELS_ + "test_tf32_rounds_the_products_of_float32_and_nothing_else"),
    Bug("TF32 cannot be turned off", "backend/__init__.py", "_current.set_tf32(on)\n", "_current.set_tf32(True)\n",
        KERNELS_ + "test_tf32_rounds_the_products_of_float32_and_nothing_else"),
    Bug("a large map is cut into blocks on a GPU too", "backend/__init__.py",
        "<= BLOCK_BYTES or has_kernels(arrays[0])", "<= BLOCK_BYTES",
        KERNELS_ + "test_what_is_done_value_by_value_is_done_in_one_piece"),
    Bug("what is left to do after a kernel is not done", "ops/kernels/winograd.py", "    if rest is not None:\n        rest(y)\n",
        "", THEN + "test_what_follows_is_done_to_every_result_once[strict-3x3-winograd-1-None]"),
]
# fmt: on
