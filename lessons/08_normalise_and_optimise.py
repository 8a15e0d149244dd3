# %% [markdown]
# # 8. Normalise and optimise
#
# **You will** write batch normalisation, forward and backward, and the three usual
# optimisers, and train a network of nine layers with and without them.
#
# **You will learn** why a deep network needs numbers of a reasonable size, how a
# gradient flows through a mean and a variance, what is remembered for prediction, and
# what momentum and Adam do to a step.
#
# **You need** lesson 3 (a forward and its backward) and lesson 7 (the check).
#
# **It takes** 25 minutes to read and about ten seconds to run.

# %%
import numpy as np

import lesson
import spirals  # beside the lessons: the points and the network

lesson.begin()  # says where arrays live: in main memory, or on a GPU (lesson 17)


def sgd(g, memory, t):
    """The plainest rule: the step is the gradient."""
    return g


def compare(name, norm=None):
    """Train with three gains and two seeds, and print what they got right."""
    trained, right = {}, {}
    for gain in (0.5, 1, 2):
        for seed in (0, 1):
            result = spirals.train(seed, gain, norm, sgd, 0.1)
            trained[gain, seed], right[gain, seed] = result
        shares = " and ".join(f"{right[gain, s]:.0%}" for s in (0, 1))
        print(f"{name}, gain {gain}: {shares} right")
    return trained, right


np.seterr(over="ignore", invalid="ignore")  # some of these runs overflow: see below
plain, right = compare("plain")
assert all(right[1, s] > 0.97 for s in (0, 1))
assert all(right[gain, s] < 0.7 for gain in (0.5, 2) for s in (0, 1))

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

points, which = spirals.draw(np.random.default_rng(0))


def show_planes(name, trained, norm=None):
    """What the three networks of seed 0 say of each point of the plane."""
    line = np.linspace(-1.1, 1.1, 120)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.7))
    for panel, gain in zip(axes, (0.5, 1, 2), strict=True):
        # The plane's own mean and variance serve here; see "What is remembered".
        nobody = np.zeros(len(grid), int)
        scores, *_ = spirals.run(trained[gain, 0], grid, nobody, norm)
        p = 1 / (1 + np.exp(np.clip(scores[:, 0] - scores[:, 1], -30, 30)))
        extent, pale = (-1.1, 1.1, 1.1, -1.1), {"vmin": -0.7, "vmax": 1.7}
        panel.imshow(p.reshape(120, 120), cmap="RdBu", extent=extent, **pale)
        panel.scatter(*points.T, s=4, c=np.array(["#8e2a1e", "#153e5c"])[which])
        panel.set_title(f"{name}, gain {gain}")
        panel.set_axis_off()
    caption = "The plane as three networks see it, after the same 600 updates."
    lesson.show(figure, f"08_{name}", caption)


show_planes("plain", plain)

# %% [markdown]
# ## Nine layers, and a gain
#
# Two spirals of points, blue and red. A network gets the two coordinates of a point and
# says which spiral it lies on. It has nine layers, each a matrix product (a 1×1
# convolution on one pixel), with ReLU between them. It was trained three times, each with
# two seeds. Only one thing differs: how large the random weights are at the start, the
# *gain*. The network learns at a gain of 1, and at neither of the others. (White is
# undecided. In the third, the numbers overflowed.)
#
# `run` in `spirals.py` has both passes of this network in NumPy, 36 lines to read
# beside this lesson. One thing in it is new, the loss, which earlier lessons took from
# the library. *Softmax* makes probabilities of the scores x of a point:
#
#     p[c] = exp(x[c]) / Σ exp(x)
#
# The *cross-entropy* is −ln p[t], for the true class t, and the loss is its mean over
# the points. Written out, −ln p[t] = ln Σ exp(x) − x[t]. The derivative by x[c] is p[c],
# less 1 if c is the true class.
#
# ## Why the size of the numbers matters
#
# Each plain layer multiplies the size of the numbers by about its gain. After eight
# layers a gain of 0.5 leaves 0.5⁸ = 1/256 of what a gain of 1 leaves, and the gradient
# shrinks about as much on its way back. A gain of 2 makes the numbers 256 times as large,
# and the first step is far too large. Here are the sizes in the first and the last hidden
# layer, before any training:


# %%
def measure(gain, norm=None):
    """The size of the numbers in the first and last hidden layer, untrained."""
    layers = spirals.network(np.random.default_rng(0), gain, norm)
    _, _, gradients, maps = spirals.run(layers, points, which, norm)
    first, last = (np.sqrt(np.mean(m**2)) for m in (maps[0], maps[-1]))
    back = np.linalg.norm(gradients[0]["w"])
    print(f"gain {gain:3}: size {first:5.2f} -> {last:7.3f}", end="")
    print(f", gradient of the first layer {back:.1e}")
    return first, last


(_, small), (_, usual), (_, large) = (measure(gain) for gain in (0.5, 1, 2))
assert np.isclose(usual / small, 2**8) and np.isclose(large / usual, 2**8)

# %% [markdown]
# ## Forward
#
# Batch normalisation takes each channel by itself. Its m values in a *batch*, the
# images of one step, are shifted to mean 0 and divided by their standard deviation:
#
#     μ = mean(x)     σ = √(mean((x − μ)²) + ε)     z = (x − μ) / σ     y = γ·z + β
#
# Take four values: 1, 3, 5, 7. Their mean is 4, their variance 5, and √5 = 2.236. So z
# = −1.34, −0.45, 0.45, 1.34. The ε, 0.00001, keeps a channel that is constant from
# being divided by 0. γ and β are learned numbers, two a channel: the network may choose
# another size and mean where that serves it. In a network of maps, m is N·H·W: all
# pixels of all images.


# %%
def norm_forward(x, gamma, beta, eps=1e-5):
    """x, y (m, D): m values of each of D channels; gamma, beta (D,)"""
    deviation = np.sqrt(x.var(axis=0) + eps)
    z = (x - x.mean(axis=0)) / deviation
    return gamma * z + beta, (z, deviation, gamma)


z, _ = norm_forward(np.array([[1.0], [3], [5], [7]]), np.ones(1), np.zeros(1))
print(z[:, 0].round(2))
assert np.allclose(z[:, 0], [-1.34, -0.45, 0.45, 1.34], atol=5e-3)

# %% [markdown]
# ## Backward: three ways from x to z
#
# We know dy. The steps from y to z are easy: the gradient by z is g = γ·dy, that by γ
# is Σ dy·z, that by β is Σ dy.
#
# Now move one x_i. It reaches every z_j of its channel, in three ways:
#
# 1. **Directly.** z_i has x_i in it, divided by σ. Share: g_i / σ.
# 2. **By the mean.** μ rises by 1/m of the move, and every z_j falls by 1/(m·σ).
#    Share: −Σ g_j / (m·σ), which is −mean(g) / σ.
# 3. **By the deviation.** From σ² = mean((x − μ)²) + ε it follows that σ rises by
#    (x_i − μ) / (m·σ) = z_i / m. Every z_j is a quotient by σ, and falls by z_j / σ for
#    each unit of that. Share: −z_i · Σ g_j·z_j / (m·σ), which is −z_i · mean(g·z) / σ.
#
# (By the deviation, μ moves too. But Σ (x − μ) is 0, so that changes nothing.)
# Together:
#
#     dx = (g − mean(g) − z · mean(g·z)) / σ
#
# Finite differences agree, and so does the library, for maps (N, C, H, W):


# %%
def norm_backward(dy, cache):
    """dy (m, D) -> dx (m, D), dgamma (D,), dbeta (D,)"""
    z, deviation, gamma = cache
    g = gamma * dy
    dx = (g - g.mean(axis=0) - z * (g * z).mean(axis=0)) / deviation
    return dx, (dy * z).sum(axis=0), dy.sum(axis=0)


from minifcn import gradcheck, ops

rng = np.random.default_rng(0)
x, gamma, beta = rng.normal(2, 3, (20, 4)), rng.normal(1, 1, 4), rng.normal(size=4)
report = gradcheck.check_op(norm_forward, norm_backward, [x, gamma, beta], rng)
print(report)
assert report.max_relative_error < 1e-6

maps = x.reshape(5, 2, 2, 4).transpose(0, 3, 1, 2)  # five images, 2×2, four channels
dmaps = rng.normal(size=maps.shape)
remembered = np.zeros(4), np.ones(4)
y, cache = ops.batch_norm_forward(maps, gamma, beta, *remembered, train=True)
theirs, _, _ = ops.batch_norm_backward(dmaps, cache)
_, mine = norm_forward(x, gamma, beta)
dy = dmaps.transpose(0, 2, 3, 1).reshape(20, 4)
dx, _, _ = norm_backward(dy, mine)
assert np.allclose(dx, theirs.transpose(0, 2, 3, 1).reshape(20, 4), atol=1e-12)
print(f"mean of dx {abs(dx.mean(axis=0)).max():.0e}", end="")
print(f", mean of dx·z {abs((dx * mine[0]).mean(axis=0)).max():.0e}")
assert abs(dx.mean(axis=0)).max() < 1e-12
assert abs((dx * mine[0]).mean(axis=0)).max() < 1e-5

# %% [markdown]
# The last line shows what the two subtracted terms do. Adding a constant to the channel
# changes no z, so no gradient may ask for it: the mean of dx is 0. Multiplying the
# channel changes no z either (but for ε): the mean of dx·z is nearly 0. It follows that
# a bias before a normalisation would be useless, and the networks here have none.
#
# Now normalise the eight hidden layers of the network of the first picture:

# %%
norm = norm_forward, norm_backward
normalised, right = compare("normalised", norm)
assert min(right.values()) > 0.97
for gain in (0.5, 1, 2):
    first, last = measure(gain, norm)
    assert 0.5 < last / first < 2

# %% tags=["hide-input"]
show_planes("normalised", normalised, norm)

# %% [markdown]
# It learns at all three gains.
#
# ## What is remembered
#
# In training, what the network says of an image depends on the other images of the
# batch. A prediction must not. So during training the layer keeps *running statistics*:
# after each batch, 0.9 of the old mean and 0.1 of the batch's, and likewise for the
# variance. Predictions use those as constants, and then normalisation is a
# multiplication and an addition.

# %%
from minifcn import layers
from minifcn.backend import to_device, to_host

norm = layers.BatchNorm2d(3)
means = []
for _ in range(60):
    batch = to_device(rng.normal(5, 2, (4, 3, 8, 8)).astype(np.float32))
    norm.forward(batch, train=True)
    means.append(float(to_host(norm.state_dict()["running_mean"])[0]))
print("running mean after 1, 10, 60 batches:", *(f"{means[i]:.2f}" for i in (0, 9, 59)))
assert abs(means[0] - 0.5) < 0.1 and abs(means[59] - 5) < 0.2

alone = to_host(norm.forward(batch[:1]))
together = to_host(norm.forward(batch))
assert np.allclose(alone, together[:1], atol=1e-5)  # prediction: no neighbour has a say
alone = to_host(norm.forward(batch[:1], train=True))
together = to_host(norm.forward(batch, train=True))
print(f"in training the neighbours matter: {abs(alone - together[:1]).max():.2f}")
assert abs(alone - together[:1]).max() > 0.01

# %% [markdown]
# Two things go wrong here in practice. After a few steps the running statistics still
# remember their start (0 and 1), and predictions are bad while the training loss is
# good. And with batches of one or two small images the batch's statistics are noise:
# then they are *frozen*, that is, the running ones are used in training, too.
#
# ## Three rules for a step
#
# A step goes against the gradient, and an *optimiser* says how far. *SGD* (stochastic
# gradient descent: the gradient is that of a random batch) goes rate · g. *Momentum*
# repeats 0.9 of the step before: what points the same way each time adds up, to
# 1 + 0.9 + 0.81 + … = 10 times as much, and what goes back and forth cancels. *Adam*
# keeps two running means for each weight, of g and of g², and divides one by the root
# of the other. Steps then have about the same length for every weight, however large
# its gradients are.
#
# Both running means start at 0, so the first ones are too small. After t steps they
# hold 1 − 0.9ᵗ and 1 − 0.999ᵗ of what they should. Adam divides by that.


# %%
def momentum(g, memory, t):
    memory["v"] = 0.9 * memory.get("v", 0) + g
    return memory["v"]


def adam(g, memory, t):
    memory["first"] = 0.9 * memory.get("first", 0) + 0.1 * g
    memory["second"] = 0.999 * memory.get("second", 0) + 0.001 * g**2
    first = memory["first"] / (1 - 0.9**t)
    return first / (np.sqrt(memory["second"] / (1 - 0.999**t)) + 1e-8)


# %% [markdown]
# Are they the library's? Twenty steps with random gradients of very unequal sizes:

# %%
from minifcn.training import optimizers

sizes = 10.0 ** np.arange(-3, 3)
for rule, name, rate in ((momentum, "SGD", 0.1), (adam, "Adam", 0.1)):
    p = layers.Parameter(np.zeros(6))
    theirs, mine, memory = getattr(optimizers, name)({"p": p}), np.zeros(6), {}
    for t in range(1, 21):
        g = rng.normal(1, 1, 6) * sizes
        p.zero_grad()
        p.add_gradient(to_device(g))
        theirs.step(rate)
        mine -= rate * rule(g, memory, t)
        if t == 1:
            print(f"{name:5s} first step:", " ".join(f"{-step:8.2g}" for step in mine))
    assert np.allclose(mine, to_host(p.value), rtol=1e-9)

# %% [markdown]
# (The library's SGD multiplies by the rate before it adds to the velocity, as Caffe
# does. At a constant rate that is the same.) Look at the first steps: the gradients
# differ by a factor of more than ten thousand, and Adam's steps are ±0.1, all of them.
#
# A valley shows the difference. It is a hundred times as steep across as along:

# %% tags=["hide-input"]
figure, panel = plt.subplots(figsize=(7, 3))
u, v = np.meshgrid(np.linspace(-1.15, 0.3, 200), np.linspace(-0.32, 0.32, 100))
panel.contour(u, v, u**2 + 100 * v**2, levels=[0.05, 0.3, 1, 3, 9], colors="0.8")
for (name, rule, rate), colour in zip(
    (("SGD", sgd, 0.0085), ("momentum", momentum, 0.002), ("Adam", adam, 0.08)),
    ("#c0392b", "#d68910", "#1f618d"),
    strict=True,
):
    at, memory, path = np.array([-1.0, 0.25]), {}, []
    for t in range(1, 41):
        path.append(at.copy())
        at = at - rate * rule(np.array([2, 200]) * at, memory, t)
    panel.plot(*np.array(path).T, ".-", color=colour, label=name, linewidth=1)
panel.set(xlabel="along", ylabel="across", xlim=(-1.15, 0.3), ylim=(-0.32, 0.32))
panel.legend(frameon=False, loc="lower right")
caption = "Forty steps towards (0, 0). At a slightly larger rate SGD would leap out."
lesson.show(figure, "08_valley", caption)

# %% [markdown]
# A plain network with a small gain is such a case. Its last biases stand near the loss
# and get gradients of an ordinary size; what reaches a weight has been made small by
# all the layers around it. SGD and momentum get three rates, each ten times the one
# before, and Adam two. The best one counts.

# %%
network = spirals.network(np.random.default_rng(0), 0.4)
_, _, gradients, _ = spirals.run(network, points, which)
sizes = {name: np.linalg.norm(gradients[i][name]) for i, name in ((-1, "b"), (0, "w"))}
print(f"gradient of the last b {sizes['b']:.0e}, of the first w {sizes['w']:.0e}")

rates = {sgd: (0.3, 3, 30), momentum: (0.03, 0.3, 3), adam: (5e-3, 1e-2)}
best = {}
for rule, tried in rates.items():
    runs = [[spirals.train(s, 0.4, None, rule, r) for r in tried] for s in (0, 1)]
    best[rule] = np.max([[share for _, share in row] for row in runs], axis=1)
    print(f"{rule.__name__:9s}", " and ".join(f"{share:.0%}" for share in best[rule]))
assert min(best[adam]) > 0.9 and max(*best[sgd], *best[momentum]) < 0.7

# %% [markdown]
# Adam does a part of what normalisation does: it makes up for sizes. That is why one
# rate suits it in most networks, and why it is liked for a first try. Its price is two
# more numbers for each weight in memory. (With normalisation, as above, SGD gets there
# as well.)
#
# *Weight decay*, the last of the usual terms, pulls every weight a little towards 0 in
# each step: g + λ·w in place of g. Under Adam that is divided along with the gradient;
# *AdamW* takes λ·w off apart from it.
#
# ## Exercises
#
# Replace the dots and run the cell again. More stars, more work.
#
# **1.** ★ Running statistics keep 0.9 of the old at each batch. After how many batches
# is less than 1 % of the start left in them?
#
# **2.** ★★ A layer without bias is followed by a batch normalisation (forget ε). All its
# weights become ten times as large. Predict: by what number is the gradient of the loss
# by these weights multiplied? Then try it with `spirals.run`.
#
# **3.** ★★★ *Instance normalisation* takes the mean and the variance of each channel of
# each image by itself: over H and W only. Write both passes, without γ and β, for x (N,
# C, H, W) and ε = 1e-5: a pair `(forward, backward)`, where forward(x) returns (y,
# cache) and backward(dy, cache) returns dx. Go on until `gradcheck.check_op` is
# content.

# %%
import answers

answers.check("08.1", ...)
answers.check("08.2", ...)
answers.check("08.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn train --optimizer sgd`, `adam` or `adamw`; `--frozen-statistics` leaves a
#   pretrained network's running statistics as they are.
# - For prediction a normalisation is folded into the convolution before it
#   (`network.prepare()`): w·γ/σ, and a bias of β − μ·γ/σ.
# - When a fresh deep network learns nothing, print the size of its maps, layer by
#   layer, before you touch the rate.
#
# ## Further reading
#
# - S. Ioffe, C. Szegedy, *Batch Normalization*, ICML 2015,
#   <https://arxiv.org/abs/1502.03167>
# - D. Kingma, J. Ba, *Adam*, ICLR 2015, <https://arxiv.org/abs/1412.6980>;
#   I. Loshchilov, F. Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019.
# - K. He and others, *Delving Deep into Rectifiers*, ICCV 2015: why a gain of 1.
# - In the code: `minifcn/ops/batch_norm.py`, `minifcn/training/optimizers.py`.
