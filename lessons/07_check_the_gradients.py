# %% [markdown]
# # 7. Check the gradients
#
# **You will** check backward passes against nothing but their forward passes, find
# out how small a step may be, plant five bugs and catch each, and meet two that slip
# through.
#
# **You will learn** that a network with a wrong gradient still trains, what finite
# differences can show, what a kink is, and why a check with ones is blind.
#
# **You need** lesson 3 (a forward and its backward). A whole network appears here as a
# black box; lessons 9 and 10 build it.
#
# **It takes** 25 minutes to read and half a minute to run.

# %%
import lesson

lesson.begin()  # says where arrays live: in main memory, or on a GPU (lesson 17)

# %% [markdown]
# ## A bug that trains
#
# A wrong forward pass gives wrong answers, and you see them. A wrong backward pass
# gives a wrong direction, and the loss still falls, only not as far as it could.
# Here a network learns to tell shapes from background, with two seeds, each once as it
# should be and once with a bug. The network uses some maps twice, and the gradients
# from both uses must be *added* (lesson 10). The bug forgets one of the two.

# %%
import numpy as np

import shapes  # beside the lessons: scenes, and a loop that trains on them
from minifcn import inference, layers, models
from minifcn.training.optimizers import SGD

scenes = shapes.samples(300, drawn=88, size=64)
train, val = scenes[:260], scenes[260:]


class Forgetful(layers.Conv2d):
    """A convolution that sends nothing back to its input."""

    def backward(self, dy, **options):
        return 0 * super().backward(dy, **options)


BUG = {False: "right", True: "with the bug"}
runs, ious = {}, {}
for seed, bug in ((0, False), (0, True), (1, False), (1, True)):
    network = models.fcn("8s", "mini", 2, alignment="same", width=8, seed=seed)
    if bug:
        for name in ("score_pool3", "score_pool4"):
            network[name].__class__ = Forgetful
    sgd = SGD(network.parameters(), momentum=0.9, weight_decay=5e-4)
    losses = shapes.fit(network, train, sgd, 0.1, steps=120, batch=6, seed=seed)
    runs[seed, bug] = network, losses
    ious[seed, bug] = 100 * inference.evaluate(network, val, 2).mean_iou()
    first, last = losses[0], np.mean(losses[-20:])
    print(f"seed {seed}, {BUG[bug]:12s} loss {first:.2f} -> {last:.2f}", end=", ")
    print(f"mean IoU {ious[seed, bug]:.1f}")
    assert last < 0.95 * first  # it "learns", bug or not
assert all(ious[seed, True] < ious[seed, False] - 5 for seed in (0, 1))

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

RIGHT, WRONG = "#1f618d", "#c0392b"
figure, panel = plt.subplots(figsize=(7, 2.7))
for (seed, bug), (_, losses) in runs.items():
    style = {"color": WRONG if bug else RIGHT, "ls": "-:"[seed]}
    panel.plot(lesson.running(losses), label=None if seed else BUG[bug], **style)
panel.set(xlabel="step", ylabel="loss a pixel", ylim=0)
panel.legend(frameon=False, loc="upper right")
lesson.show(figure, "07_trains", "The mean loss of 15 steps, of two seeds.")
row = {"image": val[3].image, "truth": lesson.over(val[3].image, val[3].label)}
for bug, name in BUG.items():
    found = inference.predict(runs[0, bug][0], val[3].image)
    row[name] = lesson.over(val[3].image, found)
lesson.pictures("07_found", [row], caption="Seed 0, in a scene it has not seen.")

# %% [markdown]
# With the bug nothing stops, and nothing complains. Whoever sees the red curves alone
# will blame the learning rate. What finds the bug is the *definition of a derivative*.
#
# ## Two evaluations give a derivative
#
# Move one input a little, by e, and see how far the output moves:
#
#     f'(a) ≈ (f(a + e) − f(a − e)) / 2e
#
# This needs the forward pass only. By hand: f(a) = a² at a = 3, with e = 0.1 gives
# (9.61 − 8.41) / 0.2 = 6, and the derivative 2a is 6, too.
#
# An operation has many outputs. Its backward pass gets dy, the gradient of some loss by
# each of them. So make up a loss: the sum F = Σ g·y with random weights g. Its gradient
# by y is g. Feed `dy = g` to the backward, and compare what it returns with the
# quotients of F.


# %%
def numeric_gradient(F, a, e=1e-5):
    """The quotient for each entry of a.   a (any shape) -> the gradient of F, like a"""
    gradient = np.zeros_like(a)
    for index in np.ndindex(a.shape):
        ahead, behind = a.copy(), a.copy()
        ahead[index] += e
        behind[index] -= e
        gradient[index] = (F(ahead) - F(behind)) / (2 * e)
    return gradient


def relative_error(one, other):
    """|one - other| over the larger of the two, as vectors: equal 0, opposite 2."""
    size = max(np.linalg.norm(one), np.linalg.norm(other))
    return np.linalg.norm(one - other) / max(size, 1e-300)


# %%
from minifcn import ops

rng = np.random.default_rng(0)
x = rng.normal(size=(2, 3, 5, 5))  # (N, C, H, W), float64
w = rng.normal(size=(4, 3, 3, 3))  # (K, C, k, k)
y, cache = ops.conv2d_forward(x, w, pad=1)
g = rng.normal(size=y.shape)  # what a loss might send back
dx, dw, _ = ops.conv2d_backward(g, cache)


def F(x, w):
    return np.sum(g * ops.conv2d_forward(x, w, pad=1)[0])


numeric_dx = numeric_gradient(lambda x: F(x, w), x)
numeric_dw = numeric_gradient(lambda w: F(x, w), w)
for name, exact, numeric in (("dx", dx, numeric_dx), ("dw", dw, numeric_dw)):
    error = relative_error(exact, numeric)
    print(f"{name}: {exact.size} numbers, relative error {error:.1e}")
    assert error < 1e-8

# %% [markdown]
# ## The valley of e
#
# Why 1e-5? There are two errors. A large e measures the slope of a chord, not of the
# curve. That error shrinks with e, like e². A small e subtracts two numbers that are
# almost equal, and of float64's sixteen digits few survive. That error *grows*, like
# 1/e. The sum of the two is a valley. With float32's seven digits it lies higher.

# %%
logits = rng.normal(size=(1, 6, 4, 4))  # scores
labels = rng.integers(0, 6, (1, 4, 4)).astype(np.uint8)
_, cache = ops.softmax_cross_entropy_forward(logits, labels)
exact = ops.softmax_cross_entropy_backward(1.0, cache)


def loss(scores):  # in the dtype of the scores
    return ops.softmax_cross_entropy_forward(scores, labels)[0]


steps = 10.0 ** np.arange(-13, 0.1, 0.5)
valley = {}
for dtype in (np.float64, np.float32):
    at = logits.astype(dtype)
    found = [numeric_gradient(loss, at, dtype(e)).astype(float) for e in steps]
    valley[dtype] = errors = [relative_error(f, exact) for f in found]
    best, usual = int(np.argmin(errors)), np.argmin(abs(steps - 1e-5))
    print(f"{dtype.__name__}: best e about {steps[best]:.0e}", end=", ")
    print(f"error there {errors[best]:.0e}; at 1e-05 {errors[usual]:.1e}")

assert min(valley[np.float64]) < 1e-8 < 1e-5 < min(valley[np.float32])
assert np.allclose(valley[np.float32][:9], 1)  # up to e = 1e-9 nothing moves

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(7, 3.4))
for (dtype, errors), colour in zip(valley.items(), (RIGHT, WRONG), strict=True):
    axes.loglog(steps, errors, "o-", color=colour, ms=4, label=dtype.__name__)
axes.loglog(steps[16:], 0.1 * steps[16:] ** 2, "k--", lw=1, label="like e²")
axes.loglog(steps[:17], 2e-16 / steps[:17], "k:", lw=1, label="like 1/e")
axes.set(xlabel="step e", ylabel="relative error", ylim=(1e-12, 3))
axes.legend(frameon=False)
lesson.show(figure, "07_valley", "The error of a right gradient, by the step.")

# %% [markdown]
# So **check in float64**, even if you train in float32, with e around 1e-5. At that e
# float32 calls a right gradient wrong by a sixth. (At 1e-9 and below none of the loss's
# seven digits moves: the quotient is 0.) So all operations here keep the dtype given.
#
# ## Kinks
#
# ReLU, y = max(x, 0), has no derivative at 0: there is a kink. Where an input is nearer
# to 0 than e, the two evaluations lie on different sides of it, and the quotient is
# neither slope. (Max pooling has kinks where two values of a window are nearly equal.)

# %%
a = 0.3e-5  # nearer to the kink than e = 1e-5; the backward pass says 1
wide, narrow = ((max(a + e, 0) - max(a - e, 0)) / (2 * e) for e in (1e-5, 0.5e-5))
print(f"e = 1e-5: {wide:.2f}; half of it: {narrow:.2f}")
assert abs(wide - 1) > 0.1

# %% [markdown]
# The backward pass is right, and the check says it is wrong by a third. The tempting
# remedy is to allow larger errors. Do not: real bugs would pass as well. A kink can be
# *recognised*. For a smooth function the quotients at e and at e/2 agree to many
# digits; across a kink they do not (above: 0.65 and 0.80). `minifcn.gradcheck` compares
# the two, and draws another point where they disagree. Its report names the argument
# with the worst error, counted from 0, and how much of an error rounding may make.

# %%
from minifcn import gradcheck

near_kinks = rng.normal(size=(1, 2, 6, 6)) * 1e-4  # gradcheck's step is 3e-5
report = gradcheck.check_op(ops.relu_forward, ops.relu_backward, [near_kinks], rng)
print(report)
assert report.redrawn > 0 and report.max_relative_error < 1e-6

# %% [markdown]
# ## The trap of ones
#
# Many checks use the plain sum of the outputs as their loss, so that `dy` is all ones.
# That is blind. A softmax makes probabilities that sum to 1, whatever the scores are. So
# F is constant, its gradient is zero, and a backward that returns zeros passes:


# %%
def softmax(a):  # (N, C) -> probabilities over C
    e = np.exp(a - a.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


a = rng.normal(size=(3, 4))
for title, g in (("ones", np.ones((3, 4))), ("random", rng.normal(size=(3, 4)))):
    numeric = numeric_gradient(lambda a, g=g: np.sum(g * softmax(a)), a)
    p = softmax(a)
    right = np.abs(p * (g - (g * p).sum(axis=1, keepdims=True)) - numeric).max()
    zeros = np.abs(0 - numeric).max()
    print(f"g = {title:7s} greatest error: right one {right:.0e}, zeros {zeros:.0e}")
    assert right < 1e-9 and (zeros < 1e-9) == (title == "ones")

# %% [markdown]
# A convolution that uses `dy` upside down would pass, too: ones upside down are ones
# again. A random g has no symmetry for a bug to hide behind.
#
# ## A whole network by a few numbers
#
# A million parameters would need two million forward passes. A *direction* needs two.
# Move all parameters a little along a random v. The quotient must equal ⟨gradient, v⟩,
# the sum of the products entry by entry. `check_layer` takes some directions, and some
# entries of each array. Here are the two networks of the first picture, untrained. Their
# score layers start at zero, and zeros send nothing back: give them random weights.

# %%
from minifcn.backend import to_device  # puts an array where the network's live

x = to_device(rng.normal(size=(1, 3, 40, 40)))
for bug, name in BUG.items():
    network = models.fcn("8s", "mini", 2, alignment="same", width=8).astype(np.float64)
    for score in ("score_fr", "score_pool3", "score_pool4"):
        weight = network[score].weight
        weight.value = to_device(rng.normal(size=weight.value.shape))
        if bug and score != "score_fr":
            network[score].__class__ = Forgetful
    report = gradcheck.check_layer(network, x, rng, directions=2, elements=2)
    print(f"{name}: {report}")
    error = report.max_relative_error
    assert error > 0.05 if bug else error < 1e-6

# %% [markdown]
# ## Four more bugs
#
# A check that has never failed proves nothing. So let us break backward passes on
# purpose, as people do by accident. Each name tells the slip. (`gamma` and `beta` are
# batch normalisation's two learned numbers a channel; lesson 8 derives its backward.)

# %%
maps = rng.permutation(2 * 2 * 6 * 6).reshape(2, 2, 6, 6) / 36.0 - 2  # no two are equal
kernel, bias = rng.normal(size=(3, 2, 3, 3)), rng.normal(size=3)
gamma, beta = rng.normal(size=2) + 1, rng.normal(size=2)


def conv(x, w, b):
    return ops.conv2d_forward(x, w, b, stride=2, pad=1)


def pool(x):
    return ops.max_pool2d_forward(x, 2)


def norm(x, gamma, beta):
    return ops.batch_norm_forward(x, gamma, beta, np.zeros(2), np.ones(2), train=True)


def flipped_kernel(dy, cache):
    x, w, *rest = cache
    return ops.conv2d_backward(dy, (x, w[:, :, ::-1, ::-1], *rest))


def first_image_only(dy, cache):
    dx, dw, db = ops.conv2d_backward(dy, cache)
    _, one = conv(maps[:1], kernel, bias)
    return dx, ops.conv2d_backward(dy[:1], one)[1], db


def share_of_each(dy, cache):
    return np.repeat(np.repeat(dy, 2, axis=2), 2, axis=3) / 4  # an average pool's


def statistics_as_constants(dy, cache):
    dx, dgamma, dbeta = ops.batch_norm_backward(dy, cache)
    deviation = maps.std(axis=(0, 2, 3))[:, None, None]
    return dy * gamma[:, None, None] / deviation, dgamma, dbeta


for forward, backward, bug, arrays in (
    (conv, ops.conv2d_backward, flipped_kernel, [maps, kernel, bias]),
    (conv, ops.conv2d_backward, first_image_only, [maps, kernel, bias]),
    (pool, ops.max_pool2d_backward, share_of_each, [maps]),
    (norm, ops.batch_norm_backward, statistics_as_constants, [maps, gamma, beta]),
):
    good = gradcheck.check_op(forward, backward, arrays, rng).max_relative_error
    bad = gradcheck.check_op(forward, bug, arrays, rng)
    print(f"{forward.__name__}: right {good:.0e}, {bug.__name__:24s}", end="")
    print(f"{bad.max_relative_error:.0e} in {bad.worst}")
    assert good < 1e-6 and bad.max_relative_error > 0.05

# %% [markdown]
# Between the two columns lies a wide gap: what float64, a random g and no kinks are for.
#
# Your turn: plant a bug in the library's own code, choose a check, and say whether it
# will complain before you run it.

# %% tags=["hide-input"]
import buglab

lesson.widget("buglab", buglab.numbers, "five bugs, and checks that find them or not")

# %% [markdown]
# ## What no such check finds
#
# A check speaks of the sizes that it was given, and of no others. With a batch of one
# image `first_image_only` passes. Choose odd sizes, small ones, and more than one image.
# And a check compares a backward with *its own* forward. If both are wrong in the same
# way, they agree. Here is a mean of two neighbours that divides by 3:

# %%
report = gradcheck.check_op(conv, first_image_only, [maps[:1], kernel, bias], rng)
print(f"first_image_only, checked with one image: {report.max_relative_error:.0e}")
assert report.max_relative_error < 1e-6


def thirds(x):
    return (x[..., ::2] + x[..., 1::2]) / 3, None


def thirds_backward(dy, _):
    return dy.repeat(2, axis=-1) / 3


report = gradcheck.check_op(thirds, thirds_backward, [maps], rng)
print(f"thirds, a third too small: {report.max_relative_error:.0e}")
assert report.max_relative_error < 1e-6

# %% [markdown]
# For the forward pass one needs values worked out by hand, or another program.
#
# ## Exercises
#
# Replace the dots and run the cell again. More stars, more work.
#
# **1.** ★ A forward pass is y = 3x and somebody's backward returns `3 * dy[::-1]`. Write
# a function of `n` (3 or more) that returns a `dy` of shape (n,), not all one number,
# with which this bug would pass.
#
# **2.** ★★ Write the backward of y = x · sigmoid(x), where sigmoid(x) = 1 / (1 +
# exp(−x)), as a function `(dy, x)` that returns dx. Check it with `numeric_gradient`.
#
# **3.** ★★★ Invent a bug that the check misses. Write a backward of ReLU, a function
# `(dy, y)` that returns dx, that passes `check_op` on one image of 2 channels and 6 × 6
# pixels and is wrong on a batch of two images, on another size, or on another number
# of channels. Make it a slip that you could have made. (No program can check that.)

# %%
import answers

answers.check("07.1", ...)
answers.check("07.2", ...)
answers.check("07.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn gradcheck` does this for FCN-32s, 16s and 8s and for U-Net. The tests do it
#   for every layer and network, and plant some hundreds of bugs in a copy of the code.
# - A backward that saves memory by writing into `dy` passes a check of its own, and ruins
#   whoever else gets the same `dy`. `gradcheck` hands out read-only arrays.
#
# ## Further reading
#
# - C. M. Bishop, *Pattern Recognition and Machine Learning*, 2006, section 5.3.3.
# - N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, chapter 1.
# - In the code: `minifcn/gradcheck.py`.
