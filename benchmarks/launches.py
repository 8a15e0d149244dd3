"""How many launches a GPU would get for a network, counted on the stand-in device, which needs no GPU.

    python benchmarks/launches.py                 # FCN-8s-VGG16 at 500 × 500, and mini at batch 8
    python benchmarks/launches.py --smoke         # the same networks on small images

The count includes each kernel of our own and each call of the array module that computes or copies something; views are
free. CuPy turns most such calls into one launch, and some into a few (a sum over a whole array, a product with rows to copy).
"""

import argparse
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from minifcn import backend, models
from minifcn.testing import strict
from minifcn.training import loop, optimizers

WORKS = (  # title, network, batch, side
    ("FCN-8s-VGG16, paper's padding", {"backbone": "vgg16"}, 1, 500),
    ("FCN-8s-mini", {"backbone": "mini", "alignment": "same"}, 8, 128),
)
FREE = {"empty", "empty_like", "broadcast_to", "reshape", "transpose", "squeeze", "swapaxes", "as_strided", "view"}
TRANSFERS = {"asarray", "array"}


def count(patch):
    """From now on, until `patch` (a pytest.MonkeyPatch or the like) is undone: a Counter of what is launched, by name."""
    calls = Counter()

    def watch(owner, name):
        function = getattr(owner, name)

        def counted(*args, **kwargs):
            result = function(*args, **kwargs)
            if not _is_view(name, args, result, kwargs):
                calls[name] += 1
            return result

        patch.setattr(owner, name, counted)

    for name in (*strict.FUNCTIONS.split(), "ascontiguousarray"):
        if name not in FREE | TRANSFERS:
            watch(strict.xp, name)
    operators = [f"__{side}{name}__" for name in strict.BINARY.split() for side in ("", "r", "i")]
    operators += [f"__{name}__" for name in strict.COMPARISONS_AND_UNARY.split()] + ["__setitem__"]
    methods = [name for name in strict.METHODS.split() if name != "view"]
    for name in (*methods, *operators):
        if name != "__imatmul__":  # which CuPy's arrays lack
            watch(strict.StrictArray, name)
    return calls


def _is_view(name, args, result, kwargs):
    """Whether a call returned a view of its first argument, and so did no work."""
    if name.startswith("__i") or name == "__setitem__" or kwargs.get("out") is not None:
        return False
    both = [a._data for a in (*args[:1], result) if isinstance(a, strict.StrictArray)]
    return len(both) == 2 and np.may_share_memory(*both)


def counting_device(calls):
    """The stand-in device, whose kernels of our own are counted too."""

    def launch(source, name, count, *arguments):
        calls[name] += 1
        strict.launch(source, name, count, *arguments)

    return replace(strict.DEVICE, launch=launch)


def measure(config, batch, side, calls):
    """(launches of a forward, of a training step by SGD)"""
    rng = np.random.default_rng(0)
    network = models.fcn("8s", num_classes=21, **config)
    images = rng.standard_normal((batch, 3, side, side), np.float32)
    labels = rng.integers(0, 21, (batch, side, side)).astype(np.uint8)
    solver = optimizers.SGD(network.parameters(), weight_decay=5e-4)
    on_device = backend.to_device(images)
    calls.clear()
    network.forward(on_device)
    forward = calls.total()
    calls.clear()
    loop.update(network, images, labels, solver, 1e-4)
    return forward, calls.total()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="images of 64 × 64: only that it runs")
    small = parser.parse_args().smoke
    calls = count(SimpleNamespace(setattr=setattr))
    device = counting_device(calls)
    backend.register(device)
    backend.use(device.name)
    for title, config, batch, side in WORKS:
        side = 64 if small else side
        forward, step = measure(config, 1 if small else batch, side, calls)
        print(f"{title}, {side} × {side}: {forward} launches for a forward, {step} for a training step")
        print("  most of the step's: " + ", ".join(f"{name} {number}" for name, number in calls.most_common(12)))


if __name__ == "__main__":
    main()
