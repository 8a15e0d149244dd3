"""Small networks and pictures that several tests look at."""

import numpy as np

from minifcn import layers, models
from minifcn.card import Card
from minifcn.models import vgg
from minifcn.models.fcn import fcn_nodes

VARIANTS = ("32s", "16s", "8s")
ALIGNMENTS = ("paper", "same")


def picture(height, width, dtype=np.float32, batch=1, seed=2):
    return np.random.default_rng(seed).normal(size=(batch, 3, height, width)).astype(dtype)


def tiny(variant="8s", alignment="paper", classes=2, width=1, **options):
    return models.fcn(variant, "mini", classes, alignment, width=width, **options)


def narrow_fcn(variant, alignment, widths=(2, 2, 3, 3, 3), depths=(1, 1, 1, 1, 1), upsampling="frozen", **options):
    """An FCN over a VGG of a few channels; fc6 and fc7 have one more than the last group. options: those of fcn_nodes,
    dropout and batch_norm."""
    rng = np.random.default_rng(0)
    of_backbone = {name: options.pop(name) for name in ("dropout", "batch_norm") if name in options}
    body = vgg.vgg_backbone(widths, depths, widths[-1] + 1, alignment, rng, **of_backbone)
    nodes = fcn_nodes(body, variant, 2, alignment, upsampling=upsampling, rng=rng, **options)
    card = Card("fcn", {"variant": variant, "num_classes": 2})
    return models.Graph(nodes, card=card, backbone_prefix="vgg")


def narrow_vgg(classes=3):
    """VGG16's classifier with a few channels."""
    rng = np.random.default_rng(0)
    chain = vgg._groups((3, 4, 5, 6, 6), vgg.DEPTHS, rng=rng)
    chain |= {"flatten": layers.Flatten(), "fc6": layers.Linear(6 * 49, 7, rng), "relu6": layers.ReLU()}
    chain |= {"fc7": layers.Linear(7, 8, rng), "relu7": layers.ReLU(), "fc8": layers.Linear(8, classes, rng)}
    return models.Sequential(**chain, card=Card("vgg16", {"num_classes": classes}, native=224))


def stirred(network, seed=1, scale=0.2):
    """Biases, score layers, normalisations and statistics that are not the ones every network starts with, so that none
    could be left out unnoticed."""
    rng, state = np.random.default_rng(seed), network.state_dict()
    for name, array in state.items():
        if name.endswith("running_var"):
            state[name] = rng.random(array.shape) + 0.5
        elif name.startswith("score") and name.endswith("weight"):
            state[name] = rng.normal(size=array.shape)
        elif name.endswith(("bias", "beta", "gamma", "mean")):
            state[name] = array + rng.normal(0, scale, array.shape)
    network.load_state_dict(state)
    return network


def without_dropout(network):
    for dropout in network.layers_of(layers.Dropout):
        dropout.p = 0.0
    return network


def without_chance(network):
    """The network, such that training computes what inference does: no dropout, and the running statistics."""
    without_dropout(network)
    for norm in network.layers_of(layers.BatchNorm2d):
        norm.frozen = True
    return network


def close(found, expected, tolerance=1e-12):
    """Within `tolerance` of the greatest value."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def weights_of(network):
    """What a network has learned, by name, as it is now."""
    return {name: p.value.copy() for name, p in network.parameters().items()}


def arrays_in(cache):
    """Every array that a cache refers to."""
    if isinstance(cache, np.ndarray):
        yield cache
    elif isinstance(cache, tuple | list):
        for part in cache:
            yield from arrays_in(part)
