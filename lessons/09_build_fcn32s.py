# %% [markdown]
# # 9. Build FCN-32s
#
# **You will** put a whole fully convolutional network together, layer by layer, write
# its forward and its backward pass, compare it with the library's to the last digit,
# and train it until it sees something.
#
# **You will learn** what each part is for, why the score layer starts at zero and what
# follows from that, and why the result is coarse however long one trains.
#
# **You need** lessons 3 to 6.
#
# **It takes** 25 minutes to read and about 15 seconds to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## The plan
#
# All pieces are there. Lesson 3 had convolutions, lesson 4 turned a classifier's last
# layers into convolutions, lesson 5 enlarged maps, lesson 6 found the crop. Now they
# stand in one row:
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
# plan and is small: seven 3×3 convolutions, not thirteen, and few channels.
#
# ## The trunk
#
# Every convolution is followed by two helpers. *ReLU* replaces negative values by 0;
# without it all layers together would be one single linear map. *Batch normalisation*
# shifts and scales each channel so that over the *batch*, the images of one training
# step, its mean is 0 and its variance 1 (and then by two learned numbers). Outside
# training it uses a mean and a variance that it remembers from there. VGG16 did
# without: its weights came ready from a classifier. Ours start from random numbers, and
# a deep chain of those hardly learns unless the numbers keep a reasonable size from
# layer to layer.
#
# `fc6` and `fc7` also have *dropout*: in training, one value in ten, drawn at random,
# is set to 0, so that no single one is relied upon.

# %%
import numpy as np

from minifcn import layers, models


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


names = list(trunk(np.random.default_rng(0), width=8))
print(len(names), "layers:", *names)

# %% [markdown]
# ## The head, and both passes
#
# The forward pass goes through the row. The backward pass goes through it from behind:
# each layer takes the gradient of its output, adds the gradients of its own weights to
# those it has stored (`zero_grad` sets these to 0 beforehand), and returns the gradient
# of its input. There is no more to it, because each layer knows its own backward, as
# lessons 3 and 5 showed for the two that matter most. The others follow the same rule
# of shares: ReLU hands on the gradient where its input was positive, and max pooling
# hands it to the pixel that won. (Each remembers what it needs while `train=True`.)


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
# Here are two images of 96 × 96 on their way. Follow the numbers from lesson 6: 100
# pixels of frame on each side, of which the first 3×3 takes 1 back, five times halved
# with rounding up, seven cells for `fc6` to stand on.

# %%
from minifcn.backend import to_device, to_host

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
x = mine.upscore.forward(x)
print(f"{'upscore':9s}", x.shape)
x = mine.crop.forward(x, images)
print(f"{'crop':9s}", x.shape)
assert x.shape == (2, 21, 96, 96)

# %% [markdown]
# Two questions about size answer themselves here. The image may have any size from 1×1
# up, as no layer asks for a particular one. And the scores of a 96 × 96 image have only
# 4 × 4 cells. All that the network knows about *where* passes through them.
#
# ## The first loss
#
# `score_fr` starts with weights and biases of zero (`zero=True`). So every score is 0,
# every class is equally probable, 1/21 at each pixel, and the loss, lesson 5's mean of
# −log(probability of the true class), is ln 21 = 3.0445, whatever the labels. Whoever
# trains an FCN on 21 classes and sees 3.04 in the first line knows that all is well;
# whoever sees it after a thousand steps knows that nothing is learned.

# %%
from minifcn import ops

labels = to_device(rng.integers(0, 21, (2, 96, 96)).astype(np.uint8))
logits = mine.forward(images, train=True)
loss, cache = ops.softmax_cross_entropy_forward(logits, labels)
print(f"loss {float(loss):.4f}, ln 21 = {np.log(21):.4f}")
assert np.isclose(float(loss), np.log(21), atol=1e-5)

mine.zero_grad()
# 1.0: by how much the loss rises, per unit, if the loss rises. So it all begins.
dx = mine.backward(ops.softmax_cross_entropy_backward(1.0, cache))


def size_of_gradients(network):
    """The norm of the gradient of each learned parameter."""
    learned = {n: p for n, p in network.parameters().items() if not p.frozen}
    return {n: float(np.linalg.norm(to_host(p.grad))) for n, p in learned.items()}


moved = [name for name, size in size_of_gradients(mine).items() if size > 0]
print("parameters with a gradient:", *moved)
assert moved == ["score_fr.weight", "score_fr.bias"]

# %% [markdown]
# Look at the last line. At the first step only the score layer has a gradient. What it
# hands on to the trunk is multiplied by its weights, and those are 0. After one update
# they are not, and the trunk begins to learn, too. So zero does no harm: it starts the
# network from "I don't know" rather than from a random opinion. (In a layer further
# down zero *would* be harmful: all its channels would stay equal for ever.)
#
# ## Is it right?
#
# The library's own FCN-32s over `mini` is the same network. Give both the same weights
# (with random scores, so that something flows back), the same images, the same gradient
# from above. In float64, so that rounding cannot hide a mistake, and without dropout,
# which draws anew each time.

# %%

library = models.fcn("32s", "mini", 21, alignment="paper", width=8, seed=5)
state = library.state_dict()
state["score_fr.weight"] = rng.normal(size=state["score_fr.weight"].shape)
for network in (mine, library):
    network.load_state_dict(state)  # by name; it refuses if one is missing
    network.astype(np.float64)
    for layer in network.layers_of(layers.Dropout):
        layer.p = 0.0

x = to_device(rng.normal(size=(2, 3, 40, 53)))
dlogits = to_device(rng.normal(size=(2, 21, 40, 53)))
results = []
for network in (mine, library):
    network.zero_grad()
    logits = network.forward(x, train=True)
    dx = network.backward(dlogits)
    arrays = {"logits": logits, "image": dx}
    arrays |= {n: p.grad for n, p in network.parameters().items() if not p.frozen}
    results.append({name: to_host(array) for name, array in arrays.items()})

ours, theirs = results
errors = {
    name: np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max()
    for name in theirs
}
print(f"{len(errors)} arrays compared, largest difference {max(errors.values()):.1e}")
assert ours.keys() == theirs.keys() and max(errors.values()) < 1e-12

# %% [markdown]
# Logits, the image's gradient and that of each parameter: the same. But two programs
# can share a mistake. The judge who knows neither is the definition of a derivative:
# move all parameters a little along a random direction, and see whether the result
# changes as much as the gradients say. (Not to the last digit, since "a little" is not
# nothing. Lesson 7 says how near is near enough.)

# %%
learned = [p for p in mine.parameters().values() if not p.frozen]
steps = [to_device(rng.normal(size=p.value.shape)) for p in learned]


def moved_by(e):
    """Σ dlogits · logits with all parameters moved by e along `steps`."""
    start = [p.value for p in learned]
    for p, step in zip(learned, steps, strict=True):
        p.value = p.value + e * step
    result = float((dlogits * mine.forward(x, train=True)).sum())
    for p, value in zip(learned, start, strict=True):
        p.value = value
    return result


predicted = sum(float((p.grad * s).sum()) for p, s in zip(learned, steps, strict=True))
e = 1e-6
measured = (moved_by(e) - moved_by(-e)) / (2 * e)
print(f"gradients say {predicted:.4f}, the forward pass says {measured:.4f}")
assert abs(predicted - measured) < 1e-5 * abs(measured)

# %% [markdown]
# ## Train it
#
# Now the cheap alignment of lesson 6: no frame, `fc6` padded by 3, the stamp of 64 cut
# by 16 on each side, and nothing to crop if the image's sides are multiples of 32. And
# an easier question than usual, so that seconds are enough: is a pixel part of a shape,
# whichever, or background?
#
# Training is a loop of four things: forward, loss, backward, a small step of each
# weight against its gradient. (Lesson 11 is about the step. Adam is a rule that chooses
# its length for each weight by itself, and *weight decay* pulls the weights a little
# towards 0.)

# %%
from minifcn.data.toyvoc import draw_scene
from minifcn.preprocessing import Preprocessing
from minifcn.training.optimizers import Adam

SIDE = 96


def draw(seed):
    """A scene's upper left part: image (96, 96, 3), label (96, 96) of 0, 1 and void."""
    image, label = draw_scene(np.random.default_rng([7, seed]), 128)
    label = np.where((label > 0) & (label < 255), 1, label)
    return image[:SIDE, :SIDE], label[:SIDE, :SIDE].astype(np.uint8)


prepare = Preprocessing().apply  # (H, W, 3) of 0 … 255 -> (3, H, W) around 0
scenes = [draw(i) for i in range(240)]
train, val = scenes[:200], scenes[200:]  # val, for *validation*: never trained on
net = FCN32s(2, 8, np.random.default_rng(0), first_pad=1, fc_pad=3, cut=16, offset=0)
adam = Adam(net.parameters(), weight_decay=5e-4)
STEPS, losses = 200, []
for step in range(STEPS):
    some = [train[i] for i in rng.integers(0, len(train), 4)]
    images = to_device(np.stack([prepare(image) for image, _ in some]))
    labels = to_device(np.stack([label for _, label in some]))
    loss, cache = ops.softmax_cross_entropy_forward(
        net.forward(images, train=True), labels
    )
    net.zero_grad()
    net.backward(ops.softmax_cross_entropy_backward(1.0, cache))
    adam.step(4e-3 * (1 - step / STEPS))  # ever smaller steps
    losses.append(float(loss))
    if step % 40 == 0 or step == STEPS - 1:
        # the mean of the last 20, since a single batch's jumps about
        print(f"step {step + 1:3d}: loss {np.mean(losses[-20:]):.3f}")
assert np.isclose(losses[0], np.log(2), atol=1e-5)
assert np.mean(losses[-20:]) < 0.75 * np.log(2)

# %%
from minifcn.data.labels import colourise
from minifcn.metrics import ConfusionMatrix


def probability(network, image):
    """That of "shape", for each pixel.   (H, W, 3) -> (H, W)"""
    logits = to_host(network.forward(to_device(prepare(image)[None])))[0]
    return 1 / (1 + np.exp(logits[0] - logits[1]))  # softmax of two


lazy, matrix = ConfusionMatrix(2), ConfusionMatrix(2)
for image, label in val:
    lazy.update(label, np.zeros_like(label))
    matrix.update(label, (probability(net, image) > 0.5).astype(np.uint8))
print(f"all background: mean IoU {100 * lazy.mean_iou():.1f}")
print(f"our FCN-32s:    mean IoU {100 * matrix.mean_iou():.1f}")
assert matrix.mean_iou() > lazy.mean_iou() + 0.15

rows = []
for image, label in val[:3]:
    p = probability(net, image)
    prediction = colourise((p > 0.5).astype(np.uint8))
    rows.append({"image": image, "truth": colourise(label)})
    rows[-1] |= {"probability": p, "prediction": prediction}
seen = {0: "background", 1: "a shape"}
lesson.pictures("09_predictions", rows, legend=list(seen), classes=seen.values())

# %% [markdown]
# It has found the shapes, and it has drawn them as clouds. It knows *what* better than
# *where*. (Close to the image's border the probability fades towards one half, that is,
# the scores towards 0: out there each pixel is reached by fewer stamps, see lesson 5.)
#
# ## Why it is coarse
#
# Is that for want of training? Let us give the network everything: perfect knowledge of
# each image. All it has to say, it says in `score_fr`, one number per class and cell;
# after that nothing is learned. So take the score map itself as the thing to learn, for
# each image by itself, and find the one with the least loss. Small steps lead towards
# it, as the loss has no second valley to get stuck in (the logits are linear in the
# scores, and cross-entropy is convex). No network with this head can have a lower loss;
# what the best score map misses, no training by this loss can be expected to bring.
# This time with all six classes, another question than above, so do not compare with
# the IoU there:

# %%
from minifcn.data.toyvoc import CLASSES
from minifcn.layers.init import bilinear_1d


def best_scores(label, cell, steps=150):
    """The best logits from cells of `cell` pixels.   (H, W) -> (6, H, W)"""
    scores = np.zeros((1, len(CLASSES), *(n // cell for n in label.shape)), np.float32)
    line = bilinear_1d(2 * cell)
    first, second = 0.0, 0.0  # for Adam, the last three lines of the loop
    for step in range(1, steps + 1):
        logits, up = ops.upsample_forward(scores, line, stride=cell, pad=cell // 2)
        _, cache = ops.softmax_cross_entropy_forward(logits, label[None])
        d = ops.upsample_backward(ops.softmax_cross_entropy_backward(1.0, cache), up)
        first, second = 0.9 * first + 0.1 * d, 0.99 * second + 0.01 * d * d
        size = np.sqrt(second / (1 - 0.99**step)) + 1e-8
        scores -= 0.5 * first / (1 - 0.9**step) / size
    return logits[0]


whole = [draw_scene(np.random.default_rng([7, i]), 128) for i in range(400, 440)]
whole = [(i[:96, :96], t[:96, :96]) for i, t in whole][:12]
cells, bounds, drawn = (32, 16, 8, 4), [], {}
for cell in cells:
    bound = ConfusionMatrix(len(CLASSES))
    for n, (_, label) in enumerate(whole):
        drawn[cell, n] = best_scores(label, cell).argmax(axis=0).astype(np.uint8)
        bound.update(label, drawn[cell, n])
    bounds.append(100 * bound.mean_iou())
    print(f"one score for {cell:2d} × {cell:2d} pixels: mean IoU {bounds[-1]:.1f}")
assert bounds == sorted(bounds)

# %%
shown = 0
image, label = whole[shown]
row = {"truth": colourise(label)}
row |= {f"cells of {cell}": colourise(drawn[cell, shown]) for cell in (32, 16, 8)}
seen = np.unique(label)
lesson.pictures("09_bounds", [row], legend=seen[seen < 255], classes=CLASSES)

# %% [markdown]
# The second picture from the left is what a perfect network would draw if it had to say
# everything in cells of 32 pixels. More training does not cure that. Finer scores do,
# say the numbers above. And the trunk has had finer maps all along, on its way down:
# `pool4` with cells of 16 pixels, and `pool3` with cells of 8. Lesson 10 taps them.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** An image of 300 rows and 400 columns goes through FCN-32s with the frame of 100
# pixels, as in the article. How many rows and columns has the map that `score_fr` puts
# out? (A pair, rows first.)
#
# **2.** A network for 1000 classes starts with scores of 0. The loss is not the mean
# but the *sum* over all pixels that count, and 50 do. What is the first loss, to one
# digit after the point?
#
# **3.** Write the backward pass of the weights of `score_fr`: a function `(dscores, x)`
# of the gradient of the scores (N, C, h, w) and of the layer's input (N, D, h, w), that
# returns `dw` (C, D) and `db` (C,). In the forward pass, the score of class c at a
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
#   `--backbone vgg16` or `efficientnet_lite0` takes a larger trunk, `--start imagenet`
#   pretrained weights where they are installed.
# - Check the first loss of any new network: ln C, if the scores start at zero. Anything
#   else tells of a wrong number of classes or of labels that are not what they seem.
# - `minifcn explain vgg16 --variant 32s` prints the table of shapes for any network,
#   with the costs beside them.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, *Fully Convolutional Networks for Semantic
#   Segmentation*, CVPR 2015, sections 3 and 4.1.
# - K. Simonyan, A. Zisserman, *Very Deep Convolutional Networks for Large-Scale Image
#   Recognition*, ICLR 2015: VGG.
# - In the code: `minifcn/models/vgg.py`, `minifcn/models/fcn.py`.
