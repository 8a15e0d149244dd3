# %% [markdown]
# # 4. Turn fc into conv
#
# **You will** turn the fully connected layers (fc) of a classifier into convolutions
# without changing a weight, train it on whole scenes, and let it say *where*.
#
# **You will learn** why a fully connected layer is a convolution, what the score vector
# at one place of a heat-map means, what the trick saves, and why padding makes "the
# same" a delicate word.
#
# **You need** lessons 2 (the sliding classifier) and 3 (the convolution).
#
# **It takes** 25 minutes to read and about ten seconds to run.

# %% tags=["hide-input"]
from pathlib import Path

import numpy as np

import lesson
from minifcn.data.images import read_image

drawn = read_image(Path(lesson.__file__).parents[1] / "docs" / "heatmap.png")
caption = (
    "A photograph, and a classifier's heat-map of three kinds of cats. (By minifcn "
    "classify docs/photos/chelsea.jpg --heatmap tabby,282,285.)"
)
lesson.pictures("04_where", [{"": drawn}], caption=caption)

# %% [markdown]
# The network behind this picture is a classifier. It was shown a million photographs
# with one label each, and was never told where anything was. Still it knows. No weight
# was changed for it. (The article's figure 2 is such a picture.)
#
# ## The layer that insisted
#
# Lesson 2 left us stuck: a fully connected layer takes maps of one size only. So look at
# what this layer computes. Say it gets 5 maps of 3 × 3 and makes 4 scores:
#
#     score[o]   = b[o] + Σ over c, u, v of  W[o, n(c, u, v)] · x[c, u, v]
#
# where n(c, u, v) is the place of (c, u, v) in the flattened row. And here is a
# convolution with a kernel of 3 × 3, at the place (i, j):
#
#     y[o, i, j] = b[o] + Σ over c, u, v of  w[o, c, u, v] · x[c, i + u, j + v]
#
# On a map of 3 × 3 this kernel fits in one place, i = j = 0, and there the two lines are
# the same line. Only the weights must be written as a block instead of a row.
# Flattening goes map by map and row by row, so `reshape` puts each where it belongs.

# %%
from minifcn import ops

rng = np.random.default_rng(0)
x = rng.standard_normal((1, 5, 3, 3))  # (N, C, H, W)
W, b = rng.standard_normal((4, 5 * 3 * 3)), rng.standard_normal(4)  # (K, C·H·W), (K,)

scores, _ = ops.linear_forward(x.reshape(1, -1), W, b)  # (1, 4)
y, _ = ops.conv2d_forward(x, W.reshape(4, 5, 3, 3), b)  # (1, 4, 1, 1)
print("fully connected:", scores[0].round(3), scores.shape)
print("convolution:    ", y[0, :, 0, 0].round(3), y.shape)
assert np.abs(y[:, :, 0, 0] - scores).max() < 1e-12

# %% [markdown]
# The numbers are the same. But the convolution's output has a height and a width, 1 × 1:
# it has a *place*. Give it larger maps, and it has many. At each stands what the fully
# connected layer would say of the 3 × 3 piece that begins there.

# %%
large = rng.standard_normal((1, 5, 6, 7))
y, _ = ops.conv2d_forward(large, W.reshape(4, 5, 3, 3), b)
for i, j in np.ndindex(4, 5):
    piece = large[:, :, i : i + 3, j : j + 3].reshape(1, -1)
    assert np.abs(y[:, :, i, j] - ops.linear_forward(piece, W, b)[0]).max() < 1e-12

# %% [markdown]
# ## A patient
#
# Now with a whole classifier. It is that of lesson 2 with the flat head, and with two
# changes. It has two fully connected layers (VGG16 has three). And its convolutions do
# not pad: each loses a pixel on every side. (We shall see why.) Windows of 38 × 38 then
# end in maps of 3 × 3, by way of 36, 18, 16, 8 and 6. The *card* of a network says what
# its numbers do not, here the *native* size, that of the images which it is made for.
# Its weights are random so far.

# %%
from minifcn import layers, models


def classifier(pad, native, seed=0):
    """Windows (N, 3, native, native) -> scores (N, 6), of the middle pixel's class."""
    rng = np.random.default_rng(seed)
    chain = {}
    for i, (C, K) in enumerate(((3, 8), (8, 16), (16, 32)), start=1):
        chain[f"conv{i}"] = layers.Conv2d(C, K, 3, rng, pad=pad)
        chain[f"relu{i}"] = layers.ReLU()
        chain[f"pool{i}"] = layers.MaxPool2d(2)
    chain["flatten"] = layers.Flatten()  # (N, 32, 3, 3) -> (N, 288)
    chain["fc1"] = layers.Linear(32 * 3 * 3, 48, rng)
    chain["relu4"] = layers.ReLU()
    chain["fc2"] = layers.Linear(48, 6, rng)
    card = models.Card("lesson", {"num_classes": 6}, native=native)
    return models.Sequential(**chain, card=card)


net = classifier(pad=0, native=38)

# %% [markdown]
# ## The surgery
#
# The lower layers stay as they are. `Flatten` goes. The first fully connected layer
# sees 3 × 3 maps and becomes a 3 × 3 convolution. The second sees single numbers and
# becomes a 1 × 1 convolution. (`children()` gives the layers by name, and `Conv2d.of`
# makes a convolution of a weight and a bias. In float64 no difference can hide behind
# rounding.)

# %%
net.astype(np.float64)


def as_convolution(linear, side):
    """A fully connected layer over maps of side x side, as a convolution."""
    K, inputs = linear.weight.value.shape
    w = linear.weight.value.reshape(K, inputs // side**2, side, side)
    return layers.Conv2d.of(layers.Parameter(w), linear.bias)


chain = {name: layer for name, layer in net.children().items() if name != "flatten"}
chain["fc1"] = as_convolution(net["fc1"], 3)
chain["fc2"] = as_convolution(net["fc2"], 1)
by_hand = models.Sequential(**chain)

some = rng.uniform(-1, 1, (10, 3, 38, 38))
scores, vectors = net.forward(some), by_hand.forward(some)
print("scores of 10 windows:", scores.shape, "->", vectors.shape)
assert np.abs(vectors[:, :, 0, 0] - scores).max() < 1e-12

heat = models.surgery.convolutionalize(net)  # the library's, for any of its classifiers
assert np.array_equal(heat.forward(some), vectors)

# %% [markdown]
# ## A scene is a batch
#
# Nothing in the new network insists on a size. So feed it a whole scene. The output is
# a *heat-map* for each class. At each place (i, j) stand six scores, one in each map:
# the **score vector** of this place, which speaks of one window.
#
# So one need not cut windows to train it, as lesson 2 did. Give it scenes, and for each
# place the class of the pixel in the middle of its window. A scene of 94 × 94 has 8 × 8
# such places. The article trains like this (section 3.4).

# %%
from minifcn.data.toyvoc import CLASSES, draw_scene
from minifcn.training.optimizers import Adam


def scenes(seed, count, side=94, first=19, step=8):
    """-> scenes (count, 3, side, side), -1 to 1, and the true classes of the places"""
    drawn = [draw_scene(np.random.default_rng([seed, i]), 128) for i in range(count)]
    x = np.stack([image[:side, :side].transpose(2, 0, 1) for image, _ in drawn])
    middles = np.ix_(*[np.arange(first, side - first + 1, step)] * 2)
    t = np.stack([label[middles] for _, label in drawn])
    return x.astype(np.float32) / 127.5 - 1, t


x, t = scenes(seed=1, count=100)
x_test, t_test = scenes(seed=2, count=40)
for seed in (1, 0):
    heat = models.surgery.convolutionalize(classifier(pad=0, native=38, seed=seed))
    optimiser, draw = Adam(heat.parameters()), np.random.default_rng([3, seed])
    for step in range(250):
        chosen = draw.integers(0, len(x), 3)
        heat.zero_grad()
        maps = heat.forward(x[chosen], train=True)  # (3, 6, 8, 8)
        loss, cache = ops.softmax_cross_entropy_forward(maps, t[chosen])
        heat.backward(ops.softmax_cross_entropy_backward(1.0, cache))
        optimiser.step(5e-3 * min(1, 2 - step / 125))
    counted = t_test != 255
    right = np.mean((heat.forward(x_test).argmax(axis=1) == t_test)[counted])
    lazy = np.mean(t_test[counted] == 0)
    print(f"start {seed}: {right:.0%} of the places right (all background: {lazy:.0%})")
    assert right > lazy + 0.08

# %% [markdown]
# These weights fit the classifier as well: write them back in its shapes. Feed it the 64
# windows of a scene. Is its gradient the one that the heat-map has from the whole scene?

# %%
heat.astype(np.float64)
shapes = {name: p.value.shape for name, p in net.parameters().items()}
net.load_state_dict({n: v.reshape(shapes[n]) for n, v in heat.state_dict().items()})


def windows(scene, side):
    """(1, 3, H, W) -> its windows 8 apart, row by row, (N, 3, side, side)"""
    tops, lefts = (range(0, n - side + 1, 8) for n in scene.shape[2:])
    return np.stack(
        [scene[0, :, r : r + side, c : c + side] for r in tops for c in lefts]
    )


def gradient(network, x, t):
    """Of the loss, by the weights of conv1."""
    network.zero_grad()
    scores = network.forward(x, train=True)
    _, cache = ops.softmax_cross_entropy_forward(scores, t)
    network.backward(ops.softmax_cross_entropy_backward(1.0, cache))
    return network["conv1"].weight.grad


one = x_test[:1].astype(np.float64)
dense = gradient(heat, one, t_test[:1])
off = np.abs(dense - gradient(net, windows(one, 38), t_test[0].ravel())).max()
print(f"gradients of up to {np.abs(dense).max():.2f} differ by {off:.0e}")
assert off < 1e-12 and np.abs(dense).max() > 1e-4

# %% [markdown]
# It is. Training on whole images *is* training on windows, all those of an image at
# once, at a fraction of the work. Here is what the network says of a larger scene.

# %%
image, label = draw_scene(np.random.default_rng(13), 128)
image, label = image[:128, :128], label[:128, :128]
scene = image.transpose(2, 0, 1)[None] / 127.5 - 1  # (1, 3, 128, 128), float64
maps = heat.forward(scene)  # (1, 6, rows, columns)
print("scene", scene.shape, "-> heat-maps", maps.shape)

# %% tags=["hide-input"]
from minifcn.data.labels import colourise

largest = int(np.bincount(label[(label > 0) & (label < 255)]).argmax())
best = maps[0].argmax(axis=0).astype(np.uint8)
row = {"scene": image[15:111, 15:111], f"score of {CLASSES[largest]}": maps[0, largest]}
row["highest score"] = colourise(best)
caption = "A scene, less the rim where no whole window fits, and two maps of 12 × 12."
legend = {"legend": np.unique(best), "classes": CLASSES}
lesson.pictures("04_heat_maps", [row], caption=caption, cmap="inferno", **legend)

# %% [markdown]
# This took one run. And the map is coarse: the three poolings halve it three times, so
# neighbouring places are 2 · 2 · 2 = 8 pixels apart. That is the network's **stride**.
#
# ## Every score vector is a window
#
# Is it really the same as sliding? The score vector at (i, j) should be what the
# classifier says of the window whose upper left corner is the pixel (8i, 8j).


# %%
def slide(classifier, scene, side):
    """The classifier on every window.   (1, 3, H, W) -> (1, 6, rows, columns)"""
    rows = (scene.shape[2] - side) // 8 + 1
    return classifier.forward(windows(scene, side)).T.reshape(1, 6, rows, -1)


off = np.abs(maps - slide(net, scene, 38)).max()
print(f"{maps[0, 0].size} places, largest difference: {off:.0e}")
assert off < 1e-12

window, once = (models.explain(*n).multiply_adds for n in ((net, 38), (heat, 128)))
print(f"sliding takes {144 * window:,} multiply-adds, the heat-map {once:,}")
assert 144 * window > 8 * once

# %% [markdown]
# The heat-map *is* the sliding classifier at a step of 8. A step of 1 cannot be had in
# one run. But feed the network the scene without its first pixels, and the windows begin
# somewhere else.

# %%
between = heat.forward(scene[:, :, 3:, 5:])  # windows begin at (8i + 3, 8j + 5)
own = net.forward(scene[:, :, 8 * 2 + 3 :, 8 * 4 + 5 :][:, :, :38, :38])
assert np.abs(between[:, :, 2, 4] - own).max() < 1e-12

assert 64 * once < (128 - 38 + 1) ** 2 * window / 7  # a seventh of sliding by 1

# %% [markdown]
# So 8 · 8 = 64 runs, one for each shift of 0 to 7 pixels down and to the right, give a
# score vector for every pixel. The article calls this *shift-and-stitch*; OverFeat did
# it first. It gives exactly what sliding by single pixels gives, for a seventh of the
# work. The article then does without it, for something better (lesson 10).
#
# ## Padding, and what "the same" means
#
# Most classifiers pad. Padded, the same weights turn windows of 24 × 24 into maps of
# 3 × 3. What does a heat-map made of *this* classifier slide? Two may claim to be it:
# the padded one, on crops of 24 × 24, and the unpadded one, on windows of 38 × 38. (For
# the second put a frame of 7 zeros around the scene, so that the middles agree.)

# %%
padded = classifier(pad=1, native=24).astype(np.float64)
padded.load_state_dict(net.state_dict())
heat_padded = models.surgery.convolutionalize(padded)
maps = heat_padded.forward(scene)  # (1, 6, 14, 14)
own_crops = np.abs(maps - slide(padded, scene, 24)).max(axis=(0, 1))  # (14, 14)
edged = np.pad(scene, ((0, 0), (0, 0), (7, 7), (7, 7)))
no_padding = np.abs(maps - slide(net, edged, 38)).max(axis=(0, 1))  # (14, 14)
print("against the padded one, at least:   ", own_crops.min().round(2))
print(f"against the unpadded one, inside:    {no_padding[1:-1, 1:-1].max():.0e}")
print("                      in the top row:", no_padding[0].min().round(2))
assert own_crops.min() > 0.01 and no_padding[0].min() > 1e-6
assert no_padding[1:-1, 1:-1].max() < 1e-12
assert models.explain(heat_padded, 128).receptive_field == 38

# %% tags=["hide-input"]
row = {"from the padded one": own_crops, "from the unpadded one": no_padding}
caption = "How far the heat-map's scores are from the classifiers'. Black is zero."
drawing = {"cmap": "magma", "vmin": 0, "vmax": own_crops.max()}
lesson.pictures("04_padding", [row], caption=caption, **drawing)

# %% [markdown]
# *No* score vector is the padded classifier's answer to its crop. Around the crop there
# are zeros. Around the same pixels of the scene there is more scene, and the heat-map
# uses it. How far does it look? A 3 × 3 convolution reaches one pixel further on every
# side: one pixel of the maps that it reads, which is 1, 2 or 4 pixels of the image wide.
# That makes 7 on every side, and 24 + 7 + 7 = 38. The part of the image that a score
# vector depends on is its **receptive field**.
#
# So inside the scene the padded heat-map equals the *unpadded* classifier on windows as
# large as its receptive field. In the outermost ring it does not: the padded network
# puts zeros around the maps of every layer, not around the image alone.
#
# Books often say that a convolutionalised network "gives the same as sliding the
# classifier". Ask which.
#
# ## VGG16 by its numbers
#
# VGG16 is the classifier that the article starts from: thirteen 3 × 3 convolutions in
# five groups, each closed by a pooling, then three fully connected layers called fc6,
# fc7 and fc8. We only count. Nothing is run.

# %%
vgg = models.vgg16()
native = models.explain(vgg, 224)
large = models.explain(models.surgery.convolutionalize(vgg), 500)
del vgg  # half a gigabyte
times = 10 * 10 * native.multiply_adds / large.multiply_adds
print("heat-map of 500 x 500:", large.output_shape, " field:", large.receptive_field)
print(f"{large.multiply_adds / 1e9:,.1f} billion multiply-adds", end=", ")
print(f"100 windows of 224 x 224 take {times:.1f} times as many")
assert large.output_shape[2:] == (10, 10) and times > 17
# As above: the convolutions of a group times the width of its pixels, on both sides.
assert large.receptive_field == 224 + 2 * (2 * 1 + 2 * 2 + 3 * 4 + 3 * 8 + 3 * 16)

# %% [markdown]
# ## The cat again
#
# The classifier of the first picture is EfficientNet-Lite0. It ends in global average
# pooling. An average over 7 × 7 is an average over a *window* that happens to fit once,
# and `convolutionalize` lets it move. (The picture's window is 3 × 3 instead: it blurs
# the where less.) The where was in the maps all the time.
#
# But that heat-map has one place for every 32 pixels; the picture stretches it. For a
# label on every pixel it has to become large again, and sharp: the next lessons.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** ★ Predict, then run. Leave `pool1` and `pool2` out of `heat.children()` (not of
# the untrained `chain` above); all weights stay. Places are now 2 pixels apart, their
# windows 12 wide: `scenes(2, 40, first=6, step=2)` has the classes of the middles. Is
# the network right more often, now that it looks so closely? Answer with the share of
# right places, void left out. (Weights are float64 by now: so must the scenes be.)
#
# **2.** ★★ Another library keeps the channels last and flattens maps (H, W, C) in this
# order. Write a function `(W, h, w)` that turns the weights of its fully connected
# layer, an array (K, h·w·C), into the kernel (K, C, h, w) of our convolution.
#
# **3.** ★★★ Predict, then run. Make the scene twice as large: `twice = scene.repeat(2,
# axis=2).repeat(2, axis=3)`. Does the network still find the shapes? Take the highest
# score at each place of both heat-maps, and compare it with the label of the pixel in
# the middle of the window (row 8i + 19, and half of that for `twice`; leave void
# out). Do so for 20 scenes, `draw_scene(np.random.default_rng([5, i]), 128)`, and
# answer with the two shares of right places, the usual size first.

# %%
import answers

answers.check("04.1", ...)
answers.check("04.2", ...)
answers.check("04.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn classify photo.jpg --heatmap tabby` draws such a picture of your own.
# - `models.surgery.transplant(classifier, fcn)` puts a classifier's layers, its fully
#   connected ones included, under a segmentation network.
# - A weight file for a classifier holds fc6 as (4096, 25088), one for an FCN as (4096,
#   512, 7, 7). The numbers are the same.
# - A heat-map is evidence, not a mask: its outline means little.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, [*Fully Convolutional Networks for Semantic
#   Segmentation*](https://arxiv.org/abs/1411.4038), CVPR 2015, sections 3.1 to 3.4.
# - P. Sermanet and others, [*OverFeat*](https://arxiv.org/abs/1312.6229), 2013.
# - B. Zhou and others, [*Learning Deep Features for Discriminative
#   Localization*](https://arxiv.org/abs/1512.04150), CVPR 2016.
# - In the code: `minifcn/models/surgery.py`, `minifcn/inference/classify.py`.
