# %% [markdown]
# # 15. Tell objects apart
#
# **You will** turn classes of pixels into objects: make the centres and offsets that a
# network can learn, group pixels by them, count what is right with panoptic quality,
# and spoil the maps until it breaks.
#
# **You will learn** why classes alone cannot count, how a dense network can say which
# pixel belongs to which object, and what panoptic quality charges for.
#
# **You need** lesson 1 (IoU) and lesson 12 (cells that touch).
#
# **It takes** 20 minutes to read and a few seconds to run.

# %% tags=["hide-input"]
import numpy as np

import lesson
from minifcn.data.toyvoc import draw_objects

lesson.begin()


def filled(a):
    """The void outlines taken over by a neighbour.   (H, W) -> (H, W)"""
    H, W = a.shape
    for _ in range(4):
        wide = np.pad(a, 1, constant_values=255)
        for u, v in ((0, 1), (2, 1), (1, 0), (1, 2)):
            a = np.where(a == 255, wide[u : u + H, v : v + W], a)
    return np.where(a == 255, 0, a)


def parts(labels):
    """Number the connected components of equal class, 0 in the background.   (H, W) -> (H, W)"""
    found = np.arange(1, labels.size + 1).reshape(labels.shape)
    across, down = labels[:, 1:] == labels[:, :-1], labels[1:] == labels[:-1]
    while True:  # neighbours of a class take the higher number
        grown = found.copy()
        for same, a, b in (
            (across, grown[:, 1:], grown[:, :-1]),
            (down, grown[1:], grown[:-1]),
        ):
            higher = np.where(same, np.maximum(a, b), 0)
            np.maximum(a, higher, out=a)
            np.maximum(b, higher, out=b)
        if np.array_equal(grown, found):
            return np.unique(found * (labels > 0), return_inverse=True)[1].reshape(
                labels.shape
            )
        found = grown


def scenes(seed, count=12):
    """[(image, label, numbers)]: 255 is void in both, numbers from 1 are objects"""
    rngs = (np.random.default_rng([seed, i]) for i in range(count))
    return [draw_objects(rng, 112, crowds=True) for rng in rngs]


image, label, numbers = max(scenes(seed=3), key=lambda scene: len(np.unique(scene[2])))
classes = filled(label)  # what a perfect network for classes would say
connected = parts(classes)

# %% tags=["hide-input"]
from minifcn.data.labels import colourise

lesson.pictures(
    "15_objects",
    [
        {"image": image, "classes": colourise(classes)},
        {
            "connected components": lesson.by_colour(connected),
            "objects": lesson.by_colour(numbers),
        },
    ],
    caption="A scene in which shapes of a class touch and overlap, its classes, the "
    "connected components of the classes, which run together, and the true objects.",
)

# %% [markdown]
# ## Why classes cannot count
#
# Above are the classes as a perfect network would give them. (Shapes of one plain colour
# are clutter, and count as background.) Where two shapes of a class touch, they are one
# region: six crosses make two connected components. And where something lies across a shape,
# its parts can be more than one. Lesson 12 cut a gap between cells. That fails where
# objects overlap, and it costs their rim.
#
# Panoptic-DeepLab (Cheng and others, 2020) asks each pixel a second question: *where is
# the middle of your object?* The answer is an **offset**, two numbers. And a third map
# says where middles are: the **centre** map, with a bell around the middle of each
# object. Both can be learned like any other map. Two pixels belong together if their
# offsets lead to the same middle.


# %%
def targets(numbers, sigma=4):
    """-> centre (H, W), offset (2, H, W): the way to the middle, down and across"""
    rows, columns = np.indices(numbers.shape)
    centre, offset = np.zeros(numbers.shape), np.zeros((2, *numbers.shape))
    for n in np.unique(numbers[(numbers > 0) & (numbers < 255)]):
        own = numbers == n
        r, c = rows[own].mean(), columns[own].mean()
        offset[:, own] = r - rows[own], c - columns[own]
        bell = np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / (2 * sigma**2))
        centre = np.maximum(centre, bell)
    return centre, offset


centre, offset = targets(numbers)

from minifcn.data.centres import centres

theirs, their_offset, _, _ = centres(label, numbers.astype(np.uint16), sigma=4)
assert np.abs(offset - their_offset).max() < 1e-4
assert np.abs(centre - theirs[0]).max() < 0.02  # the library cuts a bell at 3 σ

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 2, figsize=(7, 3.4))
axes[0].imshow(centre, cmap="inferno")
axes[0].set_title("centre")
axes[1].imshow(image // 2 + 100)
some = np.argwhere((numbers > 0) & (numbers < 255))[::37]
for r, c in some:
    way = offset[:, r, c]
    axes[1].arrow(c, r, way[1], way[0], lw=0.6, color="k", head_width=1.2)
axes[1].set_title("offset")
for panel in axes:
    panel.set_axis_off()
lesson.show(
    figure,
    "15_targets",
    "The centre map, a bell in the middle of each object, and the offsets of some "
    "pixels as arrows, all of which end in the middle of their object.",
)

# %% [markdown]
# ## Group
#
# Back from maps to objects takes two steps. A *peak* is a place where the centre map is
# the highest in a window of 7 × 7, and not too low. Then each pixel of some shape goes
# where its offset leads, and joins the nearest peak.


# %%
def group(classes, centre, offset, window=7, least=0.1):
    """-> numbers (H, W) from 1, 0 in the background"""
    (H, W), half = centre.shape, window // 2
    wide = np.pad(centre, half)
    views = [wide[u : u + H, v : v + W] for u, v in np.ndindex(window, window)]
    peaks = np.argwhere((centre == np.max(views, axis=0)) & (centre > least))
    if not len(peaks):
        return np.zeros((H, W), int)
    leads = np.indices((H, W)) + offset  # (2, H, W)
    squares = ((leads[:, None] - peaks.T[:, :, None, None]) ** 2).sum(axis=0)
    return np.where(classes > 0, 1 + squares.argmin(axis=0), 0)


found = group(classes, centre, offset)
inside = (numbers > 0) & (numbers < 255)
print("objects:", len(np.unique(numbers[inside])), end="  ")
print("connected components:", connected.max(), " grouped:", found.max())

# %% [markdown]
# ## Panoptic quality
#
# How good is a set of objects? First match them with the true ones: a found and a true
# object match if their IoU is above one half. There can be only one match for each.
# (Two found objects do not overlap, so they cannot both have more than half of a true
# one.) Matches are true positives, TP. Found objects without a match are FP, true ones
# without a match FN.
#
#     PQ = Σ IoU of the matches / (TP + FP/2 + FN/2)
#
# It charges for missed and for invented objects, and for masks that fit badly. (The
# library counts it for each class and takes the mean. Here all shapes are one class.)


# %%
def panoptic_quality(pairs):
    """Of [(found, true numbers)], void of the truth left out."""
    quality = count = 0
    for found, numbers in pairs:
        found = np.where(numbers == 255, 0, found)
        numbers = np.where(numbers == 255, 0, numbers)
        true = [numbers == n for n in np.unique(numbers[numbers > 0])]
        own = [found == n for n in np.unique(found[found > 0])]
        ious = np.array([[np.sum(a & b) / np.sum(a | b) for b in own] for a in true])
        matches = ious[ious > 0.5] if ious.size else np.zeros(0)
        quality += matches.sum()
        # TP + FP/2 + FN/2 is half of all objects, the true and the found
        count += (len(true) + len(own)) / 2
    return quality / count


from minifcn.inference.panoptic import Objects
from minifcn.metrics import PanopticQuality

truth = np.where(label == 255, 255, label > 0).astype(np.uint8)
truth_numbers = np.where(numbers == 255, 0, numbers).astype(np.uint16)
one_missed = np.where(found == 1, 0, found)
for name, given in (
    ("connected components", connected),
    ("grouped", found),
    ("grouped, one missed", one_missed),
):
    given = np.unique(given, return_inverse=True)[1].reshape(given.shape)
    ones = np.ones(given.max(), np.uint8)  # classes and scores
    prediction = Objects(
        (given > 0).astype(np.uint8), given.astype(np.uint16), ones, ones.astype(float)
    )
    library = PanopticQuality(2, things=(1,), stuff=())
    library.update(truth, truth_numbers, prediction)
    mine = panoptic_quality([(given, numbers)])
    print(f"PQ of {name}: {mine:.3f}, by the library: {library.pq()[1]:.3f}")
    assert abs(mine - library.pq()[1]) < 1e-9

# %% [markdown]
# The connected components get 0: neither of the two matches a cross.
#
# ## How good must the maps be?
#
# No network gives perfect maps. So spoil them: add noise to the offsets, from pixel to
# pixel, and see how far the grouping carries. The classes stay perfect, for the
# grouping and for the connected components. There are two sets of twelve scenes.

# %%
spoils, results = (0, 4, 8, 16), {}
for seed in (3, 4):
    drawn = [(filled(label), numbers) for _, label, numbers in scenes(seed)]
    apart = panoptic_quality([(parts(c), numbers) for c, numbers in drawn])
    results[seed, "parts"] = apart
    line = f"seed {seed}  connected components {apart:.3f}   offsets with noise of"
    for noise in spoils:
        rng, pairs = np.random.default_rng(0), []
        for c, numbers_here in drawn:
            centre, offset = targets(filled(numbers_here))
            offset = offset + noise * rng.normal(size=offset.shape)
            pairs.append((group(c, centre, offset), numbers_here))
        results[seed, noise] = panoptic_quality(pairs)
        line += f"  {noise}: {results[seed, noise]:.3f}"
    print(line)
    assert results[seed, 0] > 0.9 and results[seed, 4] > apart + 0.1
    assert results[seed, 16] < results[seed, 4] - 0.1

# %% tags=["hide-input"]
centre, offset = targets(filled(numbers))
noisy = offset + 8 * np.random.default_rng(0).normal(size=offset.shape)
lesson.pictures(
    "15_noise",
    [
        {
            "objects": lesson.by_colour(numbers),
            "exact offsets": lesson.by_colour(group(classes, centre, offset)),
            "noise of 8 pixels": lesson.by_colour(group(classes, centre, noisy)),
        }
    ],
    caption="The true objects, those grouped by exact offsets, and those by offsets with "
    "a noise of 8 pixels: single pixels go to the wrong neighbour, all objects stay. "
    "(Colours go by number, and the numbers differ.)",
)

# %% [markdown]
# The grouping forgives a lot: an offset may be wrong by several pixels, as long as it
# leads nearer to its own peak than to another. So a network's offsets need not be exact.
# What it does not forgive is a missing peak, or two objects with one middle, such as a
# disc in the hole of a ring.
#
# `make demo-instances` trains a network of the library for the three maps on such
# scenes; the README has its scores.
#
# ## Exercises
#
# Replace the dots and run the cell again.
#
# **1.** ★ There are 4 true objects. Three are found with IoUs of 0.9, 0.8 and 0.6. The
# fourth is found in two halves, with IoUs of 0.5 and 0.4. What is PQ?
#
# **2.** ★★ Write a function `(numbers)` of an array (H, W) that holds the number of
# each pixel's object, from 1, or 0 in the background. It returns the offsets (2, H, W),
# 0 where no object is, without a loop over the objects. (`np.bincount` with weights
# adds up rows and columns by number.)
#
# **3.** ★★★ Predict, then run. Spoil the *centre* map instead: leave the offsets as they
# are, and move all peaks 10 pixels to the right, `np.roll(centre, 10, axis=1)`. What is
# PQ on the scenes of seed 3: nearly as before, or as bad as that of connected components?
# Answer with PQ.

# %%
import answers

answers.check("15.1", ...)
answers.check("15.2", ...)
answers.check("15.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn predict` with a panoptic network's weights writes outlines, numbers and a
#   table of objects for each image.
# - Say which metric you report. PQ counts each class and takes the mean; average
#   precision of detections ranks objects by their score, which PQ does not look at.
#
# ## Further reading
#
# - B. Cheng and others, [*Panoptic-DeepLab*](https://arxiv.org/abs/1911.10194), CVPR
#   2020, section 3: centres, offsets, grouping.
# - A. Kirillov and others, [*Panoptic
#   Segmentation*](https://arxiv.org/abs/1801.00868), CVPR 2019: PQ, and why there is
#   one match at most.
# - In the code: `minifcn/data/centres.py`, `minifcn/inference/panoptic.py`,
#   `minifcn/metrics/panoptic.py`.
