# %% [markdown]
# # 2. Lose the where
#
# **You will** train a small classifier in seconds, shuffle what it knows about places,
# see that it does not mind, and then force it to say where things are, by moving it
# over a scene window by window.
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
shown, i = {}, 0
while len(shown) < 6:  # for each class a window that lies inside its scene
    scene, truth = draw_scene(np.random.default_rng([2, i]), 128)
    inside = np.zeros(truth.shape, bool)
    inside[SIDE:-SIDE, SIDE:-SIDE] = True
    for c in np.unique(truth[inside & (truth != 255)]):
        places = np.argwhere(inside & (truth == c))
        if c not in shown:
            cut = windows(scene, places[len(places) // 2][None])[0].transpose(1, 2, 0)
            shown[c] = np.clip(cut / 2 + 0.5, 0, 1)
            shown[c][15:18, 16] = shown[c][16, 15:18] = (1, 1, 1)
            shown[c][14, 16] = shown[c][18, 16] = (0, 0, 0)
            shown[c][16, 14] = shown[c][16, 18] = (0, 0, 0)
    i += 1
lesson.pictures(
    "02_windows",
    [{CLASSES[c]: shown[c] for c in row} for row in ((0, 1, 2), (3, 4, 5))],
    caption="Six windows of 32 × 32 pixels, one for each class. The white cross marks "
    "the pixel in the middle, whose class is written above.",
)

# %% [markdown]
# ## The plan
#
# Lesson 1 ended with a bad segmentation. It looked at one pixel at a time, and what a
# pixel is depends on its surroundings. There are programs that are very good at
# surroundings: *image classifiers*. They take a picture and say what it shows. So show
# a classifier a small window around a pixel, and ask for the class of the pixel in the
# middle. That is the white cross above.
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
# The lower half finds *features*. It holds three **convolutions**. Lesson 3 takes them
# apart; one sentence is enough today. A convolution replaces each pixel by a weighted
# sum of its 3 × 3 neighbourhood, with the same learned weights everywhere. Eight
# different sums give eight new pictures, called **maps**. The next convolution sums
# over all of them. After each convolution come `ReLU`, which sets what is negative to
# zero, and `MaxPool2d(2)`, which keeps the largest of every 2 × 2 values and so halves
# height and width.
#
# The upper half, the **head**, makes six scores of the last maps, one a class. There
# are two customs:
#
# - **Global average pooling**: replace each map by its mean, and let each class weigh
#   these means. ResNets and EfficientNets do this.
# - **Flatten**: write all numbers of all maps in a row, and let each class weigh all of
#   them. VGG16, the network of the article, does this.
#
# The weighing is a matrix product, scores = W · numbers + b. Each score is connected to
# every number: a **fully connected layer**, here `Linear`. We put both heads on the
# same features.

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
# Read the last line: for one window, 32 maps of 4 × 4. Each number in a map still has a
# place. The one at the upper left was computed from the upper left of the window, and
# from nothing else.
#
# How training works is the subject of lessons 7 to 11; here it is in short. Show 32
# windows. Measure how wrong the scores are: the *loss*. Ask every layer, from the last
# to the first, how its numbers should change: `backward`. Change them a little: `step`.
# (`zero_grad` forgets what the 32 windows before asked for. Adam is a rule for how far
# to step, which lesson 8 writes out.) Both heads say what they want of the features,
# and the features follow the sum. We train twice, from two random starts.

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
            print(
                f"step {step:3d}  loss: average {losses[0]:.2f}, flat {losses[1]:.2f}"
            )
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
# Nearly four windows in five are right, where always guessing the commonest class gives
# 38 %. Hardly a shape fits into a window. So what the classifier has learned must be the
# coats.
#
# Here are the eight kernels that conv1 has learned in the last training, and what they
# answer to a scene. Nobody has drawn them.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

image, label = draw_scene(np.random.default_rng(13), 128)
whole = image.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
first = features["conv1"].forward(whole)[0]  # (8, H, W)
kernels = features["conv1"].weight.value  # (8, 3, 3, 3)
figure, panels = plt.subplots(4, 4, figsize=(7, 6.2), height_ratios=[1, 2.4, 1, 2.4])
for o in range(8):
    upper, lower = panels[o // 4 * 2, o % 4], panels[o // 4 * 2 + 1, o % 4]
    upper.imshow(kernels[o].transpose(1, 2, 0) / np.abs(kernels).max() / 2 + 0.5)
    most = np.quantile(np.abs(first[o]), 0.99)
    lower.imshow(first[o], cmap="gray", vmin=-most, vmax=most)
for panel in panels.flat:
    panel.set_axis_off()
lesson.show(
    figure,
    "02_kernels",
    "The eight kernels of the first convolution, 3 × 3 pixels in colour, and below "
    "each its map of a scene: some answer to a colour, some to edges and stripes.",
)

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
figure, panels = plt.subplots(1, 4, figsize=(7, 2.7), width_ratios=[1, 1, 1.25, 1.25])
for panel, given, title in (
    (panels[0], maps, "a map"),
    (panels[1], shuffled, "cut up"),
):
    panel.imshow(given[i, m], cmap="viridis", vmin=0, vmax=maps[i, m].max())
    panel.set_title(title)
    panel.set_axis_off()
for panel, name, head in ((panels[2], "average", average), (panels[3], "flat", flat)):
    both = head.forward(np.stack([maps[i], shuffled[i]]))  # (2, 6)
    panel.barh(np.arange(6) - 0.2, both[0], 0.4, color="#1f618d", label="as it was")
    panel.barh(np.arange(6) + 0.2, both[1], 0.4, color="#d68910", label="shuffled")
    panel.set(title=f"{name}: scores", yticks=range(6), yticklabels=[])
    panel.invert_yaxis()
panels[2].set_yticks(range(6), CLASSES)
handles, names = panels[3].get_legend_handles_labels()
figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
lesson.show(
    figure,
    "02_shuffled",
    f"One window, a {CLASSES[t_test[i]]}: one of its 32 maps before and after, and the "
    "scores of both heads. The average's do not move. The flat head's highest score "
    f"goes from {CLASSES[first[i]]} to {CLASSES[second[i]]}.",
)

# %% [markdown]
# The head with the average gives the same scores up to the last digit. (float32 has
# about seven; adding in another order changes the last.) It cannot do otherwise: a mean
# does not depend on the order. After this layer no computation in the world can tell in
# which place of a map a value stood. **Here the where is lost**, and it is lost on
# purpose: a cat is a cat in every corner.
#
# The flat head does mind. Its weights belong to places: one set for the upper left,
# another for the middle. But does it *tell* us a place? Its output is six scores for
# the whole picture. The position went in and did not come out. And it has a second
# fault.
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
    flat.forward(maps)
except ValueError as error:
    print("flat head:   ", error)
else:
    raise AssertionError("the flat head took a larger image")

# %% [markdown]
# The flat head has 512 weights a class, for 4 × 4 places in 32 maps. It takes windows
# of 32 × 32 and nothing else. The average head takes any size, but says one class for a
# whole scene.
#
# The maps themselves, though, are there, larger than before, each value in its place.
# Keep them in mind.
#
# ## Brute force: slide the window
#
# We have a classifier for windows. A label for every pixel is then a matter of
# patience: cut out the window around each pixel and classify it. To save time, do so
# only for every 16th pixel in each direction, or every 8th, and let the answer count
# for the block around it.


# %%
def slide(image, step):
    """The class of every step-th pixel.   (H, W, 3) -> (rows, columns)"""
    rows, columns = (np.arange(step // 2, n, step) for n in image.shape[:2])
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    cut = windows(image, places.reshape(-1, 2))  # (N, 3, 32, 32)
    classes = flat.forward(features.forward(cut)).argmax(axis=1)
    return classes.reshape(places.shape[:2]).astype(np.uint8)


def spread(classes, step, size):
    """Each class over its block of pixels.   (rows, columns) -> size (H, W)"""
    r, c = (
        np.minimum(np.arange(n) // step, last - 1)
        for n, last in zip(size, classes.shape, strict=True)
    )
    return classes[np.ix_(r, c)]


image, label = image[:112, :112], label[:112, :112]  # so that the blocks come out even
blocks = {s: spread(slide(image, s), s, label.shape) for s in (16, 8, 4)}

# %% tags=["hide-input"]
from minifcn.data.labels import colourise

row = {f"every {s} pixels": colourise(block) for s, block in blocks.items()}
lesson.pictures(
    "02_sliding",
    [{"image": image, "truth": colourise(label)} | row],
    legend=np.unique(np.stack([label, *blocks.values()])),
    classes=CLASSES,
    caption="A scene, its truth, and the classes of windows every 16, 8 and 4 pixels: "
    "the shapes are found, with blocks for outlines.",
)

# %% [markdown]
# This *is* a segmentation. Is it better than that of lesson 1, by colour alone? Here
# are both, on two sets of twelve new scenes.

# %%
from minifcn.metrics import ConfusionMatrix

known = [draw_scene(np.random.default_rng([1, i]), 128) for i in range(40)]
pixels = np.concatenate([scene.reshape(-1, 3) for scene, _ in known])
truths = np.concatenate([truth.reshape(-1) for _, truth in known])
means = np.stack([pixels[truths == c].mean(axis=0) for c in range(6)])  # (6, 3)

for seed in (3, 4):
    by_colour, by_window = ConfusionMatrix(6), ConfusionMatrix(6)
    for i in range(12):
        scene, truth = draw_scene(np.random.default_rng([seed, i]), 128)
        distance = ((scene[..., None, :] - means) ** 2).sum(axis=-1)  # (H, W, 6)
        by_colour.update(truth, distance.argmin(axis=-1))
        by_window.update(truth, spread(slide(scene, 8), 8, truth.shape))
    print(
        f"12 scenes of seed {seed}: mean IoU by colour {by_colour.mean_iou():.2f},",
        end=" ",
    )
    print(f"by a window every 8 pixels {by_window.mean_iou():.2f}")
    assert by_window.mean_iou() > by_colour.mean_iou() + 0.15

# %% [markdown]
# Far better: the outlines are rough, but the shapes are found. What stops us is the
# price.
#
# ## Count the work
#
# The unit is the *multiply-add*: one weight times one number, added to a sum. A
# convolution from C to K maps puts out K · H · W numbers, and each takes 3 · 3 · C
# multiply-adds. A fully connected layer does one for each of its weights. Pooling and
# ReLU multiply nothing.


# %%
def lower_half(H, W):
    """Multiply-adds of our features on an image of this size (multiples of 8)."""
    widths = ((3, 8, 1), (8, 16, 2), (16, 32, 4))
    return sum(K * (H // s) * (W // s) * 3 * 3 * C for C, K, s in widths)


one = lower_half(SIDE, SIDE) + 6 * 512
classifier = models.Sequential(features=features, flat=flat)
assert one == models.explain(classifier, SIDE).multiply_adds  # the library counts, too
once = lower_half(112, 112)
print(f"one window: {one:,} multiply-adds")
for s in (16, 8, 4, 2, 1):
    N = (112 // s) ** 2
    print(f"every {s:2d} pixels: {N:6,d} windows {N * one:14,d} multiply-adds")
print(f"the features once, for the whole scene: {once:,}")
print(f"every 8 pixels costs {(112 // 8) ** 2 * one / once:.1f} times as much")
assert 15.5 < (112 // 8) ** 2 * one / once < 16.5

# %% [markdown]
# Each halving of the step makes it four times as much. The last maps of the whole scene
# have a value for every 8 pixels, so the fair comparison is with a window every 8
# pixels. It costs 16 times as much: every pixel is in (32 / 8)² = 16 windows.
#
# Where does the waste come from? Two windows 8 pixels apart share three quarters of
# their pixels, and the classifier computes the same features of the same pixels twice.
# Look at the last maps of both, each a sheet of 4 × 4. The second sheet, moved by one
# place, should repeat the first. And windows that are 4, 2 or 1 pixels apart?

# %%
grid = np.pad(whole, ((0, 0), (0, 0), (0, 8), (0, 8)), mode="reflect")
for shift in (8, 4, 2, 1):
    a = features.forward(grid[:, :, 40 : 40 + SIDE, 40 : 40 + SIDE])
    b = features.forward(grid[:, :, 40 : 40 + SIDE, 40 + shift : 40 + shift + SIDE])
    inner = b[..., 1:3, 1]  # from a's pixel 8 + shift on; a's columns: from 8, 16 on
    off = min(np.abs(a[..., 1:3, c] - inner).max() for c in (1, 2))
    print(f"{shift} pixels apart: an inner column differs by {off:.2f}", end=" ")
    print(f"from the nearest (mean value {a.mean():.2f})")
    assert off < 1e-5 if shift == 8 else off > 0.3

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2), width_ratios=[1, 1.15])
left.imshow(image)
for corner, colour in ((40, "white"), (48, "#f9e79f")):
    left.add_patch(plt.Rectangle((corner, 40), SIDE, SIDE, fill=False, ec=colour, lw=2))
left.add_patch(plt.Rectangle((48, 40), SIDE - 8, SIDE, fc="w", alpha=0.35))
left.set_title("two windows, 8 pixels apart")
left.set_axis_off()
steps = (16, 8, 4, 2, 1)
right.bar(range(5), [(112 // s) ** 2 * one for s in steps], color="#1f618d")
right.axhline(once, color="#d68910", lw=3, label="once, a value every 8")
right.legend(loc="upper left", frameon=False)
right.set_xticks(range(5), steps)
right.set(title="multiply-adds (log scale)", xlabel="a window every … pixels")
right.set(yscale="log", ylim=(5e6, 6e10))
lesson.show(
    figure,
    "02_cost",
    "Two windows 8 pixels apart share three quarters of their pixels. A window every 8 "
    "pixels costs 16 times what the features cost when they are computed once.",
)

# %% [markdown]
# At 8 pixels, and at every multiple of 8, the features recur: they could be computed
# once and kept. At 4, 2 and 1 they do not. Three poolings take the largest of 2 × 2, and
# a window that begins elsewhere groups its pixels otherwise. (Only conv1, which comes
# before all poolings, would find the same.) So one run over the whole scene answers for
# every 8th pixel. Lesson 4 comes back to the pixels between.
#
# This is what we need: a network that **keeps the where**, and **shares the work**
# between windows. The lower half does both already. What stands in the way is the head:
# the average loses the place, and the fully connected layer insists on its size.
#
# Lesson 3 opens the convolution. Lesson 4 shows that the fully connected layer was a
# convolution all along.
#
# ## Exercises
#
# Replace the dots and run the cell again. `answers.reveal` opens a solution after two
# tries.
#
# **1.** ★ The last maps of VGG16 are 512 maps of 7 × 7. Put one `Linear` to 1000
# classes on the *flattened* maps, or one after *global average pooling*. How many more
# weights does the first have than the second? (Weights only, no biases.)
#
# **2.** ★★ Write a function `(height, width, side, step)` that returns the number of
# windows of `side` × `side` pixels that lie wholly inside an image. The first sits in
# the upper left corner, and the next ones follow every `step` pixels in both
# directions.
#
# **3.** ★★★ Predict, then run. What does the flat head look at, the middle of a window
# or its rim? Set all pixels of `x_test` to 0 but the middle 16 × 16, a quarter. Then
# set the middle 16 × 16 to 0 and leave the rest. Which of the two leaves more answers
# right? Answer with the two shares of right answers, the middle's first, as a pair.

# %%
import answers

answers.check("02.1", ...)
answers.check("02.2", ...)
answers.check("02.3", ...)

# %% [markdown]
# ## In practice
#
# - An error about the number of inputs of a fully connected layer nearly always means
#   that an image of another size came in. Resize it, or make the network convolutional
#   (lesson 4).
# - `minifcn explain vgg16 --size 224` prints shapes, parameters and multiply-adds layer
#   by layer, and runs nothing.
# - Sliding a classifier is not absurd. With few windows, or windows that hardly overlap
#   (satellite images cut in tiles), it is the simple and right thing to do.
# - A network that ends in global average pooling takes a large photograph in silence,
#   and answers for a mixture of all that is in it.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, [*Fully Convolutional Networks for Semantic
#   Segmentation*](https://arxiv.org/abs/1411.4038), CVPR 2015, sections 2 and 3:
#   patchwise methods, and why not.
# - M. Lin, Q. Chen, S. Yan, [*Network in Network*](https://arxiv.org/abs/1312.4400),
#   2013: global average pooling.
# - D. Ciresan and others, *Deep Neural Networks Segment Neuronal Membranes in Electron
#   Microscopy Images*, 2012: a window for every pixel, and it won its contest.
# - In the code: `minifcn/layers/plain.py`, `minifcn/models/explain.py`.
