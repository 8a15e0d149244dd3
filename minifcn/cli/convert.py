"""Read weights from .npz (also Chainer's), .safetensors, .onnx (of minifcn), PyTorch's .pth (PyTorch need not be installed) or Caffe's .caffemodel, and
write .npz or .safetensors with network and preprocessing beside the weights. Prints how many names matched, missing
keys and unexpected keys; nothing in a file is executed."""

from pathlib import Path

from .. import models, weights
from ..data.labels import read_class_names
from ..errors import InputError
from ..weights import formats
from ..weights.checks import require_ending
from ..weights.pretrained import PACKAGES
from . import networks
from .progress import notice

HELP = "convert weights from one file format to another"


def add_arguments(parser):
    add = parser.add_argument
    add("source", metavar="FROM", help="file to read; or imagenet or hed, as for train --start")
    add("target", metavar="TO", help="file to write, .npz or .safetensors; must not exist")
    add(
        "--network",
        choices=[name for name in networks.BACKBONES if name != "mini"],
        help="the network of the weights, if the file is another library's",
    )
    networks.add_network(parser, "fcn", "deeplab")
    names = "file with the names of its classes, one per line, background first; stored with the weights"
    add("--classes", metavar="FILE", help=names)
    add("--half", action="store_true", help="write 16-bit floats: half the size")


def run(args):
    source, target = Path(args.source), Path(args.target)
    writers = {".npz": weights.save, ".safetensors": weights.save_safetensors}
    require_ending(target, *writers)
    if target.exists():
        raise InputError(f"{target}: exists already; choose another name")
    classes = read_class_names(args.classes) if args.classes else None
    if args.source not in PACKAGES and formats.is_own(source):
        if others := [*networks.given_options(args), *(["network"] if args.network else [])]:
            option = others[-1].replace("_", "-")
            raise InputError(
                f"{source}: weights of minifcn's, which say of what network they are; leave out --{option}"
            )
        model = models.load(source)
        message = f"{source}: {len(model.state_dict())} arrays"
    elif args.network:
        args.num_classes = args.num_classes or (len(classes) if classes else None)
        model = networks.network_of(args)
        message = models.surgery.load_foreign(source, model)
    else:
        raise InputError(f"{source}: expected --network, the network of these weights")
    if classes:
        model.card.take_over({"classes": classes}, args.classes)
    writers[target.suffix.lower()](target, model, half=args.half)
    notice(message)
    notice(f"written: {target}")
    return 0
