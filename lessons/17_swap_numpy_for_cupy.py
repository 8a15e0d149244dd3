# %% [markdown]
# # 17. Swap NumPy for CuPy
#
# **You will** write an operation that runs on the CPU and on a GPU without asking where
# it is, run a whole network on another kind of array, count what crosses the bus in a
# training step, and time things fairly.
#
# **You will learn** what an array module is, what may not leak from one device to the
# other, which mistakes a GPU keeps to itself, what a kernel is, and why the first timing
# of anything is wrong.
#
# **You need** lesson 11 (a training step). A GPU with CuPy is welcome. Without one, a
# stand-in shows the same rules on any machine.
#
# **It takes** 20 minutes to read and a few seconds to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## One program, two array modules
#
# CuPy is NumPy's twin: `cupy.exp`, `cupy.matmul`, `a[2:5]`, `a.sum(axis=1)` mean the
# same and run on a GPU, on arrays that lie in the GPU's memory. A function that calls
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
# The CPU and its memory are called the *host*, the GPU with its own is a *device*.
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
# does not turn into a NumPy array by itself, and it refuses to be mixed with one. What
# runs on it has no such leaks as the next section shows. It is not fast, and does not
# claim to be.

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
# Now the same softmax as one writes it by habit, with `np.` in it. On the CPU nobody
# notices. On a GPU it fails, or worse, on some array libraries it silently copies
# everything to the host and back.


# %%
def habit(scores):
    e = np.exp(np.asarray(scores) - np.asarray(scores).max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def mixed(scores):
    weight = np.linspace(
        0.5, 1.5, scores.shape[1]
    )  # made on the host, used on the device
    return scores * weight[:, None, None]


for leak in (habit, mixed):
    assert leak(scores).shape == scores.shape  # fine on the CPU
    try:
        leak(there)
        raise AssertionError("a leak went unnoticed")
    except TypeError as error:
        print(f"{leak.__name__}: {error}")

# %% [markdown]
# The other leaks are quieter:
#
# - `float(x)`, `if x.any():`, `x.item()`: a number comes to the host, and to get it the
#   host waits until the GPU has done everything it was given. Once a step (the loss) is
#   cheap. Once a layer is not.
# - Random numbers. The two libraries draw differently from the same seed. Here they are
#   drawn on the host, always, and carried over: a seed then means the same network
#   everywhere.

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
# To read off the score of the true class one indexes with the label. A label of 255
# (void) has no such score. NumPy raises an IndexError. A GPU has no good way to raise
# in the middle of thousands of threads; CuPy wraps the index around, and goes on:

# %%
log_p = np.log(softmax(scores))[0, :, 0, 0]  # one pixel, six classes
try:
    log_p[255]
except IndexError as error:
    print("NumPy:", error)
wrapped = np.take(log_p, 255, mode="wrap")  # what CuPy would do
print(f"wrapped: 255 % 6 = {255 % 6}, and the score of class 3 is taken: {wrapped:.3f}")
assert wrapped == log_p[3]

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
# memory. So a batch goes in once, everything happens over there, and a number comes
# back. The doors `to_device` and `to_host` are functions, so we can count who passes.

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


device = strict.DEVICE
backend.register(
    dataclasses.replace(
        device,
        to_device=counted(device.to_device, "in"),
        to_host=counted(device.to_host, "out"),
    )
)
backend.use("strict")

rng = np.random.default_rng(0)
images = rng.normal(size=(2, 3, 64, 64)).astype(np.float32)
labels = rng.integers(0, 6, (2, 64, 64)).astype(np.uint8)
model = fresh()
optimizer = SGD(model.parameters())
loop.update(model, images, labels, optimizer, 0.01)
passed.clear()
loss = loop.update(model, images, labels, optimizer, 0.01)
in_step = dict(passed)
backend.register(device)
print(f"in: {in_step['in']} arrays, {in_step['in bytes']:,} bytes")
print(f"out: {in_step.get('out', 0)} arrays, and the loss, {loss:.3f}")
assert "out" not in in_step

# %%
maps, made = to_device(images), 0
for name, layer in model.children().items():
    if name.startswith("vgg."):
        maps = layer.forward(maps)
        made += maps.nbytes
batch = images.nbytes + labels.nbytes
rest = in_step["in bytes"] - batch
print(f"of the bytes that went in, the batch: {batch:,}; dropout masks: {rest:,}")
print(f"bytes of the trunk's maps, made on the device, forward alone: {made:,}")
assert rest < batch < made

# %% [markdown]
# The batch is most of what goes in. The rest are the masks of dropout, drawn on the
# host as said. Nothing comes out but the loss, by a `float(…)` and not by the door.
# Everything large is made over there and stays there.

# %%
import matplotlib.pyplot as plt

bars = {
    "batch, in": batch,
    "dropout masks, in": rest,
    "the loss, out": 4,
    "maps of the trunk, stay": made,
}
figure, axes = plt.subplots(figsize=(7, 2.8))
colours = ("#c0392b", "#c0392b", "#c0392b", "#117864")
axes.barh(list(bars), [size / 1024 for size in bars.values()], color=colours)
axes.invert_yaxis()
axes.set(xlabel="kilobytes in one step (of the maps: forward alone)", xscale="log")
lesson.show(figure, "17_bus")

# %% [markdown]
# ## Where no function of the array module will do
#
# Every call on a GPU is a *launch*: some microseconds until it begins, however little
# there is to do. The patches of a convolution or the winners of a pool take dozens of
# calls. So there the library runs programs of its own, *kernels*, written in CUDA's C++.
# A kernel is what stands inside a loop over the results; thousands of threads run it at
# once, each with a pixel and a channel of its own. This one ends a batch normalisation
# (lesson 9), and the ReLU behind it:

# %%
from minifcn.ops import batch_norm

text = batch_norm.SOURCE.text
begin = text.index("// y = x * factor + offset")
print(text[begin : text.index("\n}", begin) + 2])

# %% [markdown]
# `EACH_LANES` is the loop, and `AT(x, i)` is the value `x[i]`. No thread writes where
# another reads, so nothing has to wait, and the result is the same in every run. And as
# the threads need nothing of each other, a CPU can do them in turn. Where there is a C++
# compiler, the library compiles the same text for the CPU: there `AT(x, i)` stands for
# 16 channels at once, the width of a vector register. And the stand-in compiles it a
# second time, slowly, and looks at every index while it runs.

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
# ## Time fairly
#
# Three ways to fool oneself, two of them on every machine:
#
# 1. **The first call** pays for what happens once: memory fetched from the system,
#    threads started, on a GPU its programs compiled. Warm up, then measure.
# 2. **One measurement** is a draw. Take several and the median, and when comparing,
#    take turns, so that both meet the same noise.
# 3. **A GPU answers before it is done.** The call returns as soon as the work is
#    queued. Wait for the device before the clock is read, or you time the queue.

# %%
import time


def seconds(work, times=9, wait=lambda: None):
    """The first call's seconds, and the median of those after it."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        wait()
        found.append(time.perf_counter() - start)
    return found[0], float(np.median(found[1:]))


backend.use("cupy" if has_gpu else "numpy")
x = rng.normal(size=(4, 32, 96, 96)).astype(np.float32)
w = rng.normal(size=(32, 32, 3, 3)).astype(np.float32)
x, w = to_device(x), to_device(w)
xp = array_module(x)
wait = xp.cuda.Device().synchronize if has_gpu else (lambda: None)

first, median = seconds(lambda: ops.conv2d_forward(x, w, pad=1), wait=wait)
print(
    f"{xp.__name__}: first call {1e3 * first:.1f} ms, later ones {1e3 * median:.1f} ms"
)
if has_gpu:
    _, unfair = seconds(lambda: ops.conv2d_forward(x, w, pad=1))
    print(f"without waiting it would seem to take {1e3 * unfair:.2f} ms")
else:
    print("No GPU here, so nothing about its speed is shown, or claimed.")

# %% [markdown]
# And compare like with like: the same numbers in the same precision. Two devices, one
# in float32 and one in float64, say nothing about devices:

# %%
sides = (64, 128, 256, 512, 1024)
host = np.random.default_rng(1)
medians = {}
for dtype in (np.float32, np.float64):
    for side in sides:
        a = to_device(host.normal(size=(side, side)).astype(dtype))
        _, medians[dtype, side] = seconds(lambda a=a: a @ a, times=7, wait=wait)

ratio = medians[np.float64, 1024] / medians[np.float32, 1024]
print(f"float64 takes {ratio:.1f} times as long as float32 at 1024 × 1024")

figure, axes = plt.subplots(figsize=(7, 3.4))
for dtype, colour in ((np.float32, "#1f618d"), (np.float64, "#c0392b")):
    times = [1e3 * medians[dtype, side] for side in sides]
    axes.loglog(sides, times, "o-", color=colour, label=dtype.__name__)
axes.set_xticks(sides, [str(side) for side in sides])
axes.minorticks_off()
axes.set(xlabel="side of two square matrices", ylabel="product, milliseconds")
axes.set_title(f"measured here, with {xp.__name__}")
axes.legend(frameon=False)
axes.grid(alpha=0.3)
lesson.show(figure, "17_timing")

# %% [markdown]
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** Write a function of `x`, an array (N, C) on any device, that returns x with
# each column's mean taken off and divided by its standard deviation (`std`). It will be
# tried on NumPy's arrays and on the stand-in's.
#
# **2.** A batch of 8 images of 3 × 500 × 500 in float32 goes over the bus. How many
# megabytes (millions of bytes) is that?
#
# **3.** Write a function `(log_p, labels)`, arrays (N, C) and (N,) on any device, that
# returns the sum of the true classes' log_p. Pixels labelled 255 add nothing, and
# nothing may be indexed with 255.

# %%
import answers

answers.check("17.1", ...)
answers.check("17.2", ...)
answers.check("17.3", ...)

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
#   practices*.
# - In the code: `minifcn/backend/registry.py` (the switch), `minifcn/testing/strict.py`
#   (the stand-in), `minifcn/ops/loss.py` (masks before it indexes),
#   `minifcn/backend/source.py` (how a kernel is written), and the `.cu` files in
#   `minifcn/ops`, each beside its operation.
