# %% [markdown]
# # 12. Build U-Net
#
# **You will** join maps by concatenation, forward and back, build a small U-Net, weigh
# the pixels between touching cells, and count how many cells it then tells apart.
#
# **You will learn** what U-Net does differently from FCN, why what is concatenated gets
# its gradient back in slices, and how a loss can be told where to look.
#
# **You need** lesson 10 (skips, fork and join) and lesson 5 (the transposed
# convolution).
#
# **It takes** 25 minutes to read and half a minute to run.

# %% tags=["hide-input"]
import numpy as np

import lesson
from minifcn.backend import to_device, to_host

lesson.begin()
SIDE = 40


def around(numbers, pick):
    """pick, np.max or np.min, over the 3×3 pixels around each.   (H, W) -> (H, W)"""
    wide = np.pad(numbers, 1, mode="edge")
    views = [wide[u : u + SIDE, v : v + SIDE] for u, v in np.ndindex(3, 3)]
    return pick(views, axis=0)


def touching(numbers):
    """Where the 3×3 pixels around hold two cells or more.   (H, W) -> (H, W) bool"""
    lowest = around(np.where(numbers > 0, numbers, 999), np.min)
    return lowest < around(numbers, np.max)


def draw_cells(rng):
    """Discs that touch.   -> image (H, W) float32, numbers (H, W): of the cell, from 1"""
    numbers, places = np.zeros((SIDE, SIDE), int), np.zeros((0, 3))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for _ in range(300):
        r, c, radius = *rng.uniform(0, SIDE, 2), rng.uniform(5, 8)
        gaps = np.hypot(*(places[:, :2] - (r, c)).T) - places[:, 2] - radius
        if not len(gaps) or -1 < gaps.min() < 1:
            places = np.vstack([places, (r, c, radius)])
            inside = np.hypot(rows - r, columns - c) < radius
            numbers[inside & (numbers == 0)] = len(places)
    image = np.where(numbers > 0, np.where(touching(numbers), 0.54, 0.6), 0.25)
    blurred = around(image, np.mean)
    return (blurred + rng.normal(0, 0.08, image.shape)).astype(np.float32), numbers


def weight_map(numbers, label, w0=10, sigma=3):
    """High between two cells; explained below.   (H, W) twice -> (H, W) float32"""
    grid = np.stack(np.mgrid[:SIDE, :SIDE], axis=-1)[:, :, None]  # (H, W, 1, 2)
    cells = [np.argwhere(numbers == n) for n in np.unique(numbers[numbers > 0])]
    away = [np.sqrt(((grid - cell) ** 2).sum(axis=3)).min(axis=2) for cell in cells]
    distances = np.sort(away, axis=0)
    between = np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return (1 + w0 * between * (label == 0)).astype(np.float32)


def scenes(seed, count):
    """-> images (N, 1, H, W), labels (N, H, W), weights (N, H, W), numbers (N, H, W)"""
    drawn = [draw_cells(np.random.default_rng([seed, i])) for i in range(count)]
    images, numbers = map(np.stack, zip(*drawn, strict=True))
    labels = np.stack([(n > 0) & ~touching(n) for n in numbers]).astype(np.uint8)
    weights = np.stack(list(map(weight_map, numbers, labels)))
    return images[:, None] - np.float32(0.45), labels, weights, numbers


x, t, weights, numbers = scenes(seed=1, count=60)

# %% tags=["hide-input"]
row = {"image": 2 * x[0, 0] + 0.5, "cells": lesson.by_colour(numbers[0])}
row |= {"label": t[0], "weights": weights[0] / weights[0].max()}
caption = (
    "Cells that touch: the image, the cells, the label with a gap wherever two cells "
    "touch, and the weight of each pixel in the loss, up to 10.5 in the gaps."
)
lesson.pictures("12_cells", [row], caption=caption, vmin=0, vmax=1)

# %% [markdown]
# ## Cells that touch
#
# Semantic segmentation says "cell" or "background" for every pixel. Where two cells
# touch, they become one blob, and nobody can count them. The U-Net of Ronneberger,
# Fischer and Brox (2015) does two things about it. The label gets a thin gap of
# background between touching cells: the third picture. And the few pixels of these gaps
# weigh more in the loss: the fourth. This lesson builds both, and the network.
#
# ## Concatenate
#
# Lesson 10's FCN *adds* fine scores to coarse ones. U-Net puts whole *maps* beside each
# other: 8 maps from the way down and 8 from the way up are 16 maps, and the next
# convolution weighs them all. Forward that is `np.concatenate` along the channels. And
# backward? Each map was copied into its place, and multiplied by nothing. So its gradient
# is the slice of dy at that place.


# %%
def concat_forward(a, b):
    """(N, A, H, W), (N, B, H, W) -> (N, A + B, H, W)"""
    return np.concatenate([a, b], axis=1), a.shape[1]


def concat_backward(dy, cache):
    return dy[:, :cache], dy[:, cache:]


from minifcn import ops

rng = np.random.default_rng(0)
a, b = rng.normal(size=(2, 3, 6, 6)), rng.normal(size=(2, 5, 6, 6))
y, cache = concat_forward(a, b)
dy = rng.normal(size=y.shape)
da, db = concat_backward(dy, cache)
theirs, their_cache = ops.concat_forward((a, b))
assert np.array_equal(y, theirs)
for mine, yours in zip((da, db), ops.concat_backward(dy, their_cache), strict=True):
    assert np.array_equal(mine, yours)

# %% [markdown]
# Is that more than addition? Not by itself. Split the weights of a 1 × 1 convolution
# over a and b in two, and it is a convolution of a plus a convolution of b: the sum of
# two score layers, which is what FCN does. What is more in U-Net is that a ReLU
# follows, and other convolutions: they see both together.

# %%
w = rng.normal(size=(4, 8, 1, 1))
together, _ = ops.conv2d_forward(y, w)
apart = ops.conv2d_forward(a, w[:, :3])[0] + ops.conv2d_forward(b, w[:, 3:])[0]
assert np.allclose(together, apart, rtol=0, atol=1e-12)

# %% [markdown]
# ## A U-Net of one step, by hand
#
# One step down, one up. `down` is read twice: by the pooling and by the concatenation.
# So in backward two gradients come back to it, and they add up (lesson 10). The way up
# is a transposed convolution of 2 × 2 at stride 2: each value stamps its own 2 × 2
# pixels, and no stamps overlap.


# %%
def forward(x, w):
    """x (N, 1, H, W) -> scores (N, 2, H, W).   w: the weights of four layers"""
    down, of_down = ops.conv2d_forward(x, w["down"], pad=1)
    down, of_relu = ops.relu_forward(down)
    low, of_pool = ops.max_pool2d_forward(down, 2)
    low, of_bottom = ops.conv2d_forward(low, w["bottom"], pad=1)
    low, of_relu2 = ops.relu_forward(low)
    up, of_up = ops.conv_transpose2d_forward(low, w["up"], stride=2)
    both, of_concat = concat_forward(down, up)
    y, of_score = ops.conv2d_forward(both, w["score"])
    cache = of_down, of_relu, of_pool, of_bottom, of_relu2, of_up, of_concat, of_score
    return y, cache


def backward(dy, cache):
    """dy (N, 2, H, W) -> the gradients of the weights"""
    of_down, of_relu, of_pool, of_bottom, of_relu2, of_up, of_concat, of_score = cache
    dw = {}
    dboth, dw["score"], _ = ops.conv2d_backward(dy, of_score)
    ddown, dup = concat_backward(dboth, of_concat)  # the first gradient of `down`
    dlow, dw["up"], _ = ops.conv_transpose2d_backward(dup, of_up)
    dlow = ops.relu_backward(dlow, of_relu2)
    dlow, dw["bottom"], _ = ops.conv2d_backward(dlow, of_bottom)
    ddown = ddown + ops.max_pool2d_backward(dlow, of_pool)  # and the second
    ddown = ops.relu_backward(ddown, of_relu)
    _, dw["down"], _ = ops.conv2d_backward(ddown, of_down)
    return dw


shapes = {"down": (4, 1, 3, 3), "bottom": (8, 4, 3, 3), "up": (8, 4, 2, 2)}
shapes["score"] = (2, 4 + 4, 1, 1)
w = {name: rng.normal(size=shape) / 3 for name, shape in shapes.items()}
images = x[:2].astype(np.float64)
y, cache = forward(images, w)
dy = rng.normal(size=y.shape)
dw = backward(dy, cache)
for name, of_w in dw.items():  # against finite differences along a random direction
    direction, e, values = rng.normal(size=of_w.shape), 1e-6, []
    for sign in (1, -1):
        moved = w | {name: w[name] + sign * e * direction}
        values.append(np.sum(dy * forward(images, moved)[0]))
    measured = (values[0] - values[1]) / (2 * e)
    error = abs(measured - np.sum(of_w * direction)) / abs(measured)
    print(f"{name:7s}{str(of_w.shape):14s} relative error {error:.0e}")
    assert error < 1e-5

# %% [markdown]
# ## Two steps, as a table
#
# The library's networks are tables: a row for each layer, with the names of what it
# reads. Written so, a U-Net of two steps takes two dozen lines. Each `convolve` is two
# 3 × 3 convolutions, each with its batch norm (lesson 8: hence no bias) and ReLU.

# %%
from minifcn import layers, models


def unet(seed, width=6, steps=2):
    rng, table, last = np.random.default_rng(seed), {}, ("image", 1)

    def add(name, layer, K, *reads):
        nonlocal last
        table[name] = layer, list(reads) or [last[0]]
        last = name, K

    def convolve(name, K):
        for i in (1, 2):
            conv = layers.Conv2d(last[1], K, 3, rng, pad=1, bias=False)
            add(f"{name}.conv{i}", conv, K)
            add(f"{name}.norm{i}", layers.BatchNorm2d(K), K)
            add(f"{name}.relu{i}", layers.ReLU(), K)

    for level in range(steps):
        convolve(f"down{level}", width << level)
        add(f"pool{level}", layers.MaxPool2d(2), last[1])
    convolve("bottom", width << steps)
    for level in reversed(range(steps)):
        K, beside = width << level, f"down{level}.relu2"
        add(f"up{level}", layers.ConvTranspose2d(last[1], K, 2, rng, stride=2), K)
        add(f"concat{level}", layers.Concat(), 2 * K, beside, f"up{level}")
        convolve(f"after{level}", K)
    add("score", layers.Conv2d(width, 2, 1, rng), 2)
    return models.Graph(table)


network = unet(seed=0)
assert network.forward(to_device(x[:1])).shape == (1, 2, SIDE, SIDE)
print(f"{sum(p.value.size for p in network.parameters().values()):,} weights,", end=" ")
print(f"{sum(name.startswith('concat') for name in network.nodes)} concatenations")

# %% [markdown]
# `models.unet` is this with the article's four steps and 64 channels, and without batch
# norm. The article does not pad its convolutions. So the maps of the way down are
# larger than those of the way up, and are cropped to be concatenated. (What was cropped
# away has a gradient of zero.) 572 × 572 give a mask of the middle 388 × 388.

# %%
article = models.explain(models.unet(width=4), 572)  # the width changes no size
print("572 × 572 ->", article.output_shape)
assert article.output_shape[2:] == (388, 388)

# %% [markdown]
# ## Weigh the gaps
#
# Gaps are thin. A network that overlooks all of them can still have four of five pixels
# right, so the loss has to be told. For each pixel let d1 be the distance to the nearest
# cell, and d2 that to the second nearest. The article's weight is
#
#     weight = 1 + w0 · exp(−(d1 + d2)² / 2σ²)     in the background, with w0 = 10
#
# In a gap both distances are small, and the weight is up to 10.5. Beside one cell only,
# d2 is large, and it is 1. (The article takes σ = 5 pixels. Our cells are small: 3.)
# That is `weight_map` in the first cell; the library has it, too.

# %%
from minifcn.data.targets import border_weights

try:
    theirs = border_weights(numbers[0], sigma=3.0, label=t[0])
    assert np.allclose(theirs, weights[0], atol=1e-4)
except FileNotFoundError as error:  # the library measures distances by SciPy
    print(error)
gaps = (t == 0) & (weights > 4)
share = weights[gaps].sum() / weights.sum()
print(f"gaps: {gaps.mean():.1%} of the pixels, {share:.0%} of the loss's weight")

# %% [markdown]
# ## With and without
#
# Train the same network with and without these weights, from two starts. A cell counts
# as found if a connected component of the prediction fits it, with an IoU above one half.

# %%
from minifcn.training.optimizers import Adam


def train(seed, weigh, network=None, steps=120):
    network = network or unet(seed)
    optimiser, draw = Adam(network.parameters()), np.random.default_rng(seed)
    for step in range(steps):
        some = draw.integers(0, len(x), 6)
        images, labels = to_device(x[some]), to_device(t[some])
        each = {"pixel_weight": to_device(weights[some])} if weigh else {}
        network.zero_grad()
        scores = network.forward(images, train=True)
        _, cache = ops.softmax_cross_entropy_forward(scores, labels, **each)
        network.backward(ops.softmax_cross_entropy_backward(1.0, cache))
        optimiser.step(5e-3 * min(1, 2 - 2 * step / steps))
    return network


def parts(masks):
    """Number the connected components of masks (N, H, W): neighbours take the higher number."""
    found = np.where(masks, np.arange(1, masks.size + 1).reshape(masks.shape), 0)
    while True:
        wide = np.pad(found, ((0, 0), (1, 1), (1, 1)))
        up, down = wide[:, 2:, 1:-1], wide[:, :-2, 1:-1]
        left, right = wide[:, 1:-1, 2:], wide[:, 1:-1, :-2]
        grown = np.where(masks, np.max([found, up, down, left, right], axis=0), 0)
        if np.array_equal(grown, found):
            return found
        found = grown


def cells_found(predictions, numbers):
    """The share of cells (those of 20 pixels and more) that a part fits."""
    fits = []
    for found, truth in zip(parts(predictions == 1), numbers, strict=True):
        for n in np.unique(truth[truth > 0]):
            cell = truth == n
            if cell.sum() >= 20:
                most = np.bincount(found[cell]).argmax()  # 0: hardly anything is here
                part = found == most
                overlap = np.sum(part & cell) / np.sum(part | cell)
                fits.append(most > 0 and overlap > 0.5)
    return np.mean(fits)


x_new, t_new, weights_new, numbers_new = scenes(seed=2, count=30)
gaps = (t_new == 0) & (weights_new > 4)
predictions, found, right = {}, {}, {}
for seed in (0, 1):
    for weigh in (False, True):
        scores = train(seed, weigh).forward(to_device(x_new))
        predicted = to_host(scores).argmax(axis=1)
        predictions[seed, weigh] = predicted
        found[seed, weigh] = cells_found(predicted, numbers_new)
        right[seed, weigh] = np.mean(predicted == t_new)
        way = "with   " if weigh else "without"
        print(f"start {seed}, {way} the weights", end=": ")
        print(f"pixels right {right[seed, weigh]:.1%}", end=", ")
        print(f"gaps {np.mean(predicted[gaps] == 0):.1%}", end=", ")
        print(f"cells found {found[seed, weigh]:.1%}")
    assert found[seed, True] > found[seed, False] + 0.04
    assert right[seed, True] < right[seed, False] - 0.01

# %% tags=["hide-input"]
without, weighed = predictions[1, False], predictions[1, True]
differ = [
    np.subtract(*(cells_found(p[[i]], numbers_new[[i]]) for p in (weighed, without)))
    for i in range(len(x_new))
]
rows = []
for i in np.argsort(differ)[-2:]:
    rows.append({"image": x_new[i, 0], "label": t_new[i]})
    rows[-1] |= {"without weights": without[i], "with weights": weighed[i]}
caption = (
    "The two new scenes in which the weights help most. Without them, cells run "
    "together; with them all are apart, and all gaps are wider than they should be."
)
lesson.pictures("12_gaps", rows, caption=caption)

# %% [markdown]
# With the weights more cells are found, from both starts. It has a price: fewer pixels
# are right, and the cells come out thinner. Whoever counts cells takes the weights.
# Whoever measures their area should be careful with them.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** ★ In the article's U-Net, 64 maps from the way down meet 64 from the way up at
# the image's own scale. How many weights (no biases) has the 3 × 3 convolution behind
# this concatenation, which gives 64 maps?
#
# **2.** ★★ Write the backward pass of "crop, then concatenate". Forward, a (N, A, H, W)
# is cropped to `a[:, :, r : r + h, r : r + w]`, and b (N, B, h, w) is put behind it.
# Your function `(dy, shape, r)` gets dy (N, A + B, h, w), the shape of a, and r. It
# returns da, of this shape, and db.
#
# **3.** ★★★ Predict, then run. Cut both skips: let `after1.conv1` read the 12 maps of
# `up1` alone, and `after0.conv1` the 6 of `up0`. Train from start 0 with the weights,
# `train(0, True, network)`. On `x_new`, which share of the cells does it find, and
# which share of the pixels is right? Answer with both, in this order.

# %%
import answers

answers.check("12.1", ...)
answers.check("12.2", ...)
answers.check("12.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn predict --weights nuclei --objects slide.png` runs a U-Net that comes with
#   the library on a microscope's picture, and numbers each nucleus.
# - `minifcn train --help` has the border weights, and the border as a class of its own.
#
# ## Further reading
#
# - O. Ronneberger, P. Fischer, T. Brox, [*U-Net: Convolutional Networks for Biomedical
#   Image Segmentation*](https://arxiv.org/abs/1505.04597), MICCAI 2015.
# - In the code: `minifcn/models/unet.py`, `minifcn/data/targets.py`,
#   `minifcn/ops/shapes.py`.
