"""The dense CRF beside the published C++, pydensecrf2: time, and how far the marginals agree, on photographs of 500 × 375.

    pip install pydensecrf2==1.1
    python benchmarks/crf.py                    # 21 labels, two photographs, some minutes

The two take turns. The probabilities are smoothed noise: the labels do not change the amount of work.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import pydensecrf.densecrf as published

from minifcn import backend, inference
from minifcn.data.images import read_image
from minifcn.data.transforms import resize
from minifcn.ops import resize_bilinear_forward

PHOTOS = Path(__file__).parents[1] / "docs/photos"
BILATERAL, SPATIAL, ITERATIONS = (4, 49, 5), (3, 3), 10


def scene(name, labels, size):
    """A photograph (H, W, 3) uint8, and probabilities (labels, H, W) float32."""
    image = read_image(PHOTOS / f"{name}.jpg")
    image = np.array(resize(image, image[:, :, 0], size)[0])  # which the C++ wants to be writeable
    coarse = np.random.default_rng(0).normal(0, 2, (1, labels, 16, 16)).astype(np.float32)
    exponentials = np.exp(resize_bilinear_forward(coarse, size)[0][0])
    return image, exponentials / exponentials.sum(axis=0)


def by_published(image, p):
    crf = published.DenseCRF2D(image.shape[1], image.shape[0], len(p))
    crf.setUnaryEnergy(-np.log(p).reshape(len(p), -1))
    crf.addPairwiseGaussian(sxy=SPATIAL[1], compat=SPATIAL[0])
    crf.addPairwiseBilateral(sxy=BILATERAL[1], srgb=BILATERAL[2], rgbim=image, compat=BILATERAL[0])
    return np.array(crf.inference(ITERATIONS)).reshape(p.shape)


def by_minifcn(image, p):
    return inference.dense_crf(p, image, iterations=ITERATIONS, bilateral=BILATERAL, spatial=SPATIAL)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=21)
    parser.add_argument("--smoke", action="store_true", help="a small picture, once: whether it runs at all")
    args = parser.parse_args()
    size, rounds = ((45, 60), 1) if args.smoke else ((375, 500), args.rounds)
    print(f"{args.labels} labels, {size[1]} x {size[0]}, {backend.threads()} threads, {rounds} rounds")
    for name in ("chelsea", "coffee"):
        image, p = scene(name, args.labels, size)
        found, seconds = {}, {by_published: [], by_minifcn: []}
        for turn in range(rounds + 1):
            for way in sorted(seconds, key=lambda way: way.__name__, reverse=turn % 2):
                start = time.perf_counter()
                found[way] = way(image, p)
                if turn:  # the first turn warms up
                    seconds[way].append(time.perf_counter() - start)
        ours, theirs = (statistics.median(seconds[way]) for way in (by_minifcn, by_published))
        near = np.abs(found[by_minifcn] - found[by_published]) < 1e-3
        same = found[by_minifcn].argmax(axis=0) == found[by_published].argmax(axis=0)
        print(
            f"{name}: {ours:.2f} s, C++ {theirs:.2f} s, ratio {ours / theirs:.2f}; "
            f"within 1e-3 {100 * near.mean():.2f} %, same labels {100 * same.mean():.2f} %"
        )


if __name__ == "__main__":
    main()
