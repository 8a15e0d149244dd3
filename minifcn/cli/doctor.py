"""The commands that look after data: their arguments, and what they print."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from ..data import doctor, doctor_fix
from ..data.description import EXAMPLE, NAME
from ..errors import InputError
from ..report import doctor as data_report

_DOCTOR = f"""\
Read a whole data set and tell what is wrong with it: files that are missing, broken, or do not belong together; masks
whose values are no labels; images in both lists. PASCAL VOC's layout, Cityscapes', and your own data are recognised by
what is in the folder. Nothing in it is changed. Exit code 0: no errors; 1: errors; 2: no data set, or wrong use.

An error is what training would refuse or learn wrongly; a remark is worth knowing.

Your own data need a {NAME} in their folder:

"""


def add_doctor(kinds):
    """The parser of `minifcn data doctor`, added to those of `minifcn data`."""
    parser = kinds.add_parser(
        "doctor",
        help="tell what is wrong with a data set",
        description=_DOCTOR + "".join(f"  {line}\n" for line in EXAMPLE.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("root", metavar="FOLDER", help="a VOCdevkit, a folder with leftImg8bit and gtFine, or one with dataset.toml")
    add("--picture", metavar="FILE", help="draw the classes' colours and a sample of each class into this PNG")
    add(
        "--fix",
        metavar="FOLDER",
        help="write a mended copy, as own data, into this absent or empty folder: upright RGB images, palette masks of class "
        "numbers, lists without what cannot be used",
    )
    add("--all", action="store_true", help=f"name every file, not the first {data_report.SHOWN} of each finding")


def run_doctor(args):
    """Examine, print, draw, mend. -> 0 if there are no errors, else 1"""
    if args.picture and Path(args.picture).suffix.lower() != ".png":
        raise InputError(f"{args.picture}: expected the name of a PNG file for the picture")
    if args.fix:
        doctor_fix.check_target(args.fix)
    diagnosis = doctor.examine(
        args.root, lambda results, total: tqdm(results, total=total, unit="image", disable=None, leave=False)
    )
    if diagnosis.survey is not None:
        print("\n".join([*data_report.summary(diagnosis), ""]))
    shown = sys.maxsize if args.all else data_report.SHOWN
    for line in data_report.findings(diagnosis, shown):
        print(line)
    print(data_report.verdict(diagnosis))
    if args.picture:
        data_report.picture(diagnosis, args.picture)
        print(f"picture: {args.picture}", file=sys.stderr)
    if args.fix:
        _fix(diagnosis, args.fix, shown)
    return 1 if diagnosis.findings.errors else 0


def _fix(diagnosis, target, shown):
    """Write what can be used into a new folder, and tell what could not."""
    fixed = doctor_fix.write_fixed(diagnosis, target)
    lists = ", ".join(f"{name} {count}" for name, count in fixed.lists.items())
    told = [f"mended copy, for --data {target}: {fixed.written} images with their masks ({lists})"]
    if fixed.left_out:
        told.append(f"left out ({len(fixed.left_out)}):")
        told += [f"    {id}: {why}" for id, why in fixed.left_out[:shown]]
        told += [f"    and {len(fixed.left_out) - shown} more"] if len(fixed.left_out) > shown else []
    print("\n".join(told), file=sys.stderr)
