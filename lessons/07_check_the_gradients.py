# %% [markdown]
# # 7. Check the gradients
#
# **You will** check backward passes against nothing but their forward passes, find
# out how small a step may be, plant six bugs and catch each, and meet two that no
# such check can catch.
#
# **You will learn** why a network with a wrong gradient still trains, what finite
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
# gives a wrong direction. In the end the loss still falls, only not as far as it could.
#
# Here a network learns to tell shapes from background, four times: with two seeds, each
# once as it should be and once with a bug. The network uses some maps twice, and the
# gradients from both uses must be *added* (lesson 10). The bug forgets one of the two.

# %%
import numpy as np

from minifcn import data, inference, models
from minifcn.data.toyvoc import draw_scene
from minifcn.training import loop
from minifcn.training.optimizers import SGD


def draw(seed):
    """A scene of shapes, (64, 64, 3), and its label: 0, 1 (some shape) and void."""
    image, label = draw_scene(np.random.default_rng([7, seed]), 88)
    label = np.where((label > 0) & (label < 255), 1, label).astype(np.uint8)
    return data.Sample(image[:64, :64], label[:64, :64], str(seed))


scenes = [draw(i) for i in range(300)]
train, val = scenes[:260], scenes[260:]


def forget(layer):
    """Make a layer send nothing back to its input."""
    whole = layer.backward
    layer.backward = lambda dy, **options: 0 * whole(dy, **options)


def fit(seed, bug, steps=120):
    """Train the network. -> it, and its losses"""
    network = models.fcn("8s", "mini", 2, alignment="same", width=8, seed=seed)
    if bug:
        forget(network["score_pool3"])
        forget(network["score_pool4"])
    sgd = SGD(network.parameters(), momentum=0.9, weight_decay=5e-4)
    order = np.random.default_rng(seed)
    stream = data.BatchStream(
        train, 6, network.card.preprocessing, order, crop=(64, 64)
    )
    rates = 0.1 * (1 - np.arange(steps) / steps)
    return network, [loop.update(network, *next(stream), sgd, r) for r in rates]


runs = {(seed, bug): fit(seed, bug) for seed in (0, 1) for bug in (False, True)}
ious = {}
for (seed, bug), (network, losses) in runs.items():
    ious[seed, bug] = 100 * inference.evaluate(network, val, 2).mean_iou()
    print(f"seed {seed}, {'with the bug' if bug else 'right       '}: ", end="")
    print(f"loss {losses[0]:.2f} -> {np.mean(losses[-20:]):.2f}, ", end="")
    print(f"mean IoU {ious[seed, bug]:.1f}")
    assert np.mean(losses[-20:]) < 0.85 * losses[0]  # it "learns", bug or not
assert all(ious[seed, True] < ious[seed, False] - 5 for seed in (0, 1))

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

from minifcn.cli.predict import overlay
from minifcn.data.labels import colourise

RIGHT, WRONG = "#1f618d", "#c0392b"
figure = plt.figure(figsize=(7, 4.6))
upper, lower = figure.subfigures(2, 1, height_ratios=(1.25, 1))
panel = upper.subplots()
for (seed, bug), (_, losses) in runs.items():
    mean = [np.mean(losses[max(0, i - 14) : i + 1]) for i in range(len(losses))]
    name = None if seed else ("with the bug" if bug else "right")
    panel.plot(mean, color=WRONG if bug else RIGHT, ls="-:"[seed], label=name)
panel.set(xlabel="step", ylabel="loss a pixel", ylim=0)
panel.legend(frameon=False, loc="upper right")
sample = val[3]
shown = {"truth": sample.label}
for bug, name in ((False, "right"), (True, "with the bug")):
    shown[name] = inference.predict(runs[0, bug][0], sample.image)
first, *others = lower.subplots(1, 4)
first.imshow(sample.image)
first.set_title("image")
for panel, (title, label) in zip(others, shown.items(), strict=True):
    panel.imshow(overlay(sample.image, colourise(label)))
    panel.set_title(title)
for panel in (first, *others):
    panel.set_axis_off()
caption = (
    "Above: the loss (mean of 15 steps) of two seeds, full and dotted. "
    "Below: what the two networks of seed 0 find in a scene they have not seen."
)
lesson.show(figure, "07_trains", caption)

# %% [markdown]
# With the bug nothing stops, nothing complains, and in the end the loss has fallen. With
# one seed it climbs for fifty steps before, as it does in a right network at too high a
# rate. So whoever sees the red curves alone will blame the learning rate. What finds the
# bug is the *definition of a derivative*.
#
# ## Two evaluations give a derivative
#
# Move one input a little, by e, and see how far the output moves:
#
#     f'(a) ≈ (f(a + e) − f(a − e)) / 2e
#
# This needs the forward pass only, and gives one number for each input. Here is one by
# hand: f(a) = a² at a = 3, with e = 0.1. (3.1² − 2.9²) / 0.2 = (9.61 − 8.41) / 0.2 = 6,
# and the derivative 2a is 6, too.
#
# An operation has many outputs. Its backward pass answers a question about all of them:
# given dy, the gradient of some loss by each output, what is the gradient by each
# *input*? So make up a loss. The simplest is a weighted sum F = Σ g·y with random
# weights g. Its gradient by y is g. Feed `dy = g` to the backward, and compare what it
# returns with the quotients of F.


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


for name, gradient, numeric in (
    ("dx", dx, numeric_gradient(lambda x: F(x, w), x)),
    ("dw", dw, numeric_gradient(lambda w: F(x, w), w)),
):
    error = relative_error(gradient, numeric)
    print(f"{name}: {gradient.size} numbers, relative error {error:.1e}")
    assert error < 1e-8

# %% [markdown]
# ## The valley of e
#
# Why 1e-5? There are two errors. A large e measures the slope of a chord, not of the
# curve. That error shrinks with e, like e². A small e subtracts two numbers that are
# almost equal, and of float64's sixteen digits few survive. That error *grows*, like
# 1/e. The sum of the two is a valley.
#
# float32 has seven digits. Its valley lies higher, and further to the right.

# %%
logits = rng.normal(size=(1, 6, 4, 4))
labels = rng.integers(0, 6, (1, 4, 4)).astype(np.uint8)
_, cache = ops.softmax_cross_entropy_forward(logits, labels)
exact = ops.softmax_cross_entropy_backward(1.0, cache)


def loss_in(dtype):
    return lambda a: ops.softmax_cross_entropy_forward(a.astype(dtype), labels)[0]


steps = 10.0 ** np.arange(-13, 0.1, 0.5)
valley = {}
for dtype in (np.float64, np.float32):
    loss = loss_in(dtype)
    at = logits.astype(dtype)
    valley[dtype] = [
        relative_error(numeric_gradient(loss, at, dtype(e)).astype(float), exact)
        for e in steps
    ]
    best, usual = int(np.argmin(valley[dtype])), np.argmin(abs(steps - 1e-5))
    print(
        f"{dtype.__name__}: best e about {steps[best]:.0e}, error there "
        f"{valley[dtype][best]:.0e}; at 1e-05 {valley[dtype][usual]:.0e}"
    )

assert min(valley[np.float64]) < 1e-8 < 1e-5 < min(valley[np.float32])
assert np.allclose(valley[np.float32][:13], 1)  # up to e = 1e-7 nothing moves

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(7, 3.8))
for errors, colour in zip(valley.values(), (RIGHT, WRONG), strict=True):
    axes.loglog(steps, errors, "o-", color=colour, markersize=4)
axes.loglog(steps[16:], 0.1 * steps[16:] ** 2, "k:", linewidth=1)
axes.loglog(steps[:17], 2e-16 / steps[:17], "k:", linewidth=1)
axes.text(1e-4, 1e-7, "e²", fontsize=12)
axes.text(1e-12, 3e-6, "1/e", fontsize=12)
axes.set(xlabel="step e", ylabel="relative error", ylim=(1e-12, 3))
axes.text(1e-8, 6e-6, "float64", fontsize=12, color=RIGHT)
axes.text(1e-8, 0.15, "float32", fontsize=12, color=WRONG)
axes.grid(alpha=0.3)
caption = (
    "The error of a right gradient of the cross-entropy, by the step of the quotient. "
    "Dotted: e² and 1/e."
)
lesson.show(figure, "07_valley", caption)

# %% [markdown]
# So: **check in float64**, even if you train in float32, with e around 1e-5. At that e
# float32 calls a right gradient wrong by nearly a fifth. (At 1e-7 and below, none of the
# loss's seven digits moves: the quotient is 0, the error 1.) Even at its best e it
# cannot see an error of a ten-thousandth. This is why every operation here follows the
# dtype it is given.
#
# ## Kinks
#
# ReLU, y = max(x, 0), has no derivative at 0: there is a kink. Where an input is nearer
# to 0 than e, the two evaluations lie on different sides of it, and the quotient is
# neither slope. Max pooling has kinks too, where the two largest values of a window are
# nearly equal.


# %%
def of_relu(a):
    return np.sum(ops.relu_forward(a)[0])


x = np.array([[[[0.3e-5]]]])  # nearer to the kink than e = 1e-5
_, cache = ops.relu_forward(x)
analytic = ops.relu_backward(np.ones_like(x), cache).item()
wide, narrow = (numeric_gradient(of_relu, x, e).item() for e in (1e-5, 0.5e-5))
print(f"backward: {analytic}; e = 1e-5: {wide:.2f}; half of it: {narrow:.2f}")
assert analytic == 1 and abs(wide - 1) > 0.1

# %% [markdown]
# The backward pass is right, and the check says it is wrong by a third. The tempting
# remedy is to allow larger errors. Do not: real bugs would pass as well. A kink can be
# *recognised*. For a smooth function the quotients at e and at e/2 agree to many
# digits; across a kink they do not (above: 0.65 and 0.80). `minifcn.gradcheck` compares
# the two. Where they disagree it draws another point, and it says how often it did.
#
# It checks up to 40 entries of each array, and four random directions (see below).
# Beside the error it prints how much of it may be rounding.

# %%
from minifcn import gradcheck

near_kinks = rng.normal(size=(1, 2, 6, 6)) * 1e-4  # its step is 3e-5
report = gradcheck.check_op(ops.relu_forward, ops.relu_backward, [near_kinks], rng)
print(report)
assert report.redrawn > 0 and report.max_relative_error < 1e-6

# %% [markdown]
# ## The trap of ones
#
# Many checks use the plain sum of the outputs as their loss, so that `dy` is all ones.
# That is blind. A softmax makes probabilities that sum to 1, whatever the scores are.
# With ones, F is constant, and its gradient is zero. So this backward passes:


# %%
def softmax(a):
    """a (N, C) -> probabilities over C"""
    e = np.exp(a - a.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return p, p


def softmax_backward(dy, p):
    return p * (dy - (dy * p).sum(axis=1, keepdims=True))


def lazy_backward(dy, p):
    return np.zeros_like(p)  # a bug as large as can be


a = rng.normal(size=(3, 4))
for title, g in (("ones", np.ones((3, 4))), ("random", rng.normal(size=(3, 4)))):
    numeric = numeric_gradient(lambda a, g=g: np.sum(g * softmax(a)[0]), a)
    right = np.abs(softmax_backward(g, softmax(a)[1]) - numeric).max()
    lazy = np.abs(lazy_backward(g, softmax(a)[1]) - numeric).max()
    print(f"g = {title:7s} greatest error: right one {right:.0e}, zeros {lazy:.0e}")
    assert right < 1e-9 and (lazy < 1e-9) == (title == "ones")

# %% [markdown]
# With ones, the zeros pass. So does a convolution that uses `dy` upside down, because
# ones upside down are ones again. A random g has no symmetry for a bug to hide behind.
#
# ## A whole network by a few numbers
#
# Entry by entry, a network with a million parameters would need two million forward
# passes. A *direction* needs two. Move all parameters a little along a random v. The
# quotient must equal ⟨gradient, v⟩, the sum of the products entry by entry: one number
# in which every entry takes part. `check_layer` takes some directions, and some entries
# of each array. (`to_device` puts an array where the network's arrays live.)

# %%
from minifcn.backend import to_device

network = models.fcn("8s", "mini", num_classes=3, alignment="same", width=2, seed=1)
for name, parameter in network.parameters().items():
    if name.startswith("score"):  # they start at zero, and would send nothing back
        parameter.value = parameter.value + 0.1
x = to_device(rng.normal(size=(1, 3, 40, 40)))
report = gradcheck.check_layer(network, x, rng, directions=2, elements=2)
print(report)
assert report.max_relative_error < 1e-6

# %% [markdown]
# ## Six bugs
#
# A check that has never failed proves nothing. So let us break backward passes on
# purpose, as people do by accident. First the right ones of five operations, then six
# wrong ones; each name tells the slip. (`gamma` and `beta` are batch normalisation's
# two learned numbers for each channel; lesson 8 derives its backward. "argument 0" is
# the first array that the operation is given.)

# %%
maps = rng.permutation(2 * 2 * 6 * 6).reshape(2, 2, 6, 6) / 36.0 - 2  # no two are equal
kernel = rng.normal(size=(3, 2, 3, 3))
bias = rng.normal(size=3)
gamma, beta = rng.normal(size=2) + 1, rng.normal(size=2)
truth = rng.integers(0, 3, (2, 6, 6)).astype(np.uint8)
truth[:, 0] = 255  # a row of void
scores = rng.normal(size=(2, 3, 6, 6))


def conv(x, w, b):
    return ops.conv2d_forward(x, w, b, stride=2, pad=1)


def norm(x, gamma, beta):
    mean, variance = np.zeros(2), np.ones(2)
    return ops.batch_norm_forward(x, gamma, beta, mean, variance, train=True)


def pool(x):
    return ops.max_pool2d_forward(x, 2)


def loss(scores):
    return ops.softmax_cross_entropy_forward(scores, truth)


def twice(x):  # a fork: x goes two ways, and the two meet again in a sum
    y, cache = ops.relu_forward(x)
    return x + y, cache


def twice_backward(dy, cache):
    return dy + ops.relu_backward(dy, cache)


right = {
    "convolution": (conv, ops.conv2d_backward, [maps, kernel, bias]),
    "max pooling": (pool, ops.max_pool2d_backward, [maps]),
    "batch normalisation": (norm, ops.batch_norm_backward, [maps, gamma, beta]),
    "cross-entropy": (loss, ops.softmax_cross_entropy_backward, [scores]),
    "a fork": (twice, twice_backward, [maps]),
}
rounding = []
for name, (forward, backward, arrays) in right.items():
    report = gradcheck.check_op(forward, backward, arrays, rng)
    rounding.append(report.max_relative_error)
    print(f"{name:22s}{rounding[-1]:.0e}")
assert max(rounding) < 1e-6


# %%
def flipped_kernel(dy, cache):
    x, w, *rest = cache
    dx, dw, db = ops.conv2d_backward(dy, (x, w[:, :, ::-1, ::-1], *rest))
    return dx, dw, db


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


def void_counted(dy, cache):
    return ops.softmax_cross_entropy_backward(dy, cache) * np.mean(truth != 255)


def overwritten(dy, cache):
    return ops.relu_backward(dy, cache)  # instead of added


bugs = [
    ("convolution", flipped_kernel),
    ("convolution", first_image_only),
    ("max pooling", share_of_each),
    ("batch normalisation", statistics_as_constants),
    ("cross-entropy", void_counted),
    ("a fork", overwritten),
]
errors = []
for name, backward in bugs:
    forward, _, arrays = right[name]
    report = gradcheck.check_op(forward, backward, arrays, rng)
    errors.append(report.max_relative_error)
    print(f"{name:22s}{backward.__name__:26s}{errors[-1]:.0e}  in {report.worst}")
assert min(errors) > 0.05

# %% [markdown]
# All errors of the right ones are below 1e-6, all of the wrong ones above 0.05. Nothing
# lies between. That gap is what the care was for: float64, a random g, no kinks.
#
# Your turn: plant a bug in the library's own code, choose a check, and say whether it
# will complain before you run it.

# %% tags=["hide-input"]
import buglab

lesson.widget("buglab", buglab.numbers, "five bugs, and checks that find them or not")

# %% [markdown]
# ## What no such check finds
#
# All six bugs are large, on the arrays that we chose. `first_image_only` uses the
# first image of a batch alone. Had we checked a batch of one image, it would have
# passed. A check speaks of the sizes that it was given, and of no others: choose odd
# ones, small ones, and more than one image.

# %%
one = [maps[:1], kernel, bias]
report = gradcheck.check_op(conv, first_image_only, one, rng)
print(f"first_image_only, checked with one image: {report.max_relative_error:.0e}")
assert report.max_relative_error < 1e-6

# %% [markdown]
# And a check compares a backward with *its own* forward. If the forward is wrong and
# the backward is wrong in the same way, the two agree. Here is an average pooling that
# divides by 3 where it should divide by 4:


# %%
def thirds(x):
    """Average pooling by 2, done wrong.   (N, C, 2h, 2w) -> (N, C, h, w)"""
    n, c, height, width = x.shape
    return x.reshape(n, c, height // 2, 2, width // 2, 2).sum(axis=(3, 5)) / 3, None


def thirds_backward(dy, _):
    return dy.repeat(2, axis=2).repeat(2, axis=3) / 3


report = gradcheck.check_op(thirds, thirds_backward, [maps], rng)
off = relative_error(thirds(maps)[0], ops.avg_pool2d_forward(maps, 2)[0])
print(f"its gradients are right to {report.max_relative_error:.0e}", end="")
print(f", its results are wrong by {off:.2f}")
assert report.max_relative_error < 1e-6 < 0.1 < off

# %% [markdown]
# Gradient checks do not test the forward pass. For that one needs values worked out by
# hand, or another program to compare with.
#
# ## Exercises
#
# Replace the dots and run the cell again. More stars, more work.
#
# **1.** ★★ Write the backward of y = x · sigmoid(x), where sigmoid(x) = 1 / (1 +
# exp(−x)), as a function `(dy, x)` that returns dx. (The derivative of sigmoid is
# s · (1 − s).) Check it with `numeric_gradient` before you hand it in.
#
# **2.** ★ A forward pass is y = 3x and somebody's backward returns `3 * dy[::-1]`, the
# gradient in the wrong order. Write a function of `n` (3 or more) that returns a `dy` of
# shape (n,) with which the bug would pass unnoticed, and whose entries are not all the
# same number.
#
# **3.** ★★★ Invent a bug that the check misses. Write a backward of ReLU, a function
# `(dy, y)` that returns dx, that passes `check_op` on one image of 2 channels and 6 × 6
# pixels and is wrong on a batch of two images, on another size, or on another number
# of channels. It may not simply ask for the shape and return something absurd: make it
# a slip that you could have made. (No program can check that last part.)

# %%
import answers

answers.check("07.1", ...)
answers.check("07.2", ...)
answers.check("07.3", ...)
# After two tries: answers.reveal("07.1")

# %% [markdown]
# ## In practice
#
# - `minifcn gradcheck` does this for FCN-32s, 16s and 8s as they are, and fails if a
#   relative error is above 1e-6. The library's tests do it for every operation, layer
#   and network, and plant some hundreds of bugs in a copy of the code, one by one.
# - An operation that is linear in x has a check without any e, lesson 5's
#   ⟨forward(x), g⟩ = ⟨x, backward(g)⟩: `gradcheck.check_adjoint`.
# - A backward that saves memory by writing into `dy` passes a check of its own, and ruins
#   whoever else gets the same `dy`. `gradcheck` hands out read-only arrays.
# - Layers that draw at random (dropout) must draw the same in both evaluations.
# - Check again after every "small" optimisation. That is when bugs come in.
#
# ## Further reading
#
# - C. M. Bishop, *Pattern Recognition and Machine Learning*, 2006, section 5.3.3:
#   numerical differentiation, and its cost.
# - N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, chapter 1: why
#   the valley.
# - In the code: `minifcn/gradcheck.py`.
