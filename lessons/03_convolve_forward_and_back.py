# %% [markdown]
# # 3. Convolve, forward and back
#
# **You will** write a convolution in seven loops, read its three gradients off the same
# loops, check them, let them learn a kernel, and get the same numbers from a matrix
# product.
#
# **You will learn** what a kernel sees, what stride and pad do, why a backward pass is
# nothing more than "collect your share", and what im2col is.
#
# **You need** lesson 2, for what a convolution is good for.
#
# **It takes** 30 minutes to read and a few seconds to run.

# %%
import numpy as np

import lesson
from minifcn.data.toyvoc import draw_scene

image, _ = draw_scene(np.random.default_rng(7), 128)
grey = image.mean(axis=2) / 255  # (H, W)


def see(picture, kernel):
    """The kernel's answer at every place where it fits.   (H, W), (k, k) -> (Ho, Wo)"""
    k = len(kernel)
    y = np.zeros((picture.shape[0] - k + 1, picture.shape[1] - k + 1))
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = np.sum(kernel * picture[i : i + k, j : j + k])
    return y


sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])  # dark left, bright right
u, v = np.mgrid[-4:5, -4:5]
# A Gabor kernel: a wave under a bell. This one looks for slanted stripes.
gabor = np.cos(2 * np.pi * (u + v) / 6) * np.exp(-(u**2 + v**2) / 8)
kernels = {"Sobel": sobel, "its transpose": sobel.T, "slanted": gabor - gabor.mean()}

# %% tags=["hide-input"]
maps = {name: see(grey, kernel) for name, kernel in kernels.items()}
rows = [
    {name: drawn / np.quantile(abs(drawn), 0.995) for name, drawn in row.items()}
    for row in (kernels, maps)
]
rows[1]["scene"] = 2 * grey - 1
caption = (
    "Three kernels, below each its answers to the scene. Mid-grey is zero, bright a "
    "strong yes, dark the opposite of what the kernel looks for."
)
lesson.pictures("03_kernels", rows, caption=caption, vmin=-1, vmax=1)

# %% [markdown]
# ## What a kernel sees
#
# Lay a small array of weights, the *kernel*, over a place of the image. Multiply each
# weight with the pixel under it, and add up. The sum says how much the place looks like
# the kernel. Do this at every place: the sums are a new picture, a *map*.
#
# The first kernel above answers to upright edges (Irwin Sobel, 1968). Its transpose
# answers to level ones. The third answers to stripes of one direction and one width.
# Somebody had to invent these three. A network finds its own; you saw eight of them in
# lesson 2. For that it must know how its final error depends on each weight: the
# *backward pass*, the subject of this lesson. (Kunihiko Fukushima's Neocognitron of 1980
# had layers of such kernels. Yann LeCun and others learned them in 1989.)
#
# Two sums by hand:
#
#     pixels  0 1 2     kernel  0 1     0·0 + 1·1 + 3·2 + 4·3 = 19
#             3 4 5             2 3     1·0 + 2·1 + 4·2 + 5·3 = 25

# %%
by_hand = see(np.arange(9).reshape(3, 3), np.arange(4).reshape(2, 2))
print(by_hand)
assert by_hand[0].tolist() == [19, 25]

# %% [markdown]
# ## Seven loops
#
# A layer of a network has many kernels, and it reads many maps at once. (An image is
# three: red, green, blue.) The maps of one image are called its *channels*.
#
# - x (N, C, H, W): N images of C channels.
# - w (K, C, k, k): K kernels. Each has a slice for every channel.
# - b (K,): a *bias*, one number that is added to the whole map of a kernel.
# - y (N, K, Ho, Wo): one map for each kernel.
#
# Two more settings. *Stride* s: the kernel moves s pixels at a time, and the map gets s
# times smaller. *Pad* p: p rings of zeros around the image, so that the kernel can be
# centred on the border, too. For output row i the kernel's first row stands on image
# row i·s − p. The last place where it fits gives the output's size:
#
#     Ho = ⌊(H + 2p − k) / s⌋ + 1


# %%
def convolve(x, w, b, s, p):
    """(N, C, H, W), (K, C, k, k), (K,) -> (N, K, Ho, Wo)"""
    (N, C, H, W), (K, _, k, _) = x.shape, w.shape
    y = np.zeros((N, K, (H + 2 * p - k) // s + 1, (W + 2 * p - k) // s + 1))
    y += b[:, None, None]
    for n in range(N):
        for o in range(K):
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    for c in range(C):
                        for u in range(k):
                            for v in range(k):
                                row, column = i * s + u - p, j * s + v - p
                                if 0 <= row < H and 0 <= column < W:
                                    y[n, o, i, j] += (
                                        w[o, c, u, v] * x[n, c, row, column]
                                    )
    return y


rng = np.random.default_rng(0)
x = rng.normal(size=(2, 3, 7, 6))  # (N, C, H, W)
w = rng.normal(size=(4, 3, 3, 3))  # (K, C, k, k)
b = rng.normal(size=4)  # (K,)
y = convolve(x, w, b, s=2, p=1)
print("x", x.shape, "  w", w.shape, "  y", y.shape)

from minifcn import ops

with ops.conv_algorithm("naive"):  # the library's loops
    theirs, cache = ops.conv2d_forward(x, w, b, stride=2, pad=1)
assert np.allclose(y, theirs, rtol=0, atol=1e-13)

# %% [markdown]
# That is the whole definition. (Strictly speaking a convolution turns the kernel by
# half a turn first, and this is a *correlation*. The kernels are learned, so nobody
# cares.)
#
# ## Who reaches whom
#
# Before going back, look at the way there. Here is one row of pixels (below) and the
# outputs (above) of a kernel with three weights, or *taps*. Grey pixels are pad.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

blue, red = (0.1, 0.35, 0.75), (0.8, 0.25, 0.15)
figure, axes = plt.subplots(1, 2, figsize=(7, 2.5))
for panel, s, read in zip(axes, (1, 2), (2, 1), strict=True):
    outputs = (7 + 2 * 1 - 3) // s + 1
    for i, u in np.ndindex(outputs, 3):
        pixel = i * s + u - 1
        colour = red if pixel == 5 else blue if i == read else "0.8"
        panel.plot([pixel, i * s], [0, 1], color=colour, lw=2, zorder=colour != "0.8")
    for number in range(-1, 8):
        face = red if number == 5 else "w" if 0 <= number < 7 else "0.75"
        panel.plot(number, 0, "s", ms=16, mfc=face, mec="0.3")
        name = number if 0 <= number < 7 else ""
        panel.text(number, 0, name, ha="center", va="center_baseline", fontsize=11)
    for i in range(outputs):
        panel.plot(i * s, 1, "o", ms=17, mfc=blue if i == read else "w", mec="0.3")
        ink = "w" if i == read else "k"
        panel.text(i * s, 1, i, ha="center", va="center_baseline", color=ink)
    panel.set(title=f"stride {s}, pad 1", ylim=(-0.25, 1.25), xlim=(-1.5, 7.5))
    panel.set_axis_off()
lesson.show(
    figure,
    "03_who_reaches_whom",
    "Lines from pixels to outputs, at stride 1 and at stride 2. The blue output reads "
    "three pixels. The red pixel, number 5, reaches three outputs at stride 1, and two "
    "at stride 2.",
)

# %% [markdown]
# The blue output *reads* three pixels. The red pixel *reaches* the outputs at the ends
# of its lines: three at stride 1. At stride 2 it reaches two, and its neighbours only
# one. Forward, a value goes up each line. Backward, something comes down each line. A
# line is one pass through the innermost loop. So write the loops once more, as a list
# of who meets whom.


# %%
def meetings(x, w, y, s, p):
    """Every multiplication of the seven loops, as indices into y, w and x."""
    for n, o, i, j in np.ndindex(y.shape):
        for c, u, v in np.ndindex(w.shape[1:]):
            row, column = i * s + u - p, j * s + v - p
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                yield (n, o, i, j), (o, c, u, v), (n, c, row, column)


again = np.zeros_like(y) + b[:, None, None]
for of_y, of_w, of_x in meetings(x, w, y, 2, 1):
    again[of_y] += w[of_w] * x[of_x]
assert np.allclose(again, y, rtol=0, atol=1e-13)

# %% [markdown]
# ## Going back: collect your share
#
# Somewhere after this layer a network computes one number from y, its *loss*: how wrong
# it is. How it does so is not our concern. All that comes back to us is dy:
#
#     dy[n, o, i, j] = by how much the loss rises, per unit, if y[n, o, i, j] rises
#
# The question is the same for x, w and b: dx, dw, db. Look at one meeting, y += w · x.
# If this w rises by a little, y rises by x times as much, and the loss by dy · x. If
# this x rises by a little, y rises by w times as much, and the loss by dy · w. A weight
# takes part in many meetings, and the effects add up. So:
#
# - **dw**: each weight collects, from every meeting, dy times the x that it met.
# - **dx**: likewise, each pixel collects dy times the w that it met.
# - **db**: b was added to each output of its map as it is, so it collects every dy.


# %%
def convolve_back(dy, x, w, s, p):
    """dy (N, K, Ho, Wo) -> dx, dw, db, shaped as x, w and b"""
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for of_y, of_w, of_x in meetings(x, w, dy, s, p):
        dw[of_w] += x[of_x] * dy[of_y]
        dx[of_x] += w[of_w] * dy[of_y]
    return dx, dw, dy.sum(axis=(0, 2, 3))


dy = rng.normal(size=y.shape)  # whatever may come back
dx, dw, db = convolve_back(dy, x, w, 2, 1)
for mine, theirs in zip((dx, dw, db), ops.conv2d_backward(dy, cache), strict=True):
    assert np.allclose(mine, theirs, rtol=0, atol=1e-12)

# %% [markdown]
# These are the *gradients* of x, w and b. Two lines for two of them, and no formula to
# remember. To touch: one channel of x and one slice of a kernel, rounded. Choose
# `backward`, move the position, watch dx and dw being collected. (Dilation: lesson 13.)

# %% tags=["hide-input"]
arrays = {"x": x, "w": w, "dy": np.tile(dy, (1, 1, 3, 3))}  # dy for all settings
numbers = {name: array[0, 0].round(1).tolist() for name, array in arrays.items()}
said = "the kernel sliding over x, and what each dy adds to dx and dw"
lesson.widget("kernel", numbers, said)

# %% [markdown]
# But are they right? The library could share our mistake. So ask the definition. Take a
# loss that sends back exactly this dy: Σ dy·y. Move one number up and down by a little,
# and see how far the loss moves. (Lesson 7 is about this check.)


# %%
def slope(array, index, e=1e-5):
    """By how much Σ dy·y rises, per unit, if array[index] does."""
    losses, before = [], array[index]
    for moved in (before + e, before - e):
        array[index] = moved
        losses.append(np.sum(dy * ops.conv2d_forward(x, w, b, stride=2, pad=1)[0]))
    array[index] = before
    return (losses[0] - losses[1]) / (2 * e)


for name, array, gradient in (("x", x, dx), ("w", w, dw), ("b", b, db)):
    measured = np.array([slope(array, i) for i in np.ndindex(array.shape)])
    error = np.abs(measured - gradient.ravel()).max()
    print(f"d{name}: {array.size:3d} numbers, greatest difference {error:.0e}")
    assert error < 1e-8

# %% [markdown]
# ## Learn a kernel
#
# What is dw good for? Show a kernel of zeros what Sobel's answers to the scene are, and
# let it follow its gradient. The loss is half the mean square of what it is off by. Its
# gradient by y is the difference over the number of places. A step is −8 · dw. Such a
# factor is called the *learning rate*; the 8 was found by trying.

# %%
picture = grey[None, None] - grey.mean()  # (1, 1, H, W)
wanted, _ = ops.conv2d_forward(picture, sobel[None, None].astype(float))
learned, seen_at = np.zeros((1, 1, 3, 3)), {}
for step in range(801):
    y, cache = ops.conv2d_forward(picture, learned)
    off = y - wanted
    if step in (0, 3, 10, 30, 100, 800):
        seen_at[step] = learned[0, 0].copy()
        print(f"step {step:3d}  loss {np.mean(off**2) / 2:.6f}")
    _, dw, _ = ops.conv2d_backward(off / off.size, cache)
    learned -= 8 * dw
print(learned[0, 0].round(2))
assert np.abs(learned[0, 0] - sobel).max() < 0.02

# %% tags=["hide-input"]
row = {f"step {step}": kernel for step, kernel in seen_at.items()}
caption = "A kernel being learned: from nothing, through a rough edge, to Sobel's."
lesson.pictures("03_learned", [row], caption=caption, vmin=-2, vmax=2)

# %% [markdown]
# Sobel's kernel is back. That is all that training is: many kernels, another loss.
#
# ## The same as one matrix product
#
# Loops in Python are slow. The fastest thing a computer does is the product of two
# matrices, so rearrange. Copy what the kernel sees at each place, its *patch*, into a
# row of a matrix. The kernels become columns. Their product is all of y. This
# rearrangement is called *im2col*.

# %%
from numpy.lib.stride_tricks import sliding_window_view


def patches_of(x, k):
    """Stride 1, no pad.   x (N, C, H, W) -> (N·Ho·Wo, C·k·k)"""
    seen = sliding_window_view(x, (k, k), axis=(2, 3))  # (N, C, Ho, Wo, k, k)
    return seen.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * k * k)


tiny = np.arange(16).reshape(1, 1, 4, 4)  # one image of 4 × 4, its pixels numbered
print(tiny[0, 0], "has the patches", patches_of(tiny, 3), sep="\n")

P, M = patches_of(x, 3), w.reshape(4, -1).T
Y = P @ M  # (N·Ho·Wo, K)
print("patches", P.shape, " times kernels", M.shape, " =", Y.shape)

N, _, H, W = x.shape
y = Y.reshape(N, H - 2, W - 2, 4).transpose(0, 3, 1, 2)  # (N, K, Ho, Wo)
assert np.allclose(y, convolve(x, w, 0 * b, 1, 0), rtol=0, atol=1e-12)

# %% [markdown]
# Look for pixel 5 above: it is in every patch. On a large image the matrix holds nearly
# every pixel nine times. That is the price. Lesson 18, for those who build such code,
# pays less of it.
#
# Going back, nothing is new. P is the matrix of patches, M that of kernels. A weight
# M[q, o] met P[r, q] on the way to Y[r, o], for every row r. So each collects its share,
# the sum of what it met times what came back:
#
#     dM[q, o] = Σ_r P[r, q] · dY[r, o]       as matrices: dM = Pᵀ · dY
#     dP[r, q] = Σ_o dY[r, o] · M[q, o]       as matrices: dP = dY · Mᵀ
#
# dM is dw already, but for its shape. dP holds, for every row, what each copied pixel
# should collect. Add every copy back to where it came from:

# %%
dy = rng.normal(size=y.shape)  # (N, K, Ho, Wo)
dY = dy.transpose(0, 2, 3, 1).reshape(-1, 4)  # (N·Ho·Wo, K)
dw = (P.T @ dY).T.reshape(w.shape)
dP = (dY @ M.T).reshape(N, H - 2, W - 2, 3, 3, 3)  # (N, Ho, Wo, C, k, k)

dx = np.zeros_like(x)
for u, v in np.ndindex(3, 3):
    dx[:, :, u : u + H - 2, v : v + W - 2] += dP[..., u, v].transpose(0, 3, 1, 2)

by_loops = convolve_back(dy, x, w, 1, 0)
assert np.allclose(dx, by_loops[0], rtol=0, atol=1e-12)
assert np.allclose(dw, by_loops[1], rtol=0, atol=1e-12)

# %% [markdown]
# A kernel of 1 × 1 sees one pixel, all its channels. Then the patches *are* the pixels: a
# 1 × 1 convolution applies one small matrix at every pixel. Lesson 4 lives on it.

# %%
w1 = rng.normal(size=(4, 3, 1, 1))  # (K, C, 1, 1)
product = w1[:, :, 0, 0] @ x.reshape(N, 3, H * W)  # (K, C) · (N, C, H·W)
assert np.allclose(product.reshape(N, 4, H, W), convolve(x, w1, 0 * b, 1, 0), rtol=0)

# %% [markdown]
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** ★ The first layer of AlexNet, an older classifier, has kernels of 11 × 11 at
# stride 4. The article's network built on it sets pad 100 there. How high is the map of
# this layer for an image 500 pixels high?
#
# **2.** ★★ One dimension, one channel, no pad: `y[i] = Σ_u w[u] · x[i·s + u]`. Write a
# function `(dy, w, s, size)` that returns dx, an array of length `size`, for an x of
# that length.
#
# **3.** ★★★ Predict, then run. Learn the Sobel kernel once more, on another picture:
# `picture = np.tile(np.sin(np.arange(60.0)), (60, 1))[None, None]`, stripes that stand
# upright. The loss goes to 0 again. Is the kernel Sobel's again? Answer with the
# learned kernel's middle row, an array of three numbers, after 500 steps of `0.2 * dw`,
# and explain it to yourself.

# %%
import answers

answers.check("03.1", ...)
answers.check("03.2", ...)
answers.check("03.3", ...)

# %% [markdown]
# ## In practice
#
# - Call `ops.conv2d_forward` and leave the choice of the algorithm to `"auto"`.
# - `with ops.conv_algorithm("naive"):` is the answer to "is it my network, or is it the
#   fast code?".
# - Keep x for the backward pass, never its patches: they take nine times the memory.
#
# ## Further reading
#
# - Y. LeCun and others, *Backpropagation Applied to Handwritten Zip Code Recognition*,
#   1989.
# - K. Chellapilla, S. Puri, P. Simard, *High Performance Convolutional Neural Networks
#   for Document Processing*, 2006: im2col.
# - V. Dumoulin, F. Visin, [*A guide to convolution arithmetic for deep
#   learning*](https://arxiv.org/abs/1603.07285), 2016.
# - In the code: `conv2d.py`, `reference.py` and `im2col.py` in `minifcn/ops/conv/`.
