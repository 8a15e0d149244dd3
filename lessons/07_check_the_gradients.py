# %% [markdown]
# # 7. Check the gradients
#
# **You will** check backward passes against nothing but their forward passes, find
# out how small a step may be, plant eight bugs and catch each.
#
# **You will learn** why a wrong gradient often still trains, what finite differences
# can and cannot show, what a kink is, and why a check with ones catches less than it
# seems to.
#
# **You need** lesson 3 (a forward and its backward). The other layers that are checked
# here come from lessons 2, 5 and 9, the network from lesson 10.
#
# **It takes** 25 minutes to read and about ten seconds to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## A bug that trains
#
# A program with a wrong forward pass gives wrong answers, and you see them. A wrong
# backward pass gives a slightly wrong direction. The loss still falls, only not as far
# as it should, and you will blame the learning rate.
#
# Here is the smallest case: fit a line y = w·x + b to points, by following the gradient
# of the mean squared error. In one of the two runs the gradient of `w` is five times
# too small.

# %%
import numpy as np

rng = np.random.default_rng(0)
x = rng.uniform(0, 2, 200)
y = 3 * x - 1 + rng.normal(0, 0.1, 200)


def fit(factor, steps):
    """The loss after so many steps, with the gradient of w multiplied by `factor`."""
    w = b = 0.0
    for _ in range(steps):
        error = w * x + b - y
        w -= 0.1 * factor * np.mean(2 * error * x)
        b -= 0.1 * np.mean(2 * error)
    return np.mean((w * x + b - y) ** 2)


for steps in (0, 20, 200):
    print(f"{steps:4d} steps: right {fit(1, steps):.4f}   wrong {fit(0.2, steps):.4f}")
assert fit(0.2, 200) < 0.02 * fit(0.2, 0)  # it "learns"

# %% [markdown]
# The wrong one learns, too. Looking at a loss curve will not find this bug. What finds
# it is asking the *definition of a derivative*.
#
# ## Two evaluations give a derivative
#
# Move one input a little, by e, and see how far the output moves:
#
#     f'(a) ≈ (f(a + e) − f(a − e)) / 2e
#
# This needs the forward pass only. It gives one number for each input. If the backward
# pass gives the same numbers, it is right at this point.
#
# An operation has many outputs, and a backward pass answers a question about all of
# them at once: "given dy, how much the final loss wants each output to change, how much
# does it want each *input* to change?" So make up a final loss, any loss. The simplest
# is a weighted sum F = Σ g·y with random weights g. Its gradient by y is g. Feed
# `dy = g` to the backward, and compare what it returns with the quotients of F.


# %%
def quotient(F, a, index, e):
    """(F(a + e) - F(a - e)) / 2e, where only the entry `index` of the array moves."""
    ahead, behind = a.copy(), a.copy()
    ahead[index] += e
    behind[index] -= e
    return (F(ahead) - F(behind)) / (2 * e)


def numeric_gradient(F, a, e=1e-5):
    """All of them.   a (any shape) -> the gradient of F, of the same shape"""
    gradient = np.zeros_like(a)
    for index in np.ndindex(a.shape):
        gradient[index] = quotient(F, a, index, e)
    return gradient


def relative_error(one, other):
    """|one - other| over the larger of the two, in norm: equal 0, opposite 2."""
    size = max(np.linalg.norm(one), np.linalg.norm(other))
    return np.linalg.norm(one - other) / max(size, 1e-300)


# %%
from minifcn import ops

x = rng.normal(size=(2, 3, 5, 5))  # (N, C, H, W), float64
w = rng.normal(size=(4, 3, 3, 3))  # (K, C, kh, kw)
y, cache = ops.conv2d_forward(x, w, pad=1)
g = rng.normal(size=y.shape)  # what a loss might send back
dx, dw, _ = ops.conv2d_backward(g, cache)


def F_of_x(x):
    return np.sum(g * ops.conv2d_forward(x, w, pad=1)[0])


def F_of_w(w):
    return np.sum(g * ops.conv2d_forward(x, w, pad=1)[0])


for name, gradient, numeric in (
    ("dx", dx, numeric_gradient(F_of_x, x)),
    ("dw", dw, numeric_gradient(F_of_w, w)),
):
    error = relative_error(gradient, numeric)
    print(f"{name}: {gradient.size} numbers, relative error {error:.1e}")
    assert error < 1e-8

# %% [markdown]
# ## The valley of e
#
# Why 1e-5? A large e measures the slope of a chord, not of the curve: its error falls
# like e² as e shrinks. A small e subtracts two numbers that are almost equal, and of
# the sixteen digits that float64 has, few survive: that error *grows* like 1/e. The sum
# of the two is a valley.
#
# float32 has seven digits. Its valley lies higher, and further to the right. (In the
# figure the two slopes, e² and 1/e, are dotted.)

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
    F = loss_in(dtype)
    at = logits.astype(dtype)
    valley[dtype] = [
        relative_error(numeric_gradient(F, at, dtype(e)).astype(float), exact)
        for e in steps
    ]
    best, usual = int(np.argmin(valley[dtype])), np.argmin(abs(steps - 1e-5))
    print(
        f"{dtype.__name__}: best e about {steps[best]:.0e}, error there "
        f"{valley[dtype][best]:.0e}; at 1e-05 {valley[dtype][usual]:.0e}"
    )

assert min(valley[np.float64]) < 1e-8 < 1e-5 < min(valley[np.float32])

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 3.8))
for errors, colour in zip(valley.values(), ("#1f618d", "#c0392b"), strict=True):
    axes.loglog(steps, errors, "o-", color=colour, markersize=4)
axes.loglog(steps[16:], 0.1 * steps[16:] ** 2, "k:", linewidth=1)
axes.loglog(steps[:17], 2e-16 / steps[:17], "k:", linewidth=1)
axes.text(1e-4, 1e-7, "e²", fontsize=12)
axes.text(1e-12, 3e-6, "1/e", fontsize=12)
axes.set(xlabel="step e", ylabel="relative error", ylim=(1e-12, 3))
axes.text(1e-8, 6e-6, "float64", fontsize=12, color="#1f618d")
axes.text(1e-8, 0.15, "float32", fontsize=12, color="#c0392b")
axes.grid(alpha=0.3)
lesson.show(figure, "07_valley")

# %% [markdown]
# So: **check in float64**, even if you train in float32, with e around 1e-5. In float32
# a right gradient looks wrong by a fifth at that e (at 1e-6 and below not one of the
# loss's seven digits moves: the quotient is 0, the error 1), and even at its best e it
# cannot be told from one that is wrong by a ten-thousandth. Every operation here
# follows the dtype it is given, and that is why.
#
# ## Kinks
#
# ReLU, y = max(x, 0), has no derivative at 0. Where an input is nearer to 0 than e, the
# two evaluations lie on different sides of the kink, and the quotient is neither slope.
# Max pooling has kinks too: wherever the two largest values of a window are nearly
# equal.

# %%
x = np.array([[[[0.3e-5]]]])  # nearer to the kink than e = 1e-5
y, cache = ops.relu_forward(x)
analytic = ops.relu_backward(np.ones_like(x), cache).item()


def F(a):
    return np.sum(ops.relu_forward(a)[0])


wide, narrow = (numeric_gradient(F, x, e).item() for e in (1e-5, 0.5e-5))
tiny = numeric_gradient(F, x, 1e-6).item()
print(
    f"backward says {analytic}, e = 1e-5: {wide:.2f}, "
    f"half of it: {narrow:.2f}, 1e-6: {tiny:.2f}"
)
assert analytic == 1 and abs(wide - 1) > 0.1

# %% [markdown]
# The backward pass is right, and the check says it is wrong by a third. The tempting
# remedy is to allow larger errors. Do not: then real bugs pass as well. A kink can be
# *recognised*. For a smooth function the quotients at e and at e/2 agree to many
# digits; across a kink they do not (above: 0.65 and 0.80). `minifcn.gradcheck` compares
# the two, and where they disagree it draws another point, and says how often it did. It
# tries up to 40 entries of each array, and four random directions, of which more below.
# (It also works out what rounding alone may do to a quotient, prints it beside the error,
# and refuses to judge where that could hide an error of 1e-6.)

# %%
from minifcn import gradcheck

near_kinks = (
    rng.normal(size=(1, 2, 6, 6)) * 1e-4
)  # many values within reach of its step, 3e-5
report = gradcheck.check_op(ops.relu_forward, ops.relu_backward, [near_kinks], rng)
print(report)
assert report.redrawn > 0 and report.max_relative_error < 1e-6

# %% [markdown]
# ## The trap of ones
#
# Many checks use the plain sum of the outputs as their loss, so that `dy` is all ones.
# It saves a line, and it is blind. A softmax turns scores into probabilities that sum
# to 1, whatever the scores are. With ones, F is constant: its gradient is zero. So this
# backward passes:


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
# ## A backward that writes to its argument
#
# Where a map is used twice, as in `y = x + relu(x)`, the same gradient `dy` goes back
# along two ways. A backward that saves memory by writing into `dy` passes any check of
# its own, and ruins the other way:


# %%
def relu_backward_in_place(dy, y):
    dy *= y > 0
    return dy


x = rng.normal(size=(1, 1, 4, 4))
y, cache = ops.relu_forward(x)
dy = rng.normal(size=x.shape)
right = dy + ops.relu_backward(dy, cache)  # two gradients meet and add

mutable = dy.copy()
through_relu = relu_backward_in_place(mutable, y)
wrong = mutable + through_relu
print(f"error of the in-place one: {relative_error(wrong, right):.2f}")

dy.flags.writeable = False  # what gradcheck does with everything it hands out
try:
    relu_backward_in_place(dy, y)
    raise AssertionError("a read-only array was written to")
except ValueError as error:
    print("read-only:", error)

# %% [markdown]
# ## A whole network by a few numbers
#
# Entry by entry, a network with a million parameters would need two million forward
# passes. A *direction* needs two, however many parameters there are: move all of them a
# little along a random v, and compare the quotient with ⟨gradient, v⟩, the sum of their
# products entry by entry. That is one number in which every entry takes part.
# `check_layer` does both: some directions, and some entries of each array.

# %%
import time

from minifcn import models
from minifcn.backend import to_device

network = models.fcn("8s", "mini", num_classes=3, alignment="same", width=2, seed=1)
for name, parameter in network.parameters().items():
    if name.startswith("score"):  # they start at zero, and would send nothing back
        parameter.value = parameter.value + 0.1
numbers = sum(p.value.size for p in network.parameters().values() if not p.frozen)
x = to_device(rng.normal(size=(1, 3, 40, 40)))

start = time.perf_counter()
report = gradcheck.check_layer(network, x, rng, directions=2, elements=2)
print(report)
print(f"FCN-8s, {numbers:,} parameters: {time.perf_counter() - start:.1f} s")
assert report.max_relative_error < 1e-6

# %% [markdown]
# ## The exact check
#
# For an operation that is *linear* in x (convolution, average pooling, cropping, every
# enlargement) there is a check without any e. Its backward is the adjoint, which means
#
#     ⟨forward(x), g⟩ = ⟨x, backward(g)⟩    for every x and g
#
# and nothing but rounding stands between the two sides. Lesson 5 built the transposed
# convolution on this.

# %%
error = gradcheck.check_adjoint(
    lambda x: ops.conv2d_forward(x, w, stride=2, pad=1),
    ops.conv2d_backward,
    rng.normal(size=(1, 3, 9, 9)),
    rng,
)
print(f"relative difference of the two sides: {error:.0e}")
assert error < 1e-14

# %% [markdown]
# ## Eight bugs
#
# A check that has never failed proves nothing. So let us break backward passes on
# purpose, as people do by accident, and see each one caught. First the right ones of
# five operations; then eight wrong ones, each a small slip that its name tells.
# (`gamma` and `beta` are batch normalisation's two learned numbers for each channel.
# "argument 0" is the first array that the operation is given.)

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
for name, (forward, backward, arrays) in right.items():
    report = gradcheck.check_op(forward, backward, arrays, rng)
    print(f"{name:22s}{report.max_relative_error:.0e}")
    assert report.max_relative_error < 1e-6


# %%
def flipped_kernel(dy, cache):
    x, w, *rest = cache
    dx, dw, db = ops.conv2d_backward(dy, (x, w[:, :, ::-1, ::-1], *rest))
    return dx, dw, db


def mean_for_bias(dy, cache):
    dx, dw, db = ops.conv2d_backward(dy, cache)
    return dx, dw, db / len(dy)


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


def probabilities_only(dy, cache):
    p, _ = softmax(scores)
    return dy * p * (truth != 255)[:, None] / np.sum(truth != 255)


def overwritten(dy, cache):
    return ops.relu_backward(dy, cache)  # instead of added


bugs = [
    ("convolution", flipped_kernel),
    ("convolution", mean_for_bias),
    ("convolution", first_image_only),
    ("max pooling", share_of_each),
    ("batch normalisation", statistics_as_constants),
    ("cross-entropy", void_counted),
    ("cross-entropy", probabilities_only),
    ("a fork", overwritten),
]
errors = []
for name, backward in bugs:
    forward, _, arrays = right[name]
    report = gradcheck.check_op(forward, backward, arrays, rng)
    errors.append(report.max_relative_error)
    print(f"{name:22s}{backward.__name__:26s}{errors[-1]:.0e}  in {report.worst}")
assert min(errors) > 0.05

# %%
figure, axes = plt.subplots(figsize=(7, 3.8))
names = [backward.__name__.replace("_", " ") for _, backward in bugs]
axes.plot(errors, names, "o", color="#c0392b", markersize=9)
axes.axvspan(1e-12, 1e-6, color="#117864", alpha=0.2)
axes.text(1e-9, 4, "passes", color="#117864", fontsize=13, ha="center")
axes.set(xscale="log", xlim=(1e-12, 10), xlabel="relative error found")
axes.grid(axis="y", alpha=0.3)
axes.invert_yaxis()
lesson.show(figure, "07_bugs")

# %% [markdown]
# None comes near to passing. That gap, from mere rounding for what is right to a tenth
# and more for what is wrong, is what the care was for: float64, a random g, no kinks.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** A network has 700,000 parameters and its forward pass takes 20 milliseconds.
# How many *hours* would the check of every entry take, by the formula at the top?
#
# **2.** Write the backward of y = x · sigmoid(x), where sigmoid(x) = 1 / (1 + exp(−x)),
# as a function `(dy, x)` that returns dx. (The derivative of sigmoid is s · (1 − s).)
#
# **3.** A forward pass is y = 3x and somebody's backward returns `3 * dy[::-1]`, the
# gradient in the wrong order. Write a function of `n` that returns a `dy` of shape (n,)
# with which the bug would pass unnoticed, and whose entries are not all the same
# number.

# %%
import answers

answers.check("07.1", ...)
answers.check("07.2", ...)
answers.check("07.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn gradcheck` does this for FCN-32s, 16s and 8s as they are, and fails if a
#   relative error is above 1e-6.
# - Every operation, layer and network in this library stays below 1e-6 in float64; the
#   tests also plant some hundreds of bugs in a copy of the code, one by one.
# - Layers that draw at random (dropout) must draw the same in both evaluations.
#   `check_layer` puts their generators back before each.
# - Check again after every "small" optimisation. That is when bugs come in.
#
# ## Further reading
#
# - C. M. Bishop, *Pattern Recognition and Machine Learning*, 2006, section 5.3.3:
#   numerical differentiation, and its cost.
# - N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, chapter 1: why
#   the valley.
# - In the code: `minifcn/gradcheck.py`.
