# %% [markdown]
# # 2. Lose the where
#
# **You will** train a small classifier, shuffle what it knows about places, and force it
# to say where things are, by moving it over a scene window by window.
#
# **You will learn** what maps are, where in a classifier the position is lost, why a
# fully connected layer fixes the size of the image, and what brute force costs.
#
# **You need** lesson 1 (a label for every pixel).
#
# **It takes** 20 minutes to read and about twenty seconds to run.

# %%
import numpy as np

import lesson
from minifcn.data.toyvoc import CLASSES, draw_scene

SIDE = 32


def windows(image, places):
    """(H, W, 3) uint8, places (N, 2) -> the windows around, (N, 3, 32, 32), -1 to 1"""
    half = SIDE // 2
    wide = np.pad(image, ((half, half), (half, half), (0, 0)), mode="reflect")
    cut = np.stack([wide[r : r + SIDE, c : c + SIDE] for r, c in places])
    return cut.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1


# %% tags=["hide-input"]
rows, i = ({}, {}), 0
while len(rows[0]) + len(rows[1]) < 6:  # of each class, a window inside its scene
    scene, truth = draw_scene(np.random.default_rng([2, i]), 128)
    for c, name in enumerate(CLASSES):
        places = np.argwhere(truth[SIDE:-SIDE, SIDE:-SIDE] == c) + SIDE
        if len(places) and name not in rows[c // 3]:
            cut = windows(scene, places[len(places) // 2][None])[0].transpose(1, 2, 0)
            cut[15:18, 16] = cut[16, 15:18] = 1
            rows[c // 3][name] = np.clip(cut / 2 + 0.5, 0, 1)
    i += 1
caption = (
    "Windows of 32 × 32 pixels. The cross marks the middle; its class stands above."
)
lesson.pictures("02_windows", rows, caption=caption)

# %% [markdown]
# ## The plan
#
# Lesson 1 made a bad segmentation. It looked at one pixel at a time, and what a
# pixel is depends on its surroundings. *Image classifiers* are very good at surroundings.
# They take a picture and say what it shows. So show a classifier a small window around a
# pixel, and ask for the class of the pixel in the middle, the white cross above.
#
# It learns from examples. Scenes with labels give as many as we like. A scene's edge is
# extended by its mirror image, so that every pixel can be a middle.


# %%
def examples(seed, scenes, each=7):
    """Windows (N, 3, 32, 32) and the classes (N,) of their middles."""
    rng = np.random.default_rng(seed)
    found, classes = [], []
    for i in range(scenes):
        image, label = draw_scene(np.random.default_rng([seed, i]), 128)
        for c in np.unique(label[label != 255]):
            found.append(windows(image, rng.choice(np.argwhere(label == c), each)))
            classes += [c] * each
    return np.concatenate(found), np.array(classes)


x, t = examples(seed=1, scenes=200)
x_test, t_test = examples(seed=2, scenes=50)
print("to learn from:", x.shape, " to test:", x_test.shape, " of each class:")
print(dict(zip(CLASSES, np.bincount(t_test).tolist(), strict=True)))

# %% [markdown]
# ## A classifier in two halves
#
# The lower half finds *features*. It holds three **convolutions** (lesson 3). A
# convolution replaces each pixel by a weighted sum of its 3 × 3 neighbourhood, with the
# same learned weights everywhere. Eight different sums give eight new pictures, called
# **maps**. The next convolution sums over all of them. After each convolution come
# `ReLU`, which sets what is negative to zero, and `MaxPool2d(2)`, which keeps the largest
# of every 2 × 2 values and so halves height and width.
#
# The upper half, the **head**, makes six scores of the last maps, one a class. There
# are two usual ways:
#
# - **Global average pooling**: replace each map by its mean, and let each class weigh
#   these means. ResNets and EfficientNets do this.
# - **Flatten**: write all numbers of all maps in a row, and let each class weigh all of
#   them. VGG16, the network of the article, does this.
#
# The weighing is a matrix product, scores = W · numbers + b: a **fully connected layer**,
# here `Linear`. We put both heads on the same features.

# %%
from minifcn import layers, models


def network(seed):
    """-> features, the head with the average, the flat head"""
    rng = np.random.default_rng(seed)
    chain = {}
    for i, (C, K) in enumerate(((3, 8), (8, 16), (16, 32)), start=1):
        # C maps in, K maps out, 3 × 3 weights; pad=1 keeps height and width
        chain[f"conv{i}"] = layers.Conv2d(C, K, 3, rng, pad=1)
        chain[f"relu{i}"] = layers.ReLU()
        chain[f"pool{i}"] = layers.MaxPool2d(2)
    average = {"mean": layers.GlobalAvgPool(), "fc": layers.Linear(32, 6, rng)}
    flat = {"flatten": layers.Flatten(), "fc": layers.Linear(32 * 4 * 4, 6, rng)}
    return [models.Sequential(**part) for part in (chain, average, flat)]


features, average, flat = network(seed=0)
maps = x_test[:1]  # one window
print(f"{'image':8s}", maps.shape)
for name, layer in features.children().items():
    maps = layer.forward(maps)
    print(f"{name:8s}", maps.shape)
assert maps.shape == (1, 32, 4, 4)

# %% [markdown]
# For one window, 32 maps of 4 × 4. Each number still has a place: the one at the upper
# left was computed from the upper left of the window, and from nothing else.
#
# How training works is the subject of lessons 7 to 11; here it is in short. Show 32
# windows, a *batch*. Measure how wrong the scores are: the *loss*. Ask every layer, from
# the last to the first, how its numbers should change: `backward`. Change them a little:
# `step`. (`zero_grad` forgets what the batch before asked for. `Adam` decides how much a
# little is: lesson 8. With `train=True` a layer remembers what its `backward` needs.)
# Both heads say what they want of the features, and the features follow the sum. We
# train twice, from two random starts.

# %%
from minifcn import ops
from minifcn.training.optimizers import Adam


def train(seed, steps=250):
    """-> features, average head, flat head"""
    parts = features, *heads = network(seed)
    optimisers = [Adam(part.parameters()) for part in parts]
    draw = np.random.default_rng([3, seed])
    for step in range(steps):
        chosen = draw.integers(0, len(x), 32)
        for part in parts:
            part.zero_grad()
        maps = features.forward(x[chosen], train=True)  # (32, 32, 4, 4)
        dmaps, losses = 0, []
        for head in heads:
            scores = head.forward(maps, train=True)  # (32, 6)
            loss, cache = ops.softmax_cross_entropy_forward(scores, t[chosen])
            dscores = ops.softmax_cross_entropy_backward(1.0, cache)
            dmaps = dmaps + head.backward(dscores)
            losses.append(float(loss))
        features.backward(dmaps)
        for optimiser in optimisers:
            # the full rate for half of the steps, then falling to 0
            optimiser.step(5e-3 * min(1, 2 - 2 * step / steps))
        if step % 125 == 0 or step == steps - 1:
            print(f"step {step:3d}  losses", *(f"{loss:.2f}" for loss in losses))
    return parts


lazy = np.bincount(t_test).max() / len(t_test)
for seed in (1, 0):
    features, average, flat = train(seed)
    maps = features.forward(x_test)  # (N, 32, 4, 4), for both heads
    for name, head in (("average", average), ("flat", flat)):
        right = np.mean(head.forward(maps).argmax(axis=1) == t_test)
        print(f"start {seed}, {name:8s} right on new windows: {100 * right:.0f} %")
        assert right > lazy + 0.25
print(f"always the commonest class:          {100 * lazy:.0f} %")

# %% [markdown]
# Nearly four windows in five are right. Hardly a shape fits into a window, so what the
# classifier has learned must be the coats. Here are the eight *kernels* of conv1, the
# learned 3 × 3 weights of each map, and what they answer to a scene. Nobody drew them.

# %% tags=["hide-input"]
image, label = draw_scene(np.random.default_rng(13), 128)
whole = image.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
first = features["conv1"].forward(whole)[0]  # (8, H, W)
kernels = features["conv1"].weight.value.transpose(0, 2, 3, 1)  # (8, 3, 3, 3)
rows = [
    {f"{what} {o}": drawn[o] for o in range(start, start + 4)}
    for start in (0, 4)
    for what, drawn in (
        ("kernel", kernels / np.abs(kernels).max() / 2 + 0.5),
        ("map", first / np.quantile(np.abs(first), 0.99, axis=(1, 2), keepdims=True)),
    )
]
caption = "Eight learned kernels, and their maps: edges, stripes, colours."
lesson.pictures("02_kernels", rows, caption=caption, vmin=-1, vmax=1)

# %% [markdown]
# ## Shuffle the places
#
# Now the experiment. A map is a sheet of 4 × 4 places. Cut every map up, and put its
# sixteen pieces back in a random order of its own. What does each head say?

# %%
shuffler = np.random.default_rng(5)
maps = features.forward(x_test)
sheets = maps.reshape(len(maps), 32, 16)  # the 16 places in a row
shuffled = shuffler.permuted(sheets, axis=2).reshape(maps.shape)

for name, head in (("average", average), ("flat", flat)):
    before, after = head.forward(maps), head.forward(shuffled)
    moved = np.abs(after - before).max()
    flips = np.mean(before.argmax(axis=1) != after.argmax(axis=1))
    print(f"{name:8s} scores moved by up to {moved:.1e},", end=" ")
    print(f"{100 * flips:.0f} % of the answers changed")
    assert moved < 1e-4 if name == "average" else flips > 0.1

# %% tags=["hide-input"]
first, second = flat.forward(maps).argmax(1), flat.forward(shuffled).argmax(1)
i = int(np.flatnonzero((first == t_test) & (second != t_test) & (t_test > 0))[0])
m = int(maps[i].std(axis=(1, 2)).argmax())  # the map with the largest differences
print(" " * 19 + "".join(f"{name:>11s}" for name in CLASSES))
for name, head in (("average", average), ("flat", flat)):
    for title, given in (("as it was", maps), ("shuffled", shuffled)):
        scores = head.forward(given[i : i + 1])[0]
        print(f"{name:8s} {title:10s}", *(f"{score:10.1f}" for score in scores))
rows = [{"a map": maps[i, m], "cut up": shuffled[i, m]}]
caption = f"One of the 32 maps of a {CLASSES[t_test[i]]}, and its places shuffled."
lesson.pictures("02_shuffled", rows, caption=caption, cmap="viridis")

# %% [markdown]
# The head with the average gives the same scores, but for rounding. It cannot do
# otherwise: a mean does not depend on the order. After this layer no computation in the
# world can tell in which place of a map a value stood. **Here the where is lost**, and it
# is lost on purpose: a cat is a cat in every corner.
#
# The flat head does mind. Its weights belong to places: one set for the upper left,
# another for the middle. But its output is six scores for the whole picture. The
# position went in and did not come out. And it has a second fault.
#
# ## A fully connected layer fixes the size
#
# Convolutions do not care how large an image is. They visit as many neighbourhoods as
# there are. So give the features a whole scene, and then the heads:

# %%
maps = features.forward(whole)
print("scene:", whole.shape, " maps:", maps.shape)
print("average head:", average.forward(maps).shape)
try:
    print("flat head:   ", flat.forward(maps).shape)
except ValueError as error:
    print("flat head:   ", error)

# %% [markdown]
# The flat head has 512 weights a class, for 4 × 4 places in 32 maps. It takes windows
# of 32 × 32 and nothing else. The average head takes any size, but says one class for a
# whole scene. The maps themselves, though, are there, each value in its place.
#
# ## Brute force: slide the window
#
# A label for every pixel is then a matter of patience: cut out the window around each
# pixel and classify it. To save time, do so only for every 16th pixel in each direction,
# or every 8th, and let the answer count for the block around it.


# %%
def slide(image, step):
    """The class of every step-th pixel, for the block around it.   (H, W, 3) -> (H, W)"""
    rows, columns = (np.arange(step // 2, n, step) for n in image.shape[:2])
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    cut = windows(image, places.reshape(-1, 2))  # (N, 3, 32, 32)
    classes = flat.forward(features.forward(cut)).argmax(axis=1)
    blocks = classes.reshape(places.shape[:2]).astype(np.uint8)
    return blocks.repeat(step, axis=0).repeat(step, axis=1)


image, label = image[:112, :112], label[:112, :112]  # so that the blocks come out even
blocks = {s: slide(image, s) for s in (16, 8, 4)}

# %% tags=["hide-input"]
from minifcn.data.labels import colourise

row = {f"every {s} pixels": colourise(block) for s, block in blocks.items()}
row = {"image": image, "truth": colourise(label)} | row
legend = {"legend": np.unique([label, *blocks.values()]), "classes": CLASSES}
caption = "The classes of windows every 16, 8 and 4 pixels: blocks for outlines."
lesson.pictures("02_sliding", [row], caption=caption, **legend)

# %% [markdown]
# This *is* a segmentation. Is it better than that by colour alone, which came to a mean
# IoU of 0.226 in lesson 1? Here are two sets of twelve new scenes.

# %%
from minifcn.metrics import ConfusionMatrix

for seed in (3, 4):
    matrix = ConfusionMatrix(6)
    for i in range(12):
        scene, truth = draw_scene(np.random.default_rng([seed, i]), 128)
        matrix.update(truth[:96, :96], slide(scene[:96, :96], 8))
    print(f"seed {seed}: mean IoU by a window every 8 pixels {matrix.mean_iou():.2f}")
    assert matrix.mean_iou() > 0.226 + 0.15

# %% [markdown]
# Far better. What stops us is the price.
#
# ## Count the work
#
# The unit is the *multiply-add*: one weight times one number, added to a sum. A
# convolution from C to K maps puts out K · H · W numbers, and each takes 3 · 3 · C
# multiply-adds. A fully connected layer does one for each of its weights. Pooling and
# ReLU multiply nothing. `models.explain` adds that up.

# %%
classifier = models.Sequential(features=features, flat=flat)
one = models.explain(classifier, SIDE).multiply_adds
once = models.explain(features, 112).multiply_adds
assert one == 9 * (8 * 3 * 32**2 + 16 * 8 * 16**2 + 32 * 16 * 8**2) + 6 * 512
for s in (16, 8, 4, 2, 1):
    N = (112 // s) ** 2
    print(f"every {s:2d} pixels: {N:6,d} windows {N * one:14,d} multiply-adds")
print(f"the features once, for the whole scene: {once:,};", end=" ")
print(f"every 8 pixels costs {(112 // 8) ** 2 * one / once:.1f} times as much")
assert 15.5 < (112 // 8) ** 2 * one / once < 16.5

# %% [markdown]
# The last maps of the whole scene have a value for every 8 pixels, so compare it with a
# window every 8 pixels. That costs 16 times as much: every pixel is in (32 / 8)² = 16
# windows.
#
# Two windows 8 pixels apart share three quarters of their pixels. Look at the last maps
# of both, each a sheet of 4 × 4. The second sheet, moved by one place, should repeat the
# first: in the inner columns, which the zeros padded around a window do not reach. And
# windows that are 4, 2 or 1 pixels apart?

# %%
for shift in (8, 4, 2, 1):
    a = features.forward(whole[:, :, 40 : 40 + SIDE, 40 : 40 + SIDE])
    b = features.forward(whole[:, :, 40 : 40 + SIDE, 40 + shift : 40 + shift + SIDE])
    inner = b[..., 1:3, 1]  # it begins at a's pixel 8 + shift
    off = min(np.abs(a[..., 1:3, c] - inner).max() for c in (1, 2))
    print(f"{shift} pixels apart: an inner column differs by {off:.2f}", end=" ")
    print(f"from the nearest (mean value {a.mean():.2f})")
    assert off < 1e-5 if shift == 8 else off > 0.1

# %% [markdown]
# At 8 pixels the features recur. At 4, 2 and 1 they do not: three poolings take the
# largest of 2 × 2, and a window that begins elsewhere groups its pixels otherwise. So one
# run over the whole scene answers for every 8th pixel. Lesson 4 comes back to the pixels
# between.
#
# We need a network that **keeps the where**, and **shares the work** between windows.
# The lower half does both already. What stands in the way is the head: the average loses
# the place, and the fully connected layer insists on its size. Lesson 3 opens the
# convolution. Lesson 4 shows that the fully connected layer was one all along.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** ★ The last maps of VGG16 are 512 maps of 7 × 7. Put one `Linear` to 1000
# classes on the *flattened* maps, or one after *global average pooling*. How many more
# weights does the first have than the second? (Weights only, no biases.)
#
# **2.** ★★ Write a function `(height, width, side, step)` that returns the number of
# windows of `side` × `side` pixels that lie wholly inside an image. The first sits in
# the upper left corner, and the next ones follow every `step` pixels both ways.
#
# **3.** ★★★ Predict, then run. What does the flat head look at, the middle of a window
# or its rim? Set all pixels of `x_test` to 0 but the middle 16 × 16, a quarter. Then
# set only these to 0. Answer with the two shares of right answers, the middle's first.

# %%
import answers

answers.check("02.1", ...)
answers.check("02.2", ...)
answers.check("02.3", ...)

# %% [markdown]
# ## In practice
#
# - An error about the number of inputs of a fully connected layer nearly always means
#   that an image of another size came in.
# - `minifcn explain vgg16 --size 224` prints shapes, parameters and multiply-adds layer
#   by layer, and runs nothing.
# - With windows that hardly overlap (satellite images cut into tiles), sliding is right.
# - A network with global average pooling takes a large photograph in silence, and
#   answers for a mixture of all that is in it.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, [*Fully Convolutional Networks for Semantic
#   Segmentation*](https://arxiv.org/abs/1411.4038), CVPR 2015, sections 2 and 3.
# - M. Lin and others, [*Network in Network*](https://arxiv.org/abs/1312.4400), 2013.
# - D. Ciresan and others, *Deep Neural Networks Segment Neuronal Membranes in Electron
#   Microscopy Images*, 2012: a window for every pixel.
# - In the code: `minifcn/layers/plain.py`, `minifcn/models/explain.py`.
