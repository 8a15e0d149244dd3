# %% [markdown]
# # 1. Label every pixel
#
# **You will** look at a photograph and its labels as the arrays they are, segment
# it with a classifier of five lines, and judge the result, by hand and with the
# library.
#
# **You will learn** what semantic segmentation asks for, why label images look
# black, what the white border is, how IoU is counted, and why pixel accuracy
# flatters.
#
# **You need** to know NumPy. Nothing about segmentation.
#
# **It takes** 20 minutes to read and a few seconds to run.

# %%
import lesson

lesson.begin()

# %% [markdown]
# The line above says where arrays will live: on the CPU as NumPy's, or on a GPU as
# CuPy's. It makes no difference until lesson 11.
#
# ## A photograph and its labels
#
# A *classifier* gives one answer for a whole image: "dog". *Semantic segmentation*
# gives one answer for every pixel: this one is dog, this one is sofa, this one is
# background. There are no outlines and no counting of dogs in it. It is
# classification, as often as the image has pixels.
#
# The lessons bring their own scenes: shapes in patterned coats in front of a dull
# background with clutter, drawn by the library from a random seed. The height and the
# width vary around the size that one asks for. There are five shapes. Each has a
# pattern of its own (discs have spots, triangles checks), in colours that vary. And
# `background` is a class like the others; the clutter belongs to it.

# %%
import numpy as np

from minifcn.data.toyvoc import CLASSES, draw_scene

image, label = draw_scene(np.random.default_rng(7), 128)
print("classes:", dict(enumerate(CLASSES)))
print("image:  ", image.shape, image.dtype, "  label:", label.shape, label.dtype)
print("labels that occur:", np.unique(label))

assert label.shape == image.shape[:2]  # one label for each pixel

# %% [markdown]
# The label of a pixel is a number, the class. Only 255 is no class; what it means comes
# below. Here is one pixel in both arrays: three numbers for its colour in the one, one
# class number in the other. The labels around it follow.

# %%
# some pixel of the shape with the highest number
row, column = np.argwhere(label == label[label != 255].max())[40]
print(
    "image[row, column]:",
    image[row, column],
    "  label[row, column]:",
    label[row, column],
)
print("labels around there:")
print(label[row - 3 : row + 3, column - 6 : column + 6])

# %% [markdown]
# ## "My labels are black"
#
# Saved as a grey image, these labels look black: classes 0 to 5 out of 256 shades.
# Nothing is lost, the numbers are only small. PASCAL VOC therefore stores its *masks*,
# as label images are also called, as *palette* images: the file holds the class
# numbers, and beside them a table that says which colour a viewer should paint for
# each. (VOC is the data set of the article that these lessons follow, on *fully
# convolutional networks* or FCNs; it is the first under "Further reading".)
#
# The table is not arbitrary. Take the bits of the class number three at a time from
# the lowest: the first goes to red, the second to green, the third to blue, into
# the *highest* bit of each; the next three into the second highest; and so on. Like
# this, neighbouring numbers get colours far apart.

# %%
from minifcn.data.labels import VOC_CLASSES, voc_palette


def colour_of(number):
    """The VOC colour of a class number: [red, green, blue]."""
    colour = [0, 0, 0]
    for bit in range(8):
        channel, place = bit % 3, 7 - bit // 3
        colour[channel] |= (number >> bit & 1) << place
    return colour


for number in (1, 8, 15, 255):
    name = VOC_CLASSES[number] if number < 21 else "void"
    print(f"{number:3d} = {number:08b}  ->  {str(colour_of(number)):16s} {name}")

assert [colour_of(number) for number in range(256)] == voc_palette().tolist()

# %%
from minifcn.data.labels import colourise

coloured = np.array([colour_of(number) for number in range(256)], np.uint8)[label]
assert np.array_equal(coloured, colourise(label))

lesson.pictures(
    "01_labels",
    [
        {
            "image": image,
            "labels as grey": np.stack([label % 255] * 3, -1),
            "by the palette": coloured,
        }
    ],
    legend=np.unique(label),
    classes=CLASSES,
)

# %% [markdown]
# In the middle picture the shapes are there, as shades close to black. (The pixels of
# label 255 would be white; they are left out.)
#
# Two mistakes follow from not knowing this, and both are common. Reading a palette
# image as colours, and having to guess the numbers back. And resizing a label image
# smoothly: at an edge between class 2 and class 4, a ring and a triangle, the average
# is class 3, a square that nobody saw.

# %%
edge = np.array([[2, 2, 4, 4]], np.uint8)
print(
    "halfway between 2 and 4:",
    (edge[0, 1].astype(int) + edge[0, 2]) // 2,
    "=",
    CLASSES[3],
)

# %% [markdown]
# ## The white border
#
# The outline of each shape has the label 255, *void*. In VOC too: people drew the
# masks, nobody can say to which side a pixel on the edge belongs, and so a band a
# few pixels wide along every outline does not count. The palette paints it in a pale
# cream, nearly white. It is not a class. No network learns from these pixels, and
# scores leave them out.

# %%
void = label == 255
print(f"void: {void.sum()} of {void.size} pixels, {100 * void.mean():.1f} %")

# Void pixels have a class on each side: few of them lie deep inside a shape.
near_edge = np.zeros_like(void)
for shift in (-3, 3):
    for axis in (0, 1):
        near_edge |= np.roll(label, shift, axis) != label
print(f"of them within 3 pixels of another label: {100 * near_edge[void].mean():.0f} %")
assert near_edge[void].mean() > 0.9

# %% [markdown]
# ## A classifier for pixels, in five lines
#
# A *network*, for us, is a long computation with many numbers in it that are learned
# from examples. One for segmentation ends in an array `scores` of shape (classes,
# height, width): for each pixel, one number per class. The prediction is the class with
# the highest score, an `argmax` over the first axis. Any way of getting scores will do
# for now, so let us take the simplest: a class scores high where a pixel's colour is
# near the class's typical colour, its mean over 40 other scenes.

# %%
scenes = [draw_scene(np.random.default_rng([1, i]), 128) for i in range(40)]
pixels = np.concatenate([i.reshape(-1, 3) for i, _ in scenes]).astype(np.float32)
truths = np.concatenate([t.reshape(-1) for _, t in scenes])
means = np.stack([pixels[truths == k].mean(axis=0) for k in range(len(CLASSES))])


def predict(image):
    """Each pixel by its colour alone.   image (H, W, 3) -> classes (H, W)"""
    distance = image[None].astype(np.float32) - means[:, None, None, :]  # (C, H, W, 3)
    scores = -(distance**2).sum(axis=3)  # (C, H, W)
    return scores.argmax(axis=0).astype(np.uint8)


prediction = predict(image)
print("prediction:", prediction.shape, prediction.dtype, np.unique(prediction))

lesson.pictures(
    "01_by_colour",
    [
        {
            "image": image,
            "truth": colourise(label),
            "by colour alone": colourise(prediction),
        }
    ],
    legend=np.unique([*np.unique(label), *np.unique(prediction)]),
    classes=CLASSES,
)

# %% [markdown]
# That is a segmentation, and a bad one: it sees one pixel at a time, and the spots of
# these discs come nearest to the mean colour of squares. What a pixel is depends on
# what is around it. How a network gets to see the surroundings, without losing track of
# the pixel, is the subject of all the lessons that follow.
#
# ## How good is it? Count pairs
#
# Everything that segmentation is judged by comes from one table, the *confusion
# matrix*: `n[i, j]` is the number of pixels whose true class is `i` and predicted
# class is `j`. Void pixels are in no cell.


# %%
def confusion(labels, predictions, num_classes):
    """n[i, j]: the pixels of class i that were predicted as class j."""
    n = np.zeros((num_classes, num_classes), int)
    for i in range(num_classes):
        for j in range(num_classes):
            n[i, j] = np.sum((labels == i) & (predictions == j))
    return n


n = confusion(label, prediction, len(CLASSES))
print(n)
assert n.sum() == np.sum(label != 255)

# %% [markdown]
# The library does the same without the loops, and adds up over as many images as you
# show it:

# %%
from minifcn.metrics import ConfusionMatrix

matrix = ConfusionMatrix(len(CLASSES))
matrix.update(label, prediction)
assert np.array_equal(matrix.counts, n)

# %% [markdown]
# **Pixel accuracy** is the share of pixels that are right: the diagonal over
# everything.
#
# **Intersection over union** (IoU, or IU in the article) is asked of one class at a
# time: of all pixels that are this class *in the truth or in the prediction*, how many
# are it in both? In the table: the diagonal cell over (its row + its column − itself,
# which would be counted twice).

# %%
k = int(np.bincount(label[(label > 0) & ~void]).argmax())  # the largest shape here
true, predicted = (label == k) & ~void, (prediction == k) & ~void
intersection, union = np.sum(true & predicted), np.sum(true | predicted)
print(
    f"{CLASSES[k]}: intersection {intersection}, union {union}, IoU {intersection / union:.3f}"
)

from_table = n[k, k] / (n[k, :].sum() + n[:, k].sum() - n[k, k])
assert np.isclose(intersection / union, from_table)
assert np.isclose(intersection / union, matrix.per_class_iou()[k])

# %%
import matplotlib.pyplot as plt

hit, missed, invented = (0.25, 0.6, 0.35), (0.2, 0.4, 0.75), (0.85, 0.35, 0.2)
drawn = np.ones((*label.shape, 3)) * 0.93
drawn[true & predicted], drawn[true & ~predicted], drawn[predicted & ~true] = (
    hit,
    missed,
    invented,
)

figure, (left, right) = plt.subplots(1, 2, width_ratios=[1, 1.15])
left.imshow(drawn)
left.set_title(f"{CLASSES[k]}: IoU {intersection / union:.2f}")
left.set_axis_off()
parts = [np.sum(true & predicted), np.sum(true & ~predicted), np.sum(predicted & ~true)]
right.barh([0, 1, 2], parts, color=[hit, missed, invented])
right.set_yticks([0, 1, 2], ["in both", "only in the truth", "only predicted"])
right.invert_yaxis()
right.set(title="the union's three parts", xlabel="pixels")
lesson.show(figure, "01_intersection_over_union")

# %% [markdown]
# IoU charges for both kinds of mistake. Painting the whole image with the class makes
# the blue part vanish, and the red one huge. Painting nothing leaves no red, and no
# green either.
#
# ## Pixel accuracy flatters
#
# Here is the laziest prediction of all, background everywhere, on 50 new scenes, beside
# the one by colour:

# %%
fresh = [draw_scene(np.random.default_rng([2, i]), 128) for i in range(50)]
lazy, colour = ConfusionMatrix(len(CLASSES)), ConfusionMatrix(len(CLASSES))
for scene, truth in fresh:
    lazy.update(truth, np.zeros_like(truth))
    colour.update(truth, predict(scene))

print(f"{'':14s}{'pixel accuracy':>16s}{'mean IoU':>12s}")
for name, m in (("all background", lazy), ("by colour", colour)):
    print(f"{name:14s}{100 * m.pixel_accuracy():15.1f}%{100 * m.mean_iou():11.1f}%")

assert lazy.pixel_accuracy() > 0.6 > 0.15 > lazy.mean_iou()
assert (
    lazy.pixel_accuracy() > colour.pixel_accuracy()
    and lazy.mean_iou() < colour.mean_iou()
)

# %% [markdown]
# Background is most of the world, in VOC nearly three quarters of it. Calling
# everything background gets most pixels right, and has found nothing. The mean of the
# IoUs over classes is not impressed: background has its 71.9 %, the other five have 0.
# That is why *mean IoU* is the number that the field compares.
#
# The article prints four numbers. With `t[i]` the number of pixels whose true class is
# `i` (a row's sum):
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
iou = diagonal / (t + claimed - diagonal)
by_hand = {
    "pixel_accuracy": diagonal.sum() / t.sum(),
    "mean_accuracy": np.mean(diagonal / t),
    "mean_iou": np.mean(iou),
    "frequency_weighted_iou": np.sum(t * iou) / t.sum(),
}
for name, value in by_hand.items():
    print(f"{name:24s}{100 * value:6.1f} %")
    assert np.isclose(value, colour.scores()[name])

# %% [markdown]
# ## Classes that are not there
#
# Our first image had no pixel of some classes, and where the prediction has none
# either, the IoU is 0 / 0. It is neither 0 (nothing was missed) nor 1 (nothing was
# found). It does not exist, and the mean is taken over the classes that have one. A
# program that counts it as 0 or as 1 reports another number, and the difference can be
# large.

# %%
one = ConfusionMatrix(len(CLASSES))
perfect = np.where(label == 255, 0, label)
one.update(label, perfect)
per_class = one.per_class_iou()
print("IoU of a perfect prediction:", per_class)
print("mean over those that exist:", one.mean_iou())
print("absent counted as 0:       ", round(float(np.nan_to_num(per_class).mean()), 3))
assert one.mean_iou() == 1 and np.isnan(per_class).any()

# %% [markdown]
# For the same reason one adds up the *counts* over all images and divides once at the
# end, as `ConfusionMatrix` does. The mean of the images' own mean IoUs is another
# number: a class with a handful of pixels in one image would weigh as much as one that
# fills another.

# %%
separately = []
for scene, truth in fresh:
    single = ConfusionMatrix(len(CLASSES))
    single.update(truth, predict(scene))
    separately.append(single.mean_iou())
print(f"counts added, then divided: {100 * colour.mean_iou():.1f} %")
print(f"mean of {len(fresh)} images' means: {100 * np.mean(separately):.1f} %")

# %% [markdown]
# ## Exercises
#
# Replace the dots, by a number or by the name of a function that you wrote above them,
# and run the cell again.
#
# **1.** Write a function `(labels, predictions, k)` that returns the IoU of class `k`.
# Pixels whose label is 255 do not count, whatever was predicted there. For a class in
# neither array, return `float("nan")`.
#
# **2.** Three classes, rows are the truth and columns the prediction. What is the mean
# IoU, to three digits?
#
#     n = [[80, 0, 0],
#          [ 0, 5, 5],
#          [ 5, 0, 5]]
#
# **3.** The palette backwards: write a function of a colour `(red, green, blue)` that
# returns the class number. (Each of the first eight bits of the number can be found in
# one bit of the colour.)

# %%
import answers

answers.check("01.1", ...)
answers.check("01.2", ...)
answers.check("01.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn.data.VOC(root, split)` reads images and masks from disk and refuses a mask
#   in colours, a mask of another size and a label that is no class, by the file's name.
# - `minifcn evaluate` prints the four scores and the IoU of each class for a trained
#   network. A class that occurs in neither truth nor prediction has a dash.
# - Compare only numbers over the same images, the same classes and with void left out.
#   A mean IoU "over 21 classes" and one "over the 7 that occur" are different things.
#
# ## Further reading
#
# - J. Long, E. Shelhamer, T. Darrell, *Fully Convolutional Networks for Semantic
#   Segmentation*, CVPR 2015, section 5: the four scores.
# - M. Everingham and others, *The PASCAL Visual Object Classes Challenge: A
#   Retrospective*, IJCV 2015: how the masks were made, and why IoU.
# - In the code: `minifcn/metrics/confusion.py`, `minifcn/data/labels.py`.
