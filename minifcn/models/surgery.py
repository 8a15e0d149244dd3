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

from copy import deepcopy
from dataclasses import replace
from math import isqrt, prod
from pathlib import Path

import numpy as np

from .. import layers
from ..errors import InputError, MissingFileError
from ..layers.graph import IMAGE, Graph
from ..weights.formats import load_any, network_name
from ..weights.pretrained import PACKAGES, load_pretrained
from .fcn import VARIANTS, fcn
from .panoptic import INSTANCE
from .vgg import vgg16


def convolutionalize(classifier: Graph, window: int | None = None) -> Graph:
    """The same network with every fully connected layer as a convolution: images of any larger size give a heat-map.

    (N, 3, H, W) -> (N, num_classes, rows, columns), one column of scores for each place of the classifier; 1 × 1 at the
    native size. The weights are copies of the classifier's numbers under the same names, reshaped: Linear (K, C·h·w)
    becomes (K, C, h, w) for the first, which sees the h × w map, and (K, C, 1, 1) for the rest.

    A global average becomes an average over a window of the native map's side, at stride 1. window: another, odd side of
    the window around every cell of the map: the smaller it is, the finer the heat-map and the less context each score sees.
    (Its columns no longer equal the classifier's output; networks without a global average leave no choice.) Raises
    InputError for a window that is not possible and for a network that is no classifier.
    """
    if classifier.card is None or classifier.card.native is None:
        found = "a network without a card" if classifier.card is None else classifier.card.title
        raise InputError(f"convolutionalize: expected a classifier with a native size, got {found}")
    if window is not None and (not averages(classifier) or window not in range(1, 1000, 2)):
        raise InputError(f"convolutionalize: a window needs a global average to replace and an odd side; got {window}")
    shapes = {
        IMAGE: (1, 3, classifier.card.native, classifier.card.native)
    }  # of the heat-map network at the native size
    nodes, renamed, copies = {}, {}, {}  # copies: what layers share, such as a generator, is shared by their copies too
    for name, (layer, inputs) in classifier.nodes.items():
        inputs = [renamed.get(i, i) for i in inputs]
        seen = [shapes[i] for i in inputs]
        if isinstance(layer, layers.Flatten | layers.AdaptiveAvgPool2d):
            # The next layer sees the map itself. (At the native size the adaptive average changes nothing.)
            (renamed[name],) = inputs
            continue
        if isinstance(layer, layers.GlobalAvgPool):
            layer = _average(seen[0][2], window)
        elif isinstance(layer, layers.Linear):
            layer = _as_convolution(layer, seen[0][1])
        else:
            layer = deepcopy(layer, copies)
            for leaf in layer.layers_of(layers.Leaf):
                leaf.forget()
        nodes[name], shapes[name] = (layer, inputs), layer.output_shape(*seen)
    options = {**classifier.card.options, "convolutional": True, "window": window}
    return Graph(nodes, card=replace(classifier.card, options=options))


def averages(classifier: Graph) -> bool:
    """Whether the classifier takes the average of its last maps, so that a heat-map's window can be chosen."""
    return bool(classifier.layers_of(layers.GlobalAvgPool))


def _average(side, window):
    if window is None:
        return layers.AvgPool2d(side, stride=1)
    return layers.AvgPool2d(window, stride=1, pad=window // 2, count_include_pad=False)


def _as_convolution(linear, channels):
    """A convolution over maps with `channels` channels, with a copy of a Linear's numbers and multipliers."""
    outputs, inputs = linear.weight.value.shape
    side = isqrt(inputs // channels)
    copied = deepcopy(linear)
    copied.zero_grad()
    copied.weight.value = copied.weight.value.reshape(outputs, channels, side, side)
    return layers.Conv2d.of(copied.weight, copied.bias)


def transplant(classifier: Graph, network: Graph, scores: bool = False) -> list[str]:
    """Give a segmentation network the weights of a classifier for its backbone: the start of every FCN training.

    The fully connected layers become convolutions on the way; the classifier's last layer stays behind, and the score
    layers start from zero. The preprocessing goes with the weights. -> the classifier's names that were not used
    scores: also take the last layer, as the coarsest score layer; both then have the same classes.
    Raises InputError, and changes nothing, if the classifier lacks a name that the backbone needs, or has another shape for it.
    """
    if network.backbone_prefix is None:
        raise InputError("a classifier gives its backbone, and this network has none")
    own, given = network.state_dict(), classifier.state_dict()
    prefix, last = network.backbone_prefix + ".", list(classifier.nodes)[-1] + "."
    sources = {name: name.removeprefix(prefix) for name in own if name.startswith(prefix)}
    if scores:
        sources |= {name: name.replace("score_fr.", last) for name in own if name.startswith("score_fr.")}
    for name, theirs in sources.items():
        source, shape = given.get(theirs), own[name].shape
        flat = (shape[0], prod(shape[1:]))  # as a fully connected layer has it
        if source is None or source.shape not in (shape, flat):
            found = "no such name" if source is None else source.shape
            raise InputError(f"a network over {network.backbone_prefix}: expected {name} of shape {shape}, got {found}")
        own[name] = source.reshape(shape)
    network.load_state_dict(own)
    network.card.preprocessing = classifier.card.preprocessing
    return [name for name in given if name not in sources.values()]


def decimate(classifier: Graph, network: Graph, seed: int = 0) -> list[str]:
    """Give a DeepLab-LargeFOV or -ASPP the weights of a classifier with fc6 and fc7, VGG16's: the trunk, and at each rate a
    part of fc6 and fc7. Chen et al., ICLR 2015, section 3.1. -> the classifier's names that were not used

    As many kernels as the network has are drawn at random, and of fc6's 7×7 taps every third is kept, the first, middle and
    last; the network spreads them at its own rate. fc7 keeps the weights from those kernels to outputs drawn likewise.
    Raises InputError, and changes nothing, for a classifier or a network that has no such layers.
    """
    rng, given = np.random.default_rng(seed), classifier.state_dict()
    own, parts = network.state_dict(), {}
    first = [name.removesuffix(".weight") for name in own if name.startswith("fc6") and name.endswith(".weight")]
    if not first or not {"fc6.weight", "fc7.weight"} <= given.keys():
        raise InputError(
            "decimate: expected VGG16's classifier, and a DeepLab-LargeFOV or -ASPP to give its fc6 and fc7 to"
        )
    fc6, fc7 = given["fc6.weight"], given["fc7.weight"]
    for name in first:
        kept, channels, side, _ = own[f"{name}.weight"].shape
        taps = isqrt(fc6.shape[1] // channels)
        if len(fc6) < kept or fc6.shape[1] != channels * taps**2 or taps < side:
            raise InputError(
                f"decimate: {name}: expected {kept} or more kernels of {channels} channels, got {fc6.shape}"
            )
        places = np.linspace(0, taps - 1, side).astype(int)
        sixth, seventh = (np.sort(rng.choice(len(a), kept, replace=False)) for a in (fc6, fc7))
        maps = fc6.reshape(-1, channels, taps, taps)[sixth]
        parts[f"{name}.weight"], parts[f"{name}.bias"] = maps[:, :, places][..., places], given["fc6.bias"][sixth]
        other = name.replace("fc6", "fc7")
        parts[f"{other}.weight"] = fc7[seventh][:, sixth, None, None]
        parts[f"{other}.bias"] = given["fc7.bias"][seventh]
    unused = transplant(classifier, network)
    network.load_state_dict(network.state_dict() | parts)
    return [name for name in unused if not name.startswith(("fc6.", "fc7."))]


def load_foreign(path: str | Path, network: Graph) -> str:
    """Read weights of another library into a network, as `weights.load_any`, and VGG16's classifier into a DeepLab-LargeFOV or -ASPP by
    `decimate`; or those of a package, "imagenet" or "hed". -> what was loaded, as a message. Raises as `weights.load_any` and
    `load_pretrained`."""
    if str(path) in PACKAGES:
        return str(load_pretrained(network, str(path)))
    try:
        return str(load_any(path, network))
    except MissingFileError:
        raise
    except InputError:
        if network.card.options.get("variant") not in ("largefov", "aspp") or network_name(network) != "vgg16":
            raise
    loaded = load_any(path, classifier := vgg16())
    decimate(classifier, network)
    return f"{loaded.source}: {len(loaded.matched)} arrays loaded, of which fc6 and fc7 gave parts"


def take_over(network: Graph, given: Graph, backbone: bool = False) -> None:
    """Give a network the weights of another with the same names, all or only the backbone's. Its score layers stay if the number
    of classes differs, and so does a panoptic network's instance part if the other has none.

    Raises InputError, and changes nothing, for networks without a backbone to share, and for names or shapes that differ.
    """
    own, theirs = network.state_dict(), given.state_dict()
    if not backbone and (left := sorted(theirs.keys() - own.keys())):
        raise InputError(f"{left[0]}: a network of other depth or options; expected the same as here")
    if backbone and network.backbone_prefix is None:
        raise InputError("it gives its backbone only, and this network has none")
    for name, value in own.items():
        stays = name.startswith("score") and network.card.num_classes != given.card.num_classes
        stays |= name not in theirs and name.startswith(INSTANCE)
        if stays or (backbone and not name.startswith(network.backbone_prefix + ".")):
            continue
        there = theirs[name].shape if name in theirs else "no such name"
        if there != value.shape:
            raise InputError(f"{name}: expected shape {value.shape}, got {there}")
        own[name] = theirs[name]
    network.load_state_dict(own)


def initialise_from(network: Graph, coarser: Graph) -> Graph:
    """Give an FCN everything it shares with a trained, coarser variant: the staged training of the paper. -> network

    The new skip keeps its zero score layer, so that training goes on from the coarser network's prediction. (But for
    the upsampling: twice and then 16 times is not quite 32 times.)
    coarser: an FCN over the same backbone with as many classes. Raises InputError where that does not hold.
    """
    if any(one.card is None or one.card.builder != "fcn" for one in (network, coarser)):
        found = " and ".join(one.card.title if one.card else "a network without a card" for one in (network, coarser))
        raise InputError(f"initialise_from: expected two FCNs, got {found}")
    fine, coarse = (one.card.options["variant"] for one in (network, coarser))
    if VARIANTS.index(fine) < VARIANTS.index(coarse):
        raise InputError(f"FCN-{fine} cannot start from the finer FCN-{coarse}")
    own, given = network.state_dict(), coarser.state_dict()
    if fine != coarse:  # the last upsampling, to the image's size, is another one
        last = "upscore" if coarse == "32s" else "upscore16"
        given = {name: value for name, value in given.items() if not name.startswith(last + ".")}
    new = [name for name in own if name not in given and not name.startswith(("score_pool", "upscore"))]
    for name in [*given, *new]:
        here, there = (state[name].shape if name in state else "no such name" for state in (own, given))
        if here != there:
            raise InputError(
                f"FCN-{fine} cannot start from this FCN-{coarse}: {name}: expected shape {here}, got {there}"
            )
    network.load_state_dict({**own, **given})
    return network


def replace_scores(network: Graph, num_classes: int, seed: int = 0) -> Graph:
    """The same FCN for another number of classes: the backbone as it is, new score layers that start from zero. -> a new FCN"""
    changed = fcn(**{**options_to_train(network), "num_classes": num_classes, "seed": seed})
    shared = {name: value for name, value in network.state_dict().items() if not name.startswith(("score", "upscore"))}
    changed.load_state_dict({**changed.state_dict(), **shared})
    changed.card.preprocessing = network.card.preprocessing
    return changed


def add_skips(network: Graph, variant: str) -> Graph:
    """A finer FCN ("16s" or "8s") that starts where a trained, coarser one stands: its new skips add zero. -> a new FCN"""
    finer = initialise_from(fcn(**{**options_to_train(network), "variant": variant}), network)
    finer.card = replace(network.card, options=finer.card.options)
    return finer


def options_to_train(network: Graph) -> dict:
    """The options of a network's card. Raises InputError for one that is folded: another network has its normalisations."""
    if network.card.options.get("folded"):
        raise InputError("a network folded for inference; start from the one that it was made of")
    return network.card.options
