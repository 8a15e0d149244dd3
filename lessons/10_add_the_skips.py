# %% [markdown]
# # 10. Add the skips
#
# **You will** turn FCN-32s into FCN-16s and FCN-8s: tap the trunk on its way down, join
# what you find to the coarse scores, write the backward pass of fork and join, train
# the three in stages, and look at every map inside.
#
# **You will learn** why a fork adds gradients and a join copies them, why a new skip
# starts as nothing, what each branch contributes, and how much of the image a cell
# sees.
#
# **You need** lessons 6 and 7.
#
# **It takes** 30 minutes to read and about 20 seconds to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## The detail is still there
#
# Lesson 9 ended with a bound: with one score for 32 × 32 pixels, even a perfect network
# draws clouds. But the trunk does not jump to 1/32. It halves its maps five times, and
# after the third and the fourth pooling there are maps with cells of 8 and of 16
# pixels: `pool3` and `pool4`. They know less about *what* there is, having seen less of
# the image, and more about *where*. So give them a say:
#
#     image ── trunk ──┬──────────── pool3 1/8 ── score_pool3 ────────────┐
#                      ├── pool4 1/16 ── score_pool4 ───┐                 │
#                      └── fc7 1/32 ── score_fr ── ×2 ──┴── + ── ×2 ──────┴── + ── ×8
#
# That is FCN-8s. `score_pool3` and `score_pool4` are 1×1 convolutions from a map's
# channels to the classes, as `score_fr` is. FCN-16s stops after the first sum and
# enlarges by 16; FCN-32s has no sum. The branches are called *skips*, as they skip the
# rest of the trunk. Two new things happen in the drawing: a map is used twice (a
# *fork*), and two maps become one (a *join*). Forward, they are trivial. What are they
# backward?
#
# ## The fork adds, the join copies
#
# Let x go two ways and come together again: z = f(x) + g(x). Move x a little: z moves
# by what f makes of it *and* by what g makes of it. So
#
# - at the join, both branches get the same gradient, dz, unchanged;
# - at the fork, what comes back from the two is **added**.
#
# A check on the smallest example, f(x) = A·x and g(x) = max(x, 0):

# %%
import numpy as np

rng = np.random.default_rng(0)
x, dz, A = rng.normal(size=5), rng.normal(size=5), rng.normal(size=(5, 5))


def z_of(x):
    return A @ x + np.maximum(x, 0)


from_f = A.T @ dz  # the join: both get dz
from_g = dz * (x > 0)
dx = from_f + from_g  # the fork: both come back

e, eye = 1e-6, np.eye(5)
quotients = [dz @ (z_of(x + e * v) - z_of(x - e * v)) / (2 * e) for v in eye]
print("by hand:  ", dx.round(4))
print("quotients:", np.round(quotients, 4))
assert np.allclose(dx, quotients)

# %% [markdown]
# ## FCN-8s, wired by hand
#
# We take the parts from the library, as lesson 9 built them already, and do the wiring
# ourselves. `net["score_fr"]` is the layer of that name. The trunk, a row of layers, is
# cut behind `pool3` and behind `pool4`.

# %%
from minifcn import layers, models
from minifcn.backend import to_device, to_host


def cut(net):
    """The trunk in three pieces: {"pool3": [layers up to it], "pool4": …, "fc7": …}."""
    pieces = {"pool3": [], "pool4": [], "fc7": []}
    waiting = list(pieces)
    for name, layer in net.children().items():
        if name.startswith("vgg."):
            pieces[waiting[0]].append(layer)
            if name in ("vgg.pool3", "vgg.pool4"):
                waiting.pop(0)
    return pieces


def forward(net, x, train=False, say=lambda name, maps: None):
    """x (N, 3, H, W) -> logits (N, classes, H, W). say(name, maps) is told each map."""
    image, taps = x, {}
    for tap, chain in cut(net).items():
        for layer in chain:
            x = layer.forward(x, train=train)
        taps[tap] = x  # used twice: here is the fork
        say(tap, x)

    s = net["score_fr"].forward(taps["fc7"], train=train)  # 1/32
    say("score_fr", s)
    s = net["upscore2"].forward(s, train=train)  # 1/16
    say("score_fr × 2", s)
    skip = net["score_pool4"].forward(taps["pool4"], train=train)
    say("score_pool4", skip)
    skip = net["crop_pool4"].forward(skip, s, train=train)  # a part of s's size
    s = s + skip  # the join
    say("sum at 1/16", s)

    s = net["upscore_pool4"].forward(s, train=train)  # 1/8
    say("sum × 2", s)
    skip = net["score_pool3"].forward(taps["pool3"], train=train)
    say("score_pool3", skip)
    skip = net["crop_pool3"].forward(skip, s, train=train)
    s = s + skip
    say("sum at 1/8", s)

    s = net["upscore8"].forward(s, train=train)
    say("sum × 8", s)
    return net["crop"].forward(s, image, train=train)


# %% [markdown]
# Watch the sizes at the joins. The skip's map is larger than the coarse one, since
# `fc6` without padding takes three cells off each side (lesson 6). The crop takes the
# part that lies cell on cell: from 5 at 1/16, from 9 at 1/8, from 31 at the end.

# %%
net = models.fcn("8s", "mini", 21, alignment="paper", width=4)
images = to_device(rng.normal(size=(1, 3, 96, 128)).astype(np.float32))
logits = forward(net, images, say=lambda name, m: print(f"{name:13s}", m.shape[1:]))
print(f"{'logits':13s}", logits.shape[1:])
offsets = [net[name].offset for name in ("crop_pool4", "crop_pool3", "crop")]
print("crops begin at", offsets)
assert offsets == [5, 9, 31] and logits.shape == (1, 21, 96, 128)

# %% [markdown]
# ## Backward
#
# The same drawing from right to left. Every join sends its gradient both ways; every
# fork waits until both have come back.


# %%
def backward(net, d, fork=True):
    """d (N, classes, H, W) -> the image's gradient; fills the parameters' on the way.

    fork=False forgets what comes back from the skips, for an experiment.
    """
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
    for layer in reversed(pieces["fc7"]):
        d = layer.backward(d)
    if fork:
        d = d + d_pool4  # the fork at pool4
    for layer in reversed(pieces["pool4"]):
        d = layer.backward(d)
    if fork:
        d = d + d_pool3  # the fork at pool3
    for layer in reversed(pieces["pool3"]):
        d = layer.backward(d)
    return d


# %% [markdown]
# Compare with the library's network, weights and all, and then with the definition of a
# derivative. In float64, without dropout, and with random score layers, since those
# that start at zero send nothing back. In the second cell, one more backward pass
# forgets the addition at the fork, to see who notices.

# %%
net = models.fcn("8s", "mini", 5, alignment="paper", width=4)
state = net.state_dict()
for name in state:
    if name.startswith("score") and name.endswith("weight"):
        state[name] = rng.normal(size=state[name].shape)
net.load_state_dict(state)
net.astype(np.float64)
for layer in net.layers_of(layers.Dropout):
    layer.p = 0.0

x = to_device(rng.normal(size=(2, 3, 21, 34)))
dlogits = to_device(rng.normal(size=(2, 5, 21, 34)))
learned = {name: p for name, p in net.parameters().items() if not p.frozen}


def gradients(forward, backward):
    """What one pass of each gives: logits, the image's gradient, all parameters'."""
    net.zero_grad()
    found = {"logits": to_host(forward(x, train=True)), "image": to_host(backward())}
    return found | {name: to_host(p.grad).copy() for name, p in learned.items()}


ours = gradients(
    lambda x, train: forward(net, x, train), lambda: backward(net, dlogits)
)
theirs = gradients(net.forward, lambda: net.backward(dlogits))
worst = max(np.abs(ours[n] - theirs[n]).max() / np.abs(theirs[n]).max() for n in theirs)
print(f"{len(theirs)} arrays, largest difference to the library's {worst:.1e}")
assert worst < 1e-12

# %%
forgot = gradients(
    lambda x, train: forward(net, x, train), lambda: backward(net, dlogits, fork=False)
)
step = rng.normal(size=x.shape)
e, move = 1e-6, to_device(step)
ahead, behind = (
    to_host((dlogits * forward(net, x + s * move, train=True)).sum()) for s in (e, -e)
)
measured = float(ahead - behind) / (2 * e)
for name, found in (("by hand", ours), ("fork forgotten", forgot)):
    print(f"{name:15s} {np.sum(found['image'] * step):12.5f}")
print(f"{'the quotient':15s} {measured:12.5f}")
assert abs(np.sum(ours["image"] * step) - measured) < 1e-4 * abs(measured)
assert abs(np.sum(forgot["image"] * step) - measured) > 0.01 * abs(measured)

# %% [markdown]
# Without the addition at the fork nothing stops or complains. The network would go on
# training with wrong gradients. Only the quotient notices.
#
# ## The same as a loop
#
# We have written the drawing down twice, once from the left and once from the right. The
# library writes it down once, as a **table**: every node has a name, a layer, and the
# names of the nodes that it reads. These are the last lines of our network's:

# %%
for name, (layer, inputs) in list(net.nodes.items())[-11:]:
    print(f"{name:14s} {type(layer).__name__:9s} {', '.join(inputs)}")

# %% [markdown]
# Then forward is a loop over the table, and backward is the same loop from behind. A join
# is a layer with two inputs, whose backward hands out two gradients. A fork needs no
# layer: where a second gradient arrives for the same name, it is added to the first.


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
        for i, g in zip(
            inputs, found if isinstance(found, tuple) else (found,), strict=True
        ):
            if g is not None:  # None: this input only lent its size
                gradients[i] = gradients[i] + g if i in gradients else g  # the fork
    return gradients["image"]


loop = gradients(forward_by_table, lambda: backward_by_table(dlogits))
assert all(np.array_equal(loop[name], theirs[name]) for name in theirs)
print("the two loops give what the library gives, bit by bit")

# %% [markdown]
# Nothing is recorded while the image runs through: the table is there before, and every
# layer in it has a backward that somebody wrote. The library's loop (`Graph` in
# `minifcn/layers/graph.py`) adds only thrift: it lets go of a value once its last reader
# has had it, and leaves out gradients that nobody asks for.
#
# ## A new skip is nothing, at first
#
# FCN-8s is not trained from scratch in the article. FCN-32s is trained first; FCN-16s
# takes over all its weights and adds a skip; FCN-8s takes over that one and adds
# another. The new score layers start at **zero**, so that a new skip adds exactly
# nothing: training goes on from where it stood, and the skip grows as far as it is
# useful. Let us do that with the task of lesson 9 (shape or background?), and the
# alignment without frame. The library's `loop.update` does the four things of lesson
# 7's loop; a `BatchStream` feeds it, every scene once in a random order, then all
# again. `initialise_from` takes over the weights of a coarser network.

# %%
from minifcn import inference
from minifcn.data import BatchStream, Sample
from minifcn.data.toyvoc import draw_scene
from minifcn.training import loop
from minifcn.training.optimizers import Adam


def draw(seed):
    """A scene's upper left part: image (96, 96, 3), label (96, 96) of 0, 1 and void."""
    image, label = draw_scene(np.random.default_rng([7, seed]), 128)
    label = np.where((label > 0) & (label < 255), 1, label).astype(np.uint8)
    return Sample(image[:96, :96], label[:96, :96], str(seed))


scenes = [draw(i) for i in range(240)]
train, val = scenes[:200], scenes[200:]
SEED = 0


def build(variant, coarser=None):
    net = models.fcn(variant, "mini", 2, alignment="same", width=8, seed=SEED)
    return models.surgery.initialise_from(net, coarser) if coarser else net


def fit(net, steps, rate):
    """Train for so many batches of 4. -> the losses"""
    adam = Adam(net.parameters(), weight_decay=5e-4)
    order = np.random.default_rng(SEED)
    batches = BatchStream(train, 4, net.card.preprocessing, order, crop=(96, 96))
    return [
        loop.update(net, *next(batches), adam, rate * (1 - step / steps))
        for step in range(steps)
    ]


def mean_iou(net):
    """On the 40 validation scenes, in percent."""
    return 100 * inference.evaluate(net, val, 2).mean_iou()


fcn32 = build("32s")
losses = fit(fcn32, 140, 4e-3)
print(f"FCN-32s: loss {np.mean(losses[-20:]):.3f}, mean IoU {mean_iou(fcn32):.1f}")

# %%
fcn16 = build("16s", fcn32)
image = val[0].image
prepared = to_device(fcn16.card.preprocessing.apply(image)[None])  # (1, 3, 96, 96)
skip = fcn16.features(prepared, ["score_pool4"])["score_pool4"]
print("largest score of the new skip:", float(abs(skip).max()))
assert float(abs(skip).max()) == 0

before, after = inference.predict(fcn32, image), inference.predict(fcn16, image)
coarse = fcn32.features(prepared, ["score_fr"])["score_fr"]
twice = fcn16["upscore16"].forward(fcn16["upscore2"].forward(coarse))
print(f"predicted alike: {100 * np.mean(before == after):.1f} % of the pixels")
assert np.array_equal(after, to_host(twice[0].argmax(axis=0)))

# %% [markdown]
# The skip's scores are 0 everywhere. What differs is due to the enlargement: by 2 and
# then by 16 is not quite the same as by 32 at once. FCN-16s starts with FCN-32s'
# scores, enlarged in two steps, and the last assertion says that this is all.
#
# Now let the skips grow, in two short stages. To be fair, another network goes on as
# FCN-32s for as long as the two stages take together. What *it* gains is due to the
# time; only what lies above is due to the skips.

# %%
fit(fcn16, 50, 2e-3)
fcn8 = build("8s", fcn16)
fit(fcn8, 50, 2e-3)
longer = build("32s", fcn32)
fit(longer, 50, 2e-3)
fit(longer, 50, 2e-3)

nets = {"32s": fcn32, "32s, longer": longer, "16s": fcn16, "8s": fcn8}
ious = {name: mean_iou(net) for name, net in nets.items()}
for name, iou in ious.items():
    print(f"FCN-{name:12s} mean IoU {iou:.1f}")
assert max(ious["32s"], ious["32s, longer"]) < ious["16s"] < ious["8s"]

# %% [markdown]
# Where is the gain? Count the mistakes near an outline (not more than 4 pixels from a
# void pixel, or from the other class) and away from all outlines.


# %%
def near_outline(label, reach=4):
    """True where another label is within `reach` pixels.   (H, W) -> (H, W)"""
    padded = np.pad(label, reach, mode="edge")
    view = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * 2)
    return view.max(axis=(2, 3)) != view.min(axis=(2, 3))


near = np.stack([near_outline(sample.label) for sample in val])  # (40, 96, 96)
truth = np.stack([sample.label for sample in val])
print(f"{'':17s}wrong near outlines   elsewhere")
errors = {}
for name, net in nets.items():
    miss = np.stack([inference.predict(net, sample.image) for sample in val]) != truth
    errors[name] = [100 * miss[side & (truth < 255)].mean() for side in (near, ~near)]
    print("FCN-{:12s}{:18.1f} %{:10.1f} %".format(name, *errors[name]))
assert all(np.less(errors["8s"], errors["32s, longer"]))

# %% [markdown]
# Both kinds of mistake become fewer: outlines sharper, and small or thin parts found
# that a cell of 32 pixels cannot hold. Three images of the validation set through the
# three networks:

# %%
from minifcn.data.labels import colourise

rows = []
for sample in val[:3]:
    row = {"truth": colourise(sample.label)}
    for name in ("32s", "16s", "8s"):
        row[f"FCN-{name}"] = colourise(inference.predict(nets[name], sample.image))
    rows.append(row)
seen = {0: "background", 1: "a shape"}
lesson.pictures("10_three", rows, legend=list(seen), classes=seen.values())

# %% [markdown]
# ## Every map inside
#
# Here is the last of them with everything that FCN-8s makes of it. Upper row: the
# image, and the mean over the channels of each tap, the brighter the larger. Below, the
# score maps in the order of our `forward`: score for "shape" minus score for
# "background". Blue says shape, red says background, white says nothing.

# %%
import matplotlib.pyplot as plt

maps, image = {}, val[2].image
prepared = to_device(fcn8.card.preprocessing.apply(image)[None])
# Without the frame, the library pads to multiples of 32, which 96 is: nothing to do.
forward(fcn8, prepared, say=lambda name, m: maps.update({name: to_host(m)[0]}))
score = {n: m[1] - m[0] for n, m in maps.items() if "s" in n}
top = np.percentile(np.abs(score["sum × 8"]), 90)  # beyond it, the darkest

figure, grid = plt.subplots(3, 4, figsize=(7, 6))
for panel in grid.flat:
    panel.set_axis_off()
grid[0, 0].imshow(image)
grid[0, 0].set_title("image")
for panel, tap in zip(grid[0, 1:], ("pool3", "pool4", "fc7"), strict=True):
    panel.imshow(maps[tap].mean(axis=0), cmap="viridis")
    panel.set_title(f"{tap}, {maps[tap].shape[1]}×{maps[tap].shape[2]}")
for axes, names in zip(
    grid[1:],
    (
        ("score_fr", "score_fr × 2", "score_pool4", "sum at 1/16"),
        ("sum × 2", "score_pool3", "sum at 1/8", "sum × 8"),
    ),
    strict=True,
):
    for panel, name in zip(axes, names, strict=True):
        drawn = panel.imshow(score[name], cmap="RdBu", vmin=-top, vmax=top)
        panel.set_title(name)
figure.colorbar(drawn, ax=grid, orientation="horizontal", aspect=50, extend="both")
lesson.show(figure, "10_inside")

# %% [markdown]
# Read the second row as a sum. Its second map is the first, enlarged. Add the third,
# and you have the fourth. The third row begins with that one, enlarged. Add its second
# map, and you have its third; the last is the third, enlarged by 8. The coarse scores
# say "about here"; the fine ones put the edge where it belongs.
#
# ## What does each branch know?
#
# Silence branches: set the score layers of some to zero in the trained FCN-8s, and
# measure what the others do alone.

# %%
full = fcn8.state_dict()
branches = ("score_fr", "score_pool4", "score_pool3")
alone = {}
for kept in (branches, branches[:2], branches[:1], branches[1:2], branches[2:]):
    silent = {n: v * 0 for n, v in full.items() if n.startswith(branches)}
    speaking = {n: full[n] for n in silent if n.split(".")[0] in kept}
    fcn8.load_state_dict(full | silent | speaking)
    alone[kept] = mean_iou(fcn8)
    print(f"{alone[kept]:5.1f}  {' + '.join(kept)}")
fcn8.load_state_dict(full)
assert alone[branches[:1]] < min(alone[branches], alone[branches[1:2]])

# %% [markdown]
# The coarse branch alone, without the others to correct it, is poor. And `score_pool4`
# alone keeps up with the sum, or beats it! In this small task it has all it needs: what
# gives a shape away is its patterned coat, and a cell of `pool4` sees enough of that.
# To tell a dog from a cat takes more of the surroundings, and with photographs the
# coarse branch is the one that carries: in the article's table, FCN-32s reaches a mean
# IoU of 59.4, and the two skips bring it to 62.7. What a branch is worth depends on the
# data. Silence it and see.
#
# ## How much does a cell see?
#
# The *receptive field* of a cell is the part of the image it depends on (lesson 4). It
# follows from kernels and strides. A layer of kernel k adds k − 1 cells of its input,
# and these lie `step` pixels apart, where `step` is the product of all strides before
# it. Begin with a pixel, field 1 and step 1. Then for each layer, poolings included:
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
print("side of the field, in pixels")
for tap in ("pool3", "pool4", "fc7"):
    print(f"{tap}: mini {mini[tap][0]:4d}   VGG16 {vgg[tap][0]:4d}")
assert vgg["fc7"] == (404, 32)  # as the article says
assert models.explain(fcn32, 96).receptive_field == mini["fc7"][0]

# %% [markdown]
# Is that so? Take one cell in the middle of each tap, and send back a 1 from each of
# its channels: the image's gradient can be different from zero only inside the field.
# (Batch normalisation is told to use its remembered mean and variance; with those of
# the batch, every cell would depend a little on all pixels. And less than a millionth
# of the largest value is rounding: a fast convolution, such as lesson 3's Winograd,
# leaves some around the true result.)

# %%
for layer in fcn8.layers_of(layers.BatchNorm2d):
    layer.frozen = True
wide = to_device(rng.normal(size=(1, 3, 384, 384)).astype(np.float32))
seen_by, x, before = {}, wide, []
for tap, chain in cut(fcn8).items():
    before += chain
    maps = wide
    for layer in before:
        maps = layer.forward(maps, train=True)
    d = np.zeros(maps.shape, np.float32)
    d[:, :, maps.shape[2] // 2, maps.shape[3] // 2] = 1
    d = to_device(d)
    for layer in reversed(before):
        d = layer.backward(d)
    seen_by[tap] = np.abs(to_host(d)[0]).max(axis=0)  # (384, 384)
    side = max(
        np.ptp(hit) + 1 for hit in np.nonzero(seen_by[tap] > 1e-6 * seen_by[tap].max())
    )
    print(f"{tap}: gradient within {side} pixels, field {mini[tap][0]}")
    assert side <= mini[tap][0]
for layer in fcn8.layers_of(layers.BatchNorm2d):
    layer.frozen = False

# %%
figure, axes = plt.subplots(1, 3, figsize=(7, 2.7))
for panel, (tap, seen) in zip(axes, seen_by.items(), strict=True):
    panel.imshow((seen / seen.max()) ** 0.3, cmap="magma", vmin=0, vmax=1)
    field, step = mini[tap]
    middle = (384 // step // 2) * step + (step - 1) / 2
    corner = middle - field / 2
    box = plt.Rectangle((corner, corner), field, field, fill=False, edgecolor="w")
    panel.add_patch(box)
    panel.set(title=f"{tap}: {field} pixels", xticks=(0, 383), yticks=(0, 383))
lesson.show(figure, "10_fields")

# %% [markdown]
# The box is the arithmetic, the glow is the gradient. It is brightest in the middle: a
# cell sees the rim of its field only through few of the many paths. (At `fc7` the rim
# is too dark to see, but counted above.) `fc7` sees all around an object and can know
# *what* it is; `pool3` sees a patch, and knows *where* its pattern ends; `pool4` stands
# between them. FCN-8s adds up the three.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** Some later networks join by a product. Let z = a · b (two maps of one shape,
# multiplied pixel by pixel). Write its backward pass: a function `(dz, a, b)` that
# returns `(da, db)`.
#
# **2.** A chain of layers: 3×3 convolution, 3×3 convolution, pooling by 2, 3×3
# convolution, pooling by 2. How many pixels wide is the receptive field of one cell at
# its end?
#
# **3.** FCN-16s over VGG16 has one score layer more than FCN-32s: 1×1, from the 512
# channels of `pool4` to 21 classes, with a bias, so 512 · 21 + 21 = 10,773 learned
# numbers. Imagine an FCN-4s, with one more skip than FCN-8s, from `pool2` with its 128
# channels. How many more learned numbers than FCN-8s does it have?

# %%
import answers

answers.check("10.1", ...)
answers.check("10.2", ...)
answers.check("10.3", ...)

# %% [markdown]
# ## In practice
#
# - Train in stages: `minifcn train --variant 32s`, then `--variant 16s --start` with
#   the first run's `best.npz`, then 8s. `minifcn reproduce` does the three in turn. Or
#   `--at-once`, which scales the skips down at the start.
# - Taking 16s or 8s straight from a classifier without either is the classic way to get
#   stuck: the numbers in `pool3` and `pool4` are much larger than those in `fc7`, and
#   drown them.
# - Where thin things matter to you (poles, bicycles), look at their own IoU, not at the
#   mean alone: they are made of outlines.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, *Fully Convolutional Networks for Semantic
#   Segmentation*, CVPR 2015, section 4.2 and figures 3 and 4.
# - O. Ronneberger, P. Fischer, T. Brox, *U-Net*, 2015: skips that are joined by
#   stacking channels rather than by adding scores.
# - In the code: `minifcn/models/fcn.py`, forward and backward as above;
#   `minifcn/models/trunk.py`, where the forks are.
