"""The pictures of real results that these pages show.

`segments` draws true masks and predictions with the outlines of the true masks over them, an image a row and a network
a column: no photograph, so that they can be shown where the photographs may not. `photographs` draws photographs that may,
with --crf before and after the dense CRF. `rates` draws the places of a map that DeepLab's dilated convolutions read. `objects` draws the
outlines of objects over their images, the true ones and those of several networks. `centres` draws the objects of a panoptic network
beside the connected components of its classes, over the image or, with --edges, over its edges alone, where the photographs may not be
shown.

    python benchmarks/pictures.py segments VOCdevkit runs/voc/*/checkpoint.npz --ids 2007_000033 … --out benchmarks/records/voc.png
    python benchmarks/pictures.py photographs docs/photos/astronaut.jpg docs/photos/chelsea.jpg --out docs/predicted.png
    python benchmarks/pictures.py photographs --crf docs/photos/chelsea.jpg docs/photos/astronaut.jpg --out docs/crf.png
    python benchmarks/pictures.py photographs docs/photos/chelsea.jpg --weights runs/ladder/voc/8s/checkpoint.npz … --crf --out docs/ladder.png
    python benchmarks/pictures.py rates 6 12 18 24 --side 41 --out docs/rates.png
    python benchmarks/pictures.py centres VOCdevkit runs/objects/best.npz --edges --ids 2007_000925 … --out benchmarks/records/voc_objects.png
    python benchmarks/pictures.py objects nuclei runs/map/best.npz runs/plain/best.npz --ids … --out benchmarks/records/nuclei.png
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageFilter

from minifcn import data, inference, models
from minifcn.cli import predict
from minifcn.data.images import read_image
from minifcn.data.labels import colourise
from minifcn.inference.panoptic import maps_of, objects_in
from minifcn.metrics import ConfusionMatrix, InstanceScores
from minifcn.report import figures
from minifcn.tasks import PanopticScores


def segments(args):
    """True masks, and each network's predictions outlined by the truth, with the mean IU of each image."""
    networks = [models.load_segmenter(path).prepare() for path in args.weights]
    dataset = data.open_dataset(args.root, args.split, ids=args.ids)
    heights = [sample.label.shape[0] / sample.label.shape[1] for sample in dataset]
    heights = [max(heights[i : i + args.across]) for i in range(0, len(heights), args.across)]
    columns = args.across * (1 + len(networks))
    figure = Figure(figsize=(9.6, 9.6 / columns * sum(heights) + 0.25 * len(heights) + 0.6), layout="constrained")
    grid = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    for panel in grid.flat:
        panel.set_axis_off()
    seen = set()
    for row, sample in zip(grid.reshape(-1, 1 + len(networks)), dataset, strict=False):
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
    figures.add_legend(figure, seen, dataset.classes, dataset.palette)
    figure.savefig(args.out, dpi=90)


def _borders(label):
    """Where neighbouring pixels of a mask differ, the void border counting as neither side, two pixels wide."""
    edge = np.zeros(label.shape, bool)
    edge[1:] |= label[1:] != label[:-1]
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    return edge


def photographs(args):
    """Photographs, their masks and their overlays, by the network that comes with minifcn, as `minifcn predict` makes them; or an overlay by
    each of several networks, and by the last one before and after the dense CRF."""
    loaded = [models.load_segmenter(path) for path in args.weights or [predict.PRETRAINED]]
    ways = [(model.prepare(), {}) for model in loaded]
    ways += [(ways[-1][0], {"crf": {}})] if args.crf else []
    overlays_alone = len(ways) > 1
    titles = ["", *(args.titles or args.weights or ["as it is"]), "with the CRF"] if overlays_alone else ["", "", ""]
    card, images = loaded[-1].card, [read_image(path) for path in args.photos]
    across = min(args.across or len(titles), len(titles))
    heights = np.repeat([image.shape[0] / image.shape[1] for image in images], -(-len(titles) // across))
    figure = Figure(figsize=(9.6, 0.3 + 9.6 / across * sum(heights) + 0.2 * len(heights)), layout="constrained")
    grid, seen = figure.subplots(len(heights), across, squeeze=False, height_ratios=heights), set()
    for panel in grid.flat:
        panel.set_axis_off()
    for first, image in zip(range(0, grid.size, grid.size // len(images)), images, strict=True):
        found = [inference.predict(network, image, longest=network.card.longest, **way) for network, way in ways]
        seen.update(np.unique(found).tolist())
        colours = [colourise(labels, card.palette) for labels in found]
        overlays = [predict.overlay(image, one) for one in colours]
        pictures = [image, *([] if overlays_alone else colours), *overlays]
        for panel, picture, title in zip(grid.flat[first:], pictures, titles, strict=False):
            panel.imshow(picture, interpolation="nearest")
            if first == 0 or across < len(titles):
                panel.set_title(title, fontsize=9)
    figures.add_legend(figure, seen, card.classes, card.palette)
    figure.savefig(args.out, dpi=90)


def rates(args):
    """The nine places of a map that a 3×3 convolution reads at each rate, for the map's middle and for a place near its corner."""
    middles, reach = (args.side // 2, args.side // 4), max(args.rates)
    seen = min(0, middles[1] - reach) - 3, max(args.side, middles[0] + reach) + 3
    figure = Figure(figsize=(9.6, 19.2 / len(args.rates) + 0.4), layout="constrained")
    for row, middle in zip(figure.subplots(2, len(args.rates), squeeze=False), middles, strict=True):
        for panel, rate in zip(row, args.rates, strict=True):
            y, x = middle + rate * (np.indices((3, 3)) - 1)
            on_map = ((y >= 0) & (y < args.side) & (x >= 0) & (x < args.side)).ravel()
            panel.imshow(np.full((args.side, args.side), 0.87), cmap="grey", vmin=0, vmax=1)
            panel.scatter(x, y, 22, np.where(on_map, "tab:blue", "tab:red"), marker="s")
            panel.set(xlim=seen, ylim=seen[::-1], title=f"rate {rate}: {on_map.sum()} of 9 on the map")
            panel.title.set_fontsize(9)
            panel.set_axis_off()
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


def centres(args):
    """The true objects, the connected components of the classes, and the objects of a panoptic network, each with its panoptic quality."""
    network = models.load_segmenter(args.weights).prepare()
    dataset = data.open_dataset(args.root, args.split, ids=args.ids, instances=True)
    things = inference.things_of(network)
    heights = [sample.label.shape[0] / sample.label.shape[1] for sample in dataset]
    figure = Figure(figsize=(9.6, 3.2 * sum(heights) + 0.25 * len(dataset)), layout="constrained")
    grid = figure.subplots(len(dataset), 3, squeeze=False, height_ratios=heights)
    for row, sample in zip(grid, dataset, strict=True):
        known = np.where(sample.instances == data.AMBIGUOUS, 0, sample.instances)
        maps = maps_of(network, sample.image)
        found = {
            "connected components": inference.components(maps["semantic"], things),
            "centres": objects_in(network, maps),
        }
        picture = _edges(sample.image) if args.edges else sample.image
        columns = [(f"true: {np.count_nonzero(np.unique(known))}", figures.outlined(picture, known, 2))]
        for title, one in found.items():
            scores = PanopticScores(network.card.num_classes, things)
            scores.update_objects(sample.label, sample.instances, one)
            title = f"{title}: {len(one.classes)}, PQ {100 * scores.quality.scores()['pq_things']:.0f}"
            columns.append((title, figures.numbered(picture, one.instances, 2)))
        for panel, (title, drawn) in zip(row, columns, strict=True):
            panel.imshow(drawn, interpolation="nearest")
            panel.set_title(title, fontsize=9)
            panel.set_axis_off()
    figure.savefig(args.out, dpi=90)


def _edges(image):
    """The change of brightness from pixel to pixel, dark on white."""
    grey = np.asarray(Image.fromarray(image).convert("L").filter(ImageFilter.GaussianBlur(1)), np.float32)
    change = np.hypot(*np.gradient(grey))
    return np.repeat((255 - 8 * change).clip(60, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("segments", help="true masks, and predictions outlined by them")
    one.add_argument("root", metavar="DATA")
    one.add_argument("weights", nargs="+", metavar="WEIGHTS")
    one.add_argument("--titles", nargs="+", help="what the networks are called")
    one.add_argument("--split", default="val")
    one.add_argument("--across", type=int, default=1, help="images beside each other (default: 1)")
    one.add_argument("--ids", nargs="+", required=True)
    one.set_defaults(draw=segments)
    other = kinds.add_parser(
        "photographs", help="photographs, masks and overlays by the network that comes with minifcn"
    )
    other.add_argument("photos", nargs="+", metavar="PHOTO")
    other.add_argument("--weights", nargs="+", metavar="WEIGHTS", help="overlays by these networks instead")
    other.add_argument("--titles", nargs="+", help="what the networks are called")
    other.add_argument("--across", type=int, help="so many pictures side by side (default: all of a photograph)")
    other.add_argument("--crf", action="store_true", help="overlays before and after the dense CRF of the last network")
    other.set_defaults(draw=photographs)
    third = kinds.add_parser("objects", help="outlines of objects, true and found")
    third.add_argument("root", metavar="DATA")
    third.add_argument("weights", nargs="+", metavar="WEIGHTS")
    third.add_argument("--titles", nargs="+", help="what the networks are called")
    third.add_argument("--ids", nargs="+", required=True)
    third.set_defaults(draw=objects)
    fourth = kinds.add_parser("centres", help="objects by centres beside connected components")
    fourth.add_argument("root", metavar="DATA")
    fourth.add_argument("weights", metavar="WEIGHTS")
    fourth.add_argument("--split", default="val")
    fourth.add_argument("--edges", action="store_true", help="over the edges of the image instead of the image")
    fourth.add_argument("--ids", nargs="+", required=True)
    fourth.set_defaults(draw=centres)
    fifth = kinds.add_parser("rates", help="what dilated convolutions read")
    fifth.add_argument("rates", nargs="+", type=int, metavar="RATE")
    fifth.add_argument("--side", type=int, default=41, help="of the map (default: 41, a crop of 321 at 1/8)")
    fifth.set_defaults(draw=rates)
    for kind in (one, other, third, fourth, fifth):
        kind.add_argument("--out", required=True)
    args = parser.parse_args()
    args.draw(args)
    with Image.open(args.out) as picture:  # a third of the bytes, and no difference to see
        fewer = picture.convert("RGB").quantize(256)
    fewer.save(args.out, optimize=True)


if __name__ == "__main__":
    main()
