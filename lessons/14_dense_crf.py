# %% [markdown]
# # 14. Dense CRF
#
# **You will** let every pixel of an image speak to every other, first with a sum over
# all pairs, then with the lattice that makes it fast, and see a ragged mask snap to the
# outlines in the image.
#
# **You will learn** what a fully connected conditional random field is, what one step
# of mean field does, and how sums over N² pairs can be had in a time that grows with N.
#
# **You need** lesson 1 (scores of pixels), lesson 5 (tents) and lesson 7 (softmax, in
# "The trap of ones").
#
# **It takes** 25 minutes to read and a few seconds to run.

# %%
import numpy as np

import lesson
from minifcn import inference, ops
from minifcn.data.toyvoc import CLASSES, draw_scene
from minifcn.layers.init import bilinear_1d

lesson.begin()
C = len(CLASSES)


def coarse_probabilities(label, rng, s=16):
    """What a coarse and unsure network might say.   (H, W) -> (C, H, W) float32"""
    H, W = label.shape
    known = np.where(label == 255, 0, label)
    one_hot = (known == np.arange(C)[:, None, None]).astype(np.float32)
    cells = one_hot.reshape(C, H // s, s, W // s, s).mean(axis=(2, 4))
    scores = np.log(cells + 0.05) + rng.normal(0, 0.5, cells.shape)
    scores = np.pad(scores, ((0, 0), (1, 1), (1, 1)), mode="edge").astype(np.float32)
    y, _ = ops.upsample_forward(scores[None], bilinear_1d(2 * s), stride=s, pad=s // 2)
    exponentials = np.exp(y[0, :, s:-s, s:-s])
    return exponentials / exponentials.sum(axis=0)


image, label = draw_scene(np.random.default_rng([6, 15]), 160)
image, label = image[:128, :128], label[:128, :128]
before = coarse_probabilities(label, np.random.default_rng(0))
settings = {"bilateral": (5.0, 20.0, 12.0), "spatial": (3.0, 3.0)}  # explained below
after = inference.dense_crf(before, image, **settings)

# %% tags=["hide-input"]
from minifcn.data.labels import colourise

guesses = [q.argmax(axis=0).astype(np.uint8) for q in (before, after)]
outlined = image.copy()
outlined[label == 255] = 255
lesson.pictures(
    "14_before_after",
    [
        {"image, true outlines": outlined, "truth": colourise(label)},
        {
            "before": colourise(np.where(label == 255, 255, guesses[0])),
            "after": colourise(np.where(label == 255, 255, guesses[1])),
        },
    ],
    legend=np.unique([label, *guesses]),
    classes=CLASSES,
    caption="A scene with its true outlines, its truth, the labels of coarse "
    "probabilities with the outlines laid over them, and the same after the dense CRF. "
    "Most outlines are now filled. The tip of the cross is still missing, and the ring has "
    "spilled over its outline in two places.",
)

# %% [markdown]
# ## Pixels that speak to each other
#
# A coarse network knows roughly where things are. The image knows exactly where the
# edges are, but not of what. A *conditional random field* (CRF) brings the two
# together. It says what a good labelling is:
#
# - each pixel likes the label to which the network gives a high probability, and
# - two pixels that are near each other and have like colours want the same label.
#
# *Dense*, or fully connected, means: every pixel with every other, not only with its
# neighbours. DeepLab (lesson 13) put one behind its network. How much two pixels i and
# j care for each other is a function of their places p and colours I, also called a
# *kernel* (the word is the convolution's; the thing is another):
#
#     k1(i, j) = exp(−|p_i − p_j|² / 2σ_xy² − |I_i − I_j|² / 2σ_rgb²)     bilateral
#     k2(i, j) = exp(−|p_i − p_j|² / 2σ²)                                 spatial
#
# The first is high for near pixels of like colour. The second is high for near pixels
# whatever their colour, and removes specks. Each also has a weight w, which says how much
# it counts beside the network. In the code `bilateral` holds w, σ_xy and σ_rgb, and
# `spatial` holds w and σ. Both are Gaussians of a *feature* vector: place and colour in
# units of their σ. So one function serves both.


# %%
def features(image, bilateral, spatial):
    """[(w, features (N, d))]: of each kernel its weight, and place and colour in σ."""
    rows, columns = np.indices(image.shape[:2])
    places = np.stack([columns.ravel(), rows.ravel()], axis=1)  # (N, 2)
    colours = image.reshape(-1, 3)
    w1, sigma_xy, sigma_rgb = bilateral
    w2, sigma = spatial
    both = np.concatenate([places / sigma_xy, colours / sigma_rgb], axis=1)  # (N, 5)
    return [(w1, both), (w2, places / sigma)]


def kernel(f):
    """exp(−|f_i − f_j|² / 2) of all pairs.   (N, d) -> (N, N)"""
    squares = (f**2).sum(axis=1)
    return np.exp(-np.maximum(squares[:, None] + squares - 2 * f @ f.T, 0) / 2)


crop = slice(56, 96), slice(40, 80)  # 40 × 40 pixels: 1,600, so 2.56 million pairs
small, probabilities = image[crop], before[(slice(None), *crop)]
(w1, f1), (w2, f2) = features(small, **settings)
k1, k2 = kernel(f1), kernel(f2)
print("pairs:", k1.shape, f"  numbers in the kernel: {k1.size:,}")

# %% tags=["hide-input"]
row = {"crop": small}
for name, k, column in (
    ("left", k1, 12),
    ("right", k1, 30),
    ("right, spatial", k2, 30),
):
    row[name] = k[20 * 40 + column].reshape(40, 40)
caption = (
    "A crop, and kernels of a pixel left and right of its middle: the bilateral one is "
    "high where the colour is like the pixel's; the spatial one is a blur."
)
lesson.pictures("14_kernels", [row], caption=caption, cmap="inferno", vmin=0, vmax=1)

# %% [markdown]
# ## One step of mean field
#
# The best labelling cannot be found by trying: this crop has 6^1600 labellings. *Mean
# field* gives each pixel probabilities Q of its own, and improves them in turns. In
# each turn a pixel asks all others what they are, and listens to each as much as the
# kernel says:
#
#     Q_i(c)  ←  softmax over c of   log P_i(c) + Σ_m w_m Σ_j n_i k_m(i, j) n_j Q_j(c)
#
# P are the network's probabilities, and m is 1 and 2, the two kernels. The sum over j
# is a matrix product, K · Q. (It includes j = i: a pixel hears itself, too.) The n keep
# the sums of a kernel's rows near 1: n_i = (Σ_j k_m(i, j))^−½. Without them a pixel in
# a large flat region would hear thousands of voices, and one at a corner few. That is
# all of the algorithm.


# %%
def softmax(scores):
    """Over the classes.   (C, N) -> (C, N)"""
    exponentials = np.exp(scores - scores.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def normalised(k):
    n = k.sum(axis=1) ** -0.5
    return n[:, None] * k * n


def dense_crf(probabilities, image, iterations=10, **settings):
    """By all pairs.   (C, H, W), (H, W, 3) -> (C, H, W)"""
    log_p = np.log(np.maximum(probabilities, 1e-20)).reshape(C, -1).astype(float)
    K = sum(w * normalised(kernel(f)) for w, f in features(image, **settings))
    q = softmax(log_p)
    for _ in range(iterations):
        q = softmax(log_p + q @ K)
    return q.reshape(probabilities.shape)


exact = dense_crf(probabilities, small, **settings)

from minifcn.inference.dense_crf import reference

theirs = reference(probabilities, small, **settings)
print(f"greatest difference from the library's: {np.abs(exact - theirs).max():.0e}")
assert np.abs(exact - theirs).max() < 1e-6

# %% [markdown]
# ## Too many pairs
#
# The crop has 1,600 pixels and 2.56 million pairs. A photograph of 500 × 375 has
# 187,500 pixels and 35 billion pairs, for each of two kernels, in each iteration. One
# kernel would take 281 gigabytes as float64. But it is a *Gaussian filter*: each result
# is an average of values, with weights that fall off with distance. In the plane one
# would blur fast by going to a coarse grid. Here the distance is in five dimensions,
# place and colour.
#
# ## Splat, blur, slice
#
# Take one dimension first: points f_j on a line, each with a value v_j. We want y_i =
# Σ_j exp(−(f_i − f_j)²/2) v_j. Lay a grid over the line. Each point gives its value to
# the two grid points around it, the nearer one the larger share (*splat*). Then the grid
# is *blurred*: half of each neighbour's value is added to each grid point's own. Each
# point takes back from its two grid points, with the same shares (*slice*). The cost of
# all three grows with the points, not with the pairs. Splat and slice are tents (lesson
# 5), and a tent, a small blur and a tent in a row come near a Gaussian. How near, and at
# which grid step?


# %%
def line_filter(f, v, step):
    """Splat, blur, slice on a line.   f, v (N,) -> (N,)"""
    at = f / step
    low = np.floor(at).astype(int)
    share = at - low  # of the upper grid point
    low -= low.min() - 1
    grid = np.zeros(low.max() + 3)
    np.add.at(grid, low, (1 - share) * v)
    np.add.at(grid, low + 1, share * v)
    grid[1:-1] = grid[1:-1] + (grid[:-2] + grid[2:]) / 2
    return (1 - share) * grid[low] + share * grid[low + 1]


rng = np.random.default_rng(0)
f, v = rng.uniform(0, 20, 3000), rng.uniform(0, 1, 3000)
v[f > 10] *= 0.2
wanted = kernel(f[:, None]) @ v
# Variances of blurs in a row add up: tent, ½ 1 ½, tent (in step²); the Gaussian's is 1
step = np.sqrt(1 / (1 / 6 + 1 / 2 + 1 / 6))
found = line_filter(f, v, step)
found *= wanted.sum() / found.sum()  # the filter knows its values up to one factor
error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
print(f"grid step {step:.2f}, error of the filter on a line: {error:.1%}")
assert error < 0.05

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

figure, panel = plt.subplots(figsize=(7, 2.7))
order = np.argsort(f)
panel.plot(f[order], wanted[order], color="0.6", lw=4, label="all pairs")
panel.plot(f[order], found[order], color="C3", lw=1, label="splat, blur, slice")
panel.set(xlabel="f", ylabel="sum")
panel.legend(frameon=False)
lesson.show(
    figure,
    "14_line",
    "Filtered values of 3000 points on a line, by all pairs and by splat, blur and "
    "slice: the two curves nearly coincide.",
)

# %% [markdown]
# ## The lattice
#
# In five dimensions a grid of cubes has 2⁵ = 32 corners around each point. The
# *permutohedral lattice* divides space into simplices, which are triangles in the plane
# and tetrahedra in space. A simplex in d dimensions has d + 1 corners: 6 instead of 32.
# The blur goes along d + 1 axes. And only corners near some point exist: the library
# numbers those, and finds the neighbours of each. That is `inference/permutohedral.py`, of
# two pages. Filter with it, and compare it with the sum over all pairs:

# %%
from minifcn.inference.permutohedral import Lattice

values = probabilities.reshape(C, -1).T.astype(np.float32)  # (N, C)
for name, f, k in (("bilateral", f1, k1), ("spatial", f2, k2)):
    lattice = Lattice(f)
    ones = lattice.filter(np.ones((len(values), 1), np.float32))
    found, wanted = lattice.filter(values) / ones, k @ values / k.sum(axis=1)[:, None]
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    print(f"{name:9s} {f.shape[1]} dimensions: error of the averages {error:.1%}")
    assert error < 0.1

lattice = Lattice(f1)
a, b = rng.normal(size=(2, len(f1), 1)).astype(np.float32)
there = float(np.sum(b * lattice.filter(a)))
back = float(np.sum(a * lattice.filter(b, reverse=True)))
print(f"⟨b, filter a⟩ = {there:.4f}, ⟨filter in reverse b, a⟩ = {back:.4f}")
assert abs(there - back) < 1e-4 * np.linalg.norm(a) * np.linalg.norm(b)

# %% [markdown]
# The averages agree to a few percent, not to rounding: the lattice is an approximation,
# and the division by `ones` cancels its one unknown factor. The last line is lesson 5's
# test of a transpose. The filter's transpose is the filter itself, but for the order in
# which the axes are blurred. A backward pass would need no more.
#
# What does the approximation do to the result? Here is the whole CRF both ways, on the
# crop. Then a table of times. From line to line there are 4 times as many pixels, and 16
# times as many pairs. Does the time grow like the pixels or like the pairs?

# %%
fast = inference.dense_crf(probabilities, small, **settings)
apart = np.abs(fast - exact)
same = np.mean(fast.argmax(axis=0) == exact.argmax(axis=0))
print(
    f"probabilities differ by {apart.mean():.4f} on average, {apart.max():.3f} at most;"
)
print(f"{same:.1%} of the pixels get the same label")
lead = np.diff(np.sort(probabilities, axis=0)[-2:], axis=0)[0]  # of the best label
tipped = lead[apart.max(axis=0) > 0.1]
print(f"{tipped.size} differ by more than 0.1; their best label led by", end=" ")
print(f"{tipped.mean():.2f}, that of all by {lead.mean():.2f}")
assert apart.mean() < 0.02 and same > 0.97 and tipped.mean() < lead.mean() / 2

import time

for side in (32, 64, 128):
    part = slice(side), slice(side)
    start = time.perf_counter()
    inference.dense_crf(before[(slice(None), *part)], image[part], **settings)
    seconds = time.perf_counter() - start
    print(
        f"{side:3d} × {side:3d}: {side**2:6,d} pixels, {side**4:13,d} pairs,", end=" "
    )
    print(f"by the lattice in {seconds:.2f} s")

# %% [markdown]
# Like the pixels. And the approximation costs little. Where it changes much, the network
# itself was undecided: there ten turns can make a small error into the opposite certainty.
#
# ## Does it help?
#
# The first picture was one scene. Here are two sets of eight, with scores as coarse and
# as noisy. And is it the colour that helps? A second setting has a σ_rgb so large that
# colour hardly counts.

# %%
from minifcn.metrics import ConfusionMatrix


def judge(seed, **settings):
    """Mean IoU before and after, over eight scenes."""
    scores = ConfusionMatrix(C), ConfusionMatrix(C)
    for i in range(8):
        image, label = draw_scene(np.random.default_rng([seed, i]), 140)
        image, label = image[:96, :96], label[:96, :96]
        p = coarse_probabilities(label, np.random.default_rng([seed, i]))
        q = inference.dense_crf(p, image, **settings)
        for matrix, given in zip(scores, (p, q), strict=True):
            matrix.update(label, given.argmax(axis=0).astype(np.uint8))
    return [matrix.mean_iou() for matrix in scores]


for seed in (5, 6):
    before_iou, after_iou = judge(seed, **settings)
    _, without_colour = judge(seed, bilateral=(5.0, 20.0, 200.0), spatial=(3.0, 3.0))
    print(
        f"scenes of seed {seed}: before {before_iou:.3f}, after {after_iou:.3f},",
        end=" ",
    )
    print(f"colour hardly counting {without_colour:.3f}")
    assert after_iou > before_iou + 0.03 and after_iou > without_colour + 0.03

# %% [markdown]
# It helps where the image's edges are those of the objects. Without colour there is
# nothing to snap to: what remains is a blur. And a shape with a patterned coat has
# edges inside, too, so σ_rgb must not be too small: with 3 in place of 12 the scenes of
# seed 5 come to 0.942. DeepLab searched its numbers on 100 images. Later networks see
# more and need it less: DeepLabv3 left the CRF out.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** ★ How many terabytes does the kernel of all pairs take for an image of 1000 ×
# 1000 pixels, at four bytes a number? (A terabyte is 10¹² bytes.)
#
# **2.** ★★ Above, a label gains by the voices for it. In the article it *loses* by the
# voices for all others. Write this turn: a function `(log_p, q, K)` of arrays (C, N),
# (C, N) and (N, N) that returns the new q, the softmax over c of log_p(c) − Σ over c' ≠ c
# of (q K)(c'). Is it the same as above? Why?
#
# **3.** ★★★ Predict, then run. What if the network is sure of itself? Square the
# probabilities and normalise them again, which makes every score twice as large, before
# `inference.dense_crf`. Does the CRF change more labels of the first scene or fewer?
# Answer with the share of pixels whose label it changes, first with `before`, then with
# the squared ones, as a pair.

# %%
import answers

answers.check("14.1", ...)
answers.check("14.2", ...)
answers.check("14.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn predict --crf` and `minifcn evaluate --crf` put the dense CRF behind a
#   network; `minifcn predict --help` has its numbers.
# - It needs probabilities, not scores: take the softmax first.
# - Choose its numbers on images that you do not report on. A CRF with wrong numbers
#   makes good masks worse.
#
# ## Further reading
#
# - P. Krähenbühl, V. Koltun, [*Efficient Inference in Fully Connected CRFs with Gaussian
#   Edge Potentials*](https://arxiv.org/abs/1210.5644), NIPS 2011.
# - A. Adams, J. Baek, M. A. Davis, *Fast High-Dimensional Filtering Using the
#   Permutohedral Lattice*, Eurographics 2010.
# - L.-C. Chen and others, [*Semantic Image Segmentation with Deep Convolutional Nets and
#   Fully Connected CRFs*](https://arxiv.org/abs/1412.7062), ICLR 2015: DeepLab.
# - In the code: `minifcn/inference/dense_crf.py`, `minifcn/inference/permutohedral.py`.
