"""Panoptic networks against the same in PyTorch's functions: outputs, losses, all gradients; the instance part is written from the article."""

import numpy as np
import pytest
from networks import stirred, without_chance

from minifcn import models
from minifcn.data.centres import CentreTargets
from minifcn.tasks import PanopticSegmentation

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
from test_torch_unet import forward as unet_in_pytorch  # noqa: E402 - it needs PyTorch

F = torch.nn.functional
pytestmark = pytest.mark.torch
WIDTH = 4


def unit(x, w, name, number, **settings):
    weight = w[f"{name}.{number[0]}.weight"]
    groups = len(weight) if weight.shape[1] == 1 and x.shape[1] > 1 else 1
    x = F.conv2d(x, weight, padding=weight.shape[2] // 2, groups=groups)
    norm = f"{name}.bn{number[1]}"
    keys = ("running_mean", "running_var", "gamma", "beta")
    return F.relu(F.batch_norm(x, *(w[f"{norm}.{key}"] for key in keys), training=False))


def separable(x, w, name):
    return unit(unit(x, w, name, ("depthwise1", "1")), w, name, ("pointwise2", "2"))


def enlarged(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def down(x, w):
    """The way down of the U-Net, at each scale."""
    found = []
    for level in range(5):
        x = F.max_pool2d(x, 2) if level else x
        for i in (1, 2):
            x = F.conv2d(x, w[f"down{level}.conv{i}.weight"], padding=1)
            keys = ("running_mean", "running_var", "gamma", "beta")
            x = F.relu(F.batch_norm(x, *(w[f"down{level}.bn{i}.{key}"] for key in keys), training=False))
        found.append(x)
    return found


def objects(x, w):
    """Centres and offsets: from 1/16 to 1/2, the maps of the way down beside what comes up."""
    size = x.shape[2:]
    x = F.pad(x, (0, -size[1] % 16, 0, -size[0] % 16))
    maps = down(x, w)
    last = separable(unit(maps[4], w, "instance.project16", ("conv", "")), w, "instance.decode16")
    for level in (3, 2, 1):
        beside = unit(maps[level], w, f"instance.project{2**level}", ("conv", ""))
        last = torch.cat([enlarged(last, beside.shape[2:]), beside], dim=1)
        last = separable(last, w, f"instance.decode{2**level}")
    found = {}
    for name, factor in (("centre", 1), ("offset", 2)):
        head = separable(last, w, f"instance.{name}")
        score = F.conv2d(head, w[f"instance.{name}.score.weight"], w[f"instance.{name}.score.bias"]) * factor
        found[name] = enlarged(score, x.shape[2:])[:, :, : size[0], : size[1]]
    return found


@pytest.mark.parametrize(("dtype", "outputs", "gradients"), [("float64", 1e-10, 1e-9), ("float32", 1e-4, 1e-3)])
def test_outputs_losses_and_gradients(dtype, outputs, gradients):
    network = without_chance(stirred(models.panoptic(None, "unet", 3, width=WIDTH, seed=2), scale=0.05))
    rng = np.random.default_rng(3)
    for name, p in network.parameters().items():
        if name.endswith("score.weight"):
            p.value = rng.standard_normal(p.value.shape).astype(np.float32)
    network.astype(dtype)
    images = rng.standard_normal((2, 3, 37, 45)).astype(dtype)
    labels = rng.choice([0, 1, 2, 255], (2, 37, 45)).astype(np.uint8)
    instances = np.where(labels == 1, rng.integers(1, 4, labels.shape), 0).astype(np.uint16)
    targets = CentreTargets.of(labels, instances, 3.0)
    w = {name: torch.tensor(value) for name, value in network.state_dict().items()}
    learned = {name: w[name].requires_grad_() for name, p in network.parameters().items() if not p.frozen}
    image = torch.tensor(images, requires_grad=True)
    options = {"padding": "same", "backbone": None, "depth": 4}
    expected = {"semantic": unet_in_pytorch(image, w, options, train=False), **objects(image, w)}
    found = network.forward(images, train=True)
    for name, theirs in expected.items():
        theirs = theirs.detach().numpy()
        np.testing.assert_allclose(found[name], theirs, rtol=0, atol=outputs * np.abs(theirs).max(), err_msg=name)
    known, inside = torch.tensor(targets.known), torch.tensor(targets.inside)
    loss = F.cross_entropy(expected["semantic"], torch.tensor(labels.astype(np.int64)), ignore_index=255)
    squared = F.mse_loss(expected["centre"][:, 0], torch.tensor(targets.centre[:, 0]), reduction="none")
    absolute = F.l1_loss(expected["offset"], torch.tensor(targets.offset), reduction="none").sum(dim=1)
    loss = loss + 200 * (squared * known).sum() / known.sum() + 0.01 * (absolute * inside).sum() / inside.sum()
    task = PanopticSegmentation()
    total, weight, cache = task.loss(found, targets)
    np.testing.assert_allclose(total / weight, loss.item(), rtol=10 * outputs)
    loss.backward()
    network.zero_grad()
    ours = {"image": network.backward(task.loss_backward(1 / weight, cache))}
    ours |= {name: p.grad for name, p in network.parameters().items() if not p.frozen}
    grads = {key: tensor.grad.numpy() for key, tensor in {"image": image, **learned}.items()}
    worst = max((np.linalg.norm(ours[key] - g) / np.linalg.norm(g), key) for key, g in grads.items())
    assert worst[0] <= gradients, worst
