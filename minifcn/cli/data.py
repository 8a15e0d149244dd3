"""Draw a toy data set, download a real one, or check your own."""

from .. import data
from . import doctor, download, options
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
    toy.add_argument("root", metavar="FOLDER", help="where to; must not hold a VOC2012 folder yet")
    toy.add_argument("--train", type=int, default=800, help="training images")
    toy.add_argument("--val", type=int, default=50, help="validation images")
    toy.add_argument("--size", type=int, default=128, help="typical height and width in pixels")
    toy.add_argument("--seed", type=options.at_least(0), default=0, help="of the drawing")
    download.add_parser(kinds, options.HelpFormatter)
    doctor.add_doctor(kinds)


def run(args):
    return {"toy": _toy, "download": download.run, "doctor": doctor.run_doctor}[args.kind](args)


def _toy(args):
    data.write_toyvoc(args.root, train=args.train, val=args.val, size=args.size, seed=args.seed)
    notice(f"{args.train} training and {args.val} validation images written to {args.root}")
    return 0
