# %% [markdown]
# # 13. See further without pooling
#
# **You will** put holes into a kernel, make the maps of a network denser without
# changing a weight, and train small networks that differ in nothing but holes.
#
# **You will learn** what atrous (dilated) convolution does to field and step, why its
# maps are the same features as before and more of them, where it wastes pixels, and
# what a pyramid of rates (ASPP) is for.
#
# **You need** lessons 3, 8 and 10.
#
# **It takes** 20 minutes to read and about twenty seconds to run.

# %%
import lesson

lesson.begin()

# %% tags=["hide-input"]
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minifcn.data.images import read_image

PHOTOS = Path(lesson.__file__).parents[1] / "docs" / "photos"
photo = read_image(PHOTOS / "chelsea.jpg")
middle, cell = (180, 150), 16
figure, axes = plt.subplots(1, 3, figsize=(7, 1.9))
for panel, rate in zip(axes, (1, 2, 4), strict=True):
    panel.imshow(photo)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            at = [
                m + cell * (rate * n - 0.5) for m, n in zip(middle, (j, i), strict=True)
            ]
            style = {"fc": "#e74c3c", "ec": "w", "alpha": 0.85}
            panel.add_patch(plt.Rectangle(at, cell, cell, **style))
    panel.set_title(f"rate {rate}")
    panel.set_axis_off()
caption = (
    f"The nine taps of one 3×3 kernel on a map with cells of {cell} pixels, at rates 1, "
    "2 and 4. The kernel has nine weights each time."
)
lesson.show(figure, "13_taps", caption)

# %% [markdown]
# ## Two ways to see more
#
# To know what a pixel belongs to, a cell must see far around it (lesson 10). A pooling
# brings that: behind it the cells lie twice as far apart, and every kernel reaches
# twice as far. But it throws away three cells of four, and the place with them.
#
# The other way is in the picture. Leave the cells where they are, and set the kernel's
# *taps*, its weights, apart: r cells from one to the next, so that r − 1 between them are
# left out. r is the **rate**. The holes give the name, from French *à trous*, with holes.
# (*Dilated* means the same.) A layer adds (k − 1) · r · step to the field, where lesson 10
# had (k − 1) · step. The step stays.
#
# In one dimension, with the kernel 1, 10, 100 at rate 2, the first result for x = 1, 2,
# 3, 4, 5, 6 is 1·1 + 3·10 + 5·100 = 531:

# %%
from minifcn import ops


def atrous(x, w, rate):
    """y_i = Σ_u w_u · x_(i + rate·u).   x (n,), w (k,) -> (n - rate·(k - 1),)"""
    y = np.zeros(len(x) - rate * (len(w) - 1))
    for i in range(len(y)):
        for u in range(len(w)):
            y[i] += w[u] * x[i + rate * u]
    return y


print(atrous(np.arange(1.0, 7), np.array([1.0, 10, 100]), 2))
assert atrous(np.arange(1.0, 7), np.array([1.0, 10, 100]), 2)[0] == 531

rng = np.random.default_rng(0)
x, w = rng.normal(size=(1, 3, 20, 20)), rng.normal(size=(4, 3, 3, 3))
spread = np.zeros((4, 3, 5, 5))
spread[:, :, ::2, ::2] = w  # the same nine weights, and zeros in the holes
holes, _ = ops.conv2d_forward(x, w, dilation=2)
zeros, _ = ops.conv2d_forward(x, spread)
assert np.allclose(holes, zeros, atol=1e-12)
print("a kernel with holes is a larger kernel with zeros that nobody multiplies")

# %% [markdown]
# ## The same features, denser
#
# Here is what made it famous. Take a trained network. Let a pooling by 2 move by 1
# rather than by 2: its map has four times as many cells. The kernels behind it would
# now see neighbours that they were not trained on. Give them holes, rate 2, and they
# see the old ones again. The next pooling's window gets holes likewise, and behind it
# the rate is 4. **No weight changes**, and where the old network had a cell, the new
# one has the same numbers.
#
# `features` is a chain of three convolutions and two poolings, both ways. (Its weights
# are random; for this they do as well as trained ones.)

# %%
ws = [rng.normal(size=(8, c, 3, 3)) / np.sqrt(9 * c) for c in (3, 8, 8)]


def features(x, dense):
    """x (1, 3, H, W) -> maps (1, 8, h, w): at 1/4, or dense, at 1/1"""
    rate = 1
    for number, w in enumerate(ws):
        if number:  # a pooling by 2
            x, _ = ops.max_pool2d_forward(x, 2, stride=1 if dense else 2, dilation=rate)
            rate = 2 * rate if dense else 1
        x, _ = ops.conv2d_forward(x, w, pad=rate, dilation=rate)
        x, _ = ops.relu_forward(x)
    return x


small = photo[80:208, 100:260][None].transpose(0, 3, 1, 2) / 128.0 - 1
coarse, dense = features(small, False), features(small, True)
print("with poolings", coarse.shape[2:], "  with holes", dense.shape[2:])
assert np.allclose(dense[:, :, ::4, ::4], coarse, atol=1e-12)

moved = features(small[:, :, 1:, 2:], False)  # the image, shifted by a row, two columns
inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))  # no frame seen
again = dense[:, :, 1::4, 2::4][:, :, : moved.shape[2], : moved.shape[3]]
assert np.allclose(again[inside], moved[inside], atol=1e-12)
print("every fourth cell is the old map; the others are old maps of shifted images")

# %% tags=["hide-input"]
channel = int(coarse[0].std(axis=(1, 2)).argmax())
row = {"image": photo[80:208, 100:260], "two poolings": coarse[0, channel]}
row["holes instead"] = dense[0, channel]
caption = (
    "One channel of the same weights. Every fourth row and column on the right are the "
    "map in the middle."
)
lesson.pictures("13_denser", [row], caption=caption, cmap="magma")

# %% [markdown]
# The second assertion says that the other cells are no inventions: each is what the old
# network would say of an image shifted by some pixels. Lesson 4's shift-and-stitch
# takes a run for each shift. Holes do it in one run. The price: sixteen times as many
# cells go through the last convolution. So DeepLab leaves only the *last two* poolings
# without their stride, and stops at 1/8.
#
# ## Where holes lose pixels
#
# Let three 3×3 kernels of rate 2 follow each other. Their field is 13 × 13, as
# 1 + 2·(2 + 2 + 2) says. But which pixels of it does a result depend on? Count the paths
# from each pixel to one result, by sending back a 1 through kernels of ones:


# %%
def paths(rates):
    """How many paths lead from each pixel to one result.   -> (side, side)"""
    side = 1 + 2 * sum(rates)
    d, ones = np.ones((1, 1, 1, 1)), np.ones((1, 1, 3, 3))
    for rate in rates:
        d, _ = ops.conv_transpose2d_forward(d, ones, dilation=rate)
    assert d.shape[2:] == (side, side)
    return d[0, 0]


seen = {rates: paths(rates) for rates in ((2, 2, 2), (1, 2, 3))}
for rates, count in seen.items():
    print(f"rates {rates}: {np.count_nonzero(count)} of {count.size} pixels")
assert np.count_nonzero(seen[2, 2, 2]) == 49 and np.all(seen[1, 2, 3] > 0)
assert not np.all(paths((2, 3, 7)) > 0)  # unequal, and holes all the same

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(7, 3.2))
for panel, (rates, count) in zip(axes, seen.items(), strict=True):
    drawn = panel.imshow(np.where(count > 0, count, np.nan), cmap="viridis")
    panel.set_facecolor("0.9")
    panel.set(title="rates " + ", ".join(map(str, rates)), xticks=(), yticks=())
    figure.colorbar(drawn, ax=panel, shrink=0.8, label="paths")
caption = "Two chains with a field of 13 × 13. Grey pixels are never looked at."
lesson.show(figure, "13_paths", caption)

# %% [markdown]
# With rates 2, 2, 2 two neighbours live in different worlds: a result sees only the
# pixels at an even distance. This is called *gridding*. Rates 1, 2, 3 leave no hole.
# But unequal rates alone are no guarantee (2, 3, 7 leave holes), so count.
#
# ## Large rates on small maps
#
# A tap that falls outside the map reads the frame of zeros. On the small maps behind
# poolings that happens to most taps when the rate is large:

# %%
for side, rate in ((40, 6), (40, 18), (12, 6), (12, 12)):
    ones = np.ones((1, 1, side, side))
    hits, _ = ops.conv2d_forward(ones, np.ones((1, 1, 3, 3)), pad=rate, dilation=rate)
    share = hits.mean() / 9
    print(f"map of {side} cells, rate {rate:2d}: {share:.0%} of the taps are inside")
assert np.all(hits == 1)  # the last: a 3×3 kernel that is a 1×1

# %% [markdown]
# At a rate as large as the map only the middle tap is left. So rates must suit the size
# of the map that one trains on.
#
# ## A pyramid of rates
#
# Which rate is right? Shapes come in all sizes. *ASPP* (atrous spatial pyramid pooling)
# takes several at once. Branches with different rates look at the same map, side by
# side; their maps are stacked, and a 1×1 convolution mixes them.
#
# Does seeing further help? Here is the smallest task in which it must. A noisy picture
# shows a disc, a ring or a cross, filled with white, and the network is to say for each
# pixel of the shape which it belongs to. Inside, all pixels look alike: it has to see
# the outline. All networks have a first 3×3 convolution and three more with 16 channels,
# and no pooling. They differ in the rates alone, or in how the three are put together.

# %%
from minifcn import layers, models
from minifcn.backend import to_device, to_host
from minifcn.data.toyvoc import SHAPES
from minifcn.metrics import ConfusionMatrix
from minifcn.training import loop
from minifcn.training.optimizers import Adam

KINDS, SIDE, STEPS, WIDTH = ("disc", "ring", "cross"), 32, 200, 16


def scene(seed):
    """A shape in noise (32, 32), and its class, 0 to 2, on its pixels; void elsewhere."""
    rng = np.random.default_rng([13, seed])
    kind, radius = rng.integers(len(KINDS)), rng.uniform(8, 14)
    middle, angle = rng.uniform(10, 22, 2), rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:SIDE, :SIDE] - middle[:, None, None]
    u = np.cos(angle) * columns - np.sin(angle) * rows
    v = np.sin(angle) * columns + np.cos(angle) * rows
    inside = SHAPES[KINDS[kind]][0](u / radius, v / radius) < 0
    return inside + rng.normal(0, 0.3, inside.shape), np.where(inside, kind, 255)


scenes = [scene(i) for i in range(500)]  # the last 100 are for validation
images = np.stack([image for image, _ in scenes])[:, None].astype(np.float32)
labels = np.stack([label for _, label in scenes]).astype(np.uint8)


def build(rates, pyramid, seed):
    """The table of such a network."""
    table, rng = {}, np.random.default_rng(seed)

    def unit(name, source, inputs, kernel=3, rate=1):
        pad = rate * (kernel // 2)
        options = {"pad": pad, "dilation": rate, "bias": False}
        table[name] = layers.Conv2d(inputs, WIDTH, kernel, rng, **options), [source]
        table[name + "_bn"] = layers.BatchNorm2d(WIDTH), [name]
        table[name + "_relu"] = layers.ReLU(), [name + "_bn"]
        return name + "_relu"

    at = first = unit("first", "image", 1)
    branches = []
    for number, rate in enumerate(rates):
        at = unit(f"conv{number}", first if pyramid else at, WIDTH, rate=rate)
        branches.append(at)
    if pyramid:
        table["stack"] = layers.Concat(), branches
        at = unit("mix", "stack", WIDTH * len(rates), kernel=1)
    table["score"] = layers.Conv2d(WIDTH, 3, 1, rng, zero=True), [at]
    return models.Graph(table)


def fit(rates, pyramid, seed):
    """Train a network. -> its predictions of the validation images, its mean IoU"""
    network, rng = build(rates, pyramid, seed), np.random.default_rng(seed)
    adam = Adam(network.parameters())
    for step in range(STEPS):
        some = rng.integers(0, 400, 8)
        rate = 1e-2 * (1 - step / STEPS)
        loop.update(network, images[some], labels[some], adam, rate)
    logits = to_host(network.forward(to_device(images[400:])))
    found, matrix = logits.argmax(axis=1).astype(np.uint8), ConfusionMatrix(3)
    matrix.update(labels[400:], found)
    return found, 100 * matrix.mean_iou()


WAYS = {"no holes: 1, 1, 1": ((1, 1, 1), False), "rates 1, 2, 4": ((1, 2, 4), False)}
WAYS["pyramid 2, 5, 8"] = (2, 5, 8), True
found, ious = {}, {}
for name, (rates, pyramid) in WAYS.items():
    runs = [fit(rates, pyramid, seed) for seed in (0, 1)]
    found[name], ious[name] = runs[0][0], [iou for _, iou in runs]
    field = 3 + 2 * (max(rates) if pyramid else sum(rates))
    print(
        f"{name:18s} field {field:2d}: mean IoU", *(f"{iou:.1f}" for iou in ious[name])
    )
plain, holes, pyramid = ious.values()
assert min(holes) > max(plain) + 20 and min(pyramid) > max(plain) + 10

# %% tags=["hide-input"]
from minifcn.data.labels import colourise

rows = []
for kind in range(3):
    n = next(i for i in range(100) if kind in labels[400 + i])
    inside = labels[400 + n] < 255
    grey = np.repeat(
        (images[400 + n, 0].clip(-0.5, 1.5)[..., None] + 0.5) / 2, 3, axis=2
    )
    rows.append({"image": grey})
    for name, predictions in found.items():
        painted = colourise(np.where(inside, predictions[n] + 1, 0).astype(np.uint8))
        mixed = np.where(inside[..., None], 0.3 * grey + 0.7 * painted / 255, grey)
        rows[-1][name] = mixed
caption = (
    "Validation images of seed 0, coloured by the class that each network gives to the "
    "pixels of the shape."
)
named = {"legend": (1, 2, 3), "classes": ("", *KINDS)}
lesson.pictures("13_classes", rows, caption=caption, **named)

# %% [markdown]
# Without holes the network sees 9 × 9 pixels. That is an outline here and there, and in
# the middle of a shape nothing at all. With as many weights and rates 1, 2, 4 it sees 17
# × 17, and tells the three apart. The pyramid sees a little further, by its widest branch
# alone, in one step rather than three. It does not look between its taps, and it is not
# better here.
#
# ## Exercises
#
# Replace the dots and run the cell again. More stars, more work.
#
# **1.** ★ A 3×3 convolution of rate 12 works on a map whose cells lie 8 pixels apart. How
# many *pixels* apart are the left and the right taps of its kernel, from middle to
# middle?
#
# **2.** ★★ Three 3×3 convolutions follow each other, all with stride 1. Which three
# rates give the largest field without a hole, in which every pixel is looked at? Try
# with `paths`.
#
# **3.** ★★★ Write the backward pass of `atrous`: a function `(dy, x, w, rate)` that
# returns dx and dw. Check it as in lesson 7.

# %%
import answers

answers.check("13.1", ...)
answers.check("13.2", ...)
answers.check("13.3", ...)
# After two tries: answers.reveal("13.1")

# %% [markdown]
# ## In practice
#
# - `models.deeplab("largefov")`, `"aspp"`, `"v3"` and `"v3plus"` are the family;
#   `--rates` chooses the pyramid. docs/networks.md has what they reached.
# - Train on crops large enough for your rates: count how many taps fall inside.
# - A convolution with holes takes as many products as one without, cell for cell. What
#   costs is that there are more cells.
#
# ## Further reading
#
# - L.-C. Chen and others, *Semantic Image Segmentation with Deep Convolutional Nets and
#   Fully Connected CRFs*, ICLR 2015, <https://arxiv.org/abs/1412.7062>: LargeFOV;
#   *DeepLab*, <https://arxiv.org/abs/1606.00915>: ASPP; *Rethinking Atrous
#   Convolution*, <https://arxiv.org/abs/1706.05587>: v3, and what happens to large rates.
# - F. Yu, V. Koltun, *Multi-Scale Context Aggregation by Dilated Convolutions*, ICLR
#   2016, <https://arxiv.org/abs/1511.07122>
# - In the code: `minifcn/models/deeplab.py`, `minifcn/ops/conv/atrous.py`.
