"""Whole networks: the gradient through every fork, skip, crop and upsampling, for the image and for every parameter."""

import numpy as np
import pytest
from networks import narrow_fcn, picture, stirred, tiny, without_chance

from minifcn import ops
from minifcn.gradcheck import check_layer

TOLERANCE = 1e-6


def agrees(network, x, elements=1):
    """From zero scores no gradient would flow back, and zeros around an image are kinks of ReLU without random biases."""
    network = stirred(network, scale=0.1)
    report = check_layer(network, x, np.random.default_rng(2), directions=1, elements=elements)
    learned = [p for p in network.parameters().values() if not p.frozen]
    assert report.max_relative_error <= TOLERANCE, report
    assert report.checked >= (1 + elements) * (1 + len(learned))


@pytest.mark.parametrize(
    ("variant", "alignment", "size", "options"),
    [
        ("8s", "same", (20, 15), {"at_once": True}),
        ("8s", "same", (20, 15), {"upsampling": "learned", "dropout": 0.2}),
        ("16s", "same", (20, 15), {"upsampling": "learned", "dropout": 0.2}),
        ("32s", "same", (20, 15), {"dropout": 0.2}),
        ("16s", "paper", (2, 3), {"dropout": 0.2}),
        ("8s", "paper", (1, 4), {"upsampling": "learned", "dropout": 0.2}),
        pytest.param("8s", "same", (20, 15), {"depths": (2, 2, 3, 3, 3)}, marks=pytest.mark.slow),  # as published
    ],
)
def test_plain(variant, alignment, size, options):
    agrees(narrow_fcn(variant, alignment, **options), picture(*size))


def test_plain_by_winograd():
    with ops.conv_algorithm("winograd"):
        agrees(narrow_fcn("8s", "same", upsampling="learned"), picture(20, 15))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "alignment", "upsampling", "size"),
    [
        ("32s", "same", "frozen", (64, 64)),
        ("16s", "same", "learned", (40, 64)),
        ("8s", "same", "frozen", (64, 50)),
        ("8s", "paper", "frozen", (1, 4)),
    ],
)
def test_mini(variant, alignment, upsampling, size):
    """Several images and cells of fc7, or batch normalisation would put every value near ±1, whatever the weights."""
    network = tiny(variant, alignment, width=2, upsampling=upsampling)
    if alignment == "paper":  # most of every map is zeros: its statistics bend too much for a quotient to settle
        without_chance(network)
    agrees(network, picture(*size, batch=3), elements=0)


def test_an_error_of_1e_5_in_one_parameters_gradient_is_found():
    network = stirred(narrow_fcn("32s", "same"), scale=0.1)

    class Wrong(type(network)):
        def backward(self, *args, **kwargs):
            dx = super().backward(*args, **kwargs)
            self.parameters()["vgg.conv3_1.weight"].grad *= 1 + 1e-5
            return dx

    network.__class__ = Wrong
    report = check_layer(network, picture(20, 15), np.random.default_rng(2), directions=2, elements=1)
    assert report.max_relative_error > 2 * TOLERANCE
    assert report.worst == "vgg.conv3_1.weight"
