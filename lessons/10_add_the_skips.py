# %% [markdown]
# # 10. Add the skips
#
# **You will** turn FCN-32s into FCN-16s and FCN-8s: tap the trunk on its way down, join
# what you find to the coarse scores, write the backward pass of fork and join, look at
# every map inside, mute a branch, and train without it.
#
# **You will learn** why a fork adds gradients and a join copies them, why a new skip
# starts as nothing, what each branch contributes, and how much of the image a cell
# sees.
#
# **You need** lessons 6, 7 and 9.
#
# **It takes** 30 minutes to read and about a minute to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## The same training, three networks
#
# FCN-32s, 16s and 8s learned from the same scenes, from fresh weights, in equally many
# steps. In `coats.py` no coat gives a class away: discs, rings and crosses all wear
# checks, in colours drawn anew for each. A network has to see the shape.

# %%
import numpy as np

import coats
from minifcn import inference, models

CLASSES = coats.CLASSES
train = [coats.scene(i) for i in range(400)]
val = [coats.scene(1000 + i) for i in range(40)]


def build(variant, seed):
    return models.fcn(variant, "mini", 4, alignment="same", width=8, seed=seed)


def mean_iou(net):
    """On the 40 validation scenes, in percent."""
    return 100 * inference.evaluate(net, val, 4).mean_iou()


nets = {(v, seed): build(v, seed) for v in ("32s", "16s", "8s") for seed in (0, 1)}
for (_, seed), net in nets.items():
    coats.fit(net, train, seed)
ious = {key: mean_iou(net) for key, net in nets.items()}
for variant in ("32s", "16s", "8s"):
    print(f"FCN-{variant}: mean IoU", *(f"{ious[variant, s]:.1f}" for s in (0, 1)))
for seed in (0, 1):
    assert ious["32s", seed] + 20 < ious["16s", seed] < ious["8s", seed] - 3

# %% tags=["hide-input"]
chosen = [next(s for s in val if k + 1 in s.label) for k in range(3)]  # one a class
rows = []
for sample in chosen:
    rows.append({"truth": lesson.over(sample.image, sample.label)})
    for name in ("32s", "16s", "8s"):
        found = inference.predict(nets[name, 0], sample.image)
        rows[-1][f"FCN-{name}"] = lesson.over(sample.image, found)
caption = f"Three validation scenes, after {coats.STEPS} steps. Colours are classes."
lesson.pictures("10_three", rows, caption=caption, legend=range(4), classes=CLASSES)

# %% [markdown]
# (FCN-32s has learned next to nothing: cells of 32 pixels teach slowly. With 600 steps,
# seed 0, it reached a mean IoU of 67.9. That is recorded, not run here.)
#
# ## The detail is still there
#
# The trunk halves its maps five times. Behind the third and the fourth pooling, `pool3`
# and `pool4`, cells have 8 and 16 pixels. They know less about *what* there is, having
# seen less of the image, and more about *where*. Give them a say:
#
# ![FCN-8s: the trunk runs down on the left; scores are enlarged and added](skips.svg)
#
# `score_pool3` and `score_pool4` are 1×1 convolutions from a map's channels to the
# classes, as `score_fr` is. FCN-16s stops after the first sum and enlarges by 16;
# FCN-32s has no sum. The branches are called *skips*, as they skip the rest of the
# trunk. Two things are new: a map is used twice (a *fork*), and two maps become one (a
# *join*). Forward, they are trivial. What are they backward?
#
# ## The fork adds, the join copies
#
# Let x go two ways and come together again: z = f(x) + g(x). Move x a little: z moves
# by what f makes of it *and* by what g makes of it. So, at the join, both branches get
# the same gradient, dz; at the fork, what comes back from the two is **added**. The
# smallest example, f(x) = A·x and g(x) = max(x, 0):

# %%
rng = np.random.default_rng(0)
x, dz, A = rng.normal(size=5), rng.normal(size=5), rng.normal(size=(5, 5))


def z_of(x):
    return A @ x + np.maximum(x, 0)


from_f = A.T @ dz  # the join: both get dz
from_g = dz * (x > 0)
dx = from_f + from_g  # the fork: both come back

quotients = [dz @ (z_of(x + v) - z_of(x - v)) / 2e-6 for v in 1e-6 * np.eye(5)]
print("by hand:  ", dx.round(4))
print("quotients:", np.round(quotients, 4))
assert np.allclose(dx, quotients)

# %% [markdown]
# ## FCN-8s, wired by hand
#
# We take the parts from the library (`net["score_fr"]` is the layer of that name), and
# do the wiring. The trunk, a row of layers, is cut behind `pool3` and behind `pool4`.

# %%
from minifcn import layers
from minifcn.backend import to_device, to_host


def cut(net):
    """The trunk in three pieces: {"pool3": [layers up to it], "pool4": …, "fc7": …}."""
    trunk = [name for name in net.children() if name.startswith("vgg.")]
    a, b = (trunk.index(f"vgg.{tap}") + 1 for tap in ("pool3", "pool4"))
    pieces = {"pool3": trunk[:a], "pool4": trunk[a:b], "fc7": trunk[b:]}
    return {tap: [net[name] for name in names] for tap, names in pieces.items()}


def forward(net, x, train=False):
    """x (N, 3, H, W) -> logits (N, classes, H, W)"""
    image, taps = x, {}
    for tap, chain in cut(net).items():
        for layer in chain:
            x = layer.forward(x, train=train)
        taps[tap] = x  # used twice: here is the fork

    s = net["score_fr"].forward(taps["fc7"], train=train)  # 1/32
    s = net["upscore2"].forward(s, train=train)  # 1/16
    skip = net["score_pool4"].forward(taps["pool4"], train=train)
    skip = net["crop_pool4"].forward(skip, s, train=train)  # a part of s's size
    s = s + skip  # the join

    s = net["upscore_pool4"].forward(s, train=train)  # 1/8
    skip = net["score_pool3"].forward(taps["pool3"], train=train)
    skip = net["crop_pool3"].forward(skip, s, train=train)
    s = s + skip

    s = net["upscore8"].forward(s, train=train)
    return net["crop"].forward(s, image, train=train)


# %% [markdown]
# Why the crops? `fc6` without padding takes three cells off each side, so a skip's map
# is larger than the coarse one. The crop takes the part that lies cell on cell. (Lesson
# 6 computes where it begins: 5 at 1/16, 9 at 1/8, 31 at the end.)
#
# ## Backward
#
# The same drawing from right to left. Every join sends its gradient both ways; every
# fork waits until both have come back.


# %%
def backward(net, d):
    """d (N, classes, H, W) -> the image's gradient; fills the parameters' on the way."""
    d, _ = net["crop"].backward(d)  # the image only lent its size
    d = net["upscore8"].backward(d)
    # The join at 1/8: d goes to both.
    d_pool3, _ = net["crop_pool3"].backward(d)
    d_pool3 = net["score_pool3"].backward(d_pool3)
    d = net["upscore_pool4"].backward(d)
    # The join at 1/16.
    d_pool4, _ = net["crop_pool4"].backward(d)
    d_pool4 = net["score_pool4"].backward(d_pool4)
    d = net["upscore2"].backward(d)
    d = net["score_fr"].backward(d)

    pieces = cut(net)
    for tap, skip in (("fc7", d_pool4), ("pool4", d_pool3), ("pool3", 0)):
        for layer in reversed(pieces[tap]):
            d = layer.backward(d)
        d = d + skip  # behind this piece lies a fork: what came back is added
    return d


# %% [markdown]
# Compare with the library's network, whose backward lesson 7's check has tested. We
# take float64, no dropout, and random score layers, as those that start at zero send
# nothing back. (Whoever forgets an addition has lesson 7's bug that trains.)

# %%
net = models.fcn("8s", "mini", 5, alignment="paper", width=4)
net.astype(np.float64)
for layer in net.layers_of(layers.Dropout):
    layer.p = 0.0
for name in ("score_fr", "score_pool4", "score_pool3"):
    weight = net[name].weight
    weight.value = to_device(rng.normal(size=weight.value.shape))

x = to_device(rng.normal(size=(2, 3, 21, 34)))
dy = to_device(rng.normal(size=(2, 5, 21, 34)))
learned = {name: p for name, p in net.parameters().items() if not p.frozen}


def gradients(forward, backward):
    """What one pass of each gives: logits, the image's gradient, all parameters'."""
    net.zero_grad()
    found = {"logits": to_host(forward(x, train=True)), "image": to_host(backward())}
    return found | {name: to_host(p.grad).copy() for name, p in learned.items()}


ours = gradients(lambda x, train: forward(net, x, train), lambda: backward(net, dy))
theirs = gradients(net.forward, lambda: net.backward(dy))
worst = max(np.abs(ours[n] - theirs[n]).max() / np.abs(theirs[n]).max() for n in theirs)
print(f"{len(theirs)} arrays, largest difference to the library's {worst:.1e}")
assert worst < 1e-12

# %% [markdown]
# ## The same as a loop
#
# We have written the drawing down twice. The library does it once, as a **table**: each
# node has a name, a layer, and the names of nodes that it reads. Its last lines:

# %%
for name, (layer, inputs) in list(net.nodes.items())[-11:]:
    print(f"{name:14s} {type(layer).__name__:9s} {', '.join(inputs)}")

# %% [markdown]
# Then forward is a loop over the table, and backward is the same loop from behind. A
# join is a layer with two inputs, whose backward hands out two gradients. A fork needs
# no layer: where a second gradient arrives for the same name, it is added to the first.


# %%
def forward_by_table(x, train):
    values = {"image": x}
    for name, (layer, inputs) in net.nodes.items():
        values[name] = layer.forward(*(values[i] for i in inputs), train=train)
    return values["crop"]


def backward_by_table(d):
    gradients = {"crop": d}
    for name, (layer, inputs) in reversed(net.nodes.items()):
        found = layer.backward(gradients.pop(name))
        found = found if isinstance(found, tuple) else (found,)
        for i, g in zip(inputs, found, strict=True):
            if g is not None:  # None: this input only lent its size
                gradients[i] = gradients[i] + g if i in gradients else g  # the fork
    return gradients["image"]


looped = gradients(forward_by_table, lambda: backward_by_table(dy))
assert all(np.array_equal(looped[name], theirs[name]) for name in theirs)
print("the two loops give what the library gives, bit for bit")

# %% [markdown]
# No wiring is recorded while the image runs through: the table is there before. (What
# its backward needs, each layer keeps.) The library's `Graph` adds only thrift: it
# forgets values that all have read, and leaves out gradients that nobody asks for.
#
# ## A new skip is nothing, at first
#
# In the article FCN-32s is trained first; FCN-16s takes over all its weights and adds a
# skip; FCN-8s takes over that one and adds another. New score layers start at **zero**,
# so that a new skip adds exactly nothing: training goes on from where it stood. (The
# three above began with fresh weights. Lesson 11 shows when stages are needed.)

# %%
fcn32 = nets["32s", 0]
fcn16 = build("16s", 0)
models.surgery.initialise_from(fcn16, fcn32)
image = chosen[0].image
prepared = to_device(fcn16.card.preprocessing.apply(image)[None])  # (1, 3, 96, 96)
skip = fcn16.features(prepared, ["score_pool4"])["score_pool4"]
coarse = fcn32.features(prepared, ["score_fr"])["score_fr"]
twice = fcn16["upscore16"].forward(fcn16["upscore2"].forward(coarse))
assert not to_host(skip).any()
assert np.array_equal(to_host(fcn16.forward(prepared)), to_host(twice))

# %% [markdown]
# FCN-16s starts with FCN-32s' scores, enlarged by 2 and then by 16. (That is not quite
# by 32: exercise 2 of lesson 5.)
#
# ## What is a score made of?
#
# Enlarging and adding are linear. So a pixel's score is *exactly* the sum of what the
# three branches contribute. The page below takes FCN-8s apart for a ring. Click a pixel
# and read its sum; choose a box of the network and see its maps; mute a branch or turn
# it up, and the mask changes. Predict: what is left of it without `score_pool3`?

# %%
fcn8 = nets["8s", 0]
fcn8.card.classes = CLASSES
lesson.explorer("10_explorer", "A ring in FCN-8s", fcn8, chosen[1].image)

# %% [markdown]
# ## What does each branch know?
#
# Muted afterwards, a branch is missed by a network that has come to rely on it. So take
# the coarse one away and train again: `score_fr` stays at zero. `pool3` and `pool4` can
# still say all that they know. Predict: does it matter?

# %%
for seed in (0, 1):
    mute = build("8s", seed)
    for name, parameter in mute.parameters().items():
        parameter.frozen |= name.startswith("score_fr")
    coats.fit(mute, train, seed)
    whole, without = ious["8s", seed], mean_iou(mute)
    print(f"seed {seed}: all {whole:.1f}, without score_fr {without:.1f}")
    assert without < whole - 15
counts = inference.evaluate(mute, val, 4).counts[1:]  # of the shapes' pixels, seed 1
found, right = counts[:, 1:].sum() / counts.sum(), np.trace(counts, 1) / counts.sum()
print(f"seed 1: {found:.0%} of the shapes called a shape, {right:.0%} the right one")

# %% [markdown]
# Without the coarse branch the network still finds the coat. Whose coat it is, it often
# gets wrong: a cell of `pool4` sees too little. The coarse branch alone, FCN-32s, is
# far behind in the same time. With photographs it does most of the work: in the
# article's table FCN-32s has a mean IoU of 59.4, and the two skips bring it to 62.7.
#
# ## How much does a cell see?
#
# The *receptive field* of a cell is the part of the image it depends on (lesson 4). A
# layer of kernel k adds k − 1 cells of its input, and these lie `step` pixels apart,
# where `step` is the product of all strides before it. Begin with a pixel, field 1 and
# step 1. Then for each layer, poolings included:
#
#     field ← field + (k − 1) · step          step ← step · stride


# %%
def fields(depths):
    """Of a VGG with so many 3×3 convolutions in each group: {tap: (field, step)}."""
    field, step, found = 1, 1, {}
    for group, depth in enumerate(depths, start=1):
        field += depth * 2 * step  # 3×3: k − 1 = 2
        field, step = field + step, step * 2  # a pooling by 2
        found[f"pool{group}"] = field, step
    return found | {"fc7": (field + 6 * step, step)}  # fc6 is 7×7


mini, vgg = fields((1, 1, 2, 2, 1)), fields((2, 2, 3, 3, 3))
for tap in ("pool3", "pool4", "fc7"):
    print(f"{tap}: mini {mini[tap][0]:4d} pixels   VGG16 {vgg[tap][0]:4d}")
assert vgg["fc7"] == (404, 32)  # as the article says
counted = {row.name: row.field for row in models.explain(fcn8, coats.SIDE).rows}
for name, tap in (("pool3", "pool3"), ("pool4", "pool4"), ("drop7", "fc7")):
    assert counted[f"vgg.{name}"] == mini[tap][0]

# %% [markdown]
# (Above, a click on a pixel frames these fields.) `fc7` sees all around a shape and can
# know *what* it is. `pool3` sees a patch, and knows *where* its pattern ends. FCN-8s
# adds them up. (A cell hardly hears the rim of its field: few paths lead there.)
#
# ## Exercises
#
# Replace the dots and run the cell again. More stars, more work.
#
# **1.** ★★ A chain of layers: 3×3 convolution, 3×3 convolution, pooling by 2, 3×3
# convolution, pooling by 2. How many pixels wide is the receptive field of one cell at
# its end?
#
# **2.** ★★ U-Net joins by *concatenation*: the channels of both maps are stacked, and a
# convolution mixes them. Let coarse scores and a skip's scores, C channels each, be
# stacked in this order. With which weights (C, 2·C, 1, 1) does a 1×1 convolution of
# them give exactly their sum? Write a function of C that returns them.
#
# **3.** ★★★ Build FCN-4s. Write a function of C, the number of classes, that returns a
# network: `models.fcn("8s", "mini", C, alignment="same", width=8)` with one more skip,
# from `vgg.pool2` (1/4, 16 channels), that starts at zero. `dict(net.nodes)` is its
# table; change it and make a `models.Graph(table, card=net.card)` of it. Enlarge by
# `layers.Upsample(2, kernel=4, pad=1)` and, at the end, by `layers.Upsample(4,
# kernel=8, pad=2)`. Then train it by `coats.fit`, with C = 4: what does it gain?

# %%
import answers

answers.check("10.1", ...)
answers.check("10.2", ...)
answers.check("10.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn train --variant 8s` trains this network; `--start` with another run's
#   `best.npz` takes over a coarser one; `minifcn reproduce` does the three in turn.
# - Thin things (poles, bicycles) are made of outlines. Look at their own IoU.
# - Want to know what a branch does on your data? Freeze its scores at zero and train.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, *Fully Convolutional Networks for Semantic
#   Segmentation*, CVPR 2015, section 4.2 and figures 3 and 4,
#   <https://arxiv.org/abs/1411.4038>
# - W. Luo and others, *Understanding the Effective Receptive Field*, NeurIPS 2016: how
#   little a cell hears of the rim of its field, <https://arxiv.org/abs/1701.04128>
# - In the code: `minifcn/models/fcn.py`; `minifcn/layers/graph.py`, the loop.
