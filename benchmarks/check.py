"""Whether both libraries do the same work: each network of `works.py`, small, from the same weights in minifcn and PyTorch.

The logits, the loss of a training step and the change that the step makes in the logits are compared; the last shows that the
gradients and the solvers agree.

    python benchmarks/check.py
"""

from dataclasses import replace

import in_minifcn
import in_pytorch
import numpy as np
import torch
import works
from fcn_in_pytorch import load_from_minifcn

from minifcn import layers

TOLERANCE = 1e-3  # relative to the largest value


def check(work):
    """Raises AssertionError where the two differ."""
    images, labels = in_minifcn.batch(work)
    ours = in_minifcn.build(work)
    theirs = in_pytorch.build(work)
    load_from_minifcn(theirs, ours.state_dict())
    for dropout in ours.layers_of(layers.Dropout):  # each library draws its own
        dropout.p = 0.0
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    before = logits(ours, theirs, images)
    compare(work, "logits", *before)
    our_step = in_minifcn.training_step(ours, work)
    tensors = torch.tensor(images), torch.tensor(labels.astype(np.int64))
    their_step = in_pytorch.training_step(theirs, work, *tensors)
    compare(work, "losses", np.float32(our_step()), np.float32(their_step()))
    after = logits(ours, theirs, images)
    compare(work, "what a step changes", *(new - old for new, old in zip(after, before, strict=True)))


def logits(ours, theirs, images):
    """-> (minifcn's, PyTorch's), in inference"""
    theirs.eval()
    with torch.inference_mode():
        expected = theirs(torch.tensor(images)).numpy()
    return ours.forward(images), expected


def compare(work, what, ours, theirs):
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"{work.title}, {what}: minifcn and PyTorch differ by {error:.1e} of the largest")
    assert error <= TOLERANCE


def main():
    found = {
        side.work for c in works.comparisons(smoke=True) for side in c.sides if isinstance(side.work, works.Network)
    }
    steps = {work.title: work for work in found if work.solver and work.task == "step"}
    for _, work in sorted(steps.items()):
        # A rate at which a step's changes stand out from rounding errors.
        check(replace(work, solver=work.solver._replace(lr=1e-2)))


if __name__ == "__main__":
    main()
