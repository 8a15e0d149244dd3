"""Whole networks: the gradient through every fork, skip, crop and enlargement, for the image and for every parameter."""

import numpy as np
import pytest

from minifcn import layers, models, ops
from minifcn.gradcheck import check_layer
from minifcn.models.vgg import trunk_pads

TOLERANCE = 1e-6


def stirred(network, seed=0):
    """Random biases and score weights: from zero scores no gradient flows back, and zeros around an image are kinks of ReLU."""
    rng = np.random.default_rng(seed)
    for name, p in network.parameters().items():
        if name.endswith(("bias", "beta")):
            p.value = rng.normal(0, 0.1, p.value.shape).astype(np.float32)
        elif name.startswith("score"):
            p.value = rng.normal(0, 1, p.value.shape).astype(np.float32)
    return network


def plain(variant, alignment, *, depths=(1, 1, 1, 1, 1), at_once=False, upsampling="frozen"):
    """An FCN over a VGG trunk of two or three channels, without batch normalisation."""
    rng = np.random.default_rng(0)
    trunk = models.VGG((2, 2, 3, 3, 3), depths, 4, 7, rng=rng, dropout=0.2, **trunk_pads(alignment, fc_kernel=7))
    return stirred(models.FCN(trunk, variant, 2, alignment, at_once=at_once, upsampling=upsampling, rng=rng))


def image(*shape):
    return np.random.default_rng(5).normal(0, 1, shape)


def agrees(network, x, directions=1, elements=1):
    report = check_layer(network, x, np.random.default_rng(2), directions=directions, elements=elements)
    learned = [p for p in network.parameters().values() if not p.frozen]
    assert report.max_relative_error <= TOLERANCE, report
    assert report.checked >= (directions + elements) * (1 + len(learned))


def test_an_error_of_1e_5_in_one_parameters_gradient_is_found():
    network = plain("32s", "same")

    class Wrong(type(network)):
        def backward(self, *args, **kwargs):
            dx = super().backward(*args, **kwargs)
            self.parameters()["vgg.conv3_1.weight"].grad *= 1 + 1e-5
            return dx

    network.__class__ = Wrong
    report = check_layer(network, image(1, 3, 20, 15), np.random.default_rng(2), directions=2, elements=1)
    assert report.max_relative_error > 2 * TOLERANCE
    assert report.worst == "vgg.conv3_1.weight"


@pytest.mark.parametrize(("variant", "upsampling"), [("32s", "frozen"), ("16s", "learned"), ("8s", "frozen")])
def test_plain_trunk_same(variant, upsampling):
    agrees(plain(variant, "same", upsampling=upsampling), image(1, 3, 20, 15))


@pytest.mark.parametrize(("variant", "upsampling"), [("32s", "frozen"), ("8s", "learned")])
def test_plain_trunk_by_winograd(variant, upsampling):
    with ops.conv_algorithm("winograd"):
        agrees(plain(variant, "same", upsampling=upsampling), image(1, 3, 20, 15))


def test_plain_trunk_at_once():
    agrees(plain("8s", "same", at_once=True), image(2, 3, 20, 40))


@pytest.mark.parametrize(("variant", "upsampling"), [("32s", "frozen"), ("16s", "frozen"), ("8s", "learned")])
def test_plain_trunk_paper(variant, upsampling):
    agrees(plain(variant, "paper", upsampling=upsampling), image(1, 3, 9, 14))


@pytest.mark.slow
def test_trunk_as_deep_as_published():
    agrees(plain("8s", "same", depths=(2, 2, 3, 3, 3)), image(1, 3, 20, 15))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "alignment", "upsampling", "size"),
    [
        ("32s", "same", "frozen", (64, 64)),
        ("16s", "same", "learned", (40, 64)),
        ("8s", "same", "frozen", (64, 50)),
        ("8s", "paper", "frozen", (9, 14)),
    ],
)
def test_mini(variant, alignment, upsampling, size):
    """Several images and cells of fc7, or batch normalisation would put every value near ±1, whatever the weights."""
    network = stirred(models.fcn(variant, "mini", 2, alignment, upsampling=upsampling, width=2))
    if (
        alignment == "paper"
    ):  # most of every map is frame: statistics taken of it bend too much for a quotient to settle
        for norm in network.layers_of(layers.BatchNorm2d):
            norm.frozen = True
    agrees(network, image(3, 3, *size), directions=1, elements=0)
