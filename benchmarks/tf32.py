"""What TF32 costs in accuracy: each 3×3 layer of VGG16, by both algorithms and in all passes, against float64.

    python benchmarks/tf32.py                   # on the stand-in device, which rounds factors as TF32 does
    python benchmarks/tf32.py --device cuda     # on a GPU, from Ampere on

The error is the norm of the difference over the norm of the result. Inputs are those of a layer after ReLU (half of the
values zero), kernels He-normal; 64 × 64 results of each layer, which is enough for a norm. `auto` takes im2col in TF32.
"""

import argparse

import numpy as np

from minifcn import backend, ops
from minifcn.testing import strict

LAYERS = {  # name: channels in and out, of the distinct layers
    "conv1_1": (3, 64),
    "conv1_2": (64, 64),
    "conv2_1": (64, 128),
    "conv2_2": (128, 128),
    "conv3_1": (128, 256),
    "conv3_2": (256, 256),
    "conv4_1": (256, 512),
    "conv4_2": (512, 512),
}
SIDE = 64


def passes(arrays, dtype, algorithm):
    """(y, dx, dw) by one algorithm on the chosen device, as NumPy arrays."""
    x, w, dy = (backend.to_device(a.astype(dtype)) for a in arrays)
    with ops.conv_algorithm(algorithm):
        y, cache = ops.conv2d_forward(x, w, pad=1)
        dx, dw, _ = ops.conv2d_backward(dy, cache)
    return [backend.to_host(a).astype(np.float64) for a in (y, dx, dw)]


def errors(inputs, outputs, algorithm, tf32):
    """The relative errors of the three passes in float32, with TF32 or without."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((1, inputs, SIDE, SIDE)), 0)
    w = rng.standard_normal((outputs, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
    arrays = x, w, rng.standard_normal((1, outputs, SIDE, SIDE))
    backend.use_tf32(False)
    exact = passes(arrays, np.float64, "im2col")
    backend.use_tf32(tf32)
    found = passes(arrays, np.float32, algorithm)
    return [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(found, exact, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="strict", help="strict, the stand-in (default), or cuda")
    backend.register(strict.DEVICE)
    print(backend.use(parser.parse_args().device))
    print("\n| layer | factors | by | forward | to the input | to the weights |\n|---|---|---|---|---|---|")
    for name, (inputs, outputs) in LAYERS.items():
        for tf32 in (False, True):
            for algorithm in ("im2col", "winograd"):
                found = " | ".join(f"{error:.1e}" for error in errors(inputs, outputs, algorithm, tf32))
                print(f"| {name} | {'TF32' if tf32 else 'float32'} | {algorithm} | {found} |", flush=True)


if __name__ == "__main__":
    main()
