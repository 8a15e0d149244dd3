"""Convolutions and networks in PyTorch, in the form that runs fastest on a CPU."""

import torch
import torch.nn.functional as F
from fcn_in_pytorch import fcn8s
from torch import nn
from unet_in_pytorch import unet
from works import Convolution

LAYOUTS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
VOID = 255


def prepare(side, threads):
    """-> (a function that does the work once, what to record beside its times)"""
    torch.set_num_threads(threads)
    prepare_work = _convolution if isinstance(side.work, Convolution) else _network
    return prepare_work(side.work, LAYOUTS[side.layout]), {"threads": torch.get_num_threads()}


def _convolution(work, layout):
    x = torch.randn(1, work.inputs, work.side, work.side).to(memory_format=layout)
    w = torch.randn(work.outputs, work.inputs, 3, 3).to(memory_format=layout)
    b = torch.randn(work.outputs)
    if work.task == "forward":
        return torch.inference_mode()(lambda: F.conv2d(x, w, b, padding=work.dilation, dilation=work.dilation))
    wanted = [w, b] if work.image else [x, w, b]
    for tensor in wanted:
        tensor.requires_grad_()
    y = F.conv2d(x, w, b, padding=work.dilation, dilation=work.dilation)
    dy = torch.randn_like(y)  # in the same memory format
    return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)


def build(work):
    """The network of a piece of work."""
    return unet(work) if work.backbone == "unet" else fcn8s(work)


def _network(work, layout):
    network = build(work).to(memory_format=layout)
    images = torch.randn(work.batch, 3, work.height, work.width).to(memory_format=layout)
    if work.task == "forward":
        network.eval()
        return torch.inference_mode()(lambda: network(images))
    labels = torch.randint(work.classes, (work.batch, *work.label_size))
    labels[:, :2] = VOID
    return training_step(network, work, images, labels)


def training_step(network, work, images, labels, device="cpu"):
    """A function that does one update on a batch, which it brings to the network's device, and returns the loss before it."""
    network.train()
    if work.frozen_statistics:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    solver = work.solver
    momentum = {} if solver.momentum is None else {"momentum": solver.momentum}
    # Fused updates read and write each array once: several times as fast on a CPU as the two other forms.
    optimizer = OPTIMIZERS[solver.name](_groups(network, solver), lr=solver.lr, fused=True, **momentum)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(network(images.to(device)), labels.to(device), ignore_index=VOID)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _groups(network, solver):
    """Parameters by rate and decay, as minifcn has them: weights decay; biases of convolutions learn at twice the rate."""
    groups = {}
    for name, module in network.named_modules():
        convolution = isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        for key, parameter in module.named_parameters(recurse=False):
            rate = solver.lr * (2 if convolution and key == "bias" else 1)
            rate *= solver.backbone_rate if name.startswith(network.prefix) else 1
            decay = solver.weight_decay if convolution and key == "weight" else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
