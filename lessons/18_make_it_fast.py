# %% [markdown]
# # 18. Make it fast
#
# *For builders.*
#
# **You will** find out where a training step spends its time, see how a convolution
# gets by with a quarter of the products, and measure three remedies one by one.
#
# **You will learn** to time things fairly, why memory is the enemy of im2col, what tiles,
# threads and Winograd's trick bring, and where none of them helps.
#
# **You need** lessons 3 (im2col) and 11 (a training step).
#
# **It takes** 25 minutes to read and half a minute to run. Your numbers will differ.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## Where the time goes
#
# Here is a training step of an FCN-8s like lesson 11's, half as wide again: 8 images of
# 128×128, forward, loss, backward, update, and a stopwatch around both passes of each
# layer. (A GPU's call returns before the work is done; fetching a number waits for it.)

# %%
import time

import numpy as np

from minifcn import backend, models, ops
from minifcn.training.optimizers import SGD

rng = np.random.default_rng(0)
model = models.fcn("8s", "mini", num_classes=6, alignment="same")
optimizer = SGD(model.parameters())
images = backend.to_device(rng.standard_normal((8, 3, 128, 128), np.float32))
labels = backend.to_device(rng.integers(0, 6, (8, 128, 128)).astype(np.uint8))


def milliseconds(work):
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def step():  # one update of the weights
    logits = model.forward(images, train=True)  # (8, 6, 128, 128)
    _, cache = ops.softmax_cross_entropy_forward(logits, labels)
    model.zero_grad()
    model.backward(ops.softmax_cross_entropy_backward(1.0, cache), inputs=False)
    optimizer.step(1e-3)
    backend.to_host(logits[:1, :1, :1, :1])


spent = {}  # (layer, kind, pass): milliseconds of each step


def watched(key, function):
    """The same function, with its time noted in `spent`."""

    def run(*arguments, **options):
        start = time.perf_counter()
        result = function(*arguments, **options)
        for maps in result if isinstance(result, tuple) else (result,):
            if maps is not None:
                backend.to_host(maps[:1, :1, :1, :1])
        spent.setdefault(key, []).append(1e3 * (time.perf_counter() - start))
        return result

    return run


for one in model.training:  # what is run; a batch norm and its ReLU are one, "fused"
    for name in ("forward", "backward"):
        key = (one.name, type(one.layer).__name__, name)
        setattr(one.layer, name, watched(key, getattr(one.layer, name)))

whole = [milliseconds(step) for _ in range(6)]
step_ms = np.median(whole[1:])
spent = {key: np.median(ms[1:]) for key, ms in spent.items()}

print(f"a step: {step_ms:.1f} ms. The ten longest passes:")
for (name, _, which), ms in sorted(spent.items(), key=lambda item: -item[1])[:10]:
    print(f"  {name:16s}{which:9s}{ms:7.2f} ms {100 * ms / step_ms:5.1f} %")

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

kinds = {}  # kind: [forward, backward]
for (_, kind, which), ms in spent.items():
    kinds.setdefault(kind, [0, 0])[which == "backward"] += ms
kinds = dict(sorted(kinds.items(), key=lambda item: sum(item[1])))
forward, backward = np.array(list(kinds.values())).T
figure, panel = plt.subplots(figsize=(7, 3.6))
panel.barh(list(kinds), forward, label="forward")
panel.barh(list(kinds), backward, left=forward, label="backward")
panel.barh("loss, update", step_ms - sum(spent.values()), color="0.6", label="the rest")
panel.set(xlabel="ms of a step", title=f"FCN-8s-mini, a step of {step_ms:.0f} ms")
figure.legend(loc="outside lower center", ncols=3, frameon=False)
lesson.show(figure, "18_profile", "The milliseconds of a step, by kind of layer.")

# %%
share = sum(kinds["Conv2d"]) / step_ms
print(f"convolutions: {100 * share:.0f} % of a step. Twice as fast, they make the step")
print(f"{1 / (1 - share / 2):.2f} times as fast; if free, {1 / (1 - share):.2f} times")

# %% [markdown]
# The last lines are *Amdahl's law*. If a share p of the time becomes f times as fast,
# the whole becomes 1 / (1 − p + p/f) times as fast. So work on what is long, and only
# until something else is longer.
#
# ## Measure fairly
#
# Time the same thing ten times.

# %%
x = rng.standard_normal((1, 64, 128, 128), np.float32)  # (N, C, H, W)
w = rng.standard_normal((64, 64, 3, 3), np.float32)  # (K, C, 3, 3)
ten = [milliseconds(lambda: ops.conv2d_forward(x, w, pad=1)) for _ in range(10)]
print(" ".join(f"{ms:.1f}" for ms in ten), f"ms; median {np.median(ten):.1f}")

# %% [markdown]
# The first is often the slowest: threads are started, caches are empty. And now and then
# something else runs on the machine. So:
#
# - **Warm up**: do not count the first.
# - **Take the median**: one disturbed run moves a mean, and does not move a median.
# - **Alternate**: compare A and B as A B B A A B …: a machine's speed drifts.
# - **Report ratios**. Seconds are your machine's; a ratio may hold on another one, too.


# %%
def race(works, rounds=5, pause=0.0):
    """Let them take turns, each round beginning with another.   -> {name: median ms}"""
    times, names = {name: [] for name in works}, list(works)
    for number in range(-1, rounds):  # round -1 is the warm-up
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(pause)
            taken = milliseconds(works[name])
            if number >= 0:
                times[name].append(taken)
    return {name: np.median(taken) for name, taken in times.items()}


medians = race(dict.fromkeys(("A", "B"), lambda: ops.conv2d_forward(x, w, pad=1)))
ratio = medians["A"] / medians["B"]
print(f"A against its twin B: {ratio:.2f}. Differences like that say nothing.")

# %% [markdown]
# ## How fast can it be?
#
# Count two operations for each product (multiply, add). Divided by the seconds this is a
# *rate*, in GFLOP/s, billions of floating-point operations a second. The best rate a
# machine has is that of a large matrix product. BLAS, the library by which NumPy
# multiplies matrices, calls it *sgemm*, with s for single precision: float32.


# %%
def gflops(C, K, side, ms):
    """The rate of a 3×3 convolution at stride 1 of one image whose maps keep their size."""
    return 2 * K * C * 9 * side**2 / (ms * 1e6)


a, b = (rng.standard_normal((2048, 2048), np.float32) for _ in range(2))
ceiling = 2 * 2048**3 / (1e6 * race({"sgemm": lambda: backend.matmul(a, b)})["sgemm"])
print(f"sgemm: {ceiling:.0f} GFLOP/s; threads: {backend.threads()}")
print(f"the convolution above: {gflops(64, 64, 128, medians['A']):.0f} GFLOP/s")

# %% [markdown]
# A rate far below that says that there is something to gain. One above it comes from
# doing fewer products than we have counted, as we shall do.
#
# ## The memory of im2col
#
# Lesson 3 turned a convolution into one matrix product, over a matrix of patches. How
# large is that matrix for the second layer of VGG16, 64 channels at 500×500, in
# float32?

# %%
from minifcn.backend import tuning

matrix = 500 * 500 * 9 * 64 * 4  # bytes
print(f"maps {matrix / 9e6:.0f} MB, all patches {matrix / 1e6:.0f} MB", end=", ")
print(f"a tile of them {tuning.TILE_BYTES / 1e6:.1f} MB")
assert matrix > 100 * tuning.TILE_BYTES

# %% [markdown]
# Nine times the maps, to be written to memory and read again, and memory is slow. But
# the matrix does not have to exist as a whole. Make the patches of a few rows of the
# image, multiply them while they are still in the core's cache (a small and fast memory
# of its own), forget them, go on. Such a part is a *tile*. Here is im2col with the whole
# matrix, against the library's with tiles; each with the most memory that it held.

# %%
import tracemalloc

from numpy.lib.stride_tricks import sliding_window_view


def whole_im2col(x, w):
    """(1, C, H, W), (K, C, 3, 3) -> (1, K, H, W)"""
    height, width = x.shape[2:]
    padded = np.pad(x[0], ((0, 0), (1, 1), (1, 1)))
    seen = sliding_window_view(padded, (3, 3), axis=(1, 2))  # (C, H, W, 3, 3)
    patches = seen.transpose(1, 2, 0, 3, 4).reshape(height * width, -1)  # copied here
    y = patches @ w.reshape(len(w), -1).T  # (H·W, K)
    return y.T.reshape(1, len(w), height, width)


def by(way, x, w):
    with ops.conv_algorithm(way):
        return ops.conv2d_forward(x, w, pad=1)[0]


def peak(work):
    """The most memory at any moment, in MB, beyond what is there now."""
    tracemalloc.start()
    work()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 1e6


big = rng.standard_normal((1, 64, 250, 250), np.float32)
ways = {"whole": lambda: whole_im2col(big, w), "tiles": lambda: by("im2col", big, w)}
assert np.allclose(ways["whole"](), ways["tiles"](), atol=1e-3)
peaks = {name: peak(work) for name, work in ways.items()}
# BLAS's own threads go on spinning for a while after a product: hence the pause.
medians = race(ways, rounds=3, pause=0.15)
for name, ms in medians.items():
    print(f"{name}: {ms:7.1f} ms, {peaks[name]:6.1f} MB")
assert peaks["whole"] > 5 * peaks["tiles"]

# %% [markdown]
# ## Threads
#
# Tiles do not depend on each other, so every core can take the next one. Python's threads
# are good for this, because NumPy lets go of the interpreter's lock while it copies and
# multiplies. BLAS has threads of its own; the library holds them to one.

# %%
many = backend.threads()


def with_threads(count):
    backend.set_threads(count)
    by("im2col", x, w)
    backend.set_threads(many)


medians = race({n: lambda n=n: with_threads(n) for n in (1, 2)})
print(f"1 thread {medians[1]:.1f} ms, 2 threads {medians[2]:.1f} ms", end="")
print(f": {medians[1] / medians[2]:.2f} times as fast (granted here: {many})")

# %% [markdown]
# Two threads share the way to memory, so expect less than 2.
#
# ## Fewer multiplications than the definition
#
# Two neighbouring results of a kernel with three taps read four pixels d0 … d3:
#
#     y0 = d0·w0 + d1·w1 + d2·w2
#     y1 = d1·w0 + d2·w1 + d3·w2
#
# That is 6 products. Four are enough:
#
#     m1 = (d0 − d2) · w0              m2 = (d1 + d2) · (w0 + w1 + w2)/2
#     m4 = (d1 − d3) · w2              m3 = (d2 − d1) · (w0 − w1 + w2)/2
#
#     y0 = m1 + m2 + m3                y1 = m2 − m3 − m4
#
# Try it on paper: m2 + m3 is d2·(w0 + w2) + d1·w1, and m1 makes up for the rest.


# %%
def two_results(d, w):
    """d (4,), w (3,) -> (2,)"""
    m1 = (d[0] - d[2]) * w[0]
    m2 = (d[1] + d[2]) * ((w[0] + w[1] + w[2]) / 2)
    m3 = (d[2] - d[1]) * ((w[0] - w[1] + w[2]) / 2)
    m4 = (d[1] - d[3]) * w[2]
    return np.array([m1 + m2 + m3, m2 - m3 - m4])


d, taps = np.array([3.0, 1, 4, 1]), np.array([5.0, 9, 2])
print(two_results(d, taps), "=", np.correlate(d, taps))
assert np.array_equal(two_results(d, taps), np.correlate(d, taps))

# %% [markdown]
# The sums of w are made once for each kernel. The sums of d are made once and serve all K
# kernels. With many channels it is the products that cost.
#
# Shmuel Winograd showed how far this goes: m results of r taps need m + r − 1 products,
# written F(m, r). In two dimensions both counts are squared. The library takes F(4×4,
# 3×3). Three small matrices say which sums to make: Bᵀ those of the pixels, G those of
# the weights, Aᵀ those of the products. (Above, the rows of Bᵀ are 1 0 −1 0, 0 1 1 0,
# 0 −1 1 0 and 0 1 0 −1. The three for F(4×4, 3×3) are taken from Lavin and Gray, below.)
#
#     y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A       d 6×6, w 3×3, y 4×4; ⊙ entry by entry

# %%
from minifcn.ops.conv.winograd import A_T, B_T, G

A_T, B_T, G = np.array(A_T), np.array(B_T), np.array(G)
d, kernel = rng.normal(size=(6, 6)), rng.normal(size=(3, 3))
tile = A_T @ ((G @ kernel @ G.T) * (B_T @ d @ B_T.T)) @ A_T.T  # (4, 4)
expected = (sliding_window_view(d, (3, 3)) * kernel).sum(axis=(2, 3))
assert np.allclose(tile, expected, rtol=0, atol=1e-12)
print("products by the definition:", 4 * 4 * 3 * 3, " by Winograd:", (4 + 3 - 1) ** 2)

# %% [markdown]
# Going back, the backward of a matrix is its transpose. Through the ⊙ each factor gets dy
# times the other, as in lesson 3. Winograd has a price: the matrices hold numbers such as
# 8 and 1/24, and subtract what they made large. In float32 that costs about a digit. Here
# are both ways on several shapes, the errors against float64, and the library's choice.

# %%
from minifcn.ops.conv.choice import choose
from minifcn.ops.geometry import window

print("  C →   K  side    im2col   winograd  ratio   errors       chosen")
shapes = (3, 64, 128), (16, 16, 128), (64, 64, 128), (256, 256, 32), (512, 512, 8)
for C, K, side in shapes:
    maps = rng.standard_normal((1, C, side, side), np.float32)
    taps = rng.standard_normal((K, C, 3, 3), np.float32)
    exact = by("im2col", maps.astype(float), taps.astype(float))
    errors, works = [], {}
    for way in ("im2col", "winograd"):
        works[way] = lambda way=way, maps=maps, taps=taps: by(way, maps, taps)
        errors.append(np.linalg.norm(works[way]() - exact) / np.linalg.norm(exact))
        assert errors[-1] < 1e-5
    t = race(works, rounds=3)
    shape = window("conv2d", (3, 3), 1, 1, 1, 1, (side, side))
    chosen = choose(shape, taps.shape, 1).__name__.split(".")[-1]
    one, two, (e1, e2) = t["im2col"], t["winograd"], errors
    print(f"{C:3d} → {K:3d} {side:5d} {one:6.2f} ms {two:6.2f} ms", end="")
    print(f"{one / two:7.2f}   {e1:.0e} {e2:.0e}  {chosen}")

# %% [markdown]
# A ratio above 1 is Winograd's win. It loses where channels are few: there the time goes
# into the sums. It also loses where pixels are few: the kernels must be transformed, too.
# In between, where networks spend their time, it should win.
#
# ## Small layers
#
# On small maps the time is in calling: checking shapes, allocating, waking a thread. How
# much is that? Convolve a single pixel:

# %%
dot, tap = np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 3, 3), np.float32)
fixed = race({"one pixel": lambda: [by("im2col", dot, tap) for _ in range(100)]})
each = 10 * fixed["one pixel"]  # microseconds of one
print(f"a convolution of one pixel: {each:.1f} µs", end="")
print(f", in which sgemm does {each * ceiling / 1e3:.1f} million operations")

# %% [markdown]
# The remedies: fewer threads, several operations joined into one, larger batches.
#
# ## Exercises
#
# Replace the dots and run the cell again. More stars, more work.
#
# **1.** ★ Winograd's F(6×6, 3×3) makes a tile of 6×6 results at once. How many times as
# many products does the definition need?
#
# **2.** ★★ A step takes 80 ms, and 60 % of it are convolutions. How many times as fast
# must they become, so that the step takes 40 ms?
#
# **3.** ★★ Write a function `(ours, theirs)` of two lists of seconds in the order of
# their measurement, perhaps not equally long. The first of each is the warm-up. Return
# how many times as long ours takes, by the rules of "Measure fairly".

# %%
import answers

answers.check("18.1", ...)
answers.check("18.2", ...)
answers.check("18.3", ...)

# %% [markdown]
# ## In practice
#
# - `MINIFCN_THREADS=4` says how many threads; by default, what the machine grants.
# - `minifcn explain` counts multiply-adds and memory of a network without running it.
# - `python benchmarks/profile_layers.py mini` is the profile above for three networks.
# - `python benchmarks/cpu.py` times this library beside PyTorch by the rules above.
#
# ## Further reading
#
# - A. Lavin, S. Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016,
#   <https://arxiv.org/abs/1509.09308>: the three matrices.
# - K. Goto, R. van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, ACM
#   TOMS 2008: why BLAS is made of tiles, too.
# - S. Williams, A. Waterman, D. Patterson, *Roofline*, CACM 2009: arithmetic or memory?
# - In the code: `minifcn/ops/conv/choice.py`, `im2col.py`, `winograd.py`; and
#   `benchmarks/README.md`, with what was tried in vain.
