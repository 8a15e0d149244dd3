"""Convolutions and networks in minifcn."""

import numpy as np
from works import Convolution, Photograph

from minifcn import backend, data, inference, layers, models, ops
from minifcn.models.fcn import fcn_nodes
from minifcn.models.vgg import DEPTHS, WIDTHS, vgg_backbone
from minifcn.training import loop
from minifcn.training.optimizers import OPTIMIZERS


def prepare(side, threads):
    """-> (a function that does the work once, what to record beside its times)"""
    backend.keep_freed_memory()  # as `minifcn train` does
    work = side.work
    if isinstance(work, Convolution):
        return _convolution(work), {"threads": backend.threads(), "flops": work.flops}
    if isinstance(work, Photograph):
        return _photograph(work)
    network = build(work)
    forward_flops = 2 * models.explain(network, (work.height, work.width), work.batch).multiply_adds
    if work.task == "forward":
        (images, _), prepared = batch(work), network.prepare()
        return lambda: prepared.forward(images), {"threads": backend.threads(), "flops": forward_flops}
    # Each product of the forward has two in the backward, one for the input's gradient and one for the weights'.
    return training_step(network, work), {"threads": backend.threads(), "flops": 3 * forward_flops}


def _convolution(work):
    rng = np.random.default_rng(0)

    def drawn(channels, channels_last=True):
        """Maps (1, channels, side, side), with the channels last in memory as they are inside a network, or not."""
        maps = rng.standard_normal((1, work.side, work.side, channels), np.float32).transpose(0, 3, 1, 2)
        return maps if channels_last else np.ascontiguousarray(maps)

    x = drawn(work.inputs, channels_last=not work.image)
    w = rng.standard_normal((work.outputs, work.inputs, 3, 3), np.float32)
    b = rng.standard_normal(work.outputs, np.float32)
    where = {"pad": work.dilation, "dilation": work.dilation}
    if work.task == "forward":
        cached = {}  # as in a network that is prepared for inference
        return lambda: ops.conv2d_forward(x, w, b, **where, cached=cached)
    _, cache = ops.conv2d_forward(x, w, b, **where)
    dy = drawn(work.outputs)
    return lambda: ops.conv2d_backward(dy, cache, inputs=not work.image)


def _photograph(work):
    image = np.random.default_rng(1).integers(0, 256, (work.height, work.width, 3), np.uint8)
    if work.objects:
        network = models.panoptic(work.backbone, "fcn", work.classes)
        # A new network's centre map is nearly flat: some centres have to stand out, or there would be no objects to group.
        score = network.parameters()["instance.centre.score.weight"]
        score.value = backend.to_device(np.random.default_rng(0).standard_normal(score.value.shape, np.float32))
    else:
        network = models.fcn("8s", work.backbone, work.classes, "same")
    of_classes = (
        parameter
        for name, parameter in network.parameters().items()
        if name.startswith("score") and name.endswith("weight")
    )
    for parameter in of_classes:  # which begin as zero, and would find background alone
        parameter.value = backend.to_device(np.random.default_rng(0).standard_normal(parameter.value.shape, np.float32))
    flops = 2 * models.explain(network, (work.height, work.width)).multiply_adds
    prepared, predict = network.prepare(), inference.panoptic if work.objects else inference.predict
    return lambda: predict(prepared, image), {"threads": backend.threads(), "flops": flops}


def build(work):
    """The network of a piece of work; its score layers are not zero, so that gradients reach the backbone from the first step."""
    rng = np.random.default_rng(0)
    if work.backbone == "unet":
        network = models.unet(work.classes, width=64 // work.narrow, padding=work.alignment)
    elif work.backbone == "vgg16" and work.narrow > 1:
        widths = [width // work.narrow for width in WIDTHS]
        body = vgg_backbone(widths, DEPTHS, 4096 // work.narrow, work.alignment, rng)
        nodes = fcn_nodes(body, "8s", work.classes, work.alignment, rng=rng)
        network = models.Graph(nodes, backbone_prefix=body.prefix)
    else:
        network = models.fcn("8s", work.backbone, work.classes, work.alignment)
    for name, parameter in network.parameters().items():
        if name.startswith("score") and name.endswith("weight"):
            drawn = np.float32(0.01) * rng.standard_normal(parameter.value.shape, np.float32)
            parameter.value = backend.to_device(drawn)
    for layer in network.layers_of(layers.BatchNorm2d):
        layer.frozen = work.frozen_statistics
    return network


def batch(work):
    """(images, labels) of noise; the labels of the upper rows do not count."""
    rng = np.random.default_rng(1)
    images = rng.standard_normal((work.batch, 3, work.height, work.width), np.float32)
    labels = rng.integers(0, work.classes, (work.batch, *work.label_size)).astype(np.uint8)
    labels[:, :2] = data.VOID
    return images, labels


def training_step(network, work):
    """A function that does one update and returns the loss before it."""
    solver, (images, labels) = work.solver, batch(work)
    parameters = network.parameters()
    for name, parameter in parameters.items():
        if network.backbone_prefix and name.startswith(network.backbone_prefix + "."):
            parameter.lr_mult *= solver.backbone_rate
    momentum = {} if solver.momentum is None else {"momentum": solver.momentum}
    optimizer = OPTIMIZERS[solver.name](parameters, weight_decay=solver.weight_decay, **momentum)
    return lambda: loop.update(network, images, labels, optimizer, solver.lr)
