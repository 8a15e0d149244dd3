"""Draw a toy data set, download a real one, or check your own."""

import sys
from functools import partial
from shlex import quote

from tqdm import tqdm

from .. import data
from ..data.download import ARCHIVES, TIMEOUT, download
from ..errors import InputError
from . import doctor, options
from .progress import notice

HELP = "get or check data"


def add_arguments(parser):
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    toy = kinds.add_parser(
        "toy",
        help="draw the toy data set",
        description="Draw the toy data set: a VOCdevkit folder of textured scenes, made from a seed, in seconds.",
        formatter_class=options.HelpFormatter,
    )
    add = toy.add_argument
    add("root", metavar="FOLDER", help="folder to write to; must not hold a VOC2012 folder yet")
    add("--train", type=int, default=800, help="training images")
    add("--val", type=int, default=50, help="validation images")
    add("--size", type=int, default=128, help="typical height and width in pixels")
    add("--seed", type=options.at_least(0), default=0, help="random seed of the drawing")
    objects = (
        "scenes of shapes that touch and overlap, with masks of the single objects: for networks that separate these"
    )
    add("--instances", action="store_true", help=objects)
    fetch = kinds.add_parser(
        "download",
        help="download a data set",
        description="Fetch a data set's official archive from its host or, where that fails, from mirrors. A download that was "
        "cut, or stopped with Ctrl-C, is resumed by the same command. Size and SHA-256 are verified before the file gets its "
        "name; an existing file is never overwritten. The tar need not be unpacked: --data takes it as it is.",
        epilog="voc2012: VOCtrainval_11-May-2012.tar, 2.0 GB. By hand: put the file of that name, from anywhere, into FOLDER "
        "and run this command to check it.",
        formatter_class=options.HelpFormatter,
    )
    add = fetch.add_argument
    add("name", choices=tuple(ARCHIVES), metavar="NAME", help=f"which: {', '.join(ARCHIVES)}")
    add("folder", metavar="FOLDER", help="folder to write to; made if absent")
    add("--unpack", action="store_true", help="also unpack it into FOLDER, where it overwrites nothing")
    timeout = "how long a host may send nothing before it counts as dead"
    add("--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help=timeout)
    doctor.add_doctor(kinds)


def run(args):
    return {"toy": _toy, "download": _download, "doctor": doctor.run_doctor}[args.kind](args)


def _toy(args):
    data.write_toyvoc(args.root, args.train, args.val, args.size, args.seed, args.instances)
    notice(f"{args.train} training and {args.val} validation images written to {args.root}")
    return 0


def _download(args):
    if not 0 < args.timeout <= 3600:
        raise InputError(f"timeout: expected a number of seconds from 0 to 3600, got {args.timeout:g}")
    with tqdm(unit="B", unit_scale=True, disable=None) as bar:
        show, tell = partial(_show, bar), partial(bar.write, file=sys.stderr)
        path = download(ARCHIVES[args.name], args.folder, args.timeout, show, tell)
        tell(f"{path}: complete, size and SHA-256 verified; train on it with: minifcn train --data {quote(str(path))}")
        if args.unpack:
            made = data.unpack(path, args.folder, partial(show, "unpacking"))
            tell(f"unpacked: {', '.join(map(str, made))}")
    return 0


def _show(bar, what, done, total):
    """Move the bar; when it shows something else, its clock starts anew."""
    if bar.disable:
        return
    if bar.desc != f"{what}: ":
        bar.reset(total)
        bar.initial = bar.n = done
        bar.set_description(what)
    bar.update(done - bar.n)
