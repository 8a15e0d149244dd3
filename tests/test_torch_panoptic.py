"""Panoptic networks against the same in PyTorch's functions: outputs, losses, all gradients, and a few steps of training.

The instance part is written from the article; the networks that find the classes are those of the tests of each.
"""

import math

import numpy as np
import pytest
from networks import stirred, without_chance, without_dropout

from minifcn import layers, models
from minifcn.data.centres import CentreTargets
from minifcn.models.deeplab import DEEPLABS
from minifcn.tasks import PanopticSegmentation
from minifcn.training import loop
from minifcn.training.optimizers import SGD

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
import test_torch_classifiers as classifiers  # noqa: E402 - they need PyTorch
import test_torch_deeplab as deeplab  # noqa: E402
import test_torch_unet as unet  # noqa: E402

F = torch.nn.functional
pytestmark = pytest.mark.torch
WIDTH, CLASSES = 4, classifiers.CLASSES
STEPS, LR = 8, 1e-3


def unit(x, w, name, number, train):
    weight = w[f"{name}.{number[0]}.weight"]
    groups = len(weight) if weight.shape[1] == 1 and x.shape[1] > 1 else 1
    x = F.conv2d(x, weight, padding=weight.shape[2] // 2, groups=groups)
    return F.relu(unet.normalised(x, w, f"{name}.bn{number[1]}", train))


def separable(x, w, name, train):
    return unit(unit(x, w, name, ("depthwise1", "1"), train), w, name, ("pointwise2", "2"), train)


def enlarged(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def objects(size, maps, w, train):
    """Centres and offsets of images of a size, from maps of the trunk by their stride: from the coarsest up, beside what comes up."""
    coarsest, *finer = sorted(maps, reverse=True)
    finest = min(maps)
    last = unit(maps[coarsest], w, f"instance.project{coarsest}", ("conv", ""), train)
    last = separable(last, w, f"instance.decode{coarsest}", train)
    for stride in finer:
        beside = unit(maps[stride], w, f"instance.project{stride}", ("conv", ""), train)
        last = torch.cat([enlarged(last, beside.shape[2:]), beside], dim=1)
        last = separable(last, w, f"instance.decode{stride}", train)
    found = {}
    for name, factor in (("centre", 1), ("offset", finest)):
        head = separable(last, w, f"instance.{name}", train)
        score = F.conv2d(head, w[f"instance.{name}.score.weight"], w[f"instance.{name}.score.bias"]) * factor
        whole = [finest * side for side in last.shape[2:]]  # of the padded image
        found[name] = enlarged(score, whole)[:, :, : size[0], : size[1]]
    return found


def padded(x, multiple):
    return F.pad(x, (0, -x.shape[3] % multiple, 0, -x.shape[2] % multiple))


def over_unet(image, w, train):
    options = {"padding": "same", "backbone": None, "depth": 4}
    # The way down is run twice, and moves its running statistics once.
    x, maps, twice = (
        padded(image, 16),
        {},
        {name: value.clone() if "running" in name else value for name, value in w.items()},
    )
    for level in range(5):
        x = unet.unit(F.max_pool2d(x, 2) if level else x, twice, f"down{level}", 1, train)
        maps[2**level] = x
    del maps[1]
    return {"semantic": unet.forward(image, w, options, train), **objects(image.shape[2:], maps, w, train)}


def mini(x, w, train):
    """The maps of the small VGG at 1/4, 1/8, 1/16 and 1/32. w: by names without a prefix"""

    def convolved(x, name, pad):
        return F.relu(unet.normalised(classifiers.conv(x, w, name, padding=pad), w, norms[name], train))

    norms = {
        name.removesuffix(".weight"): "" for name in w if name.startswith(("conv", "fc")) and name.endswith(".weight")
    }
    norms = {name: name.replace("conv", "bn").replace("fc", "bn") for name in norms}
    found = []
    for group, depth in enumerate((1, 1, 2, 2, 1), start=1):
        for i in range(1, depth + 1):
            x = convolved(x, f"conv{group}_{i}", 1)
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        found.append(x)
    return *found[1:4], convolved(convolved(x, "fc6", 3), "fc7", 0)


def over_mini(image, w, train):
    """FCN-8s and the objects, of one run of the trunk."""
    bare = {name.removeprefix("vgg."): value for name, value in w.items()}
    pool2, *features = mini(padded(image, 32), bare, train)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(classifiers.FEATURES, "mini", lambda *_: features)
        patch.setitem(classifiers.GEOMETRY, ("mini", "same"), classifiers.GEOMETRY["vgg16", "same"])
        semantic = classifiers.fcn(image, w, train, variant="8s", backbone="mini", alignment="same")
    maps = dict(zip((4, 8, 16, 32), (pool2, *features), strict=True))
    return {"semantic": semantic, **objects(image.shape[2:], maps, w, train)}


def over_lite0(image, w, train):
    """DeepLabv3+ and the objects. The trunk's statistics are the running ones."""
    rates = DEEPLABS["v3plus"][2]
    options = {
        "variant": "v3plus",
        "output_stride": 16,
        "rates": rates,
        "backbone": "efficientnet_lite0",
        "image_pooling": True,
    }
    x = padded(image, 16)
    bare = {name.removeprefix("lite0."): value for name, value in w.items()}
    eighths = classifiers.lite0_features(x, bare, False)[0][4]
    maps = {8: eighths, 16: deeplab.lite0_trunk(x, w, 16)[1]}
    return {"semantic": deeplab.forward(image, w, options, train), **objects(image.shape[2:], maps, w, train)}


NETWORKS = {  # the network, and its function in PyTorch
    "unet": ((None, "unet"), over_unet),
    "mini-fcn": (("mini", "fcn"), over_mini),
    "lite0-v3plus": (("efficientnet_lite0", "v3plus"), over_lite0),
}


def made(name, dtype, size, batch, frozen):
    """A network without dropout, images, targets, and PyTorch's function. frozen: normalisations use the running statistics"""
    (backbone, decoder), reference = NETWORKS[name]
    width = {} if backbone == "efficientnet_lite0" else {"width": WIDTH}
    network = stirred(models.panoptic(backbone, decoder, CLASSES, seed=2, **width), scale=0.05)
    network = (without_chance if frozen else without_dropout)(network)
    rng = np.random.default_rng(3)
    for key, p in network.parameters().items():
        if key.endswith("score.weight"):
            p.value = rng.standard_normal(p.value.shape).astype(np.float32)
    network.astype(dtype)
    images = rng.standard_normal((batch, 3, *size)).astype(dtype)
    labels = rng.choice([0, 1, 2, 255], (batch, *size)).astype(np.uint8)
    instances = np.where(labels == 1, rng.integers(1, 4, labels.shape), 0).astype(np.uint16)
    return network, images, CentreTargets.of(labels, instances, 3.0), reference


def loss_in_pytorch(found, targets, hardest=1.0):
    known, inside = torch.tensor(targets.known), torch.tensor(targets.inside)
    labels = torch.tensor(targets.labels.astype(np.int64))
    losses = F.cross_entropy(found["semantic"], labels, ignore_index=255, reduction="none")[labels != 255]
    loss = losses.topk(math.ceil(hardest * len(losses))).values.mean()
    squared = F.mse_loss(found["centre"][:, 0], torch.tensor(targets.centre[:, 0]), reduction="none")
    absolute = F.l1_loss(found["offset"], torch.tensor(targets.offset), reduction="none").sum(dim=1)
    return loss + 200 * (squared * known).sum() / known.sum() + 0.01 * (absolute * inside).sum() / inside.sum()


@pytest.mark.parametrize(
    ("name", "dtype", "size", "batch", "frozen", "hardest", "outputs", "gradients"),
    [
        ("unet", "float64", (37, 45), 2, True, 1.0, 1e-10, 1e-9),
        ("unet", "float32", (37, 45), 2, True, 1.0, 1e-4, 1e-3),
        ("unet", "float64", (48, 40), 4, False, 1.0, 1e-10, 1e-9),
        ("mini-fcn", "float64", (37, 45), 2, True, 0.2, 1e-10, 1e-9),
        ("lite0-v3plus", "float64", (37, 45), 1, True, 1.0, 1e-10, 1e-9),
    ],
    ids=["unet", "unet-float32", "unet-statistics", "mini-fcn-hardest", "lite0-v3plus"],
)
def test_outputs_losses_and_gradients(name, dtype, size, batch, frozen, hardest, outputs, gradients):
    network, images, targets, reference = made(name, dtype, size, batch, frozen)
    w, learned = unet.in_pytorch(network)
    image = torch.tensor(images, requires_grad=True)
    expected = reference(image, w, not frozen)
    found = network.forward(images, train=True)
    assert found.keys() == expected.keys()
    for head, theirs in expected.items():
        theirs = theirs.detach().numpy()
        np.testing.assert_allclose(found[head], theirs, rtol=0, atol=outputs * np.abs(theirs).max(), err_msg=head)
    loss = loss_in_pytorch(expected, targets, hardest)
    task = PanopticSegmentation(hardest=hardest)
    total, weight, cache = task.loss(found, targets)
    np.testing.assert_allclose(total / weight, loss.item(), rtol=10 * outputs)
    loss.backward()
    network.zero_grad()
    ours = {"image": network.backward(task.loss_backward(1 / weight, cache))}
    ours |= {key: p.grad for key, p in network.parameters().items() if not p.frozen}
    grads = {key: tensor.grad.numpy() for key, tensor in {"image": image, **learned}.items()}
    # What a normalisation takes away again has no gradient but rounding: hence the least size.
    sizes = {key: np.linalg.norm(gradient) for key, gradient in grads.items()}
    least = 0 if frozen else 1e-6 * max(sizes.values())
    worst = max((np.linalg.norm(ours[key] - g) / max(sizes[key], least), key) for key, g in grads.items())
    assert worst[0] <= gradients, worst
    assert frozen or any(not norm.frozen for norm in network.layers_of(layers.BatchNorm2d))


def test_both_train_alike():
    """Plain steps along gradients through the statistics of each batch."""
    network, images, targets, reference = made("unet", "float64", (48, 40), 4, frozen=False)
    for key, p in network.parameters().items():
        if key.startswith("instance") and key.endswith("score.weight"):
            p.value = 0.05 * p.value  # centres of some hundredths: else steps would be far too long
    w, learned = unet.in_pytorch(network)
    parameters = network.parameters()
    stepper = torch.optim.SGD(
        [{"params": [t], "lr": LR * parameters[key].lr_mult} for key, t in learned.items()], momentum=0.9
    )
    optimizer = SGD(parameters, momentum=0.9, weight_decay=0.0)
    ours, theirs = [], []
    for _ in range(STEPS):
        ours.append(loop.update(network, images, targets, optimizer, LR, PanopticSegmentation()))
        loss = loss_in_pytorch(reference(torch.tensor(images), w, True), targets)
        theirs.append(loss.item())
        stepper.zero_grad()
        loss.backward()
        stepper.step()
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)
    assert ours[-1] < ours[0]
    for key, value in network.state_dict().items():
        np.testing.assert_allclose(value, w[key].detach(), rtol=0, atol=1e-8 * np.abs(value).max(), err_msg=key)
