"""U-Net against the same network in PyTorch's functions: logits, all gradients, and twenty steps of training.

The reference is written from the paper's figure, with centre crops, and shares nothing with the library but the weights.
"""

import numpy as np
import pytest
from networks import stirred, without_chance

from minifcn import layers, models
from minifcn.training import loop
from minifcn.training.optimizers import SGD

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
from test_torch_classifiers import lite0_features  # noqa: E402 - it needs PyTorch

F = torch.nn.functional

pytestmark = pytest.mark.torch

STEPS, LR = 20, 0.001  # a rate at which rounding is not amplified


def normalised(x, w, norm, train):
    keys = ("running_mean", "running_var", "gamma", "beta")
    return F.batch_norm(x, *(w[f"{norm}.{key}"] for key in keys), training=train)


def unit(x, w, name, pad, train):
    for i in (1, 2):
        x = F.conv2d(x, w[f"{name}.conv{i}.weight"], w.get(f"{name}.conv{i}.bias"), padding=pad)
        if (norm := f"{name}.bn{i}") + ".gamma" in w:
            x = normalised(x, w, norm, train)
        x = F.relu(x)
    return x


def centre(x, like):
    top, left = ((have - want) // 2 for have, want in zip(x.shape[2:], like.shape[2:], strict=True))
    return x[:, :, top : top + like.shape[2], left : left + like.shape[3]]


def up(x, w, name):
    if f"{name}.upsample.weight" in w:
        return F.conv_transpose2d(x, w[f"{name}.upsample.weight"], w[f"{name}.upsample.bias"], stride=2)
    line = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=x.dtype)
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 4, 4)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def forward(x, w, options, train):
    pad, size = int(options["padding"] == "same"), x.shape[2:]
    if options["backbone"]:
        x = F.pad(x, (0, -size[1] % 32, 0, -size[0] % 32))
        outputs, _ = lite0_features(x, {n.removeprefix("lite0."): v for n, v in w.items()}, False)
        read = [outputs[block] for block in (0, 2, 4, 10, 15)]
        if options["batch_norm"]:
            read = [
                normalised(maps, w, f"down{level}.bn", train and level < 5) for level, maps in enumerate(read, start=1)
            ]
        *skips, x = [None, *read]
    else:
        skips, multiple = [], 2 ** options["depth"]
        x = F.pad(x, (0, -size[1] % multiple, 0, -size[0] % multiple)) if pad else x
        for level in range(options["depth"] + 1):
            x = unit(F.max_pool2d(x, 2) if level else x, w, f"down{level}", pad, train)
            skips.append(x)
        skips.pop()
    for level in reversed(range(len(skips))):
        x = up(x, w, f"up{level}")
        if skips[level] is not None:
            x = torch.cat([centre(skips[level], x), x], dim=1)
        x = unit(x, w, f"up{level}", pad, train)
    x = F.conv2d(x, w["score.weight"], w["score.bias"])
    return x[:, :, : size[0], : size[1]] if pad else x


CASES = {
    "paper": ((188, 204), {"padding": "valid", "depth": 4}),
    "valid": ((92, 100), {"padding": "valid", "depth": 3}),
    "same": ((33, 47), {"padding": "same", "depth": 4}),
    "same-normalised": ((40, 29), {"padding": "same", "depth": 3, "batch_norm": True}),
    "same-bilinear": ((40, 29), {"padding": "same", "depth": 3, "batch_norm": True, "upsampling": "bilinear"}),
    "grey": ((44, 48), {"padding": "valid", "depth": 2, "channels": 1}),
    "lite0": ((50, 70), {"padding": "same", "batch_norm": True, "backbone": "efficientnet_lite0", "width": 4}),
}


def made(name, seed=1):
    size, options = CASES[name]
    network = stirred(models.unet(3, **{"width": 4, **options}, seed=2), scale=0.05)
    without_chance(network)
    for layer in network.layers_of(layers.BatchNorm2d):
        # At 1/32 there are twelve values a channel: their statistics would amplify rounding.
        layer.frozen = layer.name.startswith(("lite0.", "down5."))
    images = np.random.default_rng(seed).standard_normal((2, network.card.options["channels"], *size))
    labels = np.random.default_rng(2).integers(0, 3, (2, *network.output_shape(images.shape)[2:]))
    return network, images, np.where(labels == 2, 255, labels)


def in_pytorch(network):
    w = {name: torch.tensor(value) for name, value in network.state_dict().items()}
    learned = [name for name, p in network.parameters().items() if not p.frozen]
    return w, {name: w[name].requires_grad_() for name in learned}


def compared(network, images, reference, logits, least=0.0):
    """Assert that logits agree. -> (the largest relative difference of a gradient, its name)

    reference(image, weights) gives PyTorch's logits. least: the share of the largest gradient below which a gradient is measured against
    that share.
    """
    w, learned = in_pytorch(network)
    image = torch.tensor(images, requires_grad=True)
    expected = reference(image, w)
    y = network.forward(images, train=True)
    assert y.dtype == images.dtype and tuple(expected.shape) == y.shape
    theirs = expected.detach().numpy()
    np.testing.assert_allclose(y, theirs, rtol=0, atol=logits * np.abs(theirs).max())
    dy = np.random.default_rng(3).standard_normal(y.shape).astype(images.dtype)
    expected.backward(torch.tensor(dy))
    network.zero_grad()
    found = {"image": network.backward(dy)} | {n: network.parameters()[n].grad for n in learned}
    grads = {key: tensor.grad.numpy() for key, tensor in {"image": image, **learned}.items()}
    sizes = {key: np.linalg.norm(gradient) for key, gradient in grads.items()}
    least *= max(sizes.values())
    return max((np.linalg.norm(found[k] - g) / max(sizes[k], least), k) for k, g in grads.items())


@pytest.mark.parametrize(
    ("dtype", "logits", "gradients"),
    [("float64", 1e-10, 1e-9), pytest.param("float32", 1e-4, 1e-3, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients(name, dtype, logits, gradients):
    worst = []
    for seed in range(1, 4):  # in float32 a value within rounding of a kink of ReLU may fall to either side: drawn anew
        network, images, _ = made(name, seed)
        network.astype(dtype)
        options = network.card.options
        worst.append(
            compared(network, images.astype(dtype), lambda x, w, o=options: forward(x, w, o, train=True), logits)
        )
        if worst[-1][0] <= gradients:
            return
        assert dtype == "float32", worst
    pytest.fail(f"{worst}")


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-9), pytest.param("float32", 1e-4, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "name", ["valid", "same-bilinear", "same-normalised", pytest.param("lite0", marks=pytest.mark.slow)]
)
def test_both_train_alike(name, dtype, tolerance):
    network, images, labels = made(name)
    # With the paper's momentum and the others' rate the rounding of 48 convolutions grows.
    momentum, base = (0.9, LR / 20) if name == "lite0" else (0.99, LR)
    network.astype(dtype)
    w, learned = in_pytorch(network)
    velocity = {key: torch.zeros_like(tensor) for key, tensor in learned.items()}
    optimizer = SGD(network.parameters(), momentum=momentum, weight_decay=0.0)
    images, labels = images.astype(dtype), labels.astype(np.uint8)
    ours, theirs = [], []
    for _ in range(STEPS):
        ours.append(loop.update(network, images, labels, optimizer, base))
        scores = forward(torch.tensor(images), w, network.card.options, train=True)
        loss = F.cross_entropy(scores, torch.tensor(labels.astype(np.int64)), ignore_index=255)
        theirs.append(loss.item())
        found = torch.autograd.grad(loss, list(learned.values()))
        with torch.no_grad():
            for (key, tensor), gradient in zip(learned.items(), found, strict=True):
                rate = base * network.parameters()[key].lr_mult
                velocity[key] = momentum * velocity[key] + rate * gradient
                tensor -= velocity[key]
    np.testing.assert_allclose(ours, theirs, rtol=tolerance)
    assert ours[-1] < ours[0] - 10 * tolerance
