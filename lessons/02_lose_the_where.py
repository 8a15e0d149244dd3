# %% [markdown]
# # 2. Lose the where
#
# **You will** train a small classifier in seconds, shuffle what it knows about
# places, see that it does not mind, and then force it to say where things are, by
# moving it over a scene window by window.
#
# **You will learn** what maps are, where in a classifier the position is lost, why a
# fully connected layer fixes the size of the image, and what brute force costs.
#
# **You need** lesson 1 (a label for every pixel).
#
# **It takes** 20 minutes to read and about ten seconds to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## The plan
#
# Lesson 1 ended with a bad segmentation: it looked at one pixel at a time, and what a
# pixel is depends on its surroundings. There are programs that are very good at
# surroundings: *image classifiers*. They take a picture and say what it shows. So let
# us show a classifier a small window around a pixel, and ask what is in its middle.
#
# To learn that, it needs examples: windows of 32 × 32 pixels with the class of the
# pixel in the middle. Scenes with labels give as many as we like. A scene's edge is
# extended by its mirror image, so that every pixel can be a middle.

# %%
import numpy as np

from minifcn.data.toyvoc import CLASSES, draw_scene

SIDE = 32


def windows(image, places):
    """(H, W, 3) uint8, places (N, 2) -> the windows around, (N, 3, 32, 32), -1 to 1"""
    half = SIDE // 2
    wide = np.pad(image, ((half, half), (half, half), (0, 0)), mode="reflect")
    cut = np.stack([wide[r : r + SIDE, c : c + SIDE] for r, c in places])
    return cut.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1


def examples(seed, scenes, each=7):
    """Windows (N, 3, 32, 32) and the classes (N,) of their middles."""
    rng = np.random.default_rng(seed)
    found, classes = [], []
    for i in range(scenes):
        image, label = draw_scene(np.random.default_rng([seed, i]), 128)
        for k in np.unique(label[label != 255]):
            found.append(windows(image, rng.choice(np.argwhere(label == k), each)))
            classes += [k] * each
    return np.concatenate(found), np.array(classes)


x, t = examples(seed=1, scenes=200)
x_test, t_test = examples(seed=2, scenes=50)
print("to learn from:", x.shape, " to test:", x_test.shape, " of each class:")
print(dict(zip(CLASSES, np.bincount(t_test).tolist(), strict=True)))

# %%
rows = [{}, {}]
for k in range(6):
    picture = x_test[np.flatnonzero(t_test == k)[2]]  # (3, 32, 32)
    rows[k // 3][f"middle: {CLASSES[k]}"] = (picture.transpose(1, 2, 0) + 1) / 2
lesson.pictures("02_windows", rows)

# %% [markdown]
# ## A classifier in two halves
#
# The lower half finds *features*. It holds three **convolutions**. Lesson 3 takes
# them apart. Today one sentence is enough: a convolution replaces each pixel by
# weighted sums of its 3 × 3 neighbourhood, with the same learned weights everywhere.
# Eight different sums give eight new pictures, called **maps**, and the next
# convolution sums over all of them. After each convolution come `ReLU`, which sets what
# is negative to zero, and `MaxPool2d(2)`, which keeps the largest of every 2 × 2 values
# and so halves height and width.

# %%
from minifcn import layers, models
from minifcn.backend import to_device, to_host

rng = np.random.default_rng(0)
features = models.Sequential(
    # 3 colours in, 8 maps out, 3 x 3 weights; pad=1 keeps height and width
    conv1=layers.Conv2d(3, 8, 3, rng, pad=1),
    relu1=layers.ReLU(),
    pool1=layers.MaxPool2d(2),
    conv2=layers.Conv2d(8, 16, 3, rng, pad=1),
    relu2=layers.ReLU(),
    pool2=layers.MaxPool2d(2),
    conv3=layers.Conv2d(16, 32, 3, rng, pad=1),
    relu3=layers.ReLU(),
    pool3=layers.MaxPool2d(2),
)
maps = to_device(x_test[:1])  # one window; to_device puts it where arrays live
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
# The upper half, the **head**, has to make six scores of that, one a class. There are
# two customs, here with the names of well-known classifiers:
#
# - **Global average pooling**: replace each map by its mean, which leaves 32 numbers,
#   and let each class weigh them. ResNets and EfficientNets do this.
# - **Flatten**: write all 32 · 4 · 4 = 512 numbers in a row, and let each class weigh
#   them all. VGG16, the network of the article, does this.
#
# The weighing is a matrix product, scores = W · numbers + b, in which each output is
# connected to every input (and gets a number of its own added, the *bias* b): a **fully
# connected layer**, here `Linear`. We build both heads on the same features.

# %%
average = models.Sequential(mean=layers.GlobalAvgPool(), fc=layers.Linear(32, 6, rng))
flat = models.Sequential(flatten=layers.Flatten(), fc=layers.Linear(32 * 4 * 4, 6, rng))
for name, head in (("average", average), ("flat", flat)):
    print(f"{name:8s} fc.weight:", head.parameters()["fc.weight"].value.shape)

# %% [markdown]
# Training is the subject of lesson 10; run the cell and read on. In short: show 32
# windows, measure how wrong the scores are (the loss), ask every layer in turn, last to
# first, how its numbers should change (`backward`), and change them a little. The two
# heads both say what they want of the features, and the features follow the sum.

# %%
from minifcn import ops
from minifcn.training.optimizers import Adam

STEPS = 250
parts = (features, average, flat)
optimisers = [Adam(part.parameters()) for part in parts]
draw = np.random.default_rng(3)
for step in range(STEPS):
    chosen = draw.integers(0, len(x), 32)
    labels = to_device(t[chosen])
    for part in parts:
        part.zero_grad()
    maps = features.forward(to_device(x[chosen]), train=True)  # (32, 32, 4, 4)
    dmaps, losses = 0, []
    for head in (average, flat):
        scores = head.forward(maps, train=True)  # (32, 6)
        loss, cache = ops.softmax_cross_entropy_forward(scores, labels)
        dmaps = dmaps + head.backward(ops.softmax_cross_entropy_backward(1.0, cache))
        losses.append(float(loss))
    features.backward(dmaps)
    for optimiser in optimisers:
        optimiser.step(5e-3 * min(1, 2 - 2 * step / STEPS))
    if step % 50 == 0 or step == STEPS - 1:
        print(f"step {step:3d}  loss: average {losses[0]:.2f}, flat {losses[1]:.2f}")

# %%
seen = to_host(features.forward(to_device(x_test)))  # (N, 32, 4, 4), for both heads


def answers_of(head, maps):
    """The scores of a head for maps (N, 32, 4, 4), as a NumPy array (N, 6)."""
    return to_host(head.forward(to_device(np.ascontiguousarray(maps))))


right = {}
for name, head in (("average", average), ("flat", flat)):
    right[name] = np.mean(answers_of(head, seen).argmax(axis=1) == t_test)
    print(f"{name:8s} right on new windows: {100 * right[name]:.0f} %")
lazy = np.bincount(t_test).max() / len(t_test)
print(f"always the commonest class:    {100 * lazy:.0f} %")
assert min(right.values()) > 0.6

# %% [markdown]
# Both know their shapes, from a window in which most shapes do not even fit. The same
# colours that failed in lesson 1 now come with their surroundings: the classifier has
# learned the coats.
#
# ## Shuffle the places
#
# Now the experiment. A map is a sheet of 4 × 4 places. Cut it up and put the sixteen
# pieces back in a random order, every map in the same one. Then do worse: every map in
# an order of its own, so that features that were found together lie apart.

# %%
shuffler = np.random.default_rng(5)
sheets = seen.reshape(len(seen), 32, 16)  # the 16 places in a row
together = sheets[:, :, shuffler.permutation(16)].reshape(seen.shape)
apart = shuffler.permuted(sheets, axis=2).reshape(seen.shape)

for title, shuffled in (("all maps alike", together), ("each on its own", apart)):
    print(title)
    for name, head in (("average", average), ("flat", flat)):
        before, after = answers_of(head, seen), answers_of(head, shuffled)
        moved = np.abs(after - before).max()
        other = np.mean(before.argmax(axis=1) != after.argmax(axis=1))
        print(f"   {name:8s} scores moved by up to {moved:.1e},", end=" ")
        print(f"{100 * other:.0f} % of the answers changed")
        assert moved < 1e-4 if name == "average" else moved > 1

# %%
import matplotlib.pyplot as plt

i = int(np.flatnonzero((t_test > 0) & (answers_of(flat, seen).argmax(1) == t_test))[4])
m = int(seen[i].std(axis=(1, 2)).argmax())  # the map with the largest differences
figure, panels = plt.subplots(1, 4, figsize=(7, 2.7), width_ratios=[1, 1, 1.25, 1.25])
for panel, maps, title in ((panels[0], seen, "a map"), (panels[1], apart, "shuffled")):
    panel.imshow(maps[i, m], cmap="viridis")
    panel.set(title=title, xticks=[], yticks=[])
for panel, name, head in ((panels[2], "average", average), (panels[3], "flat", flat)):
    both = answers_of(head, np.stack([seen[i], apart[i]]))  # (2, 6)
    panel.barh(np.arange(6) - 0.2, both[0], 0.4, color="#1f618d", label="as it was")
    panel.barh(np.arange(6) + 0.2, both[1], 0.4, color="#d68910", label="shuffled")
    panel.set(title=f"{name}: scores", yticks=range(6), yticklabels=[])
    panel.invert_yaxis()
panels[2].set_yticks(range(6), CLASSES)
handles, names = panels[3].get_legend_handles_labels()
figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
lesson.show(figure, "02_shuffled")

# %% [markdown]
# The figure shows the second shuffle for one window: one of its 32 maps, and the scores
# of both heads.
#
# The head with the average gives the same scores up to the last digit (float32 has
# about seven; adding in another order changes the last). It cannot do otherwise: a mean
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
image, label = draw_scene(np.random.default_rng(13), 128)
whole = to_device(image.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1)
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
# The flat head has 512 weights a class, and here come 32 · 18 · 18 = 10368 numbers. It
# was built for 4 × 4 maps, hence for windows of 32 × 32, and can use nothing else. The
# average head takes any size, but all it says of a whole scene is one class.
#
# The maps themselves, though, are there, larger than before, each value in its place.
# Keep them in mind.
#
# ## Brute force: slide the window
#
# We have a classifier for 32 × 32 windows. A label for every pixel is then a matter of
# patience: cut out the window around each pixel and classify it. To save time, do so
# for every 16th pixel in each direction only, or every 8th, and let the answer count
# for the block around it.

# %%
import time


def slide(image, step):
    """The class of every step-th pixel.   (H, W, 3) -> (rows, columns)"""
    rows, columns = (np.arange(step // 2, n, step) for n in image.shape[:2])
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    x = windows(image, places.reshape(-1, 2))  # (N, 3, 32, 32)
    classes = [
        to_host(flat.forward(features.forward(to_device(part)))).argmax(axis=1)
        for part in np.array_split(x, -(-len(x) // 256))
    ]
    return np.concatenate(classes).reshape(places.shape[:2]).astype(np.uint8)


image = image[:112, :112]  # a multiple of 16, so that the blocks come out even
label = label[:112, :112]
found, seconds = {}, {}
for step in (16, 8, 4, 2):
    start = time.perf_counter()
    found[step] = slide(image, step)
    seconds[step] = time.perf_counter() - start
    print(f"every {step:2d} pixels: {found[step].size:5d} windows", end=" ")
    print(f"in {seconds[step]:.2f} s")
    assert found[step].shape == (112 // step, 112 // step)

# %%
from minifcn.data.labels import colourise


def spread(classes, step, size):
    """Each class over its block of pixels.   (rows, columns) -> size (H, W)"""
    row, column = (
        np.minimum(np.arange(n) // step, last - 1)
        for n, last in zip(size, classes.shape, strict=True)
    )
    return classes[np.ix_(row, column)]


blocks = {step: spread(found[step], step, label.shape) for step in found}
upper = {"image": image, "truth": colourise(label)}
lower = {f"every {step} pixels": colourise(blocks[step]) for step in blocks}
upper["every 16 pixels"] = lower.pop("every 16 pixels")
occurring = np.unique(np.stack([label, *blocks.values()]))
lesson.pictures("02_sliding", [upper, lower], legend=occurring, classes=CLASSES)

# %% [markdown]
# This *is* a segmentation. Is it better than that of lesson 1, by colour alone? Here
# are both on a dozen new scenes.

# %%
from minifcn.metrics import ConfusionMatrix

known = [draw_scene(np.random.default_rng([1, i]), 128) for i in range(40)]
pixels = np.concatenate([scene.reshape(-1, 3) for scene, _ in known])
truths = np.concatenate([truth.reshape(-1) for _, truth in known])
means = np.stack([pixels[truths == k].mean(axis=0) for k in range(6)])  # (6, 3)

by_colour, by_window = ConfusionMatrix(6), ConfusionMatrix(6)
for i in range(12):
    scene, truth = draw_scene(np.random.default_rng([3, i]), 128)
    distance = ((scene[..., None, :] - means) ** 2).sum(axis=-1)  # (H, W, 6)
    by_colour.update(truth, distance.argmin(axis=-1))
    by_window.update(truth, spread(slide(scene, 8), 8, truth.shape))
print(f"mean IoU by colour alone:          {by_colour.mean_iou():.2f}")
print(f"mean IoU, a window every 8 pixels: {by_window.mean_iou():.2f}")
assert by_window.mean_iou() > 2 * by_colour.mean_iou()

# %% [markdown]
# Far better: the outlines are rough, but the shapes are found. So one could stop here.
# What stops us is the price.
#
# ## Count the work
#
# The unit is the *multiply-add*, one weight times one number, added to a sum. A
# convolution from C to K maps puts out K · H · W numbers. Each of them takes 3 · 3 · C
# multiply-adds, one a weight. A fully connected layer does one for each of its weights.
# Pooling and ReLU multiply nothing.


# %%
from minifcn import models


def convolution(c, k, height, width):
    """Multiply-adds of a 3x3 convolution from c to k maps of height x width."""
    return k * height * width * 3 * 3 * c


def lower_half(height, width):
    """Multiply-adds of our features on an image of this size (multiples of 8)."""
    return (
        convolution(3, 8, height, width)
        + convolution(8, 16, height // 2, width // 2)
        + convolution(16, 32, height // 4, width // 4)
    )


one = lower_half(SIDE, SIDE) + 6 * 512
classifier = models.Sequential(features=features, flat=flat)
print(f"one window: {one:,} multiply-adds")
assert one == models.explain(classifier, SIDE).multiply_adds  # the library counts, too

print(f"\n{'':16s}{'windows':>8s}{'multiply-adds':>16s}{'seconds':>9s}")
for step in (16, 8, 4, 2, 1):
    n = (112 // step) ** 2
    timed = f"{seconds[step]:8.2f}" if step > 1 else f"{4 * seconds[2]:7.1f}?"
    print(f"every {step:2d} pixels {n:8,d}{n * one:16,d} {timed}")
print(f"{'once, whole':24s}{lower_half(112, 112):16,d}")

# %% [markdown]
# Each halving of the step makes it four times as much; the time marked with a question
# mark is worked out like that. The last line is what the same features cost when they
# are computed *once* for the whole scene, as we did above without a thought.
#
# Where does the waste come from? Two neighbouring windows have most of their pixels in
# common, and the classifier computes the same features of the same pixels twice (but
# for a rim, to which lesson 4 returns). At a step of s, every pixel that is not near
# the scene's edge is in (32 / s)² windows.

# %%
step = 4
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2), width_ratios=[1, 1.15])
left.imshow(image)
for corner, colour in (((40, 40), "white"), ((40 + step, 40), "#f9e79f")):
    left.add_patch(plt.Rectangle(corner, SIDE, SIDE, fill=False, ec=colour, lw=2))
left.add_patch(plt.Rectangle((40 + step, 40), SIDE - step, SIDE, fc="w", alpha=0.35))
left.set_title(f"two windows, {step} pixels apart")
left.set_axis_off()
steps = (16, 8, 4, 2, 1)
work = [(112 // s) ** 2 * one for s in steps] + [lower_half(112, 112)]
right.bar(range(6), work, color=["#1f618d"] * 5 + ["#117864"])
right.set_xticks(range(6), [*map(str, steps), "once"])
right.set(title="multiply-adds for one scene", xlabel="a window every … pixels")
right.set_yscale("log")
lesson.show(figure, "02_cost")

shared = (SIDE - step) / SIDE
print(f"shared by the two windows: {100 * shared:.1f} % of their pixels")
middles = np.arange(step // 2, 112, step)
covering = np.sum((middles - SIDE // 2 <= 56) & (middles + SIDE // 2 > 56))
print(f"windows that contain the pixel (56, 56): {covering**2}")
assert covering**2 == (32 // step) ** 2

# %% [markdown]
# ## A real case
#
# VGG16 is the classifier that the article starts from. It takes windows of 224 × 224.
# It has thirteen 3 × 3 convolutions in five groups, each group closed by a pooling that
# halves the maps (and, unlike ours, rounds up), then three fully connected layers, with
# 4096, 4096 and 1000 outputs. An image of PASCAL VOC has up to 500 × 500 pixels.


# %%
def vgg16_convolutions(height, width):
    """Multiply-adds of VGG16's convolutions on an image of this size."""
    total, c = 0, 3
    for repeats, k in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(repeats):
            total += convolution(c, k, height, width)
            c = k
        height, width = -(-height // 2), -(-width // 2)  # the pool
    return total


fully_connected = 512 * 7 * 7 * 4096 + 4096 * 4096 + 4096 * 1000
window = vgg16_convolutions(224, 224) + fully_connected
every_32, every_pixel = (-(-500 // 32)) ** 2, 500**2
once = vgg16_convolutions(500, 500)
print(f"one window of 224 x 224:   {window / 1e9:12,.1f} billion multiply-adds")
print(f"every 32 pixels, {every_32:6,d} x: {every_32 * window / 1e9:12,.0f}")
print(f"every pixel,    {every_pixel:7,d} x: {every_pixel * window / 1e9:12,.0f}")
print(f"convolutions, once:        {once / 1e9:12,.1f}")
ratio = every_32 * vgg16_convolutions(224, 224) / once
print(f"\nevery 32 pixels, the convolutions are computed {ratio:.0f} times over")
assert window == 15_470_264_320 and 50 < ratio < 52

# %% [markdown]
# How long is that? Computed plainly, a convolution is at best as fast as the product of
# two large matrices (lesson 3 makes it one). At that speed, on this machine:

# %%
a = np.random.default_rng(0).standard_normal((1500, 1500)).astype(np.float32)
a @ a  # once to warm up
start = time.perf_counter()
for _ in range(3):
    a @ a
speed = 3 * 1500**3 / (time.perf_counter() - start)
print(f"a matrix product: {speed / 1e9:.0f} billion multiply-adds a second")
print(f"one image, every 32 pixels: {every_32 * window / speed:9.0f} seconds")
print(f"one image, every pixel:     {every_pixel * window / speed / 3600:9.1f} hours")
print(f"one image, once:            {once / speed:9.1f} seconds")

# %% [markdown]
# So this is what we need: a network that **keeps the where**, and **shares the work**
# between neighbouring windows. The lower half does both already. Convolutions take any
# size, compute every feature once, and leave it in its place. What stands in the way is
# the head: the average loses the place, and the fully connected layer insists on its
# size.
#
# Lesson 3 opens the convolution. Lesson 4 then shows that the fully connected layer was
# a convolution all along.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** The last maps of VGG16 are 512 maps of 7 × 7. Put one `Linear` to 1000 classes
# on the *flattened* maps, or one after *global average pooling*. How many more weights
# does the first have than the second? (The difference; weights only, no biases.)
#
# **2.** Write a function `(height, width, side, step)` that returns the number of
# windows of `side` × `side` pixels that lie wholly inside an image, if the first sits
# in the upper left corner and the next ones follow every `step` pixels in both
# directions.
#
# **3.** Write a function of `maps`, an array (C, H, W), that returns an array of the
# same shape for which the average head gives the same answer, but in which no place
# differs from any other: within each map, all values are equal. (Two maps may differ.)

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
# - Sliding a classifier is not absurd: with few windows, or windows that hardly overlap
#   (satellite images cut in tiles), it is the simple and right thing to do.
# - A network that ends in global average pooling will accept a large photograph in
#   silence, and answer for a mixture of all that is in it.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, *Fully Convolutional Networks for Semantic
#   Segmentation*, CVPR 2015, sections 2 and 3: patchwise methods, and why not.
# - M. Lin, Q. Chen, S. Yan, *Network in Network*, 2013: global average pooling.
# - D. Ciresan and others, *Deep Neural Networks Segment Neuronal Membranes in Electron
#   Microscopy Images*, 2012: a window for every pixel, and it won its contest.
# - In the code: `minifcn/layers/plain.py`, `minifcn/layers/blocks.py`,
#   `minifcn/models/explain.py`.
