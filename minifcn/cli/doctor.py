"""`minifcn data doctor`: its arguments, and what it prints."""

import argparse
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..data import doctor
from ..data.doctor import fix
from ..data.sets.description import EXAMPLE, FILE_NAME
from ..errors import InputError
from ..files import check_empty
from ..report import doctor as report
from . import options

_DESCRIPTION = f"""\
Read a whole data set and report what is wrong with it: files that are missing, broken, or do not belong together; masks
whose values are no labels; images in both splits. Every layout that can be trained on is recognised by what is in the
folder. Nothing in it is changed. Exit code 0: no errors; 1: errors; 2: no data set, or wrong use.

An error is what training would refuse or learn wrongly; a warning does no harm by itself.

Your own data need a {FILE_NAME} in their folder, unless masks hold 0 and 255, or the numbers of classes from 0 on:

"""


def add_doctor(kinds):
    """The parser of `minifcn data doctor`, added to those of `minifcn data`."""
    parser = kinds.add_parser(
        "doctor",
        help="report what is wrong with a data set",
        description=_DESCRIPTION + "".join(f"  {line}\n" for line in EXAMPLE.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("root", metavar="FOLDER", help="a data set as train --data takes it, unpacked")
    add("--picture", metavar="FILE", help="draw the classes' colours and a sample of each class into this PNG")
    add("--fix", metavar="FOLDER", help="write a repaired copy, as your own data, into this absent or empty folder")
    options.add_exif(parser)
    add("--all", action="store_true", help=f"name every file, not only the first {report.MAX_ENTRIES} of each finding")


def run_doctor(args):
    """Examine, print, draw, repair. -> 0 if there are no errors, else 1"""
    if args.picture and Path(args.picture).suffix.lower() != ".png":
        raise InputError(f"{args.picture}: expected the name of a PNG file for the picture")
    if args.picture and Path(args.picture).resolve().is_relative_to(Path(args.root).resolve()):
        raise InputError(f"{args.picture}: inside the data set, in which nothing is changed; choose another place")
    if args.picture and not Path(args.picture).parent.is_dir():
        raise InputError(f"{args.picture}: expected a place in a folder that is there")
    if args.fix:
        check_empty(args.fix)
    diagnosis = doctor.examine(args.root, partial(tqdm, unit="image", disable=None, leave=False), args.exif)
    limit = sys.maxsize if args.all else report.MAX_ENTRIES
    summary = [*report.summary(diagnosis), ""] if diagnosis.dataset is not None else []
    print("\n".join([*summary, *report.findings(diagnosis, limit), report.verdict(diagnosis)]))
    if args.picture:
        report.picture(diagnosis, args.picture)
        print(f"picture: {args.picture}", file=sys.stderr)
    if args.fix:
        print("\n".join(report.fixed(*fix.write_fixed(diagnosis, args.fix), args.fix, limit)), file=sys.stderr)
    return 1 if diagnosis.findings.errors else 0
