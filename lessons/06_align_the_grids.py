# %% [markdown]
# # 6. Align the grids
#
# **You will** work out, with a dozen lines of fractions, why FCN-32s pads its image by
# 100 and crops its output by 19; push a dot through the network and see where it lands;
# crop wrongly on purpose and count what it costs.
#
# **You will learn** how each layer moves coordinates, how to compute the crop of any
# network, why pooling has to round up, and how to do without padding by 100.
#
# **You need** lesson 3 (kernel, stride, padding), lesson 4 (VGG16 and its fc6) and
# lesson 5 (the transposed convolution).
#
# **It takes** 25 minutes to read and a few seconds to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## Two numbers that nobody explains
#
# This is the published FCN-32s, in short:
#
#     conv1_1   3×3, pad 100          the padding of all other 3×3 layers is 1
#     …         13 convolutions and 5 poolings by 2 in all
#     fc6       7×7, no padding       then fc7 and the scores, score_fr: both 1×1
#     upscore   transposed convolution, kernel 64, stride 32
#     crop      the image's size, beginning at 19
#
# (`conv1_1` is the first convolution of the first of VGG16's five groups.)
#
# Why 100? Why 19? Change the 19 in a trained network and everything still runs: the
# shapes fit, nothing complains, and all the masks sit a few pixels beside their
# objects. So it is worth knowing where the number comes from.
#
# The question behind both is: *pixel u of the image, where is it in the output?*
#
# ## Every layer moves coordinates
#
# Take one axis; the other is alike. Output number i of a convolution with kernel k,
# stride s and padding p looks at k inputs. The first of them is s·i − p, the last is
# s·i − p + k − 1, and so the middle of what it looks at is
#
#     u = s·i − p + (k − 1)/2
#
# Turned around, the position u of the input belongs to i = (u + p − (k − 1)/2) / s. A
# pooling slides a window in the same way. A transposed convolution does the opposite:
# input u is stamped onto k outputs, from s·u − p on, with their middle at
#
#     i = s·u − p + (k − 1)/2
#
# All three have one form: what is at u in the input is at a·u + b in the output.
#
# | layer | a | b |
# |---|---|---|
# | convolution, pooling | 1/s | (p − (k − 1)/2) / s |
# | transposed convolution | s | (k − 1)/2 − p |
#
# The halves matter. Here are sixteen pixels, and the cells that two poolings by 2 make
# of them, each drawn around the pixels it looks at. The middle of cell 0 is not pixel
# 0: it lies at ½ after one pooling, and at 1½ after two.

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 2.2))
for row, (side, colour) in enumerate(((1, "0.85"), (2, "#9cc3e0"), (4, "#f5b57a"))):
    for cell in range(16 // side):
        middle = cell * side + (side - 1) / 2
        axes.barh(row, side, left=middle - side / 2, height=0.8, color=colour, ec="w")
        axes.text(middle, row, cell, ha="center", va="center", fontsize=11)
axes.set_yticks([0, 1, 2], ["pixels", "one pooling", "two poolings"])
axes.set(xlabel="position u in the image", xticks=range(0, 16, 3))
axes.invert_yaxis()
lesson.show(figure, "06_cells")

# %% [markdown]
# So we count in fractions. Two layers in a row: put one formula into the other.

# %%
from fractions import Fraction


def layer_map(kind, k, s, p):
    """(a, b) of one layer: its input's position u is its output's position a·u + b."""
    half = Fraction(k - 1, 2)
    if kind == "deconv":
        return Fraction(s), half - p
    return Fraction(1, s), (p - half) / s


def then(first, second):
    """The map of two layers in a row: u -> a2·(a1·u + b1) + b2."""
    (a1, b1), (a2, b2) = first, second
    return a2 * a1, a2 * b1 + b2


def where(network):
    """The map of a list of layers (name, kind, k, s, p)."""
    at = Fraction(1), Fraction(0)
    for _, *layer in network:
        at = then(at, layer_map(*layer))
    return at


print("3×3, stride 1, pad 1:", *layer_map("conv", 3, 1, 1))
print("pooling 2, stride 2: ", *layer_map("pool", 2, 2, 0))
assert layer_map("conv", 3, 1, 1) == (1, 0)  # moves nothing

# %% [markdown]
# That is what the picture shows: the position ½ goes to ½·½ − ¼ = 0, cell 0. But is the
# formula true for any layer? Send back a gradient for one output only: it reaches just
# the inputs that this output looks at (lesson 3). Here is one output of a convolution
# with unusual settings, and the middle of what it looks at:

# %%
import numpy as np

from minifcn import ops

k, s, p, i = 6, 3, 2, 4
x, w = np.zeros((1, 1, 40, 1)), np.ones((1, 1, k, 1))  # a column of 40 pixels
y, cache = ops.conv2d_forward(x, w, stride=(s, 1), pad=((p, p), (0, 0)))
dy = np.zeros_like(y)
dy[0, 0, i] = 1
dx, *_ = ops.conv2d_backward(dy, cache)  # (1, 1, 40, 1)
seen = np.flatnonzero(dx)
a, b = layer_map("conv", k, s, p)
print("output", i, "looks at", seen, "with the middle", seen.mean())
print("the formula takes that back to", float(a * Fraction(seen.mean()) + b))
assert a * Fraction(seen.mean()) + b == i

# %% [markdown]
# ## Through FCN-32s, layer by layer
#
# The same for all of VGG16. `size` follows an image of 500 pixels: a convolution gives
# ⌊(n + 2p − k)/s⌋ + 1, a pooling rounds *up* instead, a transposed convolution gives
# s·(n − 1) + k − 2p.


# %%
def vgg16(pad=100):
    """FCN's trunk: (name, kind, kernel, stride, pad). 1×1 layers move nothing."""
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
print(f"{'layer':9s}{'k':>3s}{'s':>4s}{'p':>5s}{'size':>6s}   pixel u is at")
for name, *layer in [*vgg16(), upscore]:
    at, n = then(at, layer_map(*layer)), size_after(n, *layer)
    _, k, s, p = layer
    sign = "+" if at[1] >= 0 else "−"
    scale = "" if at[0] == 1 else f"{at[0]}·"
    print(f"{name:9s}{k:3d}{s:4d}{p:5d}{n:6d}   {scale}u {sign} {abs(at[1])}")

assert at == (1, 19) and n == 544

# %% [markdown]
# There it is. After the last layer, pixel u of the image is at u + 19 of the output.
# The output has 544 rows for an image of 500; the image's own begin at row **19**.
#
# Where do the 19 pixels come from? A layer's own b counts cells of its output. To turn
# it into pixels of the image, divide it by the scale reached there, the number before
# the u in the table:

# %%
shares, at = {}, (Fraction(1), Fraction(0))
for name, *layer in [*vgg16(), upscore]:
    own = layer_map(*layer)
    at = then(at, own)
    if own[1]:
        kind = "poolings" if layer[0] == "pool" else name
        shares[kind] = shares.get(kind, 0) + own[1] / at[0]
for name, share in shares.items():
    print(f"{name:9s}{float(share):+7.1f}")
print(f"{'sum':9s}{float(sum(shares.values())):+7.1f}")
assert sum(shares.values()) == 19

# %% [markdown]
# The padding pushes everything down by 100, less the 1 that a 3×3 window takes back.
# Each pooling moves things up by half a cell of the map it gets, and these cells are 1,
# 2, 4, 8 and 16 pixels wide: half of 31, −15½. `fc6` without padding looks at 7 cells,
# and its first output stands for the fourth of them. That is three cells of 32 pixels:
# −96. The stamp of 64 has its middle at 31½. So the answer to the most asked question
# about this network is
#
#     99 − 15½ − 96 + 31½ = 19
#
# and with another padding P in place of 100, the crop is P − 81:

# %%
for pad in (81, 90, 100, 110):
    print(f"pad {pad}: crop {where([*vgg16(pad), upscore])[1]}")
    assert where([*vgg16(pad), upscore]) == (1, pad - 81)

# %% [markdown]
# ## The other crops
#
# FCN-16s enlarges the coarse scores by 2, adds finer ones that it takes at `pool4`, and
# enlarges the sum by 16. FCN-8s enlarges that sum by 2 instead, adds scores taken at
# `pool3`, and enlarges by 8. (Lesson 8 builds them. All kernels are twice the factor.)
# Two maps may be added only if the same cell means the same place in both, that is, if
# their (a, b) are equal. The a are. The finer map has the larger b, and cropping it by
# the difference takes that away.

# %%
trunk = vgg16()
names = [name for name, *_ in trunk]
pool3 = where(trunk[: names.index("pool3") + 1])
pool4 = where(trunk[: names.index("pool4") + 1])
fc7 = where(trunk)


def enlarge(at, factor, kernel):
    """The map `at` with an enlargement behind it."""
    return then(at, layer_map("deconv", kernel, factor, 0))


two = enlarge(fc7, 2, 4)
four = enlarge(two, 2, 4)
assert two[0] == pool4[0] and four[0] == pool3[0]
crops = {
    "32s": [enlarge(fc7, 32, 64)[1]],
    "16s": [pool4[1] - two[1], enlarge(two, 16, 32)[1]],
    "8s": [pool4[1] - two[1], pool3[1] - four[1], enlarge(four, 8, 16)[1]],
}
for variant, offsets in crops.items():
    print(f"FCN-{variant}:", *offsets)
assert crops == {"32s": [19], "16s": [5, 27], "8s": [5, 9, 31]}

# %% [markdown]
# All six published numbers. The library holds none of them: `layers/coordinates.py`
# does with its layers what we just did. Its small network, `mini`, has VGG's poolings and
# VGG's fc6, hence the same crops. (`alignment="paper"` is the padding by 100; another
# one follows at the end.)

# %%
from minifcn import models
from minifcn.layers import coordinates

for variant, offsets in crops.items():
    network = models.fcn(variant, "mini", alignment="paper", width=2)
    parts = ("crop_pool4", "crop_pool3", "crop")
    own = [network[part].offset for part in parts if part in network.nodes]
    tapped = models.coordinates(network.nodes, "vgg.drop7")
    print(f"FCN-{variant} in the library:", *own)
    assert own == offsets and tapped == fc7

# %% [markdown]
# FCN-AlexNet crops by 18, and its last kernel is 63 where VGG's is 64. Now we can see
# why:

# %%
alexnet = [("conv1", "conv", 11, 4, 100), ("pool1", "pool", 3, 2, 0)]
alexnet += [("conv2", "conv", 5, 1, 2), ("pool2", "pool", 3, 2, 0)]
alexnet += [(f"conv{n}", "conv", 3, 1, 1) for n in (3, 4, 5)]
alexnet += [("pool5", "pool", 3, 2, 0), ("fc6", "conv", 6, 1, 0)]
for kernel in (64, 63):
    b = enlarge(where(alexnet), 32, kernel)[1]
    print(f"kernel {kernel}: crop {float(b)}")
target = coordinates.IDENTITY
ours = coordinates.Affine(*where(alexnet))
assert coordinates.upsampling_kernel(32, ours, target) == 63 and b == 18

# %% [markdown]
# With 64, the image would begin at 18½, and half a pixel cannot be cropped.
#
# ## The image as its own ruler
#
# Fractions are persuasive, but does the network do it? Make all its layers plain
# averages and its stamp bilinear (lesson 5), and give it a ruler to look at: an image
# where pixel u has the value u. Averaging a ruler reads its middle, interpolating it
# reads the place between. So each output *says where it is looking*. One axis is
# enough, and makes it quick. (`ceil_mode=True` is the rounding up; more about it
# below.)

# %%
from minifcn.layers.init import bilinear_1d


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
for row in (400, 401, 519, 600):
    print(f"output row {row} looks at pixel {reading[row]:.6f}")

inside = np.arange(350, 650)  # far enough from the padding's zeros
assert np.allclose(reading[inside], inside - 19, atol=1e-9)

# %% [markdown]
# Row 519 looks at pixel 500, and every row that is far from the padding looks at the
# pixel with its own number less 19. Now the other way round: one bright dot, and where
# its light lands. A cell has 32 pixels, and the dot may be any of them: hence 32
# images, the dot one pixel further down in each.

# %%
dots = np.zeros((32, 1, 1000, 1))
dots[range(32), 0, range(480, 512)] = 1  # in each image, one bright pixel: 480 to 511
light = averages(dots)[:, 0, :, 0]  # (32, 1056)
centres = light @ np.arange(light.shape[1]) / light.sum(axis=1)
shift = centres - np.arange(480, 512)
print(f"landed further down by {shift.min():.1f} to {shift.max():.1f} pixels")
print(f"on average by {shift.mean():.6f}")
lit = np.ptp(np.flatnonzero(light[20] > 0.01 * light[20].max())) + 1
print(f"and spread over {lit} rows")
assert np.isclose(shift.mean(), 19) and np.abs(shift - 19).max() < 0.2

figure, axes = plt.subplots(figsize=(7, 3))
rows = np.arange(light.shape[1])
axes.plot(rows, light[20] * 1000, color="0.6", label="before the crop")
axes.plot(rows - 19, light[20] * 1000, color="C0", label="cropped by 19")
axes.axvline(500, color="C3", linestyle="--", label="the dot, pixel 500")
axes.set(xlabel="row", ylabel="light (thousandths)", xlim=(300, 800))
axes.legend(frameon=False, loc="upper right")
lesson.show(figure, "06_dot")

# %% [markdown]
# The light of one pixel is spread over hundreds of rows. That is coarseness, which
# lessons 7 and 8 are about, and no crop cures it. What the crop can do is to put the
# *middle* of the light onto the dot, and it does, to a tenth of a pixel.
#
# ## What a wrong crop costs
#
# No training is needed to find out. Take an *oracle*, a network that knows the truth
# and is only as coarse as a real one: average the truth (one map per class, 1 inside
# and 0 outside) over cells of 8 pixels, enlarge that bilinearly, crop, and take the
# highest. Then crop it wrongly, by 1 to 8 pixels, along both axes. The same with cells
# of 32.

# %%
from minifcn.data.labels import colourise
from minifcn.data.toyvoc import CLASSES, draw_scene
from minifcn.metrics import ConfusionMatrix

scenes = [draw_scene(np.random.default_rng([6, i]), 128) for i in range(30)]


def oracle(label, cell, wrong=0):
    """A guess from the truth in cells, cropped `wrong` too far.   (H, W) -> (H, W)"""
    height, width = label.shape
    framed = np.full([n + -n % cell + 2 * cell for n in label.shape], 255, np.uint8)
    framed[cell : cell + height, cell : cell + width] = label  # void: of no class
    truth = (framed == np.arange(len(CLASSES))[:, None, None]).astype(np.float32)
    cells, _ = ops.avg_pool2d_forward(truth[None], cell)
    scores, _ = ops.upsample_forward(cells, bilinear_1d(2 * cell), stride=cell)
    right = cell + (2 * cell - 1) / 2 - (cell - 1) / 2  # frame, stamp, average
    begin = int(right) + wrong
    scores, _ = ops.crop_forward(scores, begin, (height, width))
    return scores[0].argmax(axis=0).astype(np.uint8)


wrongs, curves = range(9), {8: [], 32: []}
for cell, curve in curves.items():
    for wrong in wrongs:
        matrix = ConfusionMatrix(len(CLASSES))
        for _, label in scenes:
            matrix.update(label, oracle(label, cell, wrong))
        curve.append(100 * matrix.mean_iou())
print("mean IoU (%)   " + "".join(f"{f'cells of {cell}':>13s}" for cell in curves))
for wrong in wrongs:
    row = "".join(f"{curve[wrong]:13.1f}" for curve in curves.values())
    print(f"{wrong} pixels off   {row}")
assert all(np.diff(curve).max() < 0.5 for curve in curves.values())
assert curves[8][0] - curves[8][4] > 10

# %%
figure, axes = plt.subplots(figsize=(7, 3))
for cell, curve in curves.items():
    axes.plot(wrongs, curve, "o-", label=f"cells of {cell} pixels")
axes.set(xlabel="crop wrong by (pixels)", ylabel="mean IoU (%)", ylim=(0, 105))
axes.legend(frameon=False, loc="lower left")
lesson.show(figure, "06_wrong_crop")

image, label = scenes[15]
row = {"image": image, "truth": colourise(label)}
for title, wrong in (("cropped right", 0), ("6 pixels off", 6)):
    row[title] = colourise(oracle(label, 8, wrong))
seen = np.unique(label)
lesson.pictures("06_off", [row], legend=seen[seen < 255], classes=CLASSES)

# %% [markdown]
# The last picture alone would not look broken: that is what makes the mistake so
# common. And the finer cells lose far more by it than the coarse ones, which at 1 or 2
# pixels off even come out a little ahead. Whoever tests a crop with FCN-32s alone may
# not notice.
#
# ## Why pad by 100?
#
# Because `fc6` has no padding. It needs 7 × 7 cells of 32 pixels to stand on. A smaller
# map has no place for it, and the image vanishes. Even a large image would lose three
# cells on each side. Here is what is left of some sizes, without the big padding and
# with it.


# %%
def sizes(n, pad, pool_up=True):
    """(size of fc6's map, size of the output); (0, 0) where fc6 finds no place."""
    for _, *layer in vgg16(pad):
        n = size_after(n, *layer, pool_up)
    return (n, size_after(n, *upscore[1:])) if n > 0 else (0, 0)


print("image   fc6 (pad 1)  output     fc6 (pad 100)  output")
for n in (1, 100, 192, 193, 224, 500):
    small, large = sizes(n, 1), sizes(n, 100)
    print(f"{n:5d}{small[0]:11d}{small[1]:10d}{large[0]:15d}{large[1]:12d}")
assert sizes(192, 1)[0] == 0 and sizes(193, 1)[0] == 1
assert all(sizes(n, 100)[1] >= n + 19 for n in range(1, 1100))

# %% [markdown]
# With pad 1, anything up to 192 pixels vanishes, and 500 pixels come back as 352. With
# pad 100 even a single pixel has an answer, and the output is always large enough to
# cut the image out of. How much padding P would have been enough? At least 81, for a
# crop of P − 81 that is not negative, and so much that the output still has n rows from
# row P − 81 on.

# %%
for pad in (81, 95, 96, 97, 98, 99, 100):
    short = [n for n in range(1, 1100) if sizes(n, pad)[1] < n + pad - 81]
    print(f"pad {pad}: fails for {len(short)} of 1,099 sizes")
least = next(
    pad
    for pad in range(81, 101)
    if all(sizes(n, pad)[1] >= n + pad - 81 for n in range(1, 1100))
)
print("the least that works for all:", least)
assert least <= 100

# %% [markdown]
# So 100 is no magic number, only a round one above 97.
#
# ## Why pooling rounds up
#
# A pooling by 2 of 349 rows has one row left over. Caffe, the library in which FCN was
# written, keeps it: the last window hangs over the edge (175 outputs). Most others drop
# it unless told otherwise (174). Five poolings can lose up to 1 + 2 + 4 + 8 + 16 = 31
# pixels at the bottom like that, and then the output may be too small to cut the image
# out of it.

# %%
heights = np.arange(32, 1100)
spare = {
    up: np.array([sizes(int(n), 100, up)[1] - 19 - n for n in heights])
    for up in (True, False)
}
for up, rows in spare.items():
    print(f"rounding {'up' if up else 'down'}:", end=" ")
    print(f"too small for {np.sum(rows < 0)} of {len(heights):,} sizes")
assert np.sum(spare[True] < 0) == 0 and np.sum(spare[False] < 0) == 396

figure, axes = plt.subplots(figsize=(7, 3))
axes.axhline(0, color="0.6", linewidth=0.8)
axes.plot(heights, spare[True], color="C0", label="rounded up")
axes.plot(heights, spare[False], color="C3", label="rounded down")
axes.set(xlabel="image size (pixels)", ylabel="rows to spare", xlim=(32, 300))
axes.set_ylim(-15, 65)
axes.legend(frameon=False, ncols=2, loc="upper right")
lesson.show(figure, "06_rounding")

# %% [markdown]
# The line at 0 is where the output is just large enough. Rounded down, 396 of the 1,068
# sizes fail. This is nasty because it depends on the image: training on crops of one
# good size works, and then some photograph stops the program. See it stop:

# %%
from minifcn import layers
from minifcn.backend import to_device

network = models.fcn("32s", "mini", alignment="paper", width=2)
n = int(heights[spare[False] < 0][0])
image = to_device(np.zeros((1, 3, n, n), np.float32))
print(f"{n} pixels, rounded up:  ", network.forward(image).shape)
for layer in network.layers_of(layers.MaxPool2d):
    layer.settings["ceil_mode"] = False
try:
    network.forward(image)
    failed = False
except ValueError as error:
    failed = True
    print(f"{n} pixels, rounded down: {error}")
assert failed

# %% [markdown]
# ## The alternative that wastes nothing
#
# An image of 500 × 500 becomes a map of 698 × 698, and nearly half of that is frame.
# The library's `alignment="same"` does it differently:
#
# - the image is padded, below and to the right, only up to the next multiple of 32
#   (512); then no pooling ever has a row left over;
# - every convolution is padded so that its map keeps its size, `fc6` by 3;
# - a stamp of 2s is padded by s/2 (that is, cut by so much on each side): the output is
#   exactly s times as large, each cell in the middle of its s pixels.
#
# The crop begins at 0. Ours is a list of layers, so we can check that:

# %%
same = [*vgg16(pad=1)[:-1], ("fc6", "conv", 7, 1, 3), ("upscore", "deconv", 64, 32, 16)]
print("same: pixel u is at", "{}·u + {}".format(*where(same)))
assert where(same) == (1, 0)


def multiply_adds(n, network):
    """Of VGG16's convolutions and fc6 on n × n pixels. fc7 and scores are left out."""
    widths = {"1": 64, "2": 128, "3": 256, "4": 512, "5": 512, "6": 4096}
    total, channels = 0, 3
    for name, *layer in network:
        n = size_after(n, *layer)
        if layer[0] == "conv":
            outputs = widths[name.removeprefix("conv").removeprefix("fc")[0]]
            total += n * n * outputs * channels * layer[1] ** 2
            channels = outputs
    return total


paper_cost = multiply_adds(500, vgg16())
same_cost = multiply_adds(512, same)
print(f"image in the padded map: {500**2 / 698**2:.0%}")
print(f"VGG16, pad 100: {paper_cost / 1e9:.0f} billion multiply-adds")
print(f"VGG16, same:    {same_cost / 1e9:.0f} billion")
for alignment in ("paper", "same"):
    small = models.fcn("32s", "mini", alignment=alignment)
    cost = models.explain(small, 500).multiply_adds
    print(f"mini, {alignment}: {cost / 1e9:.2f} billion, by models.explain")
assert paper_cost > same_cost

# %% [markdown]
# Why did the authors not do that? Their `fc6` came from a classifier, where it saw 7 ×
# 7 cells without padding, and they left it as it was. Both ways align, and both give an
# output of exactly the image's size for every size.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** A convolution with kernel 5, stride 2, padding 2, and then a pooling by 2
# (stride 2, no padding). Pixel u of the image is at a·u + b after both. What are a and
# b? (A pair.)
#
# **2.** Leave `pool5` out of FCN-32s. `conv1_1` is padded by 100 and `fc6` not at all,
# as before, but a cell is now 16 pixels, and the last stamp has kernel 32 and stride
# 16. At which row does the image begin in the output?
#
# **3.** Write a function `(k, s)` that returns the padding with which a transposed
# convolution of kernel k and stride s puts each input cell in the middle of its s
# outputs: cell u in the middle of the outputs s·u, …, s·u + s − 1.

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
# - Masks that are all shifted to one side mean a wrong crop. Test with the ruler: it
#   takes a minute, and a shift of 2 pixels is hard to see by eye.
# - `minifcn train --alignment same` is the default, and cheaper. Take `paper` to use
#   weights of the published FCNs.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, *Fully Convolutional Networks for Semantic
#   Segmentation*, CVPR 2015, section 4.
# - V. Dumoulin, F. Visin, *A guide to convolution arithmetic for deep learning*, 2016:
#   the sizes, with pictures.
# - In the code: `minifcn/layers/coordinates.py`, the whole of this lesson in a page.
