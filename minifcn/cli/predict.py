"""Segment images. For each image (or each in a folder, such as the frames of a video) print what was found and its share
of the pixels, and write NAME.png, a palette mask, and NAME_overlay.jpg. Without --weights the network that comes with
minifcn looks for cats, cows, dogs, horses, people and sheep. With --objects also number what does not touch, such as the cells
of a microscope's picture: NAME_objects.png has the number of each object as 16-bit grey, and the overlay their outlines. A panoptic
network always tells objects apart, also those of one class that touch; the overlay then has their numbers, and objects.csv a row for each: class,
score, box and area. What cannot be read is skipped and named; no image is ever written over."""

import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .. import data, inference, models
from ..data.images import write_mask
from ..data.labels import colourise
from ..data.transforms import shrink
from ..errors import InputError
from ..files import make_folder
from ..inference import sliding_window
from ..report import figures
from . import options
from .progress import notice

HELP = "segment any images"
PRETRAINED, LONGEST = "animals", 500  # and the longer side of the photographs that it was trained on


def add_arguments(parser):
    options.add_device(parser)
    options.add_segmenter(parser, own=PRETRAINED)
    parser.add_argument("--out", default="predictions", metavar="FOLDER", help="folder for masks and overlays")
    parser.add_argument("--objects", action="store_true", help="also find single objects, and number them; takes scipy")
    table = (
        "of a panoptic network: where to write the table of all objects, .csv or .json (default: objects.csv in --out)"
    )
    parser.add_argument("--table", metavar="FILE", help=table)
    options.add_size(parser)
    options.add_averages(parser)
    options.add_exif(parser)
    options.add_images(parser, "IMAGE")


def run(args):
    model = models.load_segmenter(args.weights)
    resize = args.resize or (LONGEST if args.weights == PRETRAINED and not args.tile else None)
    sliding_window.check_tile(args.tile)
    options.check_averages(args, model.card)
    panoptic = model.card.builder == "panoptic"
    args.objects |= panoptic
    if args.table and not panoptic:
        raise InputError(
            f"table: expected a panoptic network, whose objects have classes and scores; got {args.weights}"
        )
    named, network, out = options.named_images(args.images), model.prepare(), make_folder(args.out)
    endings = (".png", "_overlay.jpg", *(("_objects.png",) if args.objects else ()))
    files = {name: [out / f"{name}{ending}" for ending in endings] for _, name in named}
    images = {path.resolve() for path, _ in named}
    times = Counter(file for of_image in files.values() for file in of_image)
    if lost := [file for file in times if file.resolve() in images]:
        raise InputError(
            f"{lost[0]}: is one of the images, and would be written over; choose another folder with --out"
        )
    if twice := [file for file, count in times.items() if count > 1]:
        raise InputError(f"{twice[0]}: would be written for two of the images; rename one, or leave --objects out")
    table = Path(args.table or out / "objects.csv")
    if panoptic and (table.suffix not in (".csv", ".json") or table.resolve() in images):
        raise InputError(f"{table}: expected a table's name, ending in .csv or .json")
    skipped, seen, tables, start = [], Counter(), {}, time.perf_counter()
    bar = tqdm(named, unit="image", disable=None)
    for path, name, image in options.readable(bar, skipped, args.exif):
        if panoptic:
            labels, instances, *_ = objects = panoptic_objects(network, image, resize, args.tile)
            tables[str(path)] = data.object_table(objects, model.card.classes)
        elif args.objects:
            labels, instances = predicted_objects(network, image, resize, args.tile, **options.averages_of(args))
        else:
            labels = predicted(network, image, resize, args.tile, **options.averages_of(args))
        shares = shares_of(labels, model.card.classes)
        found = [f"{name} {100 * share:.1f} %" for name, share in shares.items()]
        seen.update(shares.keys())
        mask, overlaid, *numbered = files[name]
        write_mask(mask, labels, model.card.palette)
        picture = overlay(image, colourise(labels, model.card.palette))
        if args.objects:
            count = int(instances.max())
            found.insert(0, f"{count} object{'s' * (count != 1)}")
            Image.fromarray(instances).save(numbered[0])
            picture = (figures.numbered if panoptic else figures.outlined)(picture, instances)
        Image.fromarray(picture).save(overlaid, quality=92)
        bar.write(f"{path}: " + ", ".join(found))
    if panoptic:
        data.write_table(table, tables)
        notice(f"the table of all objects: {table}")
    done, seconds = len(named) - len(skipped), time.perf_counter() - start
    if done > 1:
        print(f"{done} images: " + ", ".join(f"{name} in {count}" for name, count in seen.most_common()))
    written = f"mask{'s' * (done != 1)} and overlay{'s' * (done != 1)}"
    notice(f"{done} {written} written to {out}, {done / seconds:.1f} images a second")
    return options.tell_skipped(skipped)


def predicted(network, image, resize, tile, **averages):
    """The class of every pixel, also where the network sees the image shrunk to `resize` pixels.   -> (H, W) uint8"""
    return as_large(inference.predict(network, shrunk(image, resize), tile, **averages), image)


def predicted_objects(network, image, resize, tile, **averages):
    """The class of every pixel, and the number of its object.   -> (H, W) uint8 and uint16, from one run of the network"""
    probabilities = inference.probabilities(network, shrunk(image, resize), tile, **averages)
    instances, _ = inference.objects_of(probabilities, network.card.classes)
    return as_large(probabilities.argmax(axis=0).astype(np.uint8), image), as_large(instances, image)


def panoptic_objects(network, image, resize, tile):
    """The same by a panoptic network, and the class and the score of each object.   -> Objects"""
    found = inference.panoptic(network, shrunk(image, resize), tile)
    return found._replace(labels=as_large(found.labels, image), instances=as_large(found.instances, image))


def shrunk(image, resize):
    """The image with a longer side of at most `resize` pixels, None for any."""
    return shrink(image, image[:, :, 0], resize)[0] if resize else image


def as_large(numbers, image):
    """A map of numbers in the image's size."""
    return np.asarray(Image.fromarray(numbers).resize(image.shape[1::-1], Image.Resampling.NEAREST))


def shares_of(labels, classes):
    """{class: its share of the pixels} of the classes that labels (H, W) have, the largest first."""
    counts = np.bincount(labels.reshape(-1), minlength=len(classes))
    return {classes[i]: counts[i] / labels.size for i in np.argsort(-counts, kind="stable") if counts[i]}


def overlay(image, colours):
    """An image with what is not background in its colour over it.   both (H, W, 3) uint8"""
    mixed = Image.blend(Image.fromarray(image), Image.fromarray(colours), 0.6)
    return np.where(colours.any(axis=2, keepdims=True), np.asarray(mixed), image)
