"""What turns a classifier into a segmentation network, one cut at a time. Long, Shelhamer and Darrell, 2015, section 3.1.

A fully connected layer over a 7×7 map is a 7×7 convolution that happens to fit once. Written as a convolution it
moves: on a larger image the classifier becomes a heat-map, one column of class scores for every place it could stand.

Where the layers pad their input, heat-map and sliding agree in two ways, and differ in a third:

- at the native size there is one place, and the one column equals the classifier's output;
- inside a larger image, a column equals the classifier *without padding* slid over the image: both see the same pixels,
  a whole receptive field of them (404 for VGG16), and no border;
- the padded classifier on a crop of the native size sees zeros where the heat-map sees the neighbouring pixels. Those
  two cannot be equal, and it is the heat-map that knows more.
"""

from copy import copy
from dataclasses import replace
from math import prod

from .. import layers
from ..errors import InputError
from .build import fcn
from .classifier import Classifier


def convolutionalize(classifier, window=None):
    """The same network with every fully connected layer as a convolution: images of any larger size give a heat-map.

    (N, 3, H, W) -> (N, num_classes, rows, columns), one column of scores for each place of the classifier; 1 × 1 at the
    native size. The weights are the classifier's own numbers under the same names, reshaped: Linear (K, C·h·w) becomes
    (K, C, h, w) for the first, which sees the h × w map, and (K, C, 1, 1) for the rest. The layers are used, not
    copied, so that neither of the two networks costs memory of its own; load weights before, not after.

    A global average becomes an average over a window of the native map's side, moved by single steps. window: an odd
    side of one's own, around every cell of the map: the smaller, the finer the heat-map and the less of the surroundings
    each score knows. (Its columns no longer equal the classifier's output; for networks without a global average there
    is no choice.)
    """
    side, chain = classifier.map_size, {}
    average = {"kernel": side, "stride": 1}
    if window is not None:
        if not averages(classifier) or window not in range(1, 1000, 2):
            raise InputError(
                f"convolutionalize: a window needs a global average to replace and an odd side; got {window}"
            )
        average = {"kernel": window, "stride": 1, "pad": window // 2, "count_include_pad": False}
    # What the next fully connected layer sees: the side of the map that was just flattened, else single pixels.
    kernel = 1
    for name, layer in classifier.layers.items():
        if isinstance(layer, layers.Flatten):
            kernel = side
        elif isinstance(layer, layers.AdaptiveAvgPool2d):
            continue  # at the native size it changes nothing, and at others it would hide the place
        elif isinstance(layer, layers.GlobalAvgPool):
            chain[name] = layers.AvgPool2d(**average)
        elif isinstance(layer, layers.Linear):
            chain[name] = _as_convolution(layer, kernel)
            kernel = 1
        else:
            chain[name] = layer
    return Classifier(
        chain,
        card=replace(classifier.card, options={**classifier.card.options, "convolutional": True, "window": window}),
        map_size=1,
    )


def averages(classifier):
    """Whether the classifier takes the average of its last maps, so that a heat-map's window is a matter of choice."""
    return any(isinstance(layer, layers.GlobalAvgPool) for layer in classifier.layers.values())


def _as_convolution(linear, kernel):
    """A convolution with a Linear's numbers, and its memory."""
    outputs, inputs = linear.weight.value.shape
    shape = (outputs, inputs // kernel**2, kernel, kernel)
    weight = copy(linear.weight)  # with its multipliers
    weight.value, weight.grad = linear.weight.value.reshape(shape), linear.weight.grad.reshape(shape)
    return layers.Conv2d.of(weight, linear.bias)


def transplant(classifier, network):
    """Give an FCN the trunk of a classifier: the start of every FCN training. -> the names that were left over

    The fully connected layers become convolutions on the way; the classifier's last layer stays behind, and the FCN's
    score layers start from zero. The preprocessing goes with the weights.
    Raises InputError, and changes nothing, if the trunk needs a name that the classifier has not, or of another shape.
    """
    own, given = network.state_dict(), classifier.state_dict()
    family = network.backbone.family + "."
    needed = [name for name in own if name.startswith(family)]
    for name in needed:
        source, shape = given.get(name.removeprefix(family)), own[name].shape
        flat = (shape[0], prod(shape[1:]))  # as a fully connected layer has it
        if source is None or source.shape not in (shape, flat):
            found = "nothing of that name" if source is None else source.shape
            raise InputError(f"an FCN over {network.backbone.family} needs {name} {shape}, found {found}")
        own[name] = source.reshape(shape)
    network.load_state_dict(own)
    network.card.preprocessing = classifier.card.preprocessing
    return [name for name in given if family + name not in own]


def replace_scores(network, num_classes, seed=0):
    """The same FCN for another number of classes: the trunk as it is, new score layers that start from zero. -> a new FCN"""
    changed = fcn(**{**network.card.options, "num_classes": num_classes, "seed": seed})
    own, given = changed.state_dict(), network.state_dict()
    kept = {name: value for name, value in given.items() if not name.startswith(("score", "upscore"))}
    changed.load_state_dict({**own, **kept})
    changed.card.preprocessing = network.card.preprocessing
    return changed


def add_skips(network, variant):
    """A finer FCN ("16s" or "8s") that starts where a trained, coarser one stands: its new skips add zero. -> a new FCN"""
    finer = fcn(**{**network.card.options, "variant": variant})
    finer.initialise_from(network)
    finer.card = replace(network.card, options=finer.card.options)
    return finer
