"""The pictures of real results that these pages show.

`segments` draws true masks and predictions with the outlines of the true masks over them, an image a row and a network
a column: no photograph, so that they can be shown where the photographs may not. `photographs` draws photographs that may. `objects` draws
the outlines of objects over the images that they are in, the true ones and those of several networks.

    python benchmarks/pictures.py segments VOCdevkit runs/voc/*/checkpoint.npz --ids 2007_000033 … --out benchmarks/records/voc.png
    python benchmarks/pictures.py photographs docs/photos/astronaut.jpg docs/photos/chelsea.jpg --out docs/predicted.png
    python benchmarks/pictures.py objects nuclei runs/map/best.npz runs/plain/best.npz --ids … --out benchmarks/records/nuclei.png
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from minifcn import data, inference, models
from minifcn.cli import predict
from minifcn.data.images import read_image
from minifcn.data.labels import colourise
from minifcn.metrics import ConfusionMatrix, InstanceScores
from minifcn.report import figures


def segments(args):
    """True masks, and each network's predictions outlined by the truth, with the mean IU of each image."""
    networks = [models.load_segmenter(path).prepare() for path in args.weights]
    dataset = data.open_dataset(args.root, args.split, ids=args.ids)
    heights = [sample.label.shape[0] / sample.label.shape[1] for sample in dataset]
    columns = 1 + len(networks)
    figure = Figure(figsize=(9.6, 9.6 / columns * sum(heights) + 0.25 * len(dataset) + 0.6), layout="constrained")
    grid = figure.subplots(len(dataset), columns, squeeze=False, height_ratios=heights)
    seen = set()
    for row, sample in zip(grid, dataset, strict=True):
        pictures = [("true", colourise(sample.label, dataset.palette))]
        seen.update(np.unique(sample.label).tolist())
        for network, title in zip(networks, args.titles or args.weights, strict=True):
            predicted = inference.predict(network, sample.image)
            seen.update(np.unique(predicted).tolist())
            matrix = ConfusionMatrix(len(dataset.classes))
            matrix.update(sample.label, predicted)
            picture = colourise(predicted, dataset.palette)
            picture[_borders(sample.label)] = 255
            pictures.append((f"{title}   mean IU {100 * matrix.mean_iou():.0f}", picture))
        for panel, (title, picture) in zip(row, pictures, strict=True):
            panel.imshow(picture, interpolation="nearest")
            panel.set_title(title, fontsize=9)
            panel.set_axis_off()
    figures.add_legend(figure, seen, dataset.classes, dataset.palette)
    figure.savefig(args.out, dpi=90)


def _borders(label):
    """Where neighbouring pixels of a mask differ, the void border counting as neither side, two pixels wide."""
    edge = np.zeros(label.shape, bool)
    edge[1:] |= label[1:] != label[:-1]
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    return edge


def photographs(args):
    """Photographs, their masks and their overlays, by the network that comes with minifcn, as `minifcn predict` makes them."""
    model = models.pretrained(predict.PRETRAINED)
    network, images = model.prepare(), [read_image(path) for path in args.photos]
    labels = [predict.predicted(network, image, predict.LONGEST, None) for image in images]
    figure = Figure(
        figsize=(9.6, 0.5 + 3.2 * sum(image.shape[0] / image.shape[1] for image in images)), layout="constrained"
    )
    grid = figure.subplots(
        len(images), 3, squeeze=False, height_ratios=[image.shape[0] / image.shape[1] for image in images]
    )
    for row, image, found in zip(grid, images, labels, strict=True):
        colours = colourise(found, model.card.palette)
        for panel, picture in zip(row, (image, colours, predict.overlay(image, colours)), strict=True):
            panel.imshow(picture, interpolation="nearest")
            panel.set_axis_off()
    seen = {int(label) for found in labels for label in np.unique(found)}
    figures.add_legend(figure, seen, model.card.classes, model.card.palette)
    figure.savefig(args.out, dpi=90)


def objects(args):
    """Images with the outlines of their true objects, and of those that each network finds, with the score of each picture."""
    dataset = data.open_dataset(args.root, "trainval", ids=args.ids)
    networks = [models.load_segmenter(path).prepare() for path in args.weights]
    titles = args.titles or args.weights
    columns = 1 + len(networks)
    height = sum(sample.image.shape[0] / sample.image.shape[1] for sample in dataset) / columns
    figure = Figure(figsize=(9.6, 9.6 * height + 0.3 * len(dataset)), layout="constrained")
    grid = figure.subplots(len(dataset), columns, squeeze=False)
    for row, sample in zip(grid, dataset, strict=True):
        first, *others = row
        first.imshow(figures.outlined(sample.image, sample.instances))
        first.set_title(f"true: {sample.instances.max()}", fontsize=9)
        for panel, network, title in zip(others, networks, titles, strict=True):
            found, _ = inference.objects(network, sample.image)
            scores = InstanceScores()
            scores.update(sample.instances, found)
            panel.imshow(figures.outlined(sample.image, found))
            panel.set_title(
                f"{title}: {found.max()}, {100 * scores.at(0.5):.0f} / {100 * scores.mean():.0f}", fontsize=9
            )
        for panel in row:
            panel.set_axis_off()
    figure.savefig(args.out, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("segments", help="true masks, and predictions outlined by them")
    one.add_argument("root", metavar="DATA")
    one.add_argument("weights", nargs="+", metavar="WEIGHTS")
    one.add_argument("--titles", nargs="+", help="what the networks are called")
    one.add_argument("--split", default="val")
    one.add_argument("--ids", nargs="+", required=True)
    one.set_defaults(draw=segments)
    other = kinds.add_parser(
        "photographs", help="photographs, masks and overlays by the network that comes with minifcn"
    )
    other.add_argument("photos", nargs="+", metavar="PHOTO")
    other.set_defaults(draw=photographs)
    third = kinds.add_parser("objects", help="outlines of objects, true and found")
    third.add_argument("root", metavar="DATA")
    third.add_argument("weights", nargs="+", metavar="WEIGHTS")
    third.add_argument("--titles", nargs="+", help="what the networks are called")
    third.add_argument("--ids", nargs="+", required=True)
    third.set_defaults(draw=objects)
    for kind in (one, other, third):
        kind.add_argument("--out", required=True)
    args = parser.parse_args()
    args.draw(args)
    with Image.open(args.out) as picture:  # a third of the bytes, and no difference to see
        fewer = picture.convert("RGB").quantize(128)
    fewer.save(args.out, optimize=True)


if __name__ == "__main__":
    main()
