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
# **It takes** 30 minutes to read and twenty seconds to run.

# %%
import numpy as np

import lesson
from minifcn.data.toyvoc import CLASSES, draw_scene

C = len(CLASSES)


def stamp(x, kernel, s):
    """Every x[i, j] adds its kernel at (i·s, j·s).   (H, W), (k, k) -> (Ho, Wo)"""
    (H, W), k = x.shape, len(kernel)
    y = np.zeros(((H - 1) * s + k, (W - 1) * s + k))
    for i in range(H):
        for j in range(W):
            y[i * s : i * s + k, j * s : j * s + k] += x[i, j] * kernel
    return y


def tent(k):
    """The interpolating kernel of k pixels, along one axis, derived below.   -> (k,)"""
    f = (k + 1) // 2
    middle = f - 1 if k % 2 else f - 0.5
    return 1 - np.abs(np.arange(k) - middle) / f


# %% tags=["hide-input"]
bump = np.exp(-3 * (np.mgrid[-1:1:12j, -1:1:12j] ** 2).sum(axis=0))  # a coarse map
drawn = np.random.default_rng(1)
views = {
    "coarse": bump,
    "stamps of 2 × 2": stamp(bump, np.ones((2, 2)), 2),
    "random, 3 × 3": stamp(bump, drawn.uniform(size=(3, 3)), 2),
    "tents, 4 × 4": stamp(bump, np.outer(tent(4), tent(4)), 2)[1:-1, 1:-1],
}
caption = "A coarse map, enlarged in three ways: blocks, a checkerboard, and smooth."
lesson.pictures("05_three_ways", [views], caption=caption)

# %% [markdown]
# The scores at the end of a network are coarse: one for every 8 pixels in lesson 4, for
# every 32 in VGG16. To label every pixel we must get back up. Above is one coarse map,
# enlarged by one and the same operation with three kernels. Two of them go wrong.
#
# ## Stamps
#
# The simplest way up repeats each number. Say it like this: every coarse value presses a
# *stamp* down at its place, a square of ones, times the value. One can take other stamps,
# larger ones too. Where stamps overlap, they add up. That is `stamp` above. At stride 2,
# with stamps of 3 × 3 and 2 × 2:

# %%
print(stamp(np.array([[1, 2], [3, 4]]), np.ones((3, 3)), 2).astype(int))
print(stamp(np.array([[1, 2], [3, 4]]), np.ones((2, 2)), 2).astype(int))

# %% [markdown]
# In the first, neighbours overlap and add: 1 + 2 = 3, and 10 where all four meet. This
# operation, stamps that lie s apart, added up, is the *transposed convolution*. The
# second is nearest neighbour. Its steps are hard. What would a soft stamp look like?
#
# ## The tent
#
# Between two coarse values, a straight line should lead from one to the other. So a
# value's influence is 1 at its own place, falls evenly, and is 0 where its neighbour
# stands, at distance s. That is a tent. At any point two tents overlap. When one is at
# 1 − t, the other is at t, and that is linear interpolation.
#
# Where are the fine pixels? Let the tent cover k of them, symmetrically. Let m be its
# middle, counted in pixels from the first, and f the distance from the middle to where
# the tent is 0:
#
# - k odd: the middle is a pixel. On each side f − 1 pixels are above zero: k = 2f − 1,
#   m = f − 1.
# - k even: the middle lies between two pixels, half a step from each. There are f
#   pixels on each side: k = 2f, m = f − ½.
#
# Either way f = ⌊(k + 1)/2⌋, and tent[i] = 1 − |i − m| / f. To enlarge s times,
# neighbours stand s fine pixels apart. So f = s, and k = 2s, or k = 2s − 1. The article's
# networks take 2s: 4 for ×2, 16 for ×8, 64 for ×32. Here are the tents of four values at
# ×8, and their sum.

# %%
from minifcn.layers.init import bilinear_1d

for k in (3, 4, 5, 6, 16):
    assert np.allclose(tent(k), bilinear_1d(k))  # the library's
print("×2:", tent(4), "  ×3:", tent(5).round(2))
values, s = np.array([1.0, 3.0, 2.0, 2.5]), 8
total = np.zeros(5 * s)
for i, value in enumerate(values):
    total[i * s : i * s + 2 * s] += value * tent(2 * s)
middles = np.arange(len(values)) * s + s - 0.5
straight = np.interp(np.arange(5 * s), middles, values)
assert np.allclose(total[s:-s], straight[s:-s])  # linear interpolation
for s in (2, 3, 4, 8, 16, 32):  # tents s apart add up to 1 everywhere inside
    assert np.allclose(tent(2 * s).reshape(2, s).sum(axis=0), 1)

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

figure, panel = plt.subplots(figsize=(7, 2.9))
line = np.linspace(-1, 40, 2000)
for value, middle in zip(values, middles, strict=True):
    height = value * np.maximum(0, 1 - np.abs(line - middle) / 8)
    panel.fill_between(line, height, alpha=0.25, lw=0)
panel.plot(range(40), total, "k.-", ms=5, lw=1, label="sum of the tents, at the pixels")
panel.plot(middles, values, "rs", ms=7, label="coarse values")
panel.set(xlabel="fine pixel", ylabel="value", ylim=(0, 4.3))
panel.legend(loc="upper right", frameon=False, ncols=2)
caption = "Four coarse values, their tents, and the sum: straight lines between them."
lesson.show(figure, "05_tents", caption)

# %% [markdown]
# Inside, the sum *is* linear interpolation, because the tents add up to 1 at every
# pixel. (The red squares stand between two pixels, as k is even.) Towards the ends it
# falls to nothing: neighbours are missing. FCN cuts such margins off (lesson 6).
#
# In two dimensions, a tent down times a tent across is the *bilinear* kernel. Here it
# is at work, stamp by stamp.

# %% tags=["hide-input"]
x = np.array([[1.0, 0.3, 0.8], [0.5, 0.1, 0.9], [0.2, 1.0, 0.4]])
order, row = np.arange(9).reshape(3, 3), {"coarse": x}
for count, title in ((1, "one stamp"), (2, "two"), (9, "all nine")):
    row[title] = stamp(np.where(order < count, x, 0), np.outer(tent(8), tent(8)), 4)
caption = "Nine stamps of 8 × 8, 4 pixels apart, landing one by one."
lesson.pictures("05_stamps", [row], caption=caption, cmap="viridis", vmin=0, vmax=1)

# %% [markdown]
# The library's transposed convolution does this for all channels at once. Its `pad` cuts
# pixels off each side: with k = 2s and pad s/2, the output is exactly s times as large.
#
# Now labels. Take good coarse scores, from the truth itself: for every cell of 16 × 16
# pixels, the share of each class. (Not the best there are: lesson 9 looks for those.)

# %%
from minifcn import ops
from minifcn.data.labels import colourise


def shares(label, s):
    """How much of each cell of s×s pixels is which class.   (H, W) -> (C, H/s, W/s)"""
    H, W = label.shape
    one_hot = label == np.arange(C)[:, None, None]  # (C, H, W); void is in no class
    return one_hot.reshape(C, H // s, s, W // s, s).mean(axis=(2, 4))


kernel = np.outer(tent(32), tent(32))[None, None]  # (1, 1, 32, 32)
right = {"nearest": [], "bilinear": []}
for seed in range(30):
    label = draw_scene(np.random.default_rng(seed), 144)[1][:96, :96]
    coarse = shares(label, 16)  # (C, 6, 6)
    nearest = coarse.repeat(16, axis=1).repeat(16, axis=2)
    # every class as an image of its own
    y, _ = ops.conv_transpose2d_forward(coarse[:, None], kernel, stride=16, pad=8)
    guesses = {}
    for name, scores in (("nearest", nearest), ("bilinear", y[:, 0])):
        guesses[name] = scores.argmax(axis=0).astype(np.uint8)
        right[name].append(np.mean((guesses[name] == label)[label != 255]))
    if seed == 16:
        shown = {"truth": label} | guesses
        assert np.allclose(y[2, 0], stamp(coarse[2], kernel[0, 0], 16)[8:-8, 8:-8])
for name, share in right.items():
    print(f"{name:9s}×16, 30 scenes: {100 * np.mean(share):.1f} % of the pixels right")
assert np.mean(right["bilinear"]) > np.mean(right["nearest"]) + 0.005

# %% tags=["hide-input"]
row = {name: colourise(labels) for name, labels in shown.items()}
legend = {"legend": np.unique(list(shown.values())), "classes": CLASSES}
lesson.pictures("05_labels", [row], caption="Cells of 16 pixels, enlarged.", **legend)

# %% [markdown]
# Bilinear is better. What the coarse map has lost it cannot find (lesson 10).
#
# ## Why "transposed"
#
# A convolution is linear, so it is a matrix. Here is that of a 4-tap kernel with
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
# it down at its place. That is the stamp. And the transpose of the forward is what
# carries dy back to dx. **A transposed convolution is a convolution's backward pass, used
# as a forward.** The last line says so. (The article's name, "deconvolution", promises
# more: it does not undo a convolution.)
#
# The transpose of a matrix has a signature: (M a)·b = a·(Mᵀ b), for any a and b. It can
# be tested without ever building M. (For arrays ⟨a, b⟩ is the sum of the products.)

# %%
rng = np.random.default_rng(0)
x = rng.normal(size=(2, 3, 8, 10))  # (N, C, H, W)
w = rng.normal(size=(5, 3, 4, 4))  # (K, C, k, k)
y, _ = ops.conv2d_forward(x, w, stride=2, pad=1)  # (2, 5, 4, 5)
g = rng.normal(size=y.shape)
back, cache = ops.conv_transpose2d_forward(g, w, stride=2, pad=1)  # (2, 3, 8, 10)
print(f"⟨conv x, g⟩  = {np.sum(y * g):.12f}\n⟨x, convᵀ g⟩ = {np.sum(x * back):.12f}")
assert abs(np.sum(y * g) - np.sum(x * back)) < 1e-11

# %% [markdown]
# Its own backward comes for free. The transpose of a transpose is the matrix itself: dx
# is a plain convolution of dy. And for dw, each weight collects its share as in lesson
# 3, but the two maps have exchanged their roles: the coarse one, g, is now the input.

# %%
dy = rng.normal(size=back.shape)
dx, dw, _ = ops.conv_transpose2d_backward(dy, cache)
plain, exchanged = ops.conv2d_forward(dy, w, stride=2, pad=1)  # dy in x's place …
assert np.allclose(dx, plain)
assert np.allclose(dw, ops.conv2d_backward(g, exchanged)[1])  # … g in dy's

# %% [markdown]
# ## Checkerboards
#
# Networks that learn their stamps often paint fine chequered patterns over their
# results. To see why, count: how many stamps does a fine pixel get?

# %%
flat = np.ones((5, 5))  # a coarse map without any pattern
print(stamp(flat, np.ones((3, 3)), 2)[2:8, 2:8].astype(int))
views = {
    "3 × 3": stamp(flat, np.ones((3, 3)), 2)[2:8, 2:8],
    "4 × 4": stamp(flat, np.ones((4, 4)), 2)[2:8, 2:8],
    "4 × 4, random": stamp(flat, rng.uniform(size=(4, 4)), 2)[2:8, 2:8],
    "4 × 4, tents": stamp(flat, np.outer(tent(4), tent(4)), 2)[2:8, 2:8],
}
assert set(views["3 × 3"].ravel()) == {1, 2, 4} and set(views["4 × 4"].ravel()) == {4}
assert np.allclose(views["4 × 4, tents"], 1) and np.ptp(views["4 × 4, random"]) > 0.3

# %% tags=["hide-input"]
row = {title: y / y.mean() for title, y in views.items()}
caption = "A flat map at twice its size, by stamps of ones, random ones, and tents."
lesson.pictures("05_checkerboards", [row], caption=caption, vmin=0, vmax=2)

# %% [markdown]
# With three taps and stride 2, a pixel gets 4, 2 or 1 stamps. With four taps it always
# gets four.
#
# But the random kernel of 4 × 4 is chequered too. In one dimension, fine pixel i is
# reached by the taps i mod s, i mod s + s, … , one *phase* of the kernel. A flat map stays
# flat if the taps of every phase have the same sum. Those of the tents sum to 1.
#
# So there are two ways out. Choose k divisible by s, and start from the bilinear kernel.
# Or enlarge by a fixed kernel, then convolve with a learned one at stride 1.
#
# ## Learned against fixed
#
# Should one learn the stamps? The authors of FCN did so at first, and fixed them in the
# code that they published: no significant difference, says its README. Let us try. Enlarge
# coarse scores ×4, by a kernel of 8 × 8 for each class (`groups=C`). The scores are
# logarithms of the shares, with noise on top. The loss is lesson 8's cross-entropy.


# %%
from minifcn.metrics import ConfusionMatrix


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


def enlarge(maps, w):
    """×4, every class by itself.   w (C, 1, 8, 8)"""
    return ops.conv_transpose2d_forward(maps, w, stride=4, pad=2, groups=C)


def learn(w, maps, labels, steps=70, rate=0.5):
    """Follow the gradient, 0.9 of the last step's way included (momentum).   -> w"""
    velocity = 0
    for _ in range(steps):
        y, cache = enlarge(maps, w)
        _, of_loss = ops.softmax_cross_entropy_forward(y, labels)
        dy = ops.softmax_cross_entropy_backward(1.0, of_loss)
        velocity = 0.9 * velocity + rate * ops.conv_transpose2d_backward(dy, cache)[1]
        w = w - velocity
    return w


frozen = np.tile(np.outer(tent(8), tent(8)).astype(np.float32), (C, 1, 1, 1))
kernels = {"frozen": frozen}
for noise in (1, 2):
    for seed in (1, 2):
        learned = learn(frozen, *scenes(20, seed, noise))
        maps, labels = scenes(50, 10 + seed, noise)  # never seen in training
        judged, ways = {}, (frozen, 2.2 * frozen, learned)
        for name, w in zip(("frozen", "2.2 × frozen", "learned"), ways, strict=True):
            y, _ = enlarge(maps, w)
            matrix = ConfusionMatrix(C)
            matrix.update(labels, y.argmax(axis=1).astype(np.uint8))
            loss = float(ops.softmax_cross_entropy_forward(y, labels)[0])
            judged[name] = loss, matrix.mean_iou()
            print(f"noise {noise}, seed {seed}  {name:13s} loss {loss:.3f}", end="  ")
            print(f"mean IoU {100 * judged[name][1]:.1f} %")
        kernels[f"noise {noise}"] = learned
        (fixed, fixed_iou), (louder, _), (loss, iou) = judged.values()
        if noise == 1:  # being louder is all of the gain
            assert louder < 0.2 * fixed and loss > 0.8 * louder
            assert abs(iou - fixed_iou) < 0.01
        else:
            assert iou > fixed_iou + 0.08 and loss < 0.6 * louder

# %% tags=["hide-input"]
row = {name: w.mean(axis=(0, 1)) for name, w in kernels.items()}  # over the classes
most = max(w.max() for w in row.values())
lesson.pictures("05_kernels", [row], caption="Three kernels.", vmin=0, vmax=most)

# %% [markdown]
# With little noise, learning lowers the loss a lot, and leaves the mean IoU where it was.
# The frozen kernel, made 2.2 times as strong, does the same: all that was learned is to
# speak louder. With more noise the learned kernels win clearly: they are wider, and blur
# the noise away. But here nothing else is trained. In a real FCN everything below is,
# *through* the frozen kernel; and a frozen kernel paints no checkerboards.
#
# (The article's deconvolutions have a kernel for each *pair* of classes, zero off the
# diagonal. This library keeps the diagonal alone. And as it is a tent times a tent,
# `ops.upsample_forward` enlarges the columns, then the rows.)

# %%
maps, line = maps[:1], tent(8).astype(np.float32)
y, _ = ops.upsample_forward(maps, line, stride=4, pad=2)
assert np.allclose(y, enlarge(maps, frozen)[0], atol=1e-5)

# %% [markdown]
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** ★ By hand: the map [[1, 0], [0, 2]], a stamp of ones of three rows and two
# columns, stride 2. What is the result, an array of 5 × 4?
#
# **2.** ★★ Predict, then run. FCN-32s enlarges once, by 32. FCN-8s enlarges by 2, by 2
# again and by 8, each with its tent. Is that the same, if nothing is added in between?
# Take one dimension and a map of nine values, all 0 but the middle one, which is 1.
# Answer with the largest difference between the two results. (Cut s/2 off both ends
# each time.)
#
# **3.** ★★★ Write a function `(kernel, s)` of a one-dimensional kernel and a stride that
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
#   `--upsampling learned` lets `minifcn train` learn them, from the bilinear ones.
# - Chequered predictions? Look at kernel and stride of whatever enlarges.
# - Enlarge *scores*, then take the argmax: labels cannot be interpolated.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, [*Fully Convolutional Networks for Semantic
#   Segmentation*](https://arxiv.org/abs/1411.4038), CVPR 2015, sections 3.3 and 4.3.
# - A. Odena and others, [*Deconvolution and Checkerboard
#   Artifacts*](https://distill.pub/2016/deconv-checkerboard/), Distill, 2016.
# - In the code: `minifcn/ops/conv/conv2d.py`, `minifcn/ops/upsample.py`,
#   `minifcn/layers/init.py`.
