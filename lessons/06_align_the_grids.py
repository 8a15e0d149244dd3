# %% [markdown]
# # 6. Align the grids
#
# **You will** crop masks wrongly on purpose and count what it costs, then work out, with
# a dozen lines of fractions, why FCN-32s pads its image by 100 and crops its output by
# 19, and let the network itself say so.
#
# **You will learn** how each layer moves coordinates, how to compute the crop of any
# network, why pooling has to round up, and how to do without padding by 100.
#
# **You need** lesson 3 (kernel, stride, padding), lesson 4 (VGG16 and its fc6) and
# lesson 5 (the transposed convolution).
#
# **It takes** 25 minutes to read and ten seconds to run.

# %%
import numpy as np

import lesson
from minifcn import ops
from minifcn.data.toyvoc import CLASSES, draw_scene
from minifcn.layers.init import bilinear_1d


def oracle(label, cell, wrong=0):
    """A guess from the truth in cells, cropped `wrong` too far.   (H, W) -> (H, W)"""
    H, W = label.shape
    framed = np.full([n + -n % cell + 2 * cell for n in label.shape], 255, np.uint8)
    framed[cell : cell + H, cell : cell + W] = label  # void: of no class
    truth = (framed == np.arange(len(CLASSES))[:, None, None]).astype(np.float32)
    cells, _ = ops.avg_pool2d_forward(truth[None], cell)
    scores, _ = ops.upsample_forward(cells, bilinear_1d(2 * cell), stride=cell)
    right = cell + (2 * cell - 1) / 2 - (cell - 1) / 2  # frame, stamp, average
    scores, _ = ops.crop_forward(scores, int(right) + wrong, (H, W))
    return scores[0].argmax(axis=0).astype(np.uint8)


# %% tags=["hide-input"]
image, label = draw_scene(np.random.default_rng([6, 15]), 128)
row = {"scene": image}
for title, wrong in (("right crop", 0), ("6 pixels off", 6)):
    mask = np.where(label == 255, label, oracle(label, 8, wrong))
    row[title] = lesson.over(image, mask)
caption = "Pale lines: the true outlines. The second mask lies up and to the left."
lesson.pictures("06_off", [row], caption=caption)

# %% [markdown]
# Both masks come from the same scores, cropped at different places. Without the image
# behind it the second would not look broken.
#
# How much does a wrong crop cost? The `oracle` above stands for a network that knows the
# truth, but in coarse cells. It averages the truth (one map per class, 1 inside and 0
# outside) over cells, enlarges that bilinearly, crops, and takes the highest.

# %%
from minifcn.metrics import ConfusionMatrix

wrongs, curves = (0, 1, 2, 4, 6, 8), {}
for seed in (6, 8):
    labels = [draw_scene(np.random.default_rng([seed, i]), 128)[1] for i in range(40)]
    for cell in (8, 32):
        curves[seed, cell] = curve = []
        for wrong in wrongs:
            matrix = ConfusionMatrix(len(CLASSES))
            for truth in labels:
                matrix.update(truth, oracle(truth, cell, wrong))
            curve.append(100 * matrix.mean_iou())
        print(f"seed {seed}, cells of {cell:2d}: mean IoU", end=" ")
        print("  ".join(f"{iou:.1f}" for iou in curve))
print("by so many pixels off:        " + "   ".join(f"{w:3d}" for w in wrongs))
assert curves[6, 32][0] < curves[6, 32][1] and curves[8, 32][0] > curves[8, 32][1]
for seed in (6, 8):
    fine, coarse = curves[seed, 8], curves[seed, 32]
    assert fine[0] - fine[3] > 10 and max(np.diff(fine)) < 0
    assert abs(coarse[0] - coarse[1]) < 1 and coarse[0] - coarse[5] > 3

# %% [markdown]
# With fine cells every pixel costs. With coarse ones a crop that is 1 pixel off cannot
# be told from the right one: which comes out ahead depends on the scenes.
#
# ## Two numbers that look like magic
#
# This is the published FCN-32s, in short:
#
#     conv1_1   3×3, pad 100          the padding of all other 3×3 layers is 1
#     …         13 convolutions and 5 poolings by 2 in all
#     fc6       7×7, no padding       then fc7 and the scores, both 1×1
#     upscore   transposed convolution, kernel 64, stride 32
#     crop      the image's size, beginning at 19
#
# Why 100? Why 19? The README of the authors' code says, under "Why pad the input?": with
# 100 the output can be aligned for any size of image in their data sets; to compute exact
# offsets is possible, but less convenient. Caffe is the framework that they used. Its
# `coord_map.py` computes the crop, with the table that we now derive. *Pixel r of the
# image, where is it in the output?*
#
# ## Every layer moves coordinates
#
# Take one axis; the other is alike. Output number i of a convolution with kernel k,
# stride s and padding p looks at k inputs. The first of them is s·i − p, the last is
# s·i − p + k − 1. So the middle of what it looks at is
#
#     r = s·i − p + (k − 1)/2
#
# Turned around, position r of the input belongs to i = (r + p − (k − 1)/2) / s. A pooling
# slides a window in the same way. A transposed convolution does the opposite: input r is
# stamped onto k outputs, from s·r − p on, with their middle at i = s·r − p + (k − 1)/2.
# All three have one form: what is at r in the input is at a·r + b in the output.
#
# | layer | a | b |
# |---|---|---|
# | convolution, pooling | 1/s | (p − (k − 1)/2) / s |
# | transposed convolution | s | (k − 1)/2 − p |
#
# The halves matter. Here are sixteen pixels, and the cells of two poolings by 2. The
# middle of cell 0 is not pixel 0: it lies at ½ after one pooling, and at 1½ after two.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 2.2))
for row, (side, colour) in enumerate(((1, "0.85"), (2, "#9cc3e0"), (4, "#f5b57a"))):
    starts = np.arange(0, 16, side)
    bars = axes.barh(row, side, left=starts - 0.5, height=0.8, color=colour, ec="w")
    axes.bar_label(bars, starts // side, label_type="center")
axes.set_yticks([0, 1, 2], ["pixels", "one pooling", "two poolings"])
axes.set(xlabel="position r in the image", xticks=range(0, 16, 3))
axes.invert_yaxis()
caption = "Pixels, and the cells of one and two poolings, over the pixels they look at."
lesson.show(figure, "06_cells", caption)

# %%
from fractions import Fraction


def layer_map(kind, k, s, p):
    """(a, b) of one layer: its input's position r is its output's position a·r + b."""
    half = Fraction(k - 1, 2)
    if kind == "deconv":
        return Fraction(s), half - p
    return Fraction(1, s), (p - half) / s


def then(first, second):  # two layers in a row: r -> a2·(a1·r + b1) + b2
    (a1, b1), (a2, b2) = first, second
    return a2 * a1, a2 * b1 + b2


def where(network):
    """The map of a list of layers (name, kind, k, s, p)."""
    at = Fraction(1), Fraction(0)
    for _, *layer in network:
        at = then(at, layer_map(*layer))
    return at


print("pooling 2, stride 2: ", *layer_map("pool", 2, 2, 0))
assert layer_map("conv", 3, 1, 1) == (1, 0)  # moves nothing

# %% [markdown]
# That is what the picture shows: the position ½ goes to ½·½ − ¼ = 0, cell 0.
#
# ## Through FCN-32s, layer by layer
#
# `size` follows an image of 500 pixels: a convolution gives ⌊(n + 2p − k)/s⌋ + 1 for n
# pixels, a pooling rounds *up* instead, a transposed convolution gives s·(n − 1) + k − 2p.


# %%
def vgg16(pad=100):
    """All layers of FCN before the enlargement: (name, kind, k, s, p), no 1×1 ones."""
    network = []
    for group, depth in enumerate((2, 2, 3, 3, 3), start=1):
        for n in range(1, depth + 1):
            first = (group, n) == (1, 1)
            network.append((f"conv{group}_{n}", "conv", 3, 1, pad if first else 1))
        network.append((f"pool{group}", "pool", 2, 2, 0))
    return [*network, ("fc6", "conv", 7, 1, 0)]


def size_after(n, kind, k, s, p, pool_up=True):
    if kind == "deconv":
        return s * (n - 1) + k - 2 * p
    up = s - 1 if kind == "pool" and pool_up else 0
    return (n + 2 * p - k + up) // s + 1


upscore = ("upscore", "deconv", 64, 32, 0)
at, n = (Fraction(1), Fraction(0)), 500
print(f"{'layer':9s}{'k':>3s}{'s':>4s}{'p':>5s}{'size':>6s}   pixel r is at")
for name, *layer in [*vgg16(), upscore]:
    at, n = then(at, layer_map(*layer)), size_after(n, *layer)
    if name in ("conv1_1", "fc6", "upscore") or layer[0] == "pool":  # others: r -> r
        _, k, s, p = layer
        sign = "+" if at[1] >= 0 else "−"
        scale = "" if at[0] == 1 else f"{at[0]}·"
        print(f"{name:9s}{k:3d}{s:4d}{p:5d}{n:6d}   {scale}r {sign} {abs(at[1])}")

assert at == (1, 19) and n == 544

# %% [markdown]
# There it is. Pixel r of the image is at r + 19 of the output: the image's 500 rows begin
# at row **19** of 544.
#
# Where do the 19 come from? Each layer's own b, in pixels of the image:
#
# - The padding pushes everything down by 100, less the 1 that a 3 × 3 window takes
#   back: 99.
# - Each pooling moves things up by half a cell of the map it gets, of 1, 2, 4, 8 and 16
#   pixels: −15½.
# - `fc6` looks at 7 cells, and its first output stands for the fourth: three cells of 32
#   pixels, −96.
# - The stamp of 64 has its middle at 31½.
#
# So 99 − 15½ − 96 + 31½ = **19**, and with another padding P in place of 100, the crop is
# P − 81.
#
# Here it can be moved. Each bar is a map, laid over the image's 500 rows and some of the
# padding. The orange part is what one output row depends on. Choose the row, then crop
# wrongly: the row stands for another pixel, and the mask below leaves its object.

# %% tags=["hide-input"]
from minifcn.data.labels import colourise

layers, n = [], 500
for name, *layer in [*vgg16(), upscore]:
    n = size_after(n, *layer)
    layers.append([name, *layer, n])
H, W = label.shape
mask = oracle(np.pad(label, 24, constant_values=255), 8)[5 : H + 45, 5 : W + 45]
assert np.array_equal(mask[19 : 19 + H, 19 : 19 + W], oracle(label, 8))
colours = colourise(np.arange(len(CLASSES), dtype=np.uint8)[None])[0].tolist()
numbers = {"layers": layers, "size": 500, "crop": 19, "image": image, "label": label}
numbers |= {"mask": mask, "colours": colours}
instead = "what an output row sees in each map, and the mask at crops of 0 to 40"
lesson.widget("ruler", numbers, instead)

# %% [markdown]
# FCN-16s and FCN-8s (lesson 10) add finer scores, taken behind pool4 and pool3, to the
# enlarged coarse ones. Two maps may be added only if the same cell means the same place in
# both: if their (a, b) are equal. The a are equal already. Crop the finer map by the
# difference of the b. (`"mini"` below has fewer 3×3 layers; they move nothing.)

# %%
from minifcn import models

layers_before = vgg16()
names = [name for name, *_ in layers_before]
pool3, pool4 = (where(layers_before[: names.index(f"pool{n}") + 1]) for n in (3, 4))
fc7 = where(layers_before)
enlarged = {s: layer_map("deconv", 2 * s, s, 0) for s in (2, 8, 16, 32)}
two, four = then(fc7, enlarged[2]), then(then(fc7, enlarged[2]), enlarged[2])
crops = {
    "32s": [then(fc7, enlarged[32])[1]],
    "16s": [pool4[1] - two[1], then(two, enlarged[16])[1]],
    "8s": [pool4[1] - two[1], pool3[1] - four[1], then(four, enlarged[8])[1]],
}
for variant, offsets in crops.items():
    network = models.fcn(variant, "mini", alignment="paper", width=2)
    parts = ("crop_pool4", "crop_pool3", "crop")
    own = [network[part].offset for part in parts if part in network.nodes]
    print(f"FCN-{variant}:", *offsets, "  in the library:", *own)
    assert own == offsets
assert crops == {"32s": [19], "16s": [5, 27], "8s": [5, 9, 31]}

# %% [markdown]
# These are all the published numbers of the VGG networks. The library holds none of them.
#
# ## The image as its own ruler
#
# Does the network do it? Make all its layers plain averages and its stamp bilinear, and
# give it a ruler: an image where pixel r has the value r. Averaging a ruler reads its
# middle. So each output *says where it is looking*. One axis is enough.


# %%
def averages(x):
    """FCN-32s of averages, before its crop.   x (N, 1, H, 1) -> (N, 1, H + some, 1)"""
    for _, kind, k, s, p in vgg16():
        if kind == "pool":
            x, _ = ops.avg_pool2d_forward(x, (k, 1), stride=(s, 1), ceil_mode=True)
        else:
            w = np.full((1, 1, k, 1), 1 / k)
            x, _ = ops.conv2d_forward(x, w, pad=((p, p), (0, 0)))
    stamp = bilinear_1d(64).astype(float).reshape(1, 1, 64, 1)
    return ops.conv_transpose2d_forward(x, stamp, stride=(32, 1))[0]


ruler = np.arange(1000.0).reshape(1, 1, 1000, 1)
reading = averages(ruler)[0, 0, :, 0]  # (1056,)
print("output rows 400, 401, 519 look at pixels", reading[[400, 401, 519]])
inside = np.arange(350, 650)  # far enough from the padding's zeros
assert np.allclose(reading[inside], inside - 19, atol=1e-9)

# %% [markdown]
# ## Why pad by 100?
#
# Because `fc6` needs 7 × 7 cells of 32 pixels to stand on. Padded by 1, an image of 192
# pixels leaves it no place, and a larger one loses three cells on each side. How much
# padding P is enough? At least 81, for a crop of P − 81 that is not negative, and so much
# that the output still has n rows from row P − 81 on.


# %%
def sizes(n, pad, pool_up=True):
    """(size of fc6's map, size of the output); (0, 0) where fc6 finds no place."""
    for _, *layer in vgg16(pad):
        n = size_after(n, *layer, pool_up)
    return (n, size_after(n, *upscore[1:])) if n > 0 else (0, 0)


assert sizes(192, 1)[0] == 0 and sizes(193, 1)[0] == 1
fails = {}
for pad in range(81, 101):
    assert where([*vgg16(pad), upscore]) == (1, pad - 81)
    fails[pad] = [n for n in range(1, 1100) if sizes(n, pad)[1] < n + pad - 81]
print("sizes of 1,099 that fail:", {p: len(fails[p]) for p in (81, 95, 96, 97, 100)})
assert fails[81] == [*range(1, 33)] and fails[96] == [1, 2]  # tiny images only
assert not any(fails[pad] for pad in range(97, 101))

# %% [markdown]
# From 97 on every size works; 100 is the next round number. (81 is enough for images of
# 33 pixels or more.) Now the rounding: a pooling by 2 of 349 rows has one row left over.
# Caffe keeps it (175 outputs), most other programs drop it (174). Five poolings can lose
# up to 31 pixels at the bottom. Then the output is too small for some photographs.

# %%
up, down = (
    sum(sizes(n, 100, up)[1] - 19 < n for n in range(32, 1100)) for up in (True, False)
)
print(f"rounding up: {up} sizes fail, down: {down} of 1,068")
assert (up, down) == (0, 396)

# %% [markdown]
# ## The alternative that wastes nothing
#
# Of a padded image of 500 × 500 nearly half is frame. The library's `alignment="same"`
# does it differently:
#
# - The image is padded, below and to the right, only up to the next multiple of 32.
#   Then no pooling ever has a row left over.
# - Every convolution is padded so that its map keeps its size, `fc6` by 3.
# - A stamp of 2s is cut by s/2 on each side. The output is exactly s times as large.
#
# The crop begins at 0:

# %%
same = [*vgg16(pad=1)[:-1], ("fc6", "conv", 7, 1, 3), ("upscore", "deconv", 64, 32, 16)]
print("same: pixel r is at", "{}·r + {}".format(*where(same)))
assert where(same) == (1, 0)
for n in range(1, 1100):
    padded = after = n + -n % 32
    for _, *layer in same:
        after = size_after(after, *layer)
    assert after == padded >= n

# %% [markdown]
# The authors left `fc6` as it was in the classifier: 7 × 7 cells without padding.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** ★ A convolution with kernel 5, stride 2, padding 2, and then a pooling by 2
# (stride 2, no padding). Pixel r of the image is at a·r + b after both. What are a and
# b? (A pair.)
#
# **2.** ★★ Change the network: leave `pool5` out of FCN-32s. `conv1_1` is padded by 100
# and `fc6` not at all, as before, but a cell is now 16 pixels, and the last stamp has
# kernel 32 and stride 16. At which row does the image begin in the output? Guess the
# direction before you compute.
#
# **3.** ★★★ FCN-AlexNet has conv1 (kernel 11, stride 4, pad 100), three poolings of
# kernel 3 and stride 2 (behind conv1, conv2 and conv5), conv2 (kernel 5, pad 2), conv3
# to conv5 (kernel 3, pad 1) and fc6 (kernel 6, no pad). It enlarges by 32 with a kernel
# of 63, where the VGG networks have 64. Compute the crop with either, see why, and
# answer with the pair (crop with 64, crop with 63).

# %%
import answers

answers.check("06.1", ...)
answers.check("06.2", ...)
answers.check("06.3", ...)

# %% [markdown]
# ## In practice
#
# - Never copy a crop from another network. Compute it, or let
#   `minifcn.layers.coordinates.crop_offset` do it; it refuses if no whole crop fits.
# - Masks that are all shifted to one side: a wrong crop. Test with the ruler.
# - `minifcn train --alignment paper` is for weights of the published FCNs.
#
# ## Further reading
#
# - E. Shelhamer and others, [*fcn.berkeleyvision.org*](https://github.com/shelhamer/fcn.berkeleyvision.org),
#   README: "Why pad the input?". And Caffe's `python/caffe/coord_map.py`.
# - V. Dumoulin, F. Visin, [*A guide to convolution arithmetic for deep
#   learning*](https://arxiv.org/abs/1603.07285), 2016.
# - In the code: `minifcn/layers/coordinates.py`, the whole of this lesson in a page.
