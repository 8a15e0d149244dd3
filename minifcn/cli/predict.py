"""Segment images. For each image (or each in a folder, such as the frames of a video) print what was found and its share
of the pixels, and write NAME.png, a palette mask, and NAME_overlay.jpg. Without --weights the network that comes with
minifcn looks for cats, cows, dogs, horses, people and sheep. With --objects it also numbers objects that do not touch, such as
cells in a microscope's picture: NAME_objects.png has each object's number as 16-bit grey, the overlay shows the outlines, and objects.csv
has a row for each: class, score, box and area. A panoptic network always separates objects, even those of one class that touch; the
overlay then shows their numbers, too. --write also writes them for the tools of a data set: voc, SegmentationObject/NAME.png; coco,
coco_results.json for all images; cityscapes, cityscapes/NAME_pred.txt, its masks and NAME_instanceIds.png. Files that cannot be read are
skipped and named; no image is ever overwritten. With --tile a TIFF, PPM or BMP may be larger than memory; its overlay is then small.
Under mpirun, the processes divide the images among themselves. After a stop, --resume skips what is finished."""

import json
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .. import data, inference, layers, models
from ..data.images import count_pictures, in_colours, note_of, open_photo, read_image, write_mask
from ..data.labels import colourise
from ..data.large import open_large, write_mask_rows
from ..data.targets import scipy_ndimage
from ..distributed import world
from ..errors import InputError
from ..files import atomic_write, check_outputs, clear_leftovers, json_text, make_folder, real, write_text, writing
from ..inference import sliding_window
from ..inference.shared_work import fingerprint
from ..report import figures
from . import launch, options
from .object_form import FORMS, ObjectForm
from .progress import notice, shared_out

HELP = "segment any images"
PRETRAINED = "animals"
JPEG_MOST = 65500  # pixels a side that libjpeg writes
PREVIEW = 2048  # pixels of the longer side of the overlay of an image larger than memory, at most


def add_arguments(parser):
    options.add_device(parser)
    options.add_segmenter(parser, own=PRETRAINED)
    parser.add_argument("--out", default="predictions", metavar="FOLDER", help="folder for masks and overlays")
    parser.add_argument("--objects", action="store_true", help="also find single objects, and number them; needs scipy")
    table = "file for the table of all objects, .csv or .json, if there are objects (default: objects.csv in --out)"
    parser.add_argument("--table", metavar="FILE", help=table)
    write = (
        "also write the objects in the format of that data set's tools; coco's ids are the images' names, as numbers where they are, "
        "and the network's class numbers"
    )
    parser.add_argument("--write", choices=FORMS, help=write)
    resume = "skip the images whose files this network has already written to --out with the same settings"
    parser.add_argument("--resume", action="store_true", help=resume)
    options.add_size(parser)
    options.add_averages(parser)
    launch.add_processes(parser, launch.IMAGES)
    options.add_exif(parser)
    options.add_images(parser, "IMAGE")


def run(args):
    model = models.load_segmenter(args.weights)
    resize = options.longest_of(args, model.card)
    sliding_window.check_tile(args.tile)
    options.check_averages(args, model.card)
    panoptic = model.card.builder == "panoptic"
    args.objects |= panoptic
    for option in ("table", "write"):
        if getattr(args, option) and not args.objects:
            raise InputError(
                f"{option}: {args.weights} tells no objects apart; expected --objects, or a panoptic network"
            )
    check_fits(args, model)
    named, network, out = options.named_images(args.images), model.prepare(), make_folder(args.out)
    endings = (".png", "_overlay.jpg", *(("_objects.png",) if args.objects else ()))
    files = {name: [out / f"{name}{ending}" for ending in endings] for _, name in named}
    images = {real(path) for path, _ in named}
    if args.resume and real(out) in {real(image) for image in args.images}:
        raise InputError(f"{out}: holds the images, among which masks would be taken for more; choose another --out")
    check_outputs([file for _, name in named for file in files[name]], images)
    if foreign := [mask for mask, *_ in files.values() if os.path.isfile(mask) and note_of(mask) is None]:
        raise InputError(f"{foreign[0]}: is there already, and no mask of minifcn's; choose another folder with --out")
    table = Path(args.table or out / "objects.csv")
    if args.objects and (table.suffix not in (".csv", ".json") or real(table) in images or table.is_dir()):
        raise InputError(f"{table}: expected a table's name, ending in .csv or .json")
    if args.objects and not os.access(make_folder(table.parent), os.W_OK):
        raise InputError(f"{table}: cannot be written; choose another place with --table")
    form = args.write and ObjectForm(args.write, out, model.card.classes, files)
    if form:
        form.check(images, table)
    segmenter = Segmenter(args, model, network, resize, files, form)
    skipped, refused, seen, tables, entries, start = [], [], Counter(), {}, [], time.perf_counter()
    bar = shared_out(lambda i: segmenter(*named[i], alone=len(named) == 1), len(named))
    for found, (path, _) in zip(bar, named, strict=False):  # in a process that is not the first the bar is empty
        if isinstance(found, InputError):
            skipped.append(found)
            continue
        seen.update(found["classes"])
        tables[str(path)] = found["objects"]
        entries += found.get("entries", ())
        if "refused" in found:
            refused.append(found["refused"])
        tqdm.write(f"{path}: {found['line']}")
    if world().rank:
        return 0
    if args.resume:
        clear_leftovers(out)
    if args.objects:
        data.write_table(table, tables)
        notice(f"the table of all objects: {table}")
    if form:
        if args.write == "coco":
            write_text(form.place, json_text(entries) + "\n")
        notice(f"the objects as {args.write} has them: {form.place}")
    done, seconds = len(named) - len(skipped), time.perf_counter() - start
    if done > 1:
        print(f"{done} images: " + ", ".join(f"{name} in {count}" for name, count in seen.most_common()))
    written = f"mask{'s' * (done != 1)} and overlay{'s' * (done != 1)}"
    notice(f"{done} {written} written to {out}, {done / seconds:.1f} images a second")
    return options.tell_skipped([*skipped, *refused])


def check_fits(args, model):
    """Raise InputError, before any image is looked at, for what the network would refuse of every image."""
    for sizes in model.layers_of(layers.ExactSize):
        sliding_window.check_unpadded_tile(args.tile, sizes)
    if args.objects and model.card.builder != "panoptic":
        scipy_ndimage("objects")
        if not any(name != data.BORDER for name in model.card.classes[1:]):
            raise InputError(
                f"{args.weights}: has no class of objects beside the background ({', '.join(model.card.classes)}); leave --objects out"
            )


class Segmenter:
    """Segments an image and writes its files, in whichever process.

    files: the paths to write, by an image's name: the mask, the overlay and, with objects, their numbers. The mask is written last and
    atomically, with a note of what was found and by what, so that an image with such a mask is finished.
    """

    def __init__(self, args, model, network, resize, files, form=None):
        self.args, self.network, self.resize, self.files, self.form = args, network, resize, files, form
        self.panoptic, self.averages = model.card.builder == "panoptic", options.averages_of(args)
        settings = {"resize": resize, "tile": args.tile, "exif": args.exif, "objects": args.objects}
        self.made_by = fingerprint(model, **settings, **self.averages)

    def __call__(self, path, name, alone):
        """What was found in an image: {"line": to print, "classes": names, "objects": rows of the table}, once its files are written.

        With a form to write, also "entries", those of COCO's results. If the image cannot be read, or has more objects than that form can
        hold, the InputError is returned, or raised if it is the only image.
        """
        try:
            found = self.found(path, name)
        except InputError as error:
            if alone:
                raise
            return error
        try:
            return found | {"entries": self.form.write(name, found["objects"])} if self.form else found
        except InputError as error:  # its own files are whole, and its objects in the table
            return found | {"refused": error}

    def found(self, path, name):
        file = path.stat() if os.path.isfile(path) else None
        made_of = [self.made_by, file and [file.st_size, file.st_mtime_ns]]
        if self.args.resume and (found := self.finished(name, made_of)):
            return found
        image = self.args.tile and open_large(path, self.args.exif)
        if image:
            self.network.card.preprocessing.check_bands(image.shape[2], path)
            return self.large(image, made_of, *self.files[name])
        image = read_image(path, self.args.exif)
        self.network.card.preprocessing.check_bands(image.shape[2], path)
        with open(path, "rb") as file:
            pictures = count_pictures(open_photo(file))
        return self.segmented(image, made_of, *self.files[name], pictures=pictures)

    def finished(self, name, made_of):
        """What was found in an image of which all files are there, made by these weights and settings; None for any other."""
        note = note_of(self.files[name][0]) if all(file.is_file() for file in self.files[name]) else None
        try:
            found = json.loads(note) if note else {}
        except ValueError:  # a damaged file
            return None
        return found if isinstance(found, dict) and found.pop("made_of", None) == made_of else None

    def segmented(self, image, made_of, mask, overlaid, numbered=None, pictures=1):
        card, where = self.network.card, {"tile": self.args.tile, "longest": self.resize}
        found, instances = {"objects": []}, None
        if numbered:
            if self.panoptic:
                objects = inference.panoptic(self.network, image, name=mask.stem, **where)
            else:
                objects = inference.classed_objects(self.network, image, **where, **self.averages)
            labels, instances, *_ = objects
            found["objects"] = data.object_table(objects, card.classes)
        else:
            labels = inference.predict(self.network, image, **where, **self.averages)
        found |= described(np.bincount(labels.reshape(-1)), card.classes, instances, pictures)
        picture = overlay(in_colours(image), colourise(labels, card.palette))
        mask.unlink(missing_ok=True)  # an old one would mark half-written files as finished
        if numbered:
            with writing(numbered):
                Image.fromarray(instances).save(numbered)
            picture = (figures.numbered if self.panoptic else figures.outlined)(picture, instances)
        step = -(-max(picture.shape) // JPEG_MOST)  # of a very long strip every n-th pixel, as of a large image
        with writing(overlaid):
            Image.fromarray(picture[::step, ::step]).save(overlaid, quality=92)
        with atomic_write(mask) as file:
            write_mask(file, labels, card.palette, json.dumps(found | {"made_of": made_of}))
        return found

    def large(self, image, made_of, mask, overlaid, numbered=None):
        """The same for a LargeImage: one row of tiles is in memory at a time, and the overlay shows every n-th pixel."""
        if self.panoptic:
            raise InputError(
                f"{image.name}: larger than is read at once, and a panoptic network takes no image by parts; make it smaller"
            )
        if numbered or self.averages or self.resize:
            raise InputError(
                f"{image.name}: larger than is read at once; it is read by parts with --tile alone, without --objects, --resize and views"
            )
        (height, width, _), card = image.shape, self.network.card
        step = -(-max(height, width) // PREVIEW)
        counts, found = np.zeros(card.num_classes, np.int64), {"objects": []}

        def bands():
            seen = np.empty((-(-height // step), -(-width // step), 3), np.uint8)
            marks = np.empty(seen.shape[:2], np.uint8)
            for labels, (rows, columns) in inference.parts(self.network, image, self.args.tile):
                if not columns.start:
                    band = np.empty((len(labels), width), np.uint8)
                band[:, columns] = labels
                counts[:] += np.bincount(labels.reshape(-1), minlength=len(counts))
                shown = tuple(slice(-part.start % step, None, step) for part in (rows, columns))
                place = tuple(slice(-(-part.start // step), -(-part.stop // step)) for part in (rows, columns))
                seen[place], marks[place] = image[rows, columns][shown], labels[shown]
                if columns.stop == width:
                    yield band
            with writing(overlaid):
                Image.fromarray(overlay(seen, colourise(marks, card.palette))).save(overlaid, quality=92)
            found.update(described(counts, card.classes))

        mask.unlink(missing_ok=True)  # as above
        write_mask_rows(mask, (height, width), bands(), card.palette, lambda: json.dumps(found | {"made_of": made_of}))
        return found


def described(counts, classes, instances=None, pictures=1):
    """{"line": what an image shows, "classes": the names in it}, from its pixels of each class and the numbers of its objects; the line
    says so where it is the first of several pictures in a file."""
    shares = shares_of(counts, classes)
    line = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
    if instances is not None:
        count = int(instances.max())
        line = f"{count} object{'s' * (count != 1)}, {line}"
    if pictures > 1:
        line = f"the first of {pictures} pictures in it, {line}"
    return {"line": line, "classes": list(shares)}


def shares_of(counts, classes):
    """{class: its share of the pixels} of the classes that have pixels, the largest first.   counts: of each class"""
    return {classes[i]: counts[i] / counts.sum() for i in np.argsort(-counts, kind="stable") if counts[i]}


def overlay(image, colours):
    """An image with every class but the background laid over it in its colour.   both (H, W, 3) uint8"""
    mixed = Image.blend(Image.fromarray(image), Image.fromarray(colours), 0.6)
    return np.where(colours.any(axis=2, keepdims=True), np.asarray(mixed), image)
