# %% [markdown]
# # 3. Convolve, forward and back
#
# **You will** write a convolution in seven loops, read its three gradients off the
# same loops, check them, and then get the same numbers from a matrix product and with
# a quarter of the multiplications.
#
# **You will learn** what a kernel sees, what stride and pad do, why a backward pass is
# nothing more than "collect your share", what im2col is, and what Winograd saves.
#
# **You need** NumPy and lesson 1.
#
# **It takes** 30 minutes to read and a few seconds to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## What a kernel sees
#
# Lesson 1 labelled a pixel by its own colour, and failed: a pixel must be judged with
# its surroundings. The smallest step in that direction is the *convolution*. Take a
# small array of weights, the *kernel*. Lay it over a place of the image, multiply each
# weight with the pixel under it, add up. That sum says how much the place looks like
# the kernel. Do this at every place, and you have a new picture, a *map*.

# %%
import numpy as np

from minifcn.data.toyvoc import draw_scene

image, _ = draw_scene(np.random.default_rng(7), 128)
grey = image.mean(axis=2) / 255  # (H, W)


def see(picture, kernel):
    """The kernel's answer at every place where it fits.   (H, W), (k, k) -> (Ho, Wo)"""
    k = len(kernel)
    answer = np.zeros((picture.shape[0] - k + 1, picture.shape[1] - k + 1))
    for i in range(answer.shape[0]):
        for j in range(answer.shape[1]):
            answer[i, j] = np.sum(kernel * picture[i : i + k, j : j + k])
    return answer


across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])  # dark left, bright right
u, v = np.mgrid[-4:5, -4:5]
# A Gabor kernel: a wave under a bell. This one looks for slanted stripes.
gabor = np.cos(2 * np.pi * (u + v) / 6) * np.exp(-(u**2 + v**2) / 8)
kernels = {"across": across, "down": across.T, "slanted": gabor - gabor.mean()}

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(2, 4, figsize=(7, 3.7), height_ratios=[1, 1.8])
axes[0, 0].text(0.5, 0.5, "kernel", ha="center", va="center")
axes[1, 0].imshow(grey, cmap="gray")
axes[1, 0].set_title("scene")
for (name, kernel), (top, bottom) in zip(kernels.items(), axes.T[1:], strict=True):
    for panel, shown in ((top, kernel), (bottom, see(grey, kernel))):
        most = np.quantile(np.abs(shown), 0.995)
        panel.imshow(shown, cmap="gray", vmin=-most, vmax=most)
    bottom.set_title(name)
for panel in axes.flat:
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set(visible=panel is not axes[0, 0], color="0.6")
lesson.show(figure, "03_kernels")

flat = np.full((20, 20), 0.7)
for name, kernel in kernels.items():
    assert abs(see(flat, kernel).max()) < 1e-12, name  # nothing to see on a flat wall

# %% [markdown]
# Mid-grey is zero, bright a strong yes, dark a strong no: the opposite of what the
# kernel looks for. "Across" answers to edges that stand upright, "down" to those that
# lie, and "slanted" to lines of one direction and one width.
#
# Somebody had to invent these kernels. A network finds its own. For that it must know
# how its final error depends on each weight, and finding that out is called the
# *backward* pass.
#
# ## Seven loops
#
# A layer of a network has many kernels, and reads many maps at once (an image is three:
# red, green, blue). A few words for the arrays:
#
# - `x` (N, C, H, W): N images of C *channels*, which is what the maps of one image are
#   called.
# - `w` (K, C, kh, kw): K kernels. Each has a slice for every channel.
# - `b` (K,): a *bias*, one number added to the whole map of a kernel.
# - `y` (N, K, Ho, Wo): one map for each kernel.
#
# Two more settings. *Stride* s: the kernel moves s pixels at a time, and the map gets s
# times smaller. *Pad* p: p rings of zeros around the image, so that the kernel can be
# centred on the border, too. With both, the kernel's first row stands on image row
# `i·s − p` for output row i. The last place where it fits gives the output's size:
#
#     Ho = ⌊(H + 2p − kh) / s⌋ + 1


# %%
def convolve(x, w, b, s, p):
    """(N, C, H, W), (K, C, kh, kw), (K,) -> (N, K, Ho, Wo)"""
    (N, C, H, W), (K, _, kh, kw) = x.shape, w.shape
    y = np.zeros((N, K, (H + 2 * p - kh) // s + 1, (W + 2 * p - kw) // s + 1))
    y += b[:, None, None]
    for n in range(N):
        for k in range(K):
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    for c in range(C):
                        for u in range(kh):
                            for v in range(kw):
                                row, column = i * s + u - p, j * s + v - p
                                if 0 <= row < H and 0 <= column < W:
                                    y[n, k, i, j] += (
                                        w[k, c, u, v] * x[n, c, row, column]
                                    )
    return y


rng = np.random.default_rng(0)
x = rng.normal(size=(2, 3, 7, 6))  # (N, C, H, W)
w = rng.normal(size=(4, 3, 3, 3))  # (K, C, kh, kw)
b = rng.normal(size=4)  # (K,)
y = convolve(x, w, b, s=2, p=1)
print("x", x.shape, "  w", w.shape, "  y", y.shape)

# %% [markdown]
# That is the whole definition. The library has it too, and can be told to take it:

# %%
from minifcn import ops

with ops.conv_algorithm("naive"):
    theirs, cache = ops.conv2d_forward(x, w, b, stride=2, pad=1)
assert np.allclose(y, theirs, rtol=0, atol=1e-13)

# %% [markdown]
# (Strictly speaking a convolution turns the kernel by half a turn first, and this is a
# *correlation*. The kernels are learned, so nobody cares.)
#
# ## Who reaches whom
#
# Before going back, look at the way there. Here is one row of pixels (below) and the
# outputs (above) of a kernel with three weights, or *taps*. Grey pixels are pad.

# %%
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
lesson.show(figure, "03_who_reaches_whom")

# %% [markdown]
# The blue output *reads* three pixels. The red pixel *reaches* the outputs at the ends
# of its lines: three at stride 1, two at stride 2, where every other pixel reaches only
# one. Reading and reaching use the same lines. Forward, a value goes up each line;
# backward, something comes down each line. A line is one pass through the innermost
# loop, so let us write the loops once more, as a list of who meets whom.


# %%
def meetings(x, w, y, s, p):
    """Every multiplication of the seven loops, as indices into y, w and x."""
    for n, k, i, j in np.ndindex(y.shape):
        for c, u, v in np.ndindex(w.shape[1:]):
            row, column = i * s + u - p, j * s + v - p
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                yield (n, k, i, j), (k, c, u, v), (n, c, row, column)


again = np.zeros_like(y) + b[:, None, None]
for of_y, of_w, of_x in meetings(x, w, y, 2, 1):
    again[of_y] += w[of_w] * x[of_x]
assert np.allclose(again, y, rtol=0, atol=1e-13)

# %% [markdown]
# ## Going back: collect your share
#
# Somewhere after this layer a network computes one number from y, its *loss*: how
# wrong it is. How it does so is not our concern. All that comes back to us is
#
#     dy[n,k,i,j]  =  by how much the loss rises, per unit, if y[n,k,i,j] rises
#
# and the question is the same for x, w and b: dx, dw, db. Look at one meeting:
#
#     y += w · x
#
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
print("dx", dx.shape, "  dw", dw.shape, "  db", db.shape)

for mine, yours in zip((dx, dw, db), ops.conv2d_backward(dy, cache), strict=True):
    assert np.allclose(mine, yours, rtol=0, atol=1e-12)

# %% [markdown]
# These are the *gradients* of x, w and b. Two lines for two of them, and no formula to
# remember. But are they right? The library could share our mistake. So ask the
# definition: take a loss that sends back exactly this dy, which is Σ dy·y; move one
# number up and down by a little; see how far the loss moves. (Lesson 9 is about this
# check.)


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
# One thing to keep for lesson 5. With all weights and all dy at 1, dx counts the
# outputs that each pixel reaches. With stride 2 and three taps that is a chequered
# pattern: some pixels hear from four outputs, others from one.

# %%
ones = np.ones((1, 1, 3, 3))
counts, _, _ = convolve_back(np.ones((1, 1, 4, 4)), np.zeros((1, 1, 7, 7)), ones, 2, 1)
print(counts[0, 0].astype(int))
assert counts.max() == 4 and counts.min() == 1

# %% [markdown]
# ## The same as one matrix product
#
# Loops in Python are slow. The fastest thing a computer does is the product of two
# matrices, so rearrange: copy what the kernel sees at each place, its *patch*, into a
# row of a matrix. The kernels become columns. Their product is all of y. This
# rearrangement is called *im2col*.

# %%
from numpy.lib.stride_tricks import sliding_window_view


def patches_of(x, k):
    """Stride 1, no pad.   x (N, C, H, W) -> (N·Ho·Wo, C·k·k)"""
    seen = sliding_window_view(x, (k, k), axis=(2, 3))  # (N, C, Ho, Wo, k, k)
    return seen.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * k * k)


P = patches_of(x, 3)
Y = P @ w.reshape(4, -1).T  # (N·Ho·Wo, K)
print("patches", P.shape, " times kernels", w.reshape(4, -1).T.shape, " =", Y.shape)

N, _, H, W = x.shape
y = Y.reshape(N, H - 2, W - 2, 4).transpose(0, 3, 1, 2)  # (N, K, Ho, Wo)
assert np.allclose(y, convolve(x, w, 0 * b, 1, 0), rtol=0, atol=1e-12)

# %%
tiny = np.arange(16).reshape(4, 4)  # one image of 4 × 4, its pixels numbered
rows = patches_of(tiny[None, None], 3)  # (4, 9)
assert all(5 in row for row in rows)
columns = {
    "image": tiny,
    "patches": rows,
    "· kernel": np.array([[f"w{i}"] for i in range(9)]),
    "= y": np.array([[f"y{i}"] for i in range(4)]),
}
figure, axes = plt.subplots(1, 4, figsize=(7, 2.9), width_ratios=[4, 9, 1.1, 1.1])
for panel, (title, cells) in zip(axes, columns.items(), strict=True):
    numbers = cells if cells.dtype == int else np.full(cells.shape, np.nan)
    panel.imshow(numbers, cmap="viridis", vmin=-4, vmax=15)
    for (i, j), text in np.ndenumerate(cells):
        ink = "w" if numbers[i, j] < 9 else "k"
        panel.text(j, i, text, ha="center", va="center", fontsize=11, color=ink)
    panel.set_title(title)
    panel.set_xticks(np.arange(0.5, cells.shape[1]), [])
    panel.set_yticks(np.arange(0.5, cells.shape[0]), [])
    panel.grid(color="0.5", lw=0.8)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(True)
lesson.show(figure, "03_im2col")

# %% [markdown]
# Pixel 5 is in every row. On a large image the matrix holds nearly every pixel nine
# times. That is the price, and lesson 12 is about paying less of it.
#
# Going back, nothing new. A matrix product Y = P·M, here patches times kernels, has two
# gradients, dM = Pᵀ·dY and dP = dY·Mᵀ, by the same rule of shares: M[q, k] met P[r, q]
# on the way to Y[r, k], for every row r, so it collects Σ over r of P[r, q] · dY[r, k].
# dM is dw already, but for its shape. dP holds, for every row, what each copied pixel
# should collect; add every copy back to where it came from:

# %%
dy = rng.normal(size=y.shape)  # (N, K, Ho, Wo)
dY = dy.transpose(0, 2, 3, 1).reshape(-1, 4)  # (N·Ho·Wo, K)
dw = (P.T @ dY).T.reshape(w.shape)
dP = (dY @ w.reshape(4, -1)).reshape(N, H - 2, W - 2, 3, 3, 3)  # (N, Ho, Wo, C, k, k)

dx = np.zeros_like(x)
for u in range(3):
    for v in range(3):
        dx[:, :, u : u + H - 2, v : v + W - 2] += dP[..., u, v].transpose(0, 3, 1, 2)

by_loops = convolve_back(dy, x, w, 1, 0)
assert np.allclose(dx, by_loops[0], rtol=0, atol=1e-12)
assert np.allclose(dw, by_loops[1], rtol=0, atol=1e-12)

# %% [markdown]
# A kernel of 1×1 sees one pixel, all its channels. Then the patches *are* the pixels,
# and nothing needs to be rearranged. Remember this one: a 1×1 convolution applies one
# and the same small matrix at every pixel. Lesson 4 lives on it.

# %%
w1 = rng.normal(size=(4, 3, 1, 1))  # (K, C, 1, 1)
product = w1[:, :, 0, 0] @ x.reshape(N, 3, H * W)  # (K, C) · (N, C, H·W)
with ops.conv_algorithm("gemm"):  # GEMM: general matrix multiply
    y1, _ = ops.conv2d_forward(x, w1)
assert np.allclose(product.reshape(N, 4, H, W), y1, rtol=0, atol=1e-13)
assert np.allclose(convolve(x, w1, 0 * b, 1, 0), y1, rtol=0, atol=1e-13)

# %% [markdown]
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
# Try it on paper: m2 + m3 is d2·(w0 + w2) + d1·w1. That is d2·w0 too much and d0·w0 too
# little, and m1 makes up for both.


# %%
def two_results(d, w):
    """F(2, 3): two results of three taps by four products.   d (4,), w (3,) -> (2,)"""
    m1 = (d[0] - d[2]) * w[0]
    m2 = (d[1] + d[2]) * ((w[0] + w[1] + w[2]) / 2)
    m3 = (d[2] - d[1]) * ((w[0] - w[1] + w[2]) / 2)
    m4 = (d[1] - d[3]) * w[2]
    return np.array([m1 + m2 + m3, m2 - m3 - m4])


d, taps = np.array([3.0, 1, 4, 1]), np.array([5.0, 9, 2])
print(two_results(d, taps), "=", np.correlate(d, taps))
assert np.array_equal(two_results(d, taps), np.correlate(d, taps))

# %% [markdown]
# What about the additions? The sums of w are made once for each kernel, not for each
# pixel. The sums of d are made once and serve all K kernels. With many channels it is
# the products that cost.
#
# Shmuel Winograd showed how far this goes: m results of r taps need m + r − 1 products
# (2 + 3 − 1 above), written F(m, r). In two dimensions, apply it to rows and columns,
# and both counts are squared. The library takes F(4×4, 3×3): a tile of 4×4 results at
# once. Three small matrices say which sums to make: Bᵀ those of the pixels, like d0 −
# d2 above, G those of the weights, Aᵀ those of the products. (⊙ multiplies entry by
# entry; Lavin and Gray, under "Further reading", give all three.) In formulas:
#
#     y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A           d 6×6 pixels, w 3×3, y 4×4

# %%
from minifcn.ops.conv.winograd import A_T, B_T, G

A_T, B_T, G = np.array(A_T), np.array(B_T), np.array(G)
d, kernel = rng.normal(size=(6, 6)), rng.normal(size=(3, 3))
tile = A_T @ ((G @ kernel @ G.T) * (B_T @ d @ B_T.T)) @ A_T.T  # (4, 4)
assert np.allclose(tile, see(d, kernel), rtol=0, atol=1e-12)

print(f"products by the definition: {4 * 4 * 3 * 3}, by Winograd: {6 * 6}")
assert 4 * 4 * 3 * 3 == 4 * 6 * 6

# %% [markdown]
# And going back? The three matrices only add and scale, so their backward is their
# transpose, and the ⊙ in the middle follows the rule of shares. The library's
# `winograd.py` says how, and does all three passes this way.
#
# ## The same numbers from each?
#
# In exact arithmetic, yes. A float32 has about seven digits, and each way rounds at
# other places. Here are a 3×3 and a 1×1 convolution by each way that applies, in
# float32, against loops in float64. The error is the norm of the difference over the
# norm of the result.


# %%
def three_results(way, x, w, dy, pad):
    """y, dx and dw by one algorithm."""
    with ops.conv_algorithm(way):
        y, cache = ops.conv2d_forward(x, w, pad=pad)
        dx, dw, _ = ops.conv2d_backward(dy, cache)
    return y, dx, dw


x = rng.normal(size=(1, 8, 12, 12))
print(f"{'kernel':8s}{'way':10s}{'y':>10s}{'dx':>10s}{'dw':>10s}")
for k, ways in ((3, ("naive", "im2col", "winograd")), (1, ("naive", "im2col", "gemm"))):
    w, dy = rng.normal(size=(8, 8, k, k)), rng.normal(size=(1, 8, 12, 12))
    exact = three_results("naive", x, w, dy, k // 2)
    singles = [a.astype(np.float32) for a in (x, w, dy)]
    for way in ways:
        results = three_results(way, *singles, k // 2)
        errors = [
            np.linalg.norm(a - e) / np.linalg.norm(e)
            for a, e in zip(results, exact, strict=True)
        ]
        print(f"{k}×{k}     {way:10s}" + "".join(f"{e:10.0e}" for e in errors))
        assert results[0].dtype == np.float32 and max(errors) < 1e-5

# %% [markdown]
# Each is right. Winograd loses about a digit, because its matrices hold numbers such as
# 8 and 1/24, and subtract what they made large. Training does not notice:
# benchmarks/README.md, "What it costs in accuracy", shows runs beside each other.
#
# And what is gained? For curiosity, on your machine (no promise; the first call of
# each is not counted):

# %%
import time

x, w, dy = (a.astype(np.float32) for a in (x, rng.normal(size=(8, 8, 3, 3)), dy))
for way in ("naive", "im2col"):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        three_results(way, x, w, dy, 1)
        seconds.append(time.perf_counter() - start)
    print(f"{way:8s}{1e3 * min(seconds[1:]):10.2f} ms, forward and back")

# %% [markdown]
# These maps are too small for Winograd to show what it can do. Lesson 12 gives it
# larger ones.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** The first layer of AlexNet, an older classifier, has kernels of 11×11 at stride
# 4. The article's network built on it sets pad 100 there. How high is the map of this
# layer for an image 500 pixels high?
#
# **2.** One dimension, one channel, no pad: `y[i] = Σ_u w[u] · x[i·s + u]`. Write a
# function `(dy, w, s, size)` that returns dx, an array of length `size`, for an x of
# that length.
#
# **3.** By what factor does F(6×6, 3×3) reduce the number of products?

# %%
import answers

answers.check("03.1", ...)
answers.check("03.2", ...)
answers.check("03.3", ...)

# %% [markdown]
# ## In practice
#
# - Call `ops.conv2d_forward` and leave the choice to `"auto"`: it takes the matrix
#   product for 1×1, and for 3×3 at stride 1 what costs less at that shape.
# - `with ops.conv_algorithm("naive"):` is the answer to "is it my network, or is it the
#   fast code?". Slow, but there is nowhere for a bug to hide.
# - Keep x for the backward pass, never its patches: they take nine times the memory and
#   are quickly made again.
# - For the image itself nobody needs dx: `ops.conv2d_backward(dy, cache,
#   inputs=False)`.
#
# ## Further reading
#
# - K. Chellapilla, S. Puri, P. Simard, *High Performance Convolutional Neural Networks
#   for Document Processing*, 2006: im2col.
# - A. Lavin, S. Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016.
# - V. Dumoulin, F. Visin, *A guide to convolution arithmetic for deep learning*, 2016.
# - In the code: in `minifcn/ops/conv/` the files `conv2d.py`, `reference.py`, `im2col.py`,
#   `pointwise.py` and `winograd.py`, in this order.
