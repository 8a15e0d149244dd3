# %% [markdown]
# # 9. Build FCN-32s
#
# **You will** put a whole fully convolutional network together, layer by layer, write
# its forward and its backward pass, compare it with the library's, and measure how well
# any network of this kind could do.
#
# **You will learn** what each part is for, why the score layer starts at zero and what
# follows from that, and why the result is coarse however long one trains.
#
# **You need** lessons 3 to 8.
#
# **It takes** 25 minutes to read and about 15 seconds to run.

# %%
import lesson

lesson.begin()  # says where arrays live: in main memory, or on a GPU (lesson 17)

# %% [markdown]
# ## Clouds
#
# This lesson builds FCN-32s, the article's first network. Let us begin with what it
# does. The library's own, small and with fresh weights, learns for 200 steps, from
# scenes like those of lesson 7: is a pixel part of a shape, or background? Here is what
# it makes of scenes that it has not seen.

# %%
import numpy as np

import shapes
from minifcn import inference, models
from minifcn.training.optimizers import Adam

scenes = shapes.samples(240, drawn=128, size=96)
train, val = scenes[:200], scenes[200:]  # val, for *validation*: never trained on

ious = []
for seed in (1, 0):
    trained = models.fcn("32s", "mini", 2, alignment="same", width=8, seed=seed)
    adam = Adam(trained.parameters(), weight_decay=5e-4)
    losses = shapes.fit(trained, train, adam, 4e-3, steps=200, batch=4, seed=seed)
    ious.append(100 * inference.evaluate(trained, val, 2).mean_iou())
    print(f"seed {seed}: loss {losses[0]:.3f} -> {np.mean(losses[-20:]):.3f}", end="")
    print(f", mean IoU {ious[-1]:.1f}")

lazy = 100 * np.mean([np.mean(s.label[s.label < 255] == 0) for s in val]) / 2
print(f"all background: mean IoU about {lazy:.1f}")
assert min(ious) > lazy + 15

# %% tags=["hide-input"]
from minifcn.backend import to_device, to_host

rows = []
for sample in val[:3]:
    prepared = to_device(trained.card.preprocessing.apply(sample.image)[None])
    logits = to_host(trained.forward(prepared))[0]
    p = 1 / (1 + np.exp(logits[0] - logits[1]))  # softmax of two
    row = {"image": sample.image, "truth": lesson.over(sample.image, sample.label)}
    row["probability"] = p
    row["prediction"] = lesson.over(sample.image, (p > 0.5).astype(np.uint8))
    rows.append(row)
caption = "Validation scenes. Red: a shape. The network does not know where they end."
lesson.pictures("09_clouds", rows, caption=caption, vmin=0, vmax=1)

# %% [markdown]
# It has found most of the shapes, and it draws them as clouds. Two questions: what is
# this network, and why clouds? (That the probability fades towards one half at the
# border is an artefact: only one stamp of lesson 5 reaches these pixels. It does not
# change which class is ahead.)
#
# ## The plan
#
# All pieces are there, from lessons 3 to 8. Now they stand in one row:
#
#     image            (N, 3, H, W)
#       trunk          five groups of convolutions, each closed by a pooling: 1/32
#       fc6, fc7       once fully connected, now convolutions
#       score_fr       1×1 convolution: one score a class, for each cell
#       upscore        32 times larger, bilinear
#       crop           exactly the image's part
#     logits           (N, classes, H, W)
#
# *Logits* is the usual word for scores before they are made into probabilities. The
# article's trunk is VGG16, large, and trained as a classifier before. Ours has the same
# plan with seven 3×3 convolutions in place of thirteen, and few channels.
#
# Behind every convolution but `score_fr` stand a batch normalisation and a ReLU.
# Without ReLU two convolutions in a row would be no more than one. VGG16 has no
# normalisation: its weights came ready from a classifier. `fc6` and `fc7` also have
# *dropout*: in training, one value in ten, drawn at random, is set to 0, so that the
# network cannot rely on any single one.

# %%
from minifcn import layers


def convolution(chain, name, inputs, outputs, kernel, pad, rng):
    """Append a convolution with its two helpers to a chain {name: layer}."""
    number = name.removeprefix("conv").removeprefix("fc")
    # No bias: the normalisation subtracts the mean, and any bias with it.
    chain[name] = layers.Conv2d(inputs, outputs, kernel, rng, pad=pad, bias=False)
    chain["bn" + number] = layers.BatchNorm2d(outputs)
    chain["relu" + number] = layers.ReLU()


def trunk(rng, width, first_pad=100, fc_pad=0):
    """image (N, 3, H, W) -> fc7 (N, 8·width, h, w) at 1/32, as {name: layer}."""
    chain, channels = {}, 3
    # Of each group: how many convolutions, and how many times `width` channels.
    groups = ((1, 1), (1, 2), (2, 4), (2, 8), (1, 8))
    for group, (depth, times) in enumerate(groups, start=1):
        for n in range(1, depth + 1):
            pad = first_pad if (group, n) == (1, 1) else 1
            convolution(chain, f"conv{group}_{n}", channels, times * width, 3, pad, rng)
            channels = times * width
        chain[f"pool{group}"] = layers.MaxPool2d(2, ceil_mode=True)
    for name, kernel, pad in (("fc6", 7, fc_pad), ("fc7", 1, 0)):
        convolution(chain, name, channels, channels, kernel, pad, rng)
        chain["drop" + name[-1]] = layers.Dropout(0.1, rng)
    return chain


# %% [markdown]
# ## Both passes
#
# The forward pass goes through the row. The backward pass goes through it from behind.
# Each layer takes the gradient of its output, adds the gradients of its own weights to
# those it has stored, and returns the gradient of its input. ReLU hands on the gradient
# where its input was positive. Max pooling hands it to the pixel that won. (Each
# remembers what it needs while `train=True`.)


# %%
class FCN32s(layers.Layer):
    """The parameters of all the layers in it are found by `layers.Layer`."""

    def __init__(self, classes, width, rng, first_pad=100, fc_pad=0, cut=0, offset=19):
        self.vgg = models.Sequential(**trunk(rng, width, first_pad, fc_pad))
        self.score_fr = layers.Conv2d(8 * width, classes, 1, rng, zero=True)
        self.upscore = layers.Upsample(32, kernel=64, pad=cut)
        self.crop = layers.CropLike(offset)

    def forward(self, x, train=False):
        image = x
        for layer in self.vgg.children().values():
            x = layer.forward(x, train=train)
        scores = self.score_fr.forward(x, train=train)  # (N, classes, h, w)
        large = self.upscore.forward(scores, train=train)
        return self.crop.forward(large, image, train=train)  # (N, classes, H, W)

    def backward(self, dlogits):
        d, _ = self.crop.backward(dlogits)  # zeros where the crop cut
        d = self.upscore.backward(d)
        d = self.score_fr.backward(d)
        for layer in reversed(self.vgg.children().values()):
            d = layer.backward(d)
        return d  # the image's gradient


mine = FCN32s(21, width=8, rng=np.random.default_rng(0))
# Only the tent of `upscore` is frozen, that is, not learned (lesson 5).
weights = {name: p.value.size for name, p in mine.parameters().items() if not p.frozen}
print(f"{len(weights)} arrays with {sum(weights.values()):,} learned numbers;")
print("most of them in", max(weights, key=weights.get))

# %% [markdown]
# Here are two images of 96 × 96 on their way, with the article's frame and crop (lesson
# 6): 100 pixels on each side, of which the first 3×3 takes 1 back, then five times
# halved with rounding up, then seven cells for `fc6` to stand on.

# %%
rng = np.random.default_rng(1)
images = to_device(rng.normal(size=(2, 3, 96, 96)).astype(np.float32))
x = images
print(f"{'image':9s}", x.shape)
for name, layer in mine.vgg.children().items():
    x = layer.forward(x)
    if isinstance(layer, layers.Conv2d | layers.MaxPool2d):
        print(f"{name:9s}", x.shape)
x = mine.score_fr.forward(x)
print(f"{'score_fr':9s}", x.shape)
assert x.shape == (2, 21, 4, 4)
x = mine.upscore.forward(x)
print(f"{'upscore':9s}", x.shape, " crop", mine.crop.forward(x, images).shape)

# %% [markdown]
# The image may have any size from 1×1 up, as no layer asks for a particular one. And
# the scores of a 96 × 96 image have only 4 × 4 cells. All that the network knows about
# *where* passes through them.
#
# ## Is it right?
#
# The network of the picture has the other alignment of lesson 6: no frame, `fc6` padded
# by 3, the stamp of 64 cut by 16 on each side, nothing to crop. Give ours that alignment
# and its trained weights. (Ours does not pad the image to a multiple of 32, so it gets
# one of 64 × 96.) Then compare logits and gradients in float64, without dropout. Both
# use the same layers: this compares the *wiring* only. Finite differences check the rest:

# %%
from minifcn import gradcheck

same = {"first_pad": 1, "fc_pad": 3, "cut": 16, "offset": 0}
mine = FCN32s(2, 8, np.random.default_rng(0), **same)
mine.load_state_dict(trained.state_dict())  # by name; it refuses if one is missing
x, dlogits = (to_device(rng.normal(size=(2, c, 64, 96))) for c in (3, 2))
results = []
for network in (mine, trained):
    network.astype(np.float64)
    for layer in network.layers_of(layers.Dropout):
        layer.p = 0.0
    network.zero_grad()
    found = {"logits": network.forward(x, train=True)}
    found["image"] = network.backward(dlogits)
    found |= {n: p.grad for n, p in network.parameters().items() if not p.frozen}
    results.append({name: to_host(array) for name, array in found.items()})

ours, theirs = results
off = {n: abs(ours[n] - theirs[n]).max() / abs(theirs[n]).max() for n in theirs}
print(f"{len(off)} arrays compared, largest difference {max(off.values()):.1e}")
assert ours.keys() == theirs.keys() and max(off.values()) < 1e-12

tiny = FCN32s(2, 2, np.random.default_rng(0), **same)
# Random score weights, since those of 0 send nothing back.
tiny.score_fr.weight.value = to_device(rng.normal(size=(2, 16, 1, 1)))
x = to_device(rng.normal(size=(1, 3, 64, 96)))
report = gradcheck.check_layer(tiny, x, rng, directions=2, elements=2)
print(report)
assert report.max_relative_error < 1e-6

# %% [markdown]
# ## The first loss
#
# `score_fr` starts with weights and biases of zero (`zero=True`). So every score is 0,
# every class has probability 1/C, and the loss, the mean of −ln(probability of the true
# class), is ln C, whatever the labels. Above it began at ln 2 = 0.693. With VOC's 21
# classes it is ln 21 = 3.0445. Whoever sees 3.04 in the first line of a training knows
# that all is well. Whoever sees it after a thousand steps knows that nothing has been
# learned.
#
# Can anything be learned from scores that are all 0? Look at the gradients:

# %%
from minifcn import ops

assert np.isclose(losses[0], np.log(2), atol=1e-5)
labels = to_device(rng.integers(0, 21, (2, 96, 96)).astype(np.uint8))


def moved(change=lambda network: None):
    """The loss of a fresh network, and which of its parameters have a gradient."""
    network = FCN32s(21, 8, np.random.default_rng(0), **same)
    change(network)
    logits = network.forward(images, train=True)
    loss, cache = ops.softmax_cross_entropy_forward(logits, labels)
    # 1.0: by how much the loss rises, per unit, if the loss rises. So it all begins.
    network.backward(ops.softmax_cross_entropy_backward(1.0, cache))
    learned = {n: p for n, p in network.parameters().items() if not p.frozen}
    return float(loss), [n for n, p in learned.items() if abs(p.grad).max() > 0]


loss, names = moved()
print(f"loss {loss:.4f}, ln 21 = {np.log(21):.4f}; with a gradient:", *names)
assert np.isclose(loss, np.log(21), atol=1e-5)
assert names == ["score_fr.weight", "score_fr.bias"]

# %% [markdown]
# At the first step only the score layer has a gradient. What it hands on to the trunk
# is multiplied by its weights, and those are 0. After one update they are not, and the
# trunk begins to learn, too. So zero does no harm here.
#
# In a layer further down, zero would be fatal. Its maps would be 0, and ReLU hands on
# no gradient at 0. Let us see, with score weights that are not zero:


# %%
def speak(network):
    weight = network.parameters()["score_fr.weight"]
    weight.value = to_device(np.random.default_rng(2).normal(size=weight.value.shape))
    network.astype(np.float32)


def silence(network):
    speak(network)
    weight = network.parameters()["vgg.conv3_1.weight"]
    weight.value = 0 * weight.value


_, names = moved(speak)
print(f"with score weights: {len(names)} arrays with a gradient")
assert len(names) == len(weights)
_, names = moved(silence)
print("with conv3_1 at zero as well:", *names)
assert names == ["score_fr.bias"]

# %% [markdown]
# Behind the silent layer all maps are 0. No layer of the trunk has a gradient, now or
# ever. Only the bias of the scores still learns.
#
# ## Why clouds?
#
# Is it for want of training? All the network has to say, it says in `score_fr`, one
# number per class and cell; after that nothing is learned. So take the score map itself
# as the thing to learn, for each validation scene by itself, and go down to the least
# loss. (No second valley is in the way: the logits are linear in the scores, and the
# cross-entropy is convex.) What these best scores miss, no network with this head can
# be expected to find.

# %%
from minifcn.layers.init import bilinear_1d
from minifcn.metrics import ConfusionMatrix

truth = np.stack([sample.label for sample in val])  # (40, 96, 96)


def best_prediction(cell, steps=150):
    """Labels (40, 96, 96) from the best scores in cells of `cell` pixels."""
    scores = np.zeros((len(truth), 2, 96 // cell, 96 // cell), np.float32)
    line = bilinear_1d(2 * cell)
    first, second = 0.0, 0.0  # Adam, as in lesson 8, but 0.99 in place of 0.999
    for step in range(1, steps + 1):
        logits, up = ops.upsample_forward(scores, line, stride=cell, pad=cell // 2)
        _, cache = ops.softmax_cross_entropy_forward(logits, truth)
        d = ops.upsample_backward(ops.softmax_cross_entropy_backward(1.0, cache), up)
        d = d * truth.size  # so that 1e-8 below is small beside it
        first, second = 0.9 * first + 0.1 * d, 0.99 * second + 0.01 * d * d
        size = np.sqrt(second / (1 - 0.99**step)) + 1e-8
        scores -= 0.5 * first / (1 - 0.9**step) / size
    return logits.argmax(axis=1).astype(np.uint8)


bounds, drawn = {}, {}
for cell in (32, 16, 8):
    bound = ConfusionMatrix(2)
    drawn[cell] = best_prediction(cell)
    bound.update(truth, drawn[cell])
    bounds[cell] = 100 * bound.mean_iou()
    print(f"at best with cells of {cell:2d} × {cell:2d}: mean IoU {bounds[cell]:.1f}")
gap, coarse = bounds[32] - max(ious), 100 - bounds[32]
print(f"better training could bring {gap:.1f} points; coarseness costs {coarse:.1f}")
assert max(ious) + 3 < bounds[32] < bounds[16] - 5 and bounds[16] < bounds[8]

# %% tags=["hide-input"]
wrong = ((drawn[32] != truth) & (truth < 255)).mean(axis=(1, 2))
rows = []
for n in np.argsort(wrong)[[-1, len(val) // 2]]:  # the worst, and one in the middle
    rows.append({"truth": lesson.over(val[n].image, truth[n])})
    for cell in (32, 16, 8):
        rows[-1][f"cells of {cell}"] = lesson.over(val[n].image, drawn[cell][n])
caption = (
    "The best that such scores can draw: the worst scene for 32, and a middling one."
)
lesson.pictures("09_bounds", rows, caption=caption)

# %% [markdown]
# Even a perfect network draws clouds in cells of 32 pixels. Finer scores cure that. And
# the trunk has had finer maps all along, on its way down: `pool4` with cells of 16
# pixels, and `pool3` with cells of 8. Lesson 10 taps them.
#
# ## Exercises
#
# Replace the dots and run the cell again. More stars, more work.
#
# **1.** ★ An image of 300 rows and 400 columns goes through FCN-32s with the frame of
# 100 pixels, as in the article. How many rows and columns has the map that `score_fr`
# puts out? (A pair, rows first.)
#
# **2.** ★★ Change the model: make `fc6` a 1×1 convolution (width 8). Predict: by how many
# pixels does the receptive field of a score become narrower, and how many fewer learned
# numbers does the network have? (A pair: pixels, numbers.) Then change `trunk` and count.
#
# **3.** ★★ Write the backward pass of the weights of `score_fr`: a function `(dscores,
# x)` of the gradient of the scores (N, C, h, w) and of the layer's input (N, D, h, w),
# that returns `dw` (C, D) and `db` (C,). In the forward pass, the score of class c at a
# place is Σ w[c, d] · x[d] + b[c], with x taken at the same place of the same image.

# %%
import answers

answers.check("09.1", ...)
answers.check("09.2", ...)
answers.check("09.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn train --variant 32s --data …` trains this network on your own images;
#   `--backbone vgg16` takes a larger trunk, `--start imagenet` EfficientNet-Lite0 with
#   pretrained weights, where they are installed.
# - Check the first loss of any new network: ln C, if the scores start at zero.
# - `minifcn explain vgg16 --variant 32s` prints the shapes and costs of any network.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, *Fully Convolutional Networks for Semantic
#   Segmentation*, CVPR 2015, sections 3 and 4.1, <https://arxiv.org/abs/1411.4038>;
#   appendix A has such bounds.
# - K. Simonyan, A. Zisserman, *Very Deep Convolutional Networks for Large-Scale Image
#   Recognition*, ICLR 2015: VGG, <https://arxiv.org/abs/1409.1556>
# - In the code: `minifcn/models/vgg.py`, `minifcn/models/fcn.py`.
