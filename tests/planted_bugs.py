"""Bugs to plant, one at a time, in a copy of the package: each must make the named tests fail.

Add one here whenever a test is written for a mistake: a test that no bug can fail tests nothing.
"""

from typing import NamedTuple


class Bug(NamedTuple):
    name: str
    file: str  # under minifcn/
    old: str  # occurs there exactly once
    new: str
    test: str  # the pytest node that must fail


OPS = "tests/test_gradcheck_ops.py::"
NETS = "tests/test_gradcheck_fcn.py::"
VALUES = "tests/test_values_by_hand.py::"
ROOMS = "tests/test_rooms.py::"
CHECKER = "tests/test_gradcheck.py::"
CONV = OPS + "test_convolution"
AGREE = VALUES + "test_convolution_agrees_with_the_definition"
EIGHT = NETS + "test_plain_trunk_same[8s-frozen]"
SIXTEEN = NETS + "test_plain_trunk_same[16s-frozen]"

# fmt: off
CONVOLUTION = [
    Bug("bias gradient of the first image alone", "ops/conv.py", "db = dy.sum(axis=(0, 2, 3))",
        "db = dy[0].sum(axis=(1, 2))", CONV + "[auto-bias-conv2d-plain]"),
    Bug("bias gradient summed over wrong axes", "ops/conv_transpose.py", "db = dy.sum(axis=(0, 2, 3))",
        "db = dy.sum(axis=(1, 2, 3))", CONV + "[auto-bias-conv_transpose2d-plain]"),
    Bug("output_pad ignored", "ops/conv_transpose.py", "+ d * (k - 1) + 1 + o\n", "+ d * (k - 1) + 1\n",
        VALUES + "test_naive_convolution_by_hand"),
    Bug("mirrored kernel in a transposed convolution's backward", "ops/conv_transpose.py",
        "algorithm.forward(dy, w, adjoint)", "algorithm.forward(dy, w[:, :, ::-1, ::-1], adjoint)",
        OPS + "test_convolution_has_its_adjoint[auto-conv_transpose2d-stride]"),
    Bug("transposed kernel in the naive input gradient", "ops/conv_algorithms/naive.py",
        "+= w[k, c, u, v] * dy[n, k, i, j]", "+= w[k, c, v, u] * dy[n, k, i, j]", CONV + "[naive-bias-conv2d-plain]"),
    Bug("mirrored kernel in every naive pass", "ops/conv_algorithms/naive.py", "+ u * window.dilation[0]",
        "+ (kh - 1 - u) * window.dilation[0]", VALUES + "test_naive_convolution_by_hand"),
    Bug("naive dilation ignored", "ops/conv_algorithms/naive.py", "+ u * window.dilation[0]", "+ u",
        VALUES + "test_naive_convolution_by_hand"),
    Bug("naive padding on the other side", "ops/conv_algorithms/naive.py", "window.pad[1][0]", "window.pad[1][1]",
        VALUES + "test_naive_convolution_by_hand"),
    Bug("naive groups mixed", "ops/conv_algorithms/naive.py", "k // (kernels // window.groups) * per_group",
        "k % window.groups * per_group", VALUES + "test_naive_convolution_groups_by_hand"),
    Bug("transposed taps in every im2col pass", "ops/window.py", "i * w.dilation[0], j * w.dilation[1]",
        "j * w.dilation[0], i * w.dilation[1]", AGREE + "[conv2d-pad-asymmetric-whole]"),
    Bug("im2col dilation ignored along one axis", "ops/window.py", "i * w.dilation[0], j * w.dilation[1]",
        "i, j * w.dilation[1]", AGREE + "[conv2d-dilation-whole]"),
    Bug("dilation ignored in a window's reach", "ops/window.py", "tuple(d * (k - 1) + 1 for k, d in zip(self.kernel",
        "tuple(k for k, d in zip(self.kernel", AGREE + "[conv2d-dilation-whole]"),
    Bug("im2col groups mixed", "ops/conv_algorithms/im2col.py", "mine = kernels[group, :, channels]",
        "mine = kernels[::-1][group, :, channels]", CONV + "[im2col-bias-conv2d-groups]"),
    Bug("im2col tiles one row too long", "ops/conv_algorithms/im2col.py", "slice(r, min(r + step, ho))",
        "slice(r, min(r + step + 1, ho))", CONV + "[im2col_row_tiles-bias-conv2d-pad]"),
    Bug("im2col tiles overwrite their borders", "ops/conv_algorithms/im2col.py", "dx[..., where.rows, :] += ",
        "dx[..., where.rows, :] = ", CONV + "[im2col_row_tiles-bias-conv2d-pad]"),
    Bug("padding above the image ignored in a tile", "ops/window.py", "self.top = start - first",
        "self.top = 0", AGREE + "[conv2d-pad-row-tiles]"),
    Bug("1×1 weight gradient of the first image alone", "ops/conv_algorithms/gemm.py", ".sum(axis=0)", "[0]",
        CONV + "[auto-bias-conv2d-1x1]"),
]
POOLING = [
    Bug("max pool tie given to both", "ops/pool.py", "        unclaimed ^= wins\n", "",
        VALUES + "test_max_pool_tie_goes_to_the_first"),
    Bug("max pool padded with 0", "ops/pool.py", "band = Band(where, rows).read(x, fill=-xp.inf)",
        "band = Band(where, rows).read(x)", VALUES + "test_max_pool_padding_never_wins"),
    Bug("max pool gradient assigned", "ops/pool.py", "gradient += dy * wins", "gradient[...] = dy * wins",
        OPS + "test_op[max_pool2d-overlapping]"),
    Bug("avg pool divides by the kernel's area in backward", "ops/pool.py", "share = dy / area",
        "share = dy / (where.kernel[0] * where.kernel[1])", OPS + "test_op[avg_pool2d-pad-not-counted]"),
    Bug("avg pool always counts the padding", "ops/pool.py", "if include_pad else (0, size)",
        "if include_pad or True else (0, size)", VALUES + "test_avg_pool_divisors"),
    Bug("avg pool counts what lies beyond the padding", "ops/pool.py", "min(start + extent, high)", "start + extent",
        VALUES + "test_avg_pool_divisors"),
    Bug("ceil rounding dropped", "ops/pool.py", "(-(-room // s) if ceil_mode else room // s)", "room // s",
        VALUES + "test_pool_sizes"),
    Bug("ceil rounding keeps a window in the padding", "ops/pool.py", "if ceil_mode and (count - 1) * s >=",
        "if False and (count - 1) * s >=", VALUES + "test_pool_sizes"),
]
POINTWISE = [
    Bug("ReLU writes to its upstream gradient", "ops/pointwise.py", "return dy * (y > 0)",
        "dy *= y > 0\n    return dy", OPS + "test_op[relu]"),
    Bug("ReLU lets every gradient through", "ops/pointwise.py", "return dy * (y > 0)", "return dy * (y >= 0)",
        OPS + "test_op[relu]"),
    Bug("ReLU writes to its input", "ops/pointwise.py", "maximum(x, 0, out=out)", "maximum(x, 0, out=x)",
        OPS + "test_op[relu]"),
    Bug("dropout writes to its upstream gradient", "ops/pointwise.py", "return dy if mask is None else dy * mask",
        "dy *= 1 if mask is None else mask\n    return dy", OPS + "test_op[dropout]"),
    Bug("dropout not rescaled", "ops/pointwise.py", "kept.astype(x.dtype) / (1 - p)", "kept.astype(x.dtype)",
        VALUES + "test_dropout_keeps_the_mean"),
    Bug("dropout mask redrawn for backward", "ops/pointwise.py", "return x * mask, mask",
        "return x * mask, (rng.random(x.shape) >= p) / (1 - p)", OPS + "test_op[dropout]"),
    Bug("dropout outside training", "ops/pointwise.py", "if not train or p == 0:", "if p == 0:",
        VALUES + "test_dropout_keeps_the_mean"),
    Bug("dropout promotes float32", "ops/pointwise.py", "kept.astype(x.dtype)", 'kept.astype("float64")',
        ROOMS + "test_layer_keeps_the_dtype[float32-Dropout]"),
    Bug("linear bias gradient averaged", "ops/pointwise.py", "dy.sum(axis=0) if has_bias", "dy.mean(axis=0) if has_bias",
        OPS + "test_op[linear]"),
]
NORMALISATION = [
    Bug("LRN window one channel too wide", "ops/normalize.py", "_sum_channels(x * x, size // 2,",
        "_sum_channels(x * x, size // 2 + 1,", OPS + "test_op[lrn]"),
    Bug("LRN backward window not mirrored", "ops/normalize.py", "(-beta - 1), (size - 1) // 2, size // 2)",
        "(-beta - 1), size // 2, (size - 1) // 2)", OPS + "test_op[lrn-even]"),
    Bug("LRN without the factor 2", "ops/normalize.py", "- 2 * alpha * beta / size", "- alpha * beta / size",
        OPS + "test_op[lrn]"),
    Bug("LRN alpha undivided", "ops/normalize.py", "s = k + alpha / size *", "s = k + alpha *",
        VALUES + "test_lrn_by_hand"),
    Bug("LRN k ignored", "ops/normalize.py", "s = k + alpha", "s = 1 + alpha", VALUES + "test_lrn_by_hand"),
    Bug("batch norm without the mean of the gradient", "ops/normalize.py", "(dy - _wide(dbeta) / count - z",
        "(dy - z", OPS + "test_op[batch_norm]"),
    Bug("batch norm without the gradient of the variance", "ops/normalize.py", " - z * _wide(dgamma) / count)", ")",
        OPS + "test_op[batch_norm]"),
    Bug("batch norm in evaluation as in training", "ops/normalize.py", "if not cache.train:", "if False:",
        OPS + "test_op[batch_norm-eval]"),
    Bug("batch norm's running variance biased", "ops/normalize.py", "var * (count / max(count - 1, 1))", "var",
        VALUES + "test_batch_norm_statistics"),
    Bug("batch norm's variance unbiased", "ops/normalize.py", "(normalized * normalized).mean(axis=(0, 2, 3))",
        "(normalized * normalized).sum(axis=(0, 2, 3)) / (count - 1)", VALUES + "test_batch_norm_statistics"),
    Bug("batch norm's momentum the other way round", "ops/normalize.py", "(1 - momentum) * running_mean + momentum *",
        "momentum * running_mean + (1 - momentum) *", VALUES + "test_batch_norm_statistics"),
    Bug("batch norm writes to its upstream gradient", "ops/normalize.py", "        return dy * scale, dgamma, dbeta",
        "        dy *= scale\n        return dy, dgamma, dbeta", OPS + "test_op[batch_norm-eval]"),
]
LOSS = [
    Bug("ignore mask missing", "ops/loss.py", "share = xp.where(counted, ones, xp.zeros_like(ones))", "share = ones",
        OPS + "test_op[cross_entropy-sum]"),
    Bug("ignored label gathered", "ops/loss.py", "xp.where(counted, labels, 0)", "labels",
        VALUES + "test_cross_entropy_by_hand"),
    Bug("mean over all pixels", "ops/loss.py", "xp.maximum(share.sum(),", "xp.maximum(float(share.size),",
        VALUES + "test_cross_entropy_by_hand"),
    Bug("mean over the number of pixels, not their weight", "ops/loss.py", "xp.maximum(share.sum(),",
        "xp.maximum(float(counted.sum()),", VALUES + "test_cross_entropy_by_hand[weighted]"),
    Bug("class weights ignored", "ops/loss.py", "if weight is None else weight[index]", "if True else weight[index]",
        VALUES + "test_cross_entropy_by_hand[weighted]"),
    Bug("softmax without subtracting the maximum", "ops/loss.py", "logits - logits.max(axis=1, keepdims=True)",
        "logits * 1", VALUES + "test_cross_entropy_of_huge_logits"),
    Bug("softmax gradient zero", "ops/loss.py", "(probabilities - one_hot)", "(probabilities - probabilities)",
        OPS + "test_op[cross_entropy-mean]"),
    Bug("upstream gradient of the loss ignored", "ops/loss.py", "(share * dloss)", "(share * 1)",
        OPS + "test_op[cross_entropy-none-weighted]"),
    Bug("loss promotes float32", "ops/loss.py", "xp.ones(index.shape, logits.dtype)", "xp.ones(index.shape)",
        VALUES + "test_cross_entropy_of_huge_logits"),
]
SHAPES = [
    Bug("crop off by one in forward", "ops/shapes.py", "return x[:, :, top : top + height,",
        "return x[:, :, top + 1 : top + 1 + height,", VALUES + "test_crop_takes_the_part_asked_for"),
    Bug("crop off by one in backward", "ops/shapes.py", "left : left + dy.shape[3]] = dy",
        "left + 1 : left + 1 + dy.shape[3]] = dy", OPS + "test_linear_op_has_its_adjoint[crop]"),
    Bug("padding not cut off in backward", "ops/shapes.py", "return dy[:, :, top : top + shape[2],",
        "return dy[:, :, : shape[2],", OPS + "test_linear_op_has_its_adjoint[pad]"),
    Bug("frozen upsampling cropped on one side", "ops/upsample.py", "whole[pad : len(whole) - pad]",
        "whole[: len(whole) - 2 * pad]", VALUES + "test_frozen_upsampling_is_the_bilinear_transposed_convolution"),
    Bug("bilinear kernel's centre wrong", "layers/init.py", "c = f - 1 if size % 2 else f - 0.5", "c = f - 1",
        ROOMS + "test_bilinear_kernels"),
    Bug("bilinear kernel between different channels", "layers/init.py", "w[range(channels), range(channels)] =",
        "w[...] =", ROOMS + "test_bilinear_kernels"),
]
LAYERS = [
    Bug("backward leaves its cache", "layers/base.py", "(cache,), self._cache = self._cache, None",
        "(cache,) = self._cache", ROOMS + "test_backward_takes_the_cache_once[ReLU]"),
    Bug("forward without train leaves a stale cache", "layers/base.py", "(cache,) if train else None",
        "(cache,) if train else self._cache", ROOMS + "test_forward_without_train_clears_the_cache[ReLU]"),
    Bug("weight gradient assigned", "layers/blocks.py",
        "dw, db = ops.conv2d_backward(dy, cache)\n        self.weight.grad += dw",
        "dw, db = ops.conv2d_backward(dy, cache)\n        self.weight.grad = dw",
        ROOMS + "test_gradients_add_up_until_zero_grad[Conv2d]"),
    Bug("scale gradient assigned", "layers/blocks.py", "self.gamma.grad += dgamma", "self.gamma.grad = dgamma",
        ROOMS + "test_gradients_add_up_until_zero_grad[BatchNorm2d]"),
    Bug("zero_grad does nothing", "layers/base.py", "parameter.grad[...] = 0", "parameter.grad[...] *= 1",
        ROOMS + "test_gradients_add_up_until_zero_grad[Linear]"),
    Bug("multiples padded to the next one", "layers/blocks.py", "(-size % self.multiple for",
        "(self.multiple - size % self.multiple for", ROOMS + "test_padding_to_a_multiple_leaves_multiples_alone"),
    Bug("biases decay", "layers/blocks.py",
        "he_normal(shape, rng))\n        self.bias = Parameter(zeros((outputs,)), lr_mult=2.0, decay_mult=0.0)",
        "he_normal(shape, rng))\n        self.bias = Parameter(zeros((outputs,)), lr_mult=2.0)",
        ROOMS + "test_biases_do_not_decay_and_frozen_parameters_do_not_move[sgd]"),
]
NETWORKS = [
    Bug("gradient of the pool3 skip dropped", "models/vgg.py", 'tap in dtaps and tap != "fc7"',
        'tap in dtaps and tap not in ("fc7", "pool3")', EIGHT),
    Bug("gradient of the pool4 skip dropped", "models/vgg.py", 'tap in dtaps and tap != "fc7"',
        'tap in dtaps and tap not in ("fc7", "pool4")', SIXTEEN),
    Bug("gradient of the trunk dropped at a fork", "models/vgg.py", "dx = dx + skips[name]", "dx = skips[name]", EIGHT),
    Bug("gradient of a sum given to the skip alone", "models/fcn.py", "d = self.upscore_pool4.backward(d)",
        "d = self.upscore_pool4.backward(0 * d)", EIGHT),
    Bug("gradient of a sum given to the coarse branch alone", "models/fcn.py", "self.crop_pool4.backward(d)",
        "self.crop_pool4.backward(0 * d)", SIXTEEN),
    Bug("gradient of a sum halved between its branches", "models/fcn.py", "self.crop_pool3.backward(d)",
        "self.crop_pool3.backward(d / 2)", EIGHT),
    Bug("at-once scale of pool4 missing in backward", "models/fcn.py",
        "self.score_pool4.backward(self.crop_pool4.backward(d)) * self.pool4_scale",
        "self.score_pool4.backward(self.crop_pool4.backward(d))", NETS + "test_plain_trunk_at_once"),
    Bug("at-once scale of pool3 missing in backward", "models/fcn.py",
        "self.score_pool3.backward(self.crop_pool3.backward(d)) * self.pool3_scale",
        "self.score_pool3.backward(self.crop_pool3.backward(d))", NETS + "test_plain_trunk_at_once"),
    Bug("crops off by one", "models/alignment.py", "return int(offset)", "return int(offset) + 1",
        ROOMS + "test_published_crops"),
    Bug("centre of a window off by half a pixel", "models/alignment.py", "Fraction(dilation * (kernel - 1), 2)",
        "Fraction(dilation * kernel, 2)", ROOMS + "test_published_crops"),
    Bug("trunk pools round down", "models/vgg.py", "stride=2, ceil_mode=True", "stride=2",
        ROOMS + "test_logits_have_the_size_of_the_image"),
]
TRAINING = [
    Bug("rate outside the velocity", "training/optim.py",
        "velocity += rate * p.grad\n        if decay:\n            velocity += rate * decay * p.value\n        p.value -= velocity",
        "velocity += p.grad\n        if decay:\n            velocity += decay * p.value\n        p.value -= rate * velocity",
        ROOMS + "test_sgd_keeps_the_rate_inside_the_velocity"),
    Bug("Adam's first moment uncorrected", "training/optim.py", "(rate / (1 - beta1**self.steps))", "rate",
        ROOMS + "test_adam_steps_by_the_rate_from_the_first_step_on"),
    Bug("Adam's second moment uncorrected", "training/optim.py", "second / (1 - beta2**self.steps)", "second",
        ROOMS + "test_adam_steps_by_the_rate_from_the_first_step_on"),
    Bug("AdamW's decay enters the moments", "training/optim.py", "decoupled = True", "decoupled = False",
        ROOMS + "test_adamw_decays_the_weights_themselves"),
    Bug("weight decay ignores its multiplier", "training/optim.py", "self.weight_decay * p.decay_mult",
        "self.weight_decay", ROOMS + "test_biases_do_not_decay_and_frozen_parameters_do_not_move"),
    Bug("learning rate ignores its multiplier", "training/optim.py", "lr * p.lr_mult", "lr",
        ROOMS + "test_sgd_multiplies_rate_and_decay"),
    Bug("frozen parameters move", "training/optim.py", "in parameters.items() if not p.frozen}",
        "in parameters.items()}", ROOMS + "test_biases_do_not_decay_and_frozen_parameters_do_not_move"),
    Bug("optimiser state handed out without a copy", "training/optim.py", "to_host(a).copy()", "to_host(a)",
        ROOMS + "test_restored_optimizer_goes_on_alike[sgd]"),
    Bug("restored optimiser counts its steps anew", "training/optim.py", 'self.steps = rest["steps"]',
        "self.steps = 0", ROOMS + "test_restored_optimizer_goes_on_alike[adam]"),
    Bug("poly schedule with a wrong power", "training/schedule.py", "power=0.9", "power=1.0",
        ROOMS + "test_schedules"),
]
METRICS_AND_DATA = [
    Bug("IoU counts its hits twice", "metrics.py", "self.counts.sum(axis=0) - hits", "self.counts.sum(axis=0)",
        ROOMS + "test_the_four_figures_by_hand"),
    Bug("confusion matrix transposed", "metrics.py", "true * self.num_classes + predicted",
        "predicted * self.num_classes + true", ROOMS + "test_the_four_figures_by_hand"),
    Bug("absent classes count as zero", "metrics.py", "values = values[~np.isnan(values)]",
        "values = np.nan_to_num(values)", ROOMS + "test_the_four_figures_by_hand"),
    Bug("ignored pixels counted", "metrics.py", "counted = labels != ignore", "counted = labels != -1",
        ROOMS + "test_the_four_figures_by_hand"),
    Bug("each image replaces the counts", "metrics.py", "self.counts += np", "self.counts = np",
        ROOMS + "test_images_add_up"),
    Bug("labels resized bilinearly", "data/transforms.py", "Image.Resampling.NEAREST", "Image.Resampling.BILINEAR",
        ROOMS + "test_resized_labels_are_labels"),
    Bug("labels not mirrored with their image", "data/transforms.py", "image[:, ::-1], label[:, ::-1]",
        "image[:, ::-1], label", ROOMS + "test_image_and_labels_move_together"),
    Bug("uncovered labels are background", "data/transforms.py", "np.full(size, VOID, np.uint8)",
        "np.full(size, 0, np.uint8)", ROOMS + "test_image_and_labels_move_together"),
    Bug("BGR networks fed with RGB", "data/transforms.py", "else image[:, :, ::-1]", "else image[:, :, ::1]",
        ROOMS + "test_preprocessing"),
]
CHECKER_ITSELF = [
    Bug("all-ones upstream gradient", "gradcheck.py", "return _locked(_normal(y, rng))",
        "return _locked(_normal(y, rng) * 0 + 1)", CHECKER + "test_zero_softmax_gradient_is_found"),
    Bug("kinks compared", "gradcheck.py", "        if smooth:", "        if True:",
        CHECKER + "test_relu_near_its_kink_is_redrawn"),
    Bug("inputs and upstream gradients unlocked", "gradcheck.py", "copied.flags.writeable = False",
        "copied.flags.writeable = True", CHECKER + "test_backward_that_writes_to_its_upstream_gradient_raises"),
    Bug("errors not kept", "gradcheck.py", "report.max_relative_error, report.worst = error, name",
        "report.max_relative_error, report.worst = 0.0, name",
        CHECKER + "test_wrong_gradient_of_one_of_two_arguments_is_found_and_named"),
]
# fmt: on

BUGS = CONVOLUTION + POOLING + POINTWISE + NORMALISATION + LOSS + SHAPES + LAYERS + NETWORKS + TRAINING
BUGS += METRICS_AND_DATA + CHECKER_ITSELF
