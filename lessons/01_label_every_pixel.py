# %% [markdown]
# # 1. Label every pixel
#
# **You will** look at a photograph and its labels as the arrays they are, segment
# scenes with a classifier of five lines, and judge the result, by hand and with the
# library.
#
# **You will learn** what semantic segmentation asks for, how IoU is counted, why pixel
# accuracy flatters, what the white border is, and why label images look black.
#
# **You need** to know NumPy. Nothing about segmentation.
#
# **It takes** 20 minutes to read and a few seconds to run.

# %%
from pathlib import Path

import lesson
from minifcn import inference, models
from minifcn.data.images import read_image

PHOTOS = Path(lesson.__file__).parents[1] / "docs" / "photos"
network = models.pretrained("animals").prepare()  # comes with the library, trained
cat, astronaut = (
    read_image(PHOTOS / f"{name}.jpg") for name in ("chelsea", "astronaut")
)
cat_labels = inference.predict(network, cat)
astronaut_labels = inference.predict(network, astronaut)

# %% tags=["hide-input"]
import numpy as np

from minifcn.data.labels import colourise

row = {"photograph": cat, "cat is red": lesson.over(cat, cat_labels)}
second = {"another": astronaut, "person": lesson.over(astronaut, astronaut_labels)}
caption = "Two photographs, and the labels of a trained network over them."
lesson.pictures("01_photographs", [row, second], caption=caption)

# %% [markdown]
# A network has labelled every pixel of these two photographs. It was built and trained
# with the code that these lessons explain. It has found the cat and the person, purple.
# It also takes pieces of suit and helmet for a horse, dark blue. How good is it, then?
#
# ## One answer for every pixel
#
# A *classifier* gives one answer for a whole image: "cat". *Semantic segmentation*
# gives one answer for every pixel: this one is cat, this one is background. It draws no
# outlines and counts no cats. It is classification, once for every pixel.
#
# The labels are an array of the image's height and width. Each entry is a number, the
# *class*.

# %%
print("image: ", cat.shape, cat.dtype, "   labels:", cat_labels.shape, cat_labels.dtype)
# The card of a network says in words what its numbers mean.
print("classes:", dict(enumerate(network.card.classes)))
print("one pixel:", cat[150, 200], "is", network.card.classes[cat_labels[150, 200]])
print(f"cat: {100 * np.mean(cat_labels == 1):.0f} % of the photograph")

assert cat_labels.shape == cat.shape[:2]  # one label for each pixel

# %% [markdown]
# ## Scenes whose truth is known
#
# To judge labels we need the true ones. The lessons draw their own scenes from a random
# seed: shapes in patterned coats, in front of a dull background with clutter. Each of
# five kinds of shapes has its pattern (discs have spots, triangles have checks), in
# colours that vary. `background` is a class like the others. The clutter belongs to it.
# We ask for a size of 128; height and width then vary by up to a quarter.

# %%
from minifcn.data.toyvoc import CLASSES, draw_scene

image, label = draw_scene(np.random.default_rng(7), 128)
print("image:", image.shape, image.dtype, "   label:", label.shape, label.dtype)
print("classes:", dict(enumerate(CLASSES)))
void = label == 255
print("labels that occur:", np.unique(label), f"  void: {100 * void.mean():.1f} %")

# %% [markdown]
# The label 255 is no class. It is called *void*. It lies along the outline of each
# shape. PASCAL VOC has such a border, too. It is the data set of *the article* that these
# lessons follow, *Fully Convolutional Networks for Semantic Segmentation* (2015), whose
# networks are called **FCN**. People drew VOC's masks, and nobody can say to which side
# a pixel on the edge belongs. So a band of a few pixels along every outline does not
# count: no network learns from it, and scores leave it out.
#
# ## A classifier for pixels, in five lines
#
# A network for segmentation ends in an array `scores` of shape (C, H, W): for each
# pixel one number per class. The prediction is the class with the highest score, an
# `argmax` over the first axis. Any way of getting scores will do for now. Here is the
# simplest: a class scores high where a pixel's colour is near the class's mean colour
# in 40 other scenes.

# %%
scenes = [draw_scene(np.random.default_rng([1, i]), 128) for i in range(40)]
pixels = np.concatenate([i.reshape(-1, 3) for i, _ in scenes]).astype(np.float32)
truths = np.concatenate([t.reshape(-1) for _, t in scenes])
means = np.stack([pixels[truths == c].mean(axis=0) for c in range(len(CLASSES))])


def predict(image):
    """Each pixel by its colour alone.   image (H, W, 3) -> classes (H, W)"""
    distance = image[None].astype(np.float32) - means[:, None, None, :]  # (C, H, W, 3)
    scores = -(distance**2).sum(axis=3)  # (C, H, W)
    return scores.argmax(axis=0).astype(np.uint8)


prediction = predict(image)

# %% tags=["hide-input"]
row = {"image": image, "truth": colourise(label)}
row["by colour alone"] = colourise(prediction)
seen = {"legend": np.unique([label, prediction]), "classes": CLASSES}
caption = "A scene, its true labels with the pale void border, and the prediction."
lesson.pictures("01_by_colour", [row], caption=caption, **seen)

# %% [markdown]
# This is a segmentation, and a bad one. It sees one pixel at a time. The spots of these
# discs come nearest to the mean colour of squares. What a pixel is depends on what is
# around it. All later lessons are about letting a network see the surroundings without
# losing the pixel.
#
# ## Count pairs
#
# All scores of this lesson come from one table, the *confusion matrix*: `counts[i, j]`
# is the number of pixels whose true class is i and whose predicted class is j. Void
# pixels are in no cell.


# %%
def confusion(labels, predictions, C):
    """counts[i, j]: the pixels of class i that were predicted as class j."""
    counts = np.zeros((C, C), int)
    for i in range(C):
        for j in range(C):
            counts[i, j] = np.sum((labels == i) & (predictions == j))
    return counts


counts = confusion(label, prediction, len(CLASSES))
print(counts)
assert counts.sum() == np.sum(label != 255)

from minifcn.metrics import ConfusionMatrix

matrix = ConfusionMatrix(len(CLASSES))  # the library's, which adds up over images
matrix.update(label, prediction)
assert np.array_equal(matrix.counts, counts)

# %% [markdown]
# **Pixel accuracy** is the share of pixels that are right: the diagonal over
# everything.
#
# **Intersection over union** (IoU; the article writes IU) is asked of one class at a
# time. Take all pixels that are this class in the truth *or* in the prediction. How
# many of them are it in both? In the table: the diagonal cell over (its row + its
# column − itself, which would be counted twice).

# %%
c = int(np.bincount(label[(label > 0) & ~void]).argmax())  # the largest shape here
true, predicted = (label == c) & ~void, (prediction == c) & ~void
intersection, union = np.sum(true & predicted), np.sum(true | predicted)
iou = intersection / union
print(f"{CLASSES[c]}: intersection {intersection}, union {union}, IoU {iou:.3f}")

row, column = counts[c, :].sum(), counts[:, c].sum()
assert np.isclose(iou, counts[c, c] / (row + column - counts[c, c]))
assert np.isclose(iou, matrix.per_class_iou()[c])

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

hit, missed, invented = (0.25, 0.6, 0.35), (0.2, 0.4, 0.75), (0.85, 0.35, 0.2)
parts = {
    "in both": (true & predicted, hit),
    "only in the truth": (true & ~predicted, missed),
    "only predicted": (predicted & ~true, invented),
}
drawn = np.full((*label.shape, 3), 0.93)
figure, (left, right) = plt.subplots(1, 2, width_ratios=[1, 1.15])
for place, (part, colour) in enumerate(parts.values()):
    drawn[part] = colour
    right.barh(place, part.sum(), color=colour)
left.imshow(drawn)
left.set_title(f"{CLASSES[c]}: IoU {iou:.2f}")
left.set_axis_off()
right.set_yticks([0, 1, 2], parts)
right.invert_yaxis()
right.set(title="the union's three parts", xlabel="pixels")
lesson.show(
    figure,
    "01_intersection_over_union",
    "The union of the true and the predicted pixels of the largest shape, in three "
    "colours, and how many pixels each part has. IoU is green over all three.",
)

# %% [markdown]
# IoU charges for both kinds of mistake. Paint the whole image with the class: the blue
# part vanishes, and the red one is huge. Paint nothing: no red is left, and no green
# either.
#
# ## Pixel accuracy flatters
#
# Here is the laziest prediction of all, background everywhere, beside the one by
# colour, on 50 new scenes.

# %%
fresh = [draw_scene(np.random.default_rng([2, i]), 128) for i in range(50)]
lazy, colour = ConfusionMatrix(len(CLASSES)), ConfusionMatrix(len(CLASSES))
for scene, truth in fresh:
    lazy.update(truth, np.zeros_like(truth))
    colour.update(truth, predict(scene))

print(f"{'':14s}{'pixel accuracy':>16s}{'mean IoU':>12s}")
for name, m in (("all background", lazy), ("by colour", colour)):
    print(f"{name:14s}{100 * m.pixel_accuracy():15.1f}%{100 * m.mean_iou():11.1f}%")

assert lazy.pixel_accuracy() > colour.pixel_accuracy() + 0.1
assert lazy.mean_iou() < colour.mean_iou() - 0.05

# %% [markdown]
# Background is most of the world, in VOC nearly three quarters of it. Calling
# everything background gets most pixels right, and has found nothing. The mean of the
# IoUs over classes is not impressed: background has its 72 %, the other five have 0.
# That is why *mean IoU* is the number that the field compares.
#
# The article prints four numbers. With t[i] the number of pixels of true class i (a
# row's sum) and n[i, j] for `counts[i, j]`:
#
# | name | formula |
# |---|---|
# | pixel accuracy | Σ n[i,i] / Σ t[i] |
# | mean accuracy | mean over i of n[i,i] / t[i] |
# | mean IoU | mean over i of n[i,i] / (t[i] + Σⱼ n[j,i] − n[i,i]) |
# | frequency-weighted IoU | Σ t[i] · IoU[i] / Σ t[i] |

# %%
n = colour.counts
diagonal, t, claimed = np.diag(n), n.sum(axis=1), n.sum(axis=0)
ious = diagonal / (t + claimed - diagonal)
by_hand = {
    "pixel_accuracy": diagonal.sum() / t.sum(),
    "mean_accuracy": np.mean(diagonal / t),
    "mean_iou": np.mean(ious),
    "frequency_weighted_iou": np.sum(t * ious) / t.sum(),
}
for name, value in by_hand.items():
    print(f"{name:24s}{100 * value:6.1f} %")
    assert np.isclose(value, colour.scores()[name])

# %% [markdown]
# ## Classes that are not there
#
# An image may have no pixel of some class. If the prediction has none either, the IoU
# is 0 / 0. It is neither 0 (nothing was missed) nor 1 (nothing was found). It does not
# exist, and the mean is taken over the classes that have one.
#
# For this reason one adds up the *counts* over all images and divides once at the end.
# The mean of the images' own mean IoUs is another number. Predict one wrong pixel of a
# class that an image does not have, and this class has IoU 0 in that image's mean.

# %%
per_image = []
for scene, truth in fresh:
    single = ConfusionMatrix(len(CLASSES))
    single.update(truth, predict(scene))
    per_image.append(single.per_class_iou())  # nan where there is none
per_image = np.array(per_image)  # (50, C)
occurs = np.array([[np.any(truth == c) for c in range(6)] for _, truth in fresh])
invented = np.sum(~np.isnan(per_image) & ~occurs)

added = colour.mean_iou()
of_means = np.nanmean(per_image, axis=1).mean()
of_present = np.nanmean(np.where(occurs, per_image, np.nan), axis=1).mean()
print(f"counts added, then divided:                {100 * added:.1f} %")
print(f"mean of the images' means:                 {100 * of_means:.1f} %")
print(f"the same, over classes that an image has:  {100 * of_present:.1f} %")
print(f"IoUs of 0 for classes that an image lacks: {invented}", end=" ")
print(f"of {np.sum(~np.isnan(per_image))}")
assert of_means < added - 0.03 and of_present > added + 0.1 and invented > 100

# %% [markdown]
# Three ways to take a mean, three numbers for one prediction. The second is low because
# this classifier invents classes: more than half of its IoUs belong to classes that the
# image does not have. The third forgives all of these. So say which one you report. The
# field adds the counts.
#
# ## "My labels are black"
#
# Class numbers are small. Saved as a grey image, classes 0 to 5 out of 256 shades look
# black. Nothing is lost. VOC stores its *masks*, as label images are also called, as
# *palette* images: the file holds the class numbers, and beside them a table with a
# colour for each.

# %% tags=["hide-input"]
numbers = np.where(void, 0, label)
row = {"as grey": np.stack([numbers] * 3, -1)}
row["50 times as bright"] = 50 * row["as grey"]
row["by the palette"] = colourise(label)
seen = {"legend": np.unique(label), "classes": CLASSES}
lesson.pictures("01_labels", [row], caption="The same labels three times.", **seen)

# %% [markdown]
# Two mistakes follow from not knowing this. One is to read a palette image as colours,
# and to have to guess the numbers back. The other is to resize a label image smoothly.
# At an edge between class 2 and class 4, a ring and a triangle, the average is class 3:
# a square that nobody saw.
#
# The palette is made of the number's bits. Take them three at a time, the lowest first:
# one for red, one for green, one for blue. The first three go into the highest bit of
# their colours, the next three into the second highest, and so on. Class 15 is 1111 in
# bits. Its first three bits give 128, 128, 128, and the fourth adds 64 to red: 192,
# 128, 128. So neighbouring numbers get colours far apart.

# %%
from minifcn.data.labels import VOC_CLASSES, voc_palette


def colour_of(number):
    """The VOC colour of a class number: [red, green, blue]."""
    rgb = [0, 0, 0]
    for bit in range(8):
        rgb[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return rgb


for number in (1, 8, 15, 255):
    name = VOC_CLASSES[number] if number < 21 else "void"
    print(f"{number:3d} = {number:08b}  ->  {str(colour_of(number)):16s} {name}")

assert [colour_of(number) for number in range(256)] == voc_palette().tolist()

# %% [markdown]
# ## Exercises
#
# Replace the dots, by a number or by the name of a function that you wrote above them,
# and run the cell again. One star is a warm-up, three take a while. After two tries
# `answers.reveal("01.1")` prints a worked solution of the first.
#
# **1.** ★ Write a function `(labels, predictions, c)` that returns the IoU of class c.
# Pixels whose label is 255 do not count, whatever was predicted there. If no pixel that
# counts is of class c in either array, return `float("nan")`.
#
# **2.** ★★ Predict, then run. Give the classifier surroundings: replace each pixel by
# the mean colour of the 9 × 9 pixels around it, in the 40 scenes and in the 50. Will
# the mean IoU on the 50 rise or fall, and by how much? Then do it, and answer with the
# mean IoU. (`ops.avg_pool2d_forward(x, 9, stride=1, pad=4, count_include_pad=False)`
# from `minifcn import ops` takes such means of an array (N, C, H, W), and returns a
# pair. The first of the two is what you need.)
#
# **3.** ★★★ The palette backwards: write a function of one argument, a colour as a tuple
# `(red, green, blue)`, that returns the class number.

# %%
import answers

answers.check("01.1", ...)
answers.check("01.2", ...)
answers.check("01.3", ...)

# %% [markdown]
# ## The letters of all lessons
#
# In the code and the formulas of layers they mean the same everywhere. Come back to this
# table when one is new. (In passing a letter can be something else, as n and t were in
# the article's four numbers above. Then its meaning stands beside it.)
#
# | letter | what it is |
# |---|---|
# | N, n | images in an array, one of them |
# | C, c | channels that a layer reads, one of them; in scores and labels: classes |
# | K, o | channels that a layer writes, one of them (o for output) |
# | H, W | height and width of what a layer reads; Ho, Wo of what it writes |
# | i, j | row and column in what is written, or in a matrix |
# | r, c | row and column of a pixel in what is read |
# | k | the height and width of a kernel, k × k |
# | u, v | row and column inside a kernel (a *tap*) |
# | s, p | stride and pad |
# | x, w, b, y | input, weights, bias, output of a layer |
# | dx, dw, db, dy | the gradients of the loss by these |
# | t | true classes |
#
# ## In practice
#
# - `minifcn predict photo.jpg` labels your own photograph with the network above.
# - `minifcn evaluate` prints the four scores and the IoU of each class. A class that
#   occurs in neither truth nor prediction has a dash.
# - Compare only numbers over the same images, the same classes and with void left out.
#   A mean IoU "over 21 classes" and one "over the 7 that occur" are different things.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, [*Fully Convolutional Networks for Semantic
#   Segmentation*](https://arxiv.org/abs/1411.4038), CVPR 2015, section 5: the scores.
# - M. Everingham and others, *The PASCAL Visual Object Classes Challenge: A
#   Retrospective*, IJCV 2015: how the masks were made, and why IoU.
# - In the code: `minifcn/metrics/confusion.py`, `minifcn/data/labels.py`.
