# %% [markdown]
# # 5. Upsample
#
# **You will** enlarge a coarse map in three ways that turn out to be one, derive the
# kernel that interpolates, provoke checkerboards and get rid of them, and train an
# upsampling layer against a fixed one.
#
# **You will learn** what a transposed convolution is, why it is called that, where its
# gradients come from, and why the authors of FCN froze theirs.
#
# **You need** lesson 3 (a convolution and its backward).
#
# **It takes** 30 minutes to read and ten seconds to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## Seven by seven
#
# A network for images makes its maps smaller and smaller, so the scores at its end are
# coarse: one number per class for every 8 pixels in lesson 4, for every 32 in VGG16. To
# label every pixel we must get back up. How?
#
# Let us make the best coarse scores there can be, from the truth itself: for every cell
# of 16×16 pixels, the share of each class. A label of 112×112 has seven by seven such
# cells.

# %%
import numpy as np

from minifcn.data.toyvoc import CLASSES, draw_scene

C = len(CLASSES)


def shares(label, s):
    """How much of each cell of s×s pixels is which class.   (H, W) -> (C, H/s, W/s)"""
    height, width = label.shape
    one_hot = label == np.arange(C)[:, None, None]  # (C, H, W); void is in no class
    return one_hot.reshape(C, height // s, s, width // s, s).mean(axis=(2, 4))


_, label = draw_scene(np.random.default_rng(16), 128)
label = label[:112, :112]
coarse = shares(label, 16)
print("label", label.shape, "  coarse scores", coarse.shape)

# %% [markdown]
# The simplest way up repeats each number. Say it like this: every coarse pixel has a
# *stamp*, a square of 16×16 ones. It presses the stamp down at its place, multiplied by
# its value. Written so, one can take other stamps, larger ones too. Where stamps
# overlap, they add up.


# %%
def stamp(x, kernel, s):
    """Every x[i, j] adds its kernel at (i·s, j·s).   (H, W), (k, k) -> (Ho, Wo)"""
    (height, width), k = x.shape, len(kernel)
    y = np.zeros(((height - 1) * s + k, (width - 1) * s + k))
    for i in range(height):
        for j in range(width):
            y[i * s : i * s + k, j * s : j * s + k] += x[i, j] * kernel
    return y


nearest = np.stack([stamp(scores, np.ones((16, 16)), 16) for scores in coarse])
assert np.array_equal(nearest, coarse.repeat(16, axis=1).repeat(16, axis=2))

# %% [markdown]
# This operation, stamps s apart, added up, is the *transposed convolution*. Nearest
# neighbour is one, with a stamp of ones as large as the stride. Its steps are hard;
# what would a soft stamp look like?
#
# ## The tent
#
# Between two coarse values, a straight line should lead from one to the other. So a
# value's influence is 1 at its own place, falls evenly, and is 0 where its neighbour
# stands, at distance s. That is a tent. At any point two tents overlap; when one is at
# 1 − t, the other is at t, and that is linear interpolation.
#
# Where are the fine pixels? Let the tent cover k of them, symmetrically. Let c be its
# middle, counted in pixels from the first, and f the distance from the middle to where
# the tent is 0:
#
# - k odd: the middle is a pixel. The tent falls to 0 within f steps of one pixel, and
#   f − 1 pixels on each side are above zero: k = 2f − 1, c = f − 1.
# - k even: the middle lies between two pixels, half a step from each. There are f
#   pixels on each side: k = 2f, c = f − ½.
#
# Either way f = ⌊(k + 1)/2⌋, and
#
#     tent[i] = 1 − |i − c| / f


# %%
def tent(k):
    """The interpolating kernel of k pixels, along one axis.   -> (k,)"""
    f = (k + 1) // 2
    c = f - 1 if k % 2 else f - 0.5
    return 1 - np.abs(np.arange(k) - c) / f


from minifcn.layers.init import bilinear_1d

for k in (3, 4, 5, 6, 16):
    assert np.allclose(tent(k), bilinear_1d(k))
print("×2:", tent(4), "  ×3:", tent(5).round(2))

# %% [markdown]
# To enlarge s times, neighbours stand s fine pixels apart. So f = s, and k = 2s, or
# k = 2s − 1. The article's networks take 2s: 4 for ×2, 16 for ×8, 64 for ×32. Here are
# the tents of four values at ×8, and their sum.

# %%
import matplotlib.pyplot as plt

values, s = np.array([1.0, 3.0, 2.0, 2.5]), 8
single = [np.zeros(3 * s + 2 * s) for _ in values]
for i, value in enumerate(values):
    single[i][i * s : i * s + 2 * s] += value * tent(2 * s)
total = np.sum(single, axis=0)  # (5·s,)
places = np.arange(len(values)) * s + s - 0.5  # the middles of the tents

figure, panel = plt.subplots(figsize=(7, 2.9))
for line, colour in zip(single, ("C0", "C1", "C2", "C4"), strict=True):
    panel.fill_between(range(5 * s), line, color=colour, alpha=0.25, lw=0)
panel.plot(total, "k.-", ms=5, lw=1, label="sum of the tents")
panel.plot(places, values, "rs", ms=7, label="coarse values")
panel.set(xlabel="fine pixel", ylabel="value", ylim=(0, 4))
panel.legend(loc="upper right", frameon=False)
lesson.show(figure, "05_tents")

inside = slice(s, -s)
straight = np.interp(np.arange(5 * s), places, values)
assert np.allclose(total[inside], straight[inside])  # linear interpolation
for s in (2, 3, 4, 8, 16, 32):  # tents s apart add up to 1 everywhere inside
    assert np.allclose(tent(2 * s).reshape(2, s).sum(axis=0), 1)

# %% [markdown]
# Inside, the sum *is* linear interpolation, because the tents add up to 1 at every
# pixel. (The red squares stand between two pixels, as k is even. So no pixel shows
# quite the value of a peak.) Towards the ends it falls to nothing: the neighbours that
# should share the work are missing. FCN cuts such margins off or never gets to see them
# (lesson 6).
#
# In two dimensions, a tent down times a tent across is the *bilinear* kernel. Here it
# is at work, stamp by stamp.

# %%
bilinear = np.outer(tent(8), tent(8))  # (8, 8), for ×4
x = np.array([[1.0, 0.3, 0.8], [0.5, 0.1, 0.9], [0.2, 1.0, 0.4]])
order = np.arange(9).reshape(3, 3)

steps = {"coarse": x}
for count, title in ((1, "one stamp"), (2, "two"), (9, "all nine")):
    steps[title] = stamp(np.where(order < count, x, 0), bilinear, 4)
figure, axes = plt.subplots(1, 4, figsize=(7, 2.1))
for panel, (title, y) in zip(axes, steps.items(), strict=True):
    panel.imshow(y, cmap="viridis", vmin=0, vmax=1)
    panel.set_title(title)
    panel.set_axis_off()
lesson.show(figure, "05_stamps")

# %% [markdown]
# The library's transposed convolution does this for all channels at once, with a `pad`
# that cuts so many pixels off each side. With k = 2s and pad s/2, the output is exactly
# s times as large. Now the labels. By truth, by nearest, by bilinear:

# %%
from minifcn import ops
from minifcn.data.labels import colourise

kernel = np.outer(tent(32), tent(32))[None, None]  # (1, 1, 32, 32)
maps = coarse[:, None]  # (C, 1, 7, 7): every class as an image of its own
smooth, _ = ops.conv_transpose2d_forward(maps, kernel, stride=16, pad=8)
smooth = smooth[:, 0]  # (C, 112, 112)
assert np.allclose(smooth[2], stamp(coarse[2], kernel[0, 0], 16)[8:-8, 8:-8])

guesses = {"nearest": nearest, "bilinear": smooth}
guesses = {name: maps.argmax(axis=0).astype(np.uint8) for name, maps in guesses.items()}
for name, guess in guesses.items():
    right = np.mean((guess == label)[label != 255])
    print(f"{name:9s} ×16: {100 * right:.1f} % of the pixels right")
lesson.pictures(
    "05_labels",
    [{"truth": colourise(label), **{n: colourise(g) for n, g in guesses.items()}}],
    legend=np.unique(
        [*np.unique(label), *(k for g in guesses.values() for k in np.unique(g))]
    ),
    classes=CLASSES,
)

# %% [markdown]
# The first outline is made of cells, the second bends. Bilinear is better and costs
# little. It cannot find what the coarse map has lost; for that, the article adds skips
# (lesson 8).
#
# (The outer half cell is scaled down, like the ends of the tents above. But all classes
# are scaled alike, so the winner is the same.)
#
# ## Why "transposed"
#
# A convolution is linear, so it is a matrix. Here is the one of a 4-tap kernel with
# stride 2, from 10 fine values down to 4 coarse ones: a row for each output.

# %%
M = np.zeros((4, 10))
for i in range(4):
    M[i, 2 * i : 2 * i + 4] = tent(4)
print(str(M).replace("0.  ", ".   "))

fine, small = np.arange(10.0) ** 2, np.array([3.0, 1, 4, 1])
line = tent(4)[None, None, None]  # (1, 1, 1, 4)
down, cache = ops.conv2d_forward(fine[None, None, None], line, stride=(1, 2))
assert np.allclose(down[0, 0, 0], M @ fine)

up, _ = ops.conv_transpose2d_forward(small[None, None, None], line, stride=(1, 2))
assert np.allclose(up[0, 0, 0], M.T @ small)
assert np.allclose(up, ops.conv2d_backward(small[None, None, None], cache)[0])

# %% [markdown]
# Read M by rows: each output collects from four inputs. The *transpose* has these rows
# as its columns. So Mᵀ takes each coarse value, multiplies its row of M by it, and lays
# it down at its place. That is the stamp. And it is an old friend: the transpose of the
# forward is what carries dy back to dx. **A transposed convolution is a convolution's
# backward pass, used as a forward.** The last line says so.
#
# (The name "deconvolution", which the article uses too, promises more: it does not undo
# a convolution.)
#
# The transpose of a matrix has a signature: (M a)·b = a·(Mᵀ b), for any a and b. It can
# be tested without ever building M, to the last digit of float64. (For arrays of any
# shape ⟨a, b⟩ is the same: multiply entry by entry, add up.)

# %%
rng = np.random.default_rng(0)
off = []
for _ in range(20):
    x = rng.normal(size=(2, 3, 8, 10))  # (N, C, H, W)
    w = rng.normal(size=(5, 3, 4, 4))  # (K, C, kh, kw)
    y, _ = ops.conv2d_forward(x, w, stride=2, pad=1)  # (2, 5, 4, 5)
    g = rng.normal(size=y.shape)
    back, cache = ops.conv_transpose2d_forward(g, w, stride=2, pad=1)  # (2, 3, 8, 10)
    one, other = np.sum(y * g), np.sum(x * back)
    off.append(abs(one - other) / (np.linalg.norm(y) * np.linalg.norm(g)))

print(f"⟨conv x, g⟩  = {one:.13f}\n⟨x, convᵀ g⟩ = {other:.13f}")
print(f"greatest relative difference of 20: {max(off):.0e}")
assert max(off) < 1e-15

# %% [markdown]
# Its own backward comes for free. The transpose of a transpose is the matrix itself: dx
# is a plain convolution of dy. And for dw, the rule of lesson 3 holds: w[u, v] collects
# its share from everything that it multiplied. The meetings are the same, but the two
# maps have exchanged their roles: the coarse one, g here, is now the input.

# %%
dy = rng.normal(size=back.shape)
dx, dw, _ = ops.conv_transpose2d_backward(dy, cache)
assert np.allclose(dx, ops.conv2d_forward(dy, w, stride=2, pad=1)[0])

_, exchanged = ops.conv2d_forward(dy, w, stride=2, pad=1)  # dy in x's place …
assert np.allclose(dw, ops.conv2d_backward(g, exchanged)[1])  # … g in dy's

# %% [markdown]
# ## Checkerboards
#
# Nothing forces the stamps to be tents. Networks that learn them often paint fine
# chequered patterns over their results. To see why, count: how many stamps does a fine
# pixel get?

# %%
flat = np.ones((5, 5))  # a coarse map without any pattern
views = {
    "k=3, s=2": stamp(flat, np.ones((3, 3)), 2)[2:8, 2:8],
    "k=4, s=2": stamp(flat, np.ones((4, 4)), 2)[2:8, 2:8],
    "k=4, random": stamp(flat, rng.uniform(size=(4, 4)), 2)[2:8, 2:8],
    "k=4, bilinear": stamp(flat, np.outer(tent(4), tent(4)), 2)[2:8, 2:8],
}
figure, axes = plt.subplots(1, 4, figsize=(7, 2.2))
for panel, (title, y) in zip(axes, views.items(), strict=True):
    panel.imshow(y / y.mean(), cmap="gray", vmin=0, vmax=2)
    panel.set_title(title)
    panel.set_axis_off()
    for (i, j), stamps in np.ndenumerate(y):
        if "s=2" in title:
            ink = "k" if stamps >= y.mean() else "w"
            panel.text(j, i, int(stamps), ha="center", va="center", color=ink)
lesson.show(figure, "05_checkerboards")

assert set(views["k=3, s=2"].ravel()) == {1, 2, 4}
assert set(views["k=4, s=2"].ravel()) == {4} and np.allclose(views["k=4, bilinear"], 1)

# %% [markdown]
# With three taps and stride 2, every second row and column gets two stamps, the others
# one: 4, 2 or 1 in the plane. Four taps divide evenly, and every pixel gets four.
#
# But evenly many is not yet evenly *much*: the third picture, a random kernel, is
# chequered too. In one dimension, with stride s, fine pixel i is reached by the taps
# i mod s, i mod s + s, … , one *phase* of the kernel. A flat map stays flat if the taps
# of every phase have the same sum. The tents have: each phase sums to 1.
#
# So there are two ways out:
#
# 1. choose k divisible by s, and start from the bilinear kernel (or stay there);
# 2. enlarge by a fixed kernel first, then convolve with a learned one at stride 1,
#    which treats all pixels alike.
#
# The second holds for any kernel whatever:

# %%
fixed_first = stamp(flat, np.ones((2, 2)), 2)[None, None]  # (1, 1, 10, 10)
any_kernel = rng.normal(size=(1, 1, 3, 3))
y, _ = ops.conv2d_forward(fixed_first, any_kernel)
assert np.allclose(y, any_kernel.sum())  # flat, whatever the kernel

# %% [markdown]
# Turn this round for the gradient: the dx of a convolution with three taps and stride 2
# has the same checkerboard. You saw it in lesson 3, as counts.
#
# ## Learned against fixed
#
# Should one learn the stamps? The authors of FCN did so at first, and fixed them in the
# code that they published: no significant difference, they report. Let us try: enlarge
# coarse scores ×4, by a kernel for each class (8×8). The scores are logarithms of the
# shares, with noise on top, since a network is never sure. The loss is *cross-entropy*:
# turn a pixel's scores into probabilities (exp, then divide by their sum: *softmax*),
# and take −log of the true class's. Its gradient by the scores is strikingly simple:
# the probabilities, minus 1 at the true class. (Lesson 10 says more.)


# %%
def scenes(count, seed, noise):
    """-> coarse scores (count, C, 16, 16), labels (count, 64, 64)"""
    maps, labels = [], []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        label = draw_scene(rng, 96)[1][4:68, 4:68]
        scores = np.log(shares(label, 4) + 0.02)
        maps.append(scores + noise * rng.normal(size=scores.shape))
        labels.append(label)
    return np.stack(maps).astype(np.float32), np.stack(labels)


def cross_entropy(scores, labels):
    """Mean loss over pixels that are not void, and its gradient by the scores."""
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)  # (N, C, H, W)
    truth = labels[:, None] == np.arange(C)[:, None, None]  # (N, C, H, W)
    counts = labels[:, None] != 255
    loss = -np.log(chances[truth]).sum() / counts.sum()
    return loss, (chances - truth) * counts / np.float32(counts.sum())


def enlarge(maps, w):
    """×4, every class by itself (groups=C).   w (C, 1, 8, 8)"""
    return ops.conv_transpose2d_forward(maps, w, stride=4, pad=2, groups=C)


def learn(w, maps, labels, steps=70, rate=0.5):
    """Follow the gradient, 0.9 of the last step's way included (momentum).   -> w"""
    velocity = 0
    for _ in range(steps):
        y, cache = enlarge(maps, w)
        _, dy = cross_entropy(y, labels)
        _, dw, _ = ops.conv_transpose2d_backward(dy, cache)
        velocity = 0.9 * velocity + rate * dw
        w = w - velocity
    return w


# %%
from minifcn.metrics import ConfusionMatrix

frozen = np.tile(np.outer(tent(8), tent(8)).astype(np.float32), (C, 1, 1, 1))
random = 0.1 * np.random.default_rng(3).standard_normal((C, 1, 8, 8), np.float32)
kernels, judged = {}, {}
for noise in (1, 2):
    maps, labels = scenes(20, 1, noise)
    new_maps, new_labels = scenes(50, 2, noise)  # never seen in training
    for name, w in {
        "frozen": frozen,
        "from bilinear": learn(frozen, maps, labels),
        "from random": learn(random, maps, labels),
    }.items():
        y, _ = enlarge(new_maps, w)
        matrix = ConfusionMatrix(C)
        matrix.update(new_labels, y.argmax(axis=1).astype(np.uint8))
        kernels[name, noise], judged[name, noise] = w, matrix.mean_iou()
        loss, _ = cross_entropy(y, new_labels)
        iou = f"mean IoU {100 * matrix.mean_iou():5.1f} %"
        print(f"noise {noise}  {name:14s} loss {loss:.3f}  {iou}")

assert abs(judged["from bilinear", 1] - judged["frozen", 1]) < 0.03
assert judged["from bilinear", 2] > judged["frozen", 2] + 0.03

# %%
figure, axes = plt.subplots(1, 4, figsize=(7, 2.2))
ranges = []
choice = [("frozen", 1), ("from bilinear", 1), ("from random", 1), ("from bilinear", 2)]
for panel, (name, noise) in zip(axes, choice, strict=True):
    mean = kernels[name, noise].mean(axis=0)[0]  # (8, 8), over the classes
    panel.imshow(mean / mean.max(), cmap="gray", vmin=0, vmax=1)
    panel.set_title("frozen" if name == "frozen" else f"{name},\nnoise {noise}")
    panel.set_axis_off()
    phases = mean.reshape(2, 4, 2, 4).sum(axis=(0, 2))  # (4, 4)
    print(f"{name:14s} noise {noise}: a flat map of ones becomes", end=" ")
    print(f"{phases.min():.2f} to {phases.max():.2f}")
    ranges.append(np.ptp(phases))
lesson.show(figure, "05_kernels")
assert ranges[0] < 1e-6 < min(ranges[1:]) and max(ranges) == ranges[2]

# %% [markdown]
# With little noise, the authors are right. Learning lowers the loss a lot, and leaves
# the mean IoU where it was, to about a point. The kernels *grew*: a flat map comes out
# two or three times as high. (The pictures do not show it: each is scaled to its own
# brightest weight.) That makes every score more decided and changes few winners. From a
# random start one arrives at about the same loss, with the same kind of stamp, bright
# in the middle. And look at the ranges: no learned kernel is quite free of a pattern,
# the one from a random start least of all.
#
# With more noise the learned kernels win clearly: they are wider, and blur the noise
# away. But here nothing else could do that. In a real FCN everything below is trained
# *through* the frozen kernel, and can learn to give it what it needs. So little is lost
# by freezing, and a frozen kernel cannot paint checkerboards.
#
# ## Diagonal is enough
#
# The article's deconvolutions lead from 21 maps to 21 maps: a kernel for each *pair* of
# classes, 21 × 21 × k × k weights. Only the diagonal holds the bilinear kernel; the
# rest is zero and frozen. Multiplying by all those zeros is work all the same. With one
# kernel for each class, *depthwise* (`groups=C`), it is C times less, and the result is
# the same.

# %%
import time

from minifcn.layers.init import bilinear

full = bilinear(21, 16)  # (21, 21, 16, 16): zero off the diagonal
diagonal = full[range(21), range(21)][:, None]  # (21, 1, 16, 16)
maps = rng.standard_normal((1, 21, 30, 30)).astype(np.float32)


def timed(**how):
    """-> the enlarged maps and the median of five runs, in milliseconds"""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        y, _ = ops.conv_transpose2d_forward(maps, stride=8, pad=4, **how)
        seconds.append(time.perf_counter() - start)
    return y, 1e3 * np.median(seconds[1:])


one, slow = timed(w=full)
other, fast = timed(w=diagonal, groups=21)
assert np.allclose(one, other, atol=1e-6)
for name, w, ms in (("full", full, slow), ("diagonal", diagonal, fast)):
    print(f"{name:9s} {w.size * 30 * 30 / 1e6:6.1f} million products {ms:8.1f} ms")
assert full.size == 21 * diagonal.size

# %% [markdown]
# A bilinear kernel is even the product of two tents, so a map can be enlarged first
# along its columns, then along its rows. `ops.upsample_forward` does that, as two
# matrix products. It is what this library's FCN runs.

# %%
y, _ = ops.upsample_forward(maps, tent(16).astype(np.float32), stride=8, pad=4)
assert np.allclose(y, one, atol=1e-6)

# %% [markdown]
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** FCN-8s ends with a bilinear kernel of size 16. What is the largest of its
# 16 × 16 weights?
#
# **2.** A kernel of 5 taps, stride 2, one dimension: how many stamps do the fine pixels
# get, away from the ends? Give the two counts as a tuple, the smaller first.
#
# **3.** Write a function `(kernel, s)` of a one-dimensional kernel and a stride that
# returns True if a constant map stays constant away from the ends, and False if there
# will be a pattern. The kernel's size need not be divisible by s.

# %%
import answers

answers.check("05.1", ...)
answers.check("05.2", ...)
answers.check("05.3", ...)

# %% [markdown]
# ## In practice
#
# - `models.fcn(...)` enlarges by frozen bilinear kernels, as the published networks do.
#   `minifcn explain` shows what that costs.
# - Loading weights of another code: a frozen deconvolution may be stored as the full
#   array, mostly zeros. It is no error that it has as many numbers as classes squared.
# - Chequered predictions? Look first at kernel and stride of whatever enlarges.
# - `--upsampling learned` lets `minifcn train` learn the kernels, from the bilinear
#   ones.
# - Enlarge *scores* smoothly, and take the argmax afterwards. Labels cannot be
#   interpolated (lesson 1).
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, *Fully Convolutional Networks for Semantic
#   Segmentation*, CVPR 2015, sections 3.3 and 4.3.
# - A. Odena, V. Dumoulin, C. Olah, *Deconvolution and Checkerboard Artifacts*, Distill,
#   2016.
# - In the code: `minifcn/ops/conv/conv2d.py`, `minifcn/ops/upsample.py`,
#   `minifcn/layers/init.py`.
