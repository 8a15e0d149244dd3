# %% [markdown]
# # 17. Swap NumPy for CuPy
#
# *For builders: nothing about networks is new here.*
#
# **You will** write an operation that runs on the CPU and on a GPU without asking where
# it is, run a whole network on another kind of array, and count what crosses the bus in
# a training step.
#
# **You will learn** what an array module is, what may not leak from one device to the
# other, which mistakes a GPU keeps to itself, and what a kernel is.
#
# **You need** lesson 11 (a training step). A GPU with CuPy is welcome. Without one, a
# stand-in shows the same rules on any machine.
#
# **It takes** 15 minutes to read and a few seconds to run.

# %%
import lesson

lesson.begin()

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

figure, panel = plt.subplots(figsize=(7, 2.9))
panel.set(xlim=(0, 7), ylim=(0, 3))
panel.set_axis_off()
for left, name, held in (
    (0.1, "host: the CPU's memory", "images, labels,\nrandom draws, files"),
    (4.4, "device: the GPU's memory", "weights, maps,\ngradients, velocities"),
):
    panel.add_patch(plt.Rectangle((left, 0.3), 2.5, 2.2, fc="#eef3f7", ec="0.4"))
    panel.text(left + 1.25, 2.7, name, ha="center", fontsize=11)
    panel.text(left + 1.25, 1.4, held, ha="center", va="center", fontsize=11)
for start, end, y, text in (
    (2.7, 4.3, 1.9, "to_device\na batch a step"),
    (4.3, 2.7, 0.7, "float(loss)\na few bytes a step"),
):
    how = {"arrowstyle": "-|>", "color": "#8e2a1e", "linewidth": 2}
    panel.annotate("", (end, y), (start, y), arrowprops=how)
    panel.text(3.5, y + 0.12, text, ha="center", va="bottom", fontsize=10)
caption = "What crosses the bus in a training step, and what does not."
lesson.show(figure, "17_places", caption)

# %% [markdown]
# ## One program, two array modules
#
# The CPU and its memory are called the *host*, the GPU with its own is a *device*. CuPy
# is NumPy's twin: `cupy.exp`, `cupy.matmul`, `a[2:5]`, `a.sum(axis=1)` mean the same
# and run on a GPU, on arrays that lie in the GPU's memory. A function that calls
# `xp.exp` and the like, where the variable `xp` is NumPy or CuPy, runs on both. And it
# need not be told which: *the arrays it is given* say so.

# %%
import numpy as np

from minifcn import backend
from minifcn.backend import array_module, to_device, to_host
from minifcn.testing import strict


def softmax(scores):
    """scores (N, C, H, W) -> probabilities over C, on whatever device the scores are"""
    xp = array_module(scores)
    e = xp.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


scores = np.random.default_rng(0).normal(size=(2, 6, 4, 4)).astype(np.float32)
print(type(softmax(scores)).__module__, softmax(scores).shape)
assert array_module(scores) is np

# %% [markdown]
# `backend.use("cupy")` only decides where *new* things go: parameters when a network is
# made, batches when they enter the loop. `to_device` is the door in, `to_host` the door
# out. No operation ever asks for "the current device". That would be a second opinion
# about where an array is, and two opinions can differ.
#
# ## A device for everybody
#
# Is there a GPU?

# %%
try:
    print(backend.use("cupy"))
    has_gpu = True
except RuntimeError as error:
    print(error)
    has_gpu = False

# %% [markdown]
# For machines without one, and for the tests, there is a **stand-in**: an array that is
# NumPy's inside and behaves as strictly as CuPy's outside. It is a different type, it
# does not turn into a NumPy array by itself, and it refuses to be mixed with one. It is
# not fast, and does not claim to be.

# %%
backend.register(strict.DEVICE)
print(backend.use("strict"))

there = to_device(scores)
print("type:", type(there).__name__, "  module:", array_module(there).__name__)

same = softmax(there)  # the function from above, unchanged
assert type(same) is type(there)
assert np.array_equal(to_host(same), softmax(scores))

# %% [markdown]
# ## What may not leak
#
# Often a `np.` does no harm: NumPy's functions hand over to the arrays they are given,
# and `np.exp` of a GPU's array runs on the GPU. But three habits fail there, and on a
# CPU nobody notices them:

# %%
assert type(np.exp(there)) is type(there)  # handed over


def converted(scores):
    return np.asarray(scores) * 2  # asks for a NumPy array


def mixed(scores):
    weight = np.linspace(0.5, 1.5, scores.shape[1])  # made on the host
    return scores * weight[:, None, None]


def filled(scores):
    total = np.zeros(scores.shape)  # made on the host
    total += scores
    return total


for leak in (converted, mixed, filled):
    assert leak(scores).shape == scores.shape  # fine on the CPU
    try:
        leak(there)
        raise AssertionError("a leak went unnoticed")
    except TypeError as error:
        print(f"{leak.__name__:9s} {error}")

# %% [markdown]
# What *makes* an array must ask `xp`. Two more leaks are quieter:
#
# - `float(x)`, `if x.any():`, `x.item()`: a number comes to the host, and the host
#   waits until the GPU has done everything it was given. Once a step is cheap. Once a
#   layer is not.
# - Random numbers. The two libraries draw differently from the same seed. Here they are
#   drawn on the host, always, and carried over. A seed then means the same network
#   everywhere:

# %%
from minifcn import models


def fresh():
    return models.fcn("8s", "mini", num_classes=6, alignment="same", width=4, seed=3)


weights = {}
for name in ["numpy", "strict"] + ["cupy"] * has_gpu:
    backend.use(name)
    weights[name] = fresh().state_dict()  # always NumPy arrays: what goes into a file

for name, state in weights.items():
    assert all(np.array_equal(state[k], weights["numpy"][k]) for k in state)
    print(f"{name}: {len(state)} arrays, equal to NumPy's to the last bit")

# %% [markdown]
# ## A mistake that a GPU keeps to itself
#
# To read off the scores of the true classes one indexes with the labels. A label of 255
# (void) has no such score. NumPy raises an IndexError. A GPU has no good way to raise
# in the middle of thousands of threads: CuPy wraps an array of indices around, and goes
# on.

# %%
log_p = np.log(softmax(scores))[0, :, 0, 0]  # one pixel, six classes
labels = np.array([3, 255])
try:
    log_p[labels]
except IndexError as error:
    print("NumPy:", error)
wrapped = np.take(log_p, labels, mode="wrap")  # what CuPy would do
print(f"wrapped: 255 % 6 = {255 % 6}, and void gets class 3's {wrapped[1]:.3f}")

# %% [markdown]
# A whole training could go by, with every border pixel counted as class 3. So the loss
# masks first, and indexes after that: where the label is void it reads class 0, and
# multiplies what it read by 0. And it counts labels that are neither a class nor void,
# and refuses them.

# %%
from minifcn import ops

labels = np.array([[[0, 1, 255, 7]]], np.uint8)
for name in ["numpy", "strict"] + ["cupy"] * has_gpu:
    backend.use(name)
    there = to_device(scores[:1, :, :1])
    known = np.where(labels == 7, 2, labels).astype(np.uint8)
    loss, _ = ops.softmax_cross_entropy_forward(there, to_device(known))
    try:
        ops.softmax_cross_entropy_forward(there, to_device(labels))
        raise AssertionError("label 7 of 6 classes was accepted")
    except ValueError as error:
        print(f"{name}: loss {float(loss):.6f}; with a label of 7: {error}")

# %% [markdown]
# ## A step, and what crosses the bus
#
# Between host and GPU lies a bus that is dozens of times slower than the GPU's own
# memory. So a batch goes in once, everything happens over there, and hardly more than a
# number comes back. Let us count: what passes the two doors, and how often a single
# number is asked for by `float`, `int`, `bool` or `item`, which need no door.

# %%
import dataclasses
from collections import Counter

from minifcn.training import loop
from minifcn.training.optimizers import SGD

passed = Counter()


def counted(door, title):
    def passing(array):
        passed[title] += 1
        passed[title + " bytes"] += array.nbytes
        return door(array)

    return passing


def noted(method):
    """The same method of the stand-in's arrays, counted."""

    def asking(self):
        passed["asked"] += 1
        return method(self)

    return asking


device, asking = strict.DEVICE, ("__float__", "__int__", "__bool__", "item")
doors = {"to_device": counted(device.to_device, "in")}
doors["to_host"] = counted(device.to_host, "out")
backend.register(dataclasses.replace(device, **doors))
backend.use("strict")

rng = np.random.default_rng(0)
images = rng.normal(size=(2, 3, 64, 64)).astype(np.float32)
labels = rng.integers(0, 6, (2, 64, 64)).astype(np.uint8)
model = fresh()
optimizer = SGD(model.parameters())
loop.update(model, images, labels, optimizer, 0.01)
passed.clear()
methods = {name: getattr(strict.StrictArray, name) for name in asking}
for name, method in methods.items():
    setattr(strict.StrictArray, name, noted(method))
loss = loop.update(model, images, labels, optimizer, 0.01)
for name, method in methods.items():
    setattr(strict.StrictArray, name, method)
backend.register(device)
backend.use("strict")  # with the doors that do not count
print(f"in: {passed['in']} arrays, {passed['in bytes']:,} bytes")
print(f"out: {passed['out']} arrays; numbers asked for: {passed['asked']}")
assert passed["out"] == 0 and 1 <= passed["asked"] <= 3

maps, made = to_device(images), 0
for name, layer in model.children().items():
    if name.startswith("vgg."):
        maps = layer.forward(maps)
        made += maps.nbytes
batch = images.nbytes + labels.nbytes
print(f"of the bytes that went in, the batch: {batch:,}")
print(f"bytes of the trunk's maps, made on the device, forward alone: {made:,}")
assert passed["in bytes"] - batch < batch / 10 and batch < made / 5

# %% tags=["hide-input"]
masks = passed["in bytes"] - batch
bars = {"batch, in": batch, "dropout masks, in": masks}
bars |= {"numbers, out": 4 * passed["asked"], "maps, stay": made}
figure, axes = plt.subplots(figsize=(7, 2.5))
colours = ("#c0392b", "#c0392b", "#c0392b", "#117864")
drawn = axes.barh(list(bars), [size / 1024 for size in bars.values()], color=colours)
axes.bar_label(drawn, [f" {size / 1024:,.1f}" for size in bars.values()])
axes.invert_yaxis()
axes.set(xlabel="kilobytes in one step (of the maps: forward alone)")
axes.margins(x=0.15)
caption = "What crosses the bus (red), and what stays (green)."
lesson.show(figure, "17_bus", caption)

# %% [markdown]
# The batch is most of what goes in. The rest are the masks of dropout, drawn on the
# host as said. Two numbers come back: whether any label is impossible, and the loss.
# Everything large is made over there and stays there.
#
# ## Where no function of the array module will do
#
# Every call on a GPU is a *launch*: it costs some microseconds, however little there is
# to do. The patches of a convolution, or the winners of a pool, take dozens of calls.
# There the library runs programs of its own, *kernels*, written in CUDA's C++. (The
# word is the convolution's; the thing is another.) Such a kernel is what stands inside
# a loop over the results. Thousands of threads run it at once, each with a pixel and a
# channel of its own. This one ends a batch normalisation (lesson 8) and the ReLU behind
# it:

# %%
from minifcn.ops import batch_norm

text = batch_norm.SOURCE.text
begin = text.index("// y = x * factor + offset")
print(text[begin : text.index("\n}", begin) + 2])

# %% [markdown]
# `EACH_LANES` is the loop, and `AT(x, i)` is the value `x[i]`. No thread writes where
# another reads. So nothing has to wait, and the result is the same in every run. And a
# CPU can do the threads in turn: where there is a C++ compiler, the library compiles
# the same text for the CPU, and there `AT(x, i)` stands for up to 16 channels at once,
# as many as a wide vector register holds. The stand-in compiles it, too, and checks
# every index.

# %%
backend.use("strict")
maps = to_device(images)
if backend.has_kernels(maps):
    factor, offset = np.float32([2, 3, 4]), np.float32([0.5, 0, -0.5])
    given = (factor, offset, np.float32([0, 0, 0]), np.float32([1, 1, 1]))
    y, _ = ops.batch_norm_forward(maps, *map(to_device, given), eps=0)
    expected = images * factor[:, None, None] + offset[:, None, None]
    assert np.allclose(to_host(y), expected)
    print("the kernel computes what NumPy does:", to_host(y)[0, :, 0, 0])
else:
    print("no C++ compiler here, so the stand-in does without kernels")

# %% [markdown]
# ## Same numbers?
#
# A GPU adds in another order, and so do the kernels on the stand-in; float32 sums then
# differ in the last digits. That is no error. But look at *how far* two devices differ
# before you call it rounding:

# %%
results = {}
for name in ["numpy", "strict"] + ["cupy"] * has_gpu:
    backend.use(name)
    fc7 = fresh().features(to_device(images), ["vgg.drop7"])["vgg.drop7"]
    results[name] = to_host(fc7)
    off = np.abs(results[name] - results["numpy"]).max() / results["numpy"].max()
    print(f"{name:8s} greatest difference from NumPy: {off:.0e}")
    assert off < 1e-3

# %% [markdown]
# Nothing is said here about how fast a GPU is: that needs one. Lesson 18 is about time.
#
# ## Exercises
#
# Replace the dots and run the cell again. More stars, more work.
#
# **1.** ★ Write a function of `x`, an array (N, C) on any device. It returns x less the
# mean of each column, each column then divided by its standard deviation (`std`). It is
# tried on NumPy's arrays and on the stand-in's, which must stay on their device.
#
# **2.** ★★ To keep a training from exploding, people *clip*: they need the norm of all
# gradients together, the root of the sum of all squares. Write a function of a list of
# arrays, of any shapes, on one device, that returns it as a Python float. Only once may
# a number come to the host. (The stand-in has no `linalg`.)
#
# **3.** ★★ Write a function `(log_p, labels)`, arrays (N, C) and (N,) on any device,
# that returns the sum of the true classes' log_p. Pixels labelled 255 add nothing,
# nothing may be indexed with 255, and there may be no loop over pixels.

# %%
import answers

answers.check("17.1", ...)
answers.check("17.2", ...)
answers.check("17.3", ...)
# After two tries: answers.reveal("17.1")

# %% [markdown]
# ## In practice
#
# - `--device auto`, the default of every command that computes, takes a GPU that works and
#   otherwise NumPy, and says which and why. `minifcn info` shows what was found.
# - The tests run each operation, layer and network on NumPy, on the stand-in, and on
#   CuPy where there is a GPU (`pytest -m gpu`): one body, three devices.
# - Move late and little: once in with the batch, once out with a number. Print the loss
#   every tenth step only, if waiting for it costs time that you can measure.
#
# ## Further reading
#
# - CuPy's user guide, *Differences between CuPy and NumPy*, and *Performance best
#   practices*: <https://docs.cupy.dev/en/stable/user_guide/>
# - In the code: `minifcn/backend/registry.py` (the switch), `minifcn/testing/strict.py`
#   (the stand-in), `minifcn/ops/loss.py` (masks before it indexes),
#   `minifcn/backend/source.py` (how a kernel is written), and the `.cu` files in
#   `minifcn/ops`, each beside its operation.
