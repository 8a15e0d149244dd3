"""Pictures of real results that hold no photograph, so that they can be shown where the photographs may not.

`segments` draws predictions in VOC's colours with the outlines of the true mask over them, an image a row and a network
a column. `heat` draws a classifier's heat-map over the edges of a photograph.

    python benchmarks/pictures.py segments VOCdevkit runs/voc --ids 2007_000033 … --out picture.png
    python benchmarks/pictures.py heat photo.png tabby,282,285 --out picture.png
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageFilter

from minifcn import data, inference, models, weights
from minifcn.data.imagenet import IMAGENET_CLASSES
from minifcn.data.images import read_image
from minifcn.data.labels import class_numbers, colourise
from minifcn.inference import classify
from minifcn.metrics import ConfusionMatrix
from minifcn.report import figures


def segments(args):
    """Predictions of a `reproduce` run's three networks, outlined by the truth, with the mean IU of each image."""
    networks, classes = {}, None
    for variant in models.VARIANTS:
        networks[f"FCN-{variant}"], classes = models.load_segmenter(f"{args.run}/{variant}/checkpoint.npz")
    dataset = data.VOC(args.root, "val", ids=args.ids)
    heights = [sample.label.shape[0] / sample.label.shape[1] for sample in dataset]
    figure = Figure(figsize=(9.6, 3.1 * sum(heights) + 0.8), layout="constrained")
    grid = figure.subplots(len(dataset), len(networks), squeeze=False, height_ratios=heights)
    seen = set()
    for row, sample in zip(grid, dataset, strict=True):
        outline = _borders(sample.label)
        for panel, (name, network) in zip(row, networks.items(), strict=True):
            predicted = inference.predict(network, sample.image)
            seen.update(np.unique(predicted).tolist())
            picture = colourise(predicted)
            picture[outline] = 255
            panel.imshow(picture, interpolation="nearest")
            matrix = ConfusionMatrix(len(classes))
            matrix.update(sample.label, predicted)
            panel.set_title(f"{name}   mean IU {100 * matrix.mean_iou():.0f}", fontsize=9)
            panel.set_axis_off()
    figures.add_legend(figure, seen, classes)
    figure.savefig(args.out, dpi=90)


def _borders(label):
    """Where neighbouring pixels of a mask differ, the void border counting as neither side, two pixels wide."""
    edge = np.zeros(label.shape, bool)
    edge[1:] |= label[1:] != label[:-1]
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    return edge


def heat(args):
    """A heat-map over the photograph's edges."""
    model = models.efficientnet_lite0()
    weights.load_pretrained(model)
    image = read_image(args.photo)
    grey = Image.fromarray(image).convert("L").filter(ImageFilter.GaussianBlur(1.5))
    across, down = np.gradient(np.asarray(grey, np.float32))
    strength = np.hypot(across, down)
    lines = 255 * (1 - np.clip(strength / np.percentile(strength, 97), 0, 1))
    drawing = np.repeat(lines.astype(np.uint8)[:, :, None], 3, axis=2)
    chosen = class_numbers(args.classes, IMAGENET_CLASSES)
    scores = classify.heat_map(model, image, chosen)
    names = ", ".join(IMAGENET_CLASSES[i] for i in chosen)
    figures.heat_map(drawing, scores, classify.peak(scores, image.shape[:2]), f"score of {names}", args.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("segments", help="predictions of a reproduce run, outlined by the truth")
    one.add_argument("root", metavar="VOCDEVKIT")
    one.add_argument("run", metavar="RUN")
    one.add_argument("--ids", nargs="+", required=True)
    one.set_defaults(draw=segments)
    other = kinds.add_parser("heat", help="a heat-map over the edges of a photograph")
    other.add_argument("photo")
    other.add_argument("classes")
    other.set_defaults(draw=heat)
    for kind in (one, other):
        kind.add_argument("--out", required=True)
    args = parser.parse_args()
    args.draw(args)
    with Image.open(args.out) as picture:  # a third of the bytes, and no difference to see
        fewer = picture.convert("RGB").quantize(128)
    fewer.save(args.out, optimize=True)


if __name__ == "__main__":
    main()
