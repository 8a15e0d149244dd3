"""Training curves: each FCN and the same network written in PyTorch's functions go through the same losses.

The reference shares nothing with the library but the starting weights: its crops are the published numbers, its bilinear
kernels are built here, and its gradients are PyTorch's.
"""

from itertools import product

import numpy as np
import pytest

from minifcn import layers, models, ops
from minifcn.models.fcn import fcn_nodes
from minifcn.models.vgg import vgg_backbone
from minifcn.training import loop
from minifcn.training.optimizers import SGD

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.torch

CLASSES, STEPS, BATCHES = 3, 16, 4
DEPTHS = {"mini": (1, 1, 2, 2, 1), "plain": (1, 2, 2, 2, 2)}
# A rate so small that float32's rounding is not amplified from step to step; what is compared is the arithmetic.
LR, MOMENTUM, DECAY = 0.001, 0.9, 5e-4


def build(backbone, variant, alignment, upsampling, at_once):
    if backbone == "mini":
        network = models.fcn(variant, "mini", CLASSES, alignment, at_once, seed=3, upsampling=upsampling, width=3)
    else:  # no batch normalisation: biases instead
        rng = np.random.default_rng(3)
        backbone = vgg_backbone((3, 6, 8, 10, 12), DEPTHS["plain"], 16, alignment, rng)
        options = {"at_once": at_once, "upsampling": upsampling, "rng": rng}
        network = models.Graph(fcn_nodes(backbone, variant, CLASSES, alignment, **options))
    for layer in network.layers_of(layers.Dropout):
        layer.p = 0.0
    rng = np.random.default_rng(4)
    for name, parameter in network.parameters().items():
        if name.startswith("score_") and name.endswith("weight"):  # else no gradient would reach the backbone at first
            parameter.value += 0.1 * rng.standard_normal(parameter.value.shape).astype(np.float32)
    return network


def batches(dtype):
    """Pictures in which each class has a colour of its own, so that there is something to learn; some labels ignored."""
    rng = np.random.default_rng(5)
    colours = rng.standard_normal((CLASSES, 3))
    for _ in range(BATCHES):
        coarse = rng.choice(CLASSES, (2, 2, 2), p=[0.6, 0.3, 0.1])
        labels = coarse.repeat(20, axis=1).repeat(25, axis=2)[:, :39, :49]
        images = colours[labels].transpose(0, 3, 1, 2) + 0.3 * rng.standard_normal((2, 3, 39, 49))
        labels = np.where(rng.random(labels.shape) < 0.2, 255, labels)
        yield images.astype(dtype), labels


def bilinear(size):
    """Caffe's bilinear filler, as the published networks wrote it."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 == 1 else factor - 0.5
    i, j = np.ogrid[:size, :size]
    return torch.tensor((1 - abs(i - centre) / factor) * (1 - abs(j - centre) / factor))


class Reference:
    """The same network from the same weights, in PyTorch."""

    def __init__(self, state, backbone, variant, alignment, at_once):
        self.state = {name: torch.tensor(value) for name, value in state.items()}
        self.learned = {
            n: t.requires_grad_() for n, t in self.state.items() if not n.endswith(("kernel_1d", "mean", "var"))
        }
        self.velocity = {name: torch.zeros_like(t) for name, t in self.learned.items()}
        self.depths, self.variant, self.paper = DEPTHS[backbone], variant, alignment == "paper"
        self.scale3, self.scale4 = (0.0001, 0.01) if at_once else (1, 1)

    def convolve(self, x, name, pad=0):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), padding=pad)

    def unit(self, x, kind, number, pad):
        """Convolution, batch normalisation where there is one, ReLU."""
        x, bn = self.convolve(x, f"vgg.{kind}{number}", pad), f"vgg.bn{number}"
        if f"{bn}.gamma" in self.state:
            keys = ("running_mean", "running_var", "gamma", "beta")
            x = F.batch_norm(x, *(self.state[f"{bn}.{key}"] for key in keys), training=True, momentum=0.1, eps=1e-5)
        return F.relu(x)

    def upsample(self, x, name, factor):
        pad = 0 if self.paper else factor // 2
        if f"{name}.weight" in self.state:
            return F.conv_transpose2d(x, self.state[f"{name}.weight"], stride=factor, padding=pad)
        kernel = bilinear(2 * factor).to(x.dtype).expand(CLASSES, 1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=factor, padding=pad, groups=CLASSES)

    def crop(self, x, offset, like):
        offset = offset if self.paper else 0
        return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]

    def forward(self, image):
        height, width = image.shape[2:]
        x = image if self.paper else F.pad(image, (0, -width % 32, 0, -height % 32))
        pools = {}
        for group, depth in enumerate(self.depths, start=1):
            for i in range(1, depth + 1):
                x = self.unit(x, "conv", f"{group}_{i}", 100 if self.paper and (group, i) == (1, 1) else 1)
            x = pools[group] = F.max_pool2d(x, 2, 2, ceil_mode=True)
        x = self.unit(self.unit(x, "fc", "6", 0 if self.paper else 3), "fc", "7", 0)
        score = self.convolve(x, "score_fr")
        if self.variant == "32s":
            return self.crop(self.upsample(score, "upscore", 32), 19, image)
        score = self.upsample(score, "upscore2", 2)
        score = score + self.crop(self.convolve(pools[4] * self.scale4, "score_pool4"), 5, score)
        if self.variant == "16s":
            return self.crop(self.upsample(score, "upscore16", 16), 27, image)
        score = self.upsample(score, "upscore_pool4", 2)
        score = score + self.crop(self.convolve(pools[3] * self.scale3, "score_pool3"), 9, score)
        return self.crop(self.upsample(score, "upscore8", 8), 31, image)

    def step(self, image, labels, lr):
        loss = F.cross_entropy(self.forward(torch.tensor(image)), torch.tensor(labels), ignore_index=255)
        gradients = torch.autograd.grad(loss, list(self.learned.values()))
        with torch.no_grad():
            for (name, w), gradient in zip(self.learned.items(), gradients, strict=True):
                rate = 2 * lr if name.endswith(".bias") else lr
                decays = name.endswith(".weight") and not name.startswith("upscore")
                self.velocity[name] = MOMENTUM * self.velocity[name] + rate * (gradient + decays * DECAY * w)
                w -= self.velocity[name]
        return loss.item()


SETTINGS = [  # backbone, variant, alignment, upsampling, at once
    *(
        (backbone, variant, alignment, "frozen" if backbone == "mini" else "learned", False)
        for backbone, alignment, variant in product(DEPTHS, ("paper", "same"), ("32s", "16s", "8s"))
    ),
    ("plain", "8s", "paper", "frozen", True),
    ("mini", "8s", "same", "learned", True),
]
# In float64 rounding cannot hide anything; 8s has every part that the coarser variants have.
FINE = [settings for settings in SETTINGS if settings[1] == "8s"]
COARSE = [settings for settings in SETTINGS if settings not in FINE]
RUNS = [pytest.param(*settings, "float64", 1e-9, "auto", marks=pytest.mark.slow) for settings in COARSE]
RUNS += [(*settings, "float64", 1e-9, "auto") for settings in FINE]
RUNS += [(*settings, "float32", 1e-4, "auto") for settings in FINE[1::2]]
RUNS += [(*settings, "float64", 1e-9, "winograd") for settings in FINE[:4]]


@pytest.mark.parametrize(
    ("backbone", "variant", "alignment", "upsampling", "at_once", "dtype", "tolerance", "algorithm"), RUNS
)
def test_both_train_alike(backbone, variant, alignment, upsampling, at_once, dtype, tolerance, algorithm):
    network = build(backbone, variant, alignment, upsampling, at_once).astype(dtype)
    if algorithm == "winograd":
        # Zeros around an image are kinks of ReLU, to whose other side a rounding may carry them.
        rng = np.random.default_rng(6)
        for name, parameter in network.parameters().items():
            if name.endswith(".bias"):
                parameter.value += 0.1 * rng.standard_normal(parameter.value.shape)
    start = network.state_dict()
    reference = Reference(start, backbone, variant, alignment, at_once)
    optimizer = SGD(network.parameters(), momentum=MOMENTUM, weight_decay=DECAY)
    data = list(batches(dtype))
    ours, theirs = [], []
    for i in range(STEPS):
        image, labels = data[i % BATCHES]
        with ops.conv_algorithm(algorithm):
            ours.append(loop.update(network, image, labels, optimizer, LR))
        theirs.append(reference.step(image, labels, LR))
    np.testing.assert_allclose(ours, theirs, rtol=tolerance)
    first, last = np.mean(ours[:BATCHES]), np.mean(ours[-BATCHES:])  # of the same batches
    assert last < 0.95 * first, "nothing was learned, so that the comparison says little"
    for name, value in network.state_dict().items():
        np.testing.assert_allclose(
            value, reference.state[name].detach(), rtol=10 * tolerance, atol=10 * tolerance, err_msg=name
        )
        assert name.endswith("kernel_1d") == np.array_equal(value, start[name]), name
