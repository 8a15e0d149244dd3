"""Write one HTML page to explore a network on a photograph: every map in its place in the network; for each pixel what each layer
sees there, and its score as the exact sum of what each branch contributes; sliders that mute a branch. For some channels it shows what
they look for: an image made by gradient ascent, and with --data the windows of other images that excite them most. The page is one file
of at most 8 MB and loads nothing else."""

import time
from functools import partial
from pathlib import Path

from tqdm import tqdm

from .. import data, models
from ..data.images import image_files, read_image
from ..errors import InputError
from ..files import make_folder
from ..inference import ascent, maps, shrunk
from ..inference.explore import channels_of_text, chosen, explore
from ..report import explorer
from . import options
from .networks import at_least
from .predict import PRETRAINED
from .progress import notice

HELP = "look into a network, on a page for one photograph"
LONGEST, LIMIT = 500, 200


def add_arguments(parser):
    options.add_device(parser)
    options.add_segmenter(parser, own=PRETRAINED)
    add = parser.add_argument
    add("photo", metavar="PHOTO", help="an image file")
    add("--out", default="explore.html", metavar="FILE", help="the page to write")
    shrink = f"shrink the photograph to this longer side first (default: as in the network's training, else {LONGEST})"
    add("--resize", type=at_least(1), metavar="PIXELS", help=shrink)
    given = "channels to show with what they look for; without a value, none (default: some, chosen for the photograph)"
    add("--channels", nargs="*", metavar="NODE:CHANNEL", help=given)
    where = "also show the windows that excite these channels most, from the images of a folder or data set"
    add("--data", metavar="PATH", help=where)
    add("--split", default="train", help=options.SPLIT)
    add("--limit", type=at_least(1), default=LIMIT, help="use only this many images of --data, from the first on")
    options.add_exif(parser)


def run(args):
    out, start = Path(args.out), time.perf_counter()
    if out.is_dir() or out.suffix.lower() not in (".html", ".htm"):  # which no photograph is
        raise InputError(f"{out}: expected the name of a page to write, such as explore.html")
    network = models.load_segmenter(args.weights)
    options.check_colours(args, network.card, "the page shows what channels see in colours")
    image = read_image(args.photo, args.exif)
    network.card.preprocessing.check_bands(image.shape[2], args.photo)
    searched, skipped = _images(args) if args.data else [], []
    if searched and not any(True for _ in _readable(searched, network, args.data, skipped)):
        return options.tell_skipped(skipped)
    make_folder(out.parent)
    args.resize = args.resize or network.card.longest or LONGEST
    found = explore(network, shrunk(image, args.resize), explorer.MAPS)
    notes = _notes(found, image, args, time.perf_counter() - start)
    channels = chosen(found) if args.channels is None else channels_of_text(args.channels, found)
    looks = {channel: {"ascent": None, "windows": []} for channel in channels}
    if channels:
        notes += _ascend(network, looks)
    if channels and searched:
        notes += _search(network, looks, searched, args)
    size = explorer.write_explorer(out, Path(args.photo).name, found, network, looks, notes)
    notice(f"{out}: {size / 1e6:.1f} MB, {time.perf_counter() - start:.0f} seconds")
    return 0


def _notes(found, image, args, seconds):
    """Sentences on the photograph, the maps and the scores."""
    height, width = found.seen.picture.shape[:2]
    notes = [
        f"The network: {args.weights}. The photograph: {image.shape[1]} × {image.shape[0]} pixels, seen as {width} × {height}.",
        f"The maps: {sum(node.shape[1] for node in found.nodes.values()):,} channels of {len(found.nodes)} layers, in 8 bits from each "
        f"channel's lowest to its highest value; large ones are averaged over some cells, as is said beside them.",
    ]
    if found.branches:
        notes.append(
            "The scores: 32-bit floating-point numbers, added up here in 64 bits. When the page was written, the sum of what the branches "
            f"contribute was at most {found.difference:.1g} off the network's own scores, which is rounding."
        )
    return [*notes, f"All this took {seconds:.1f} seconds."]


def _ascend(network, looks):
    """Add an image made by gradient ascent to each channel. -> a note"""
    start, nodes = time.perf_counter(), list(dict.fromkeys(name for name, _ in looks))
    for node in tqdm(nodes, desc="gradient ascent", unit="layer", disable=None, leave=False):
        of_node = [channel for name, channel in looks if name == node]
        for channel, picture in zip(of_node, ascent.ascend(network, node, of_node), strict=True):
            looks[node, channel]["ascent"] = picture
    seconds, steps = time.perf_counter() - start, ascent.STEPS * len(ascent.SIDES)
    return [f"The images by gradient ascent: {len(looks)} of {steps} steps each, from noise; {seconds:.0f} seconds."]


def _search(network, looks, images, args):
    """Add the windows of --data that excite each channel most. -> a note"""
    start, skipped = time.perf_counter(), []
    bar = tqdm(images, desc="windows", unit="image", disable=None, leave=False)
    shown = (shrunk(image, args.resize) for image in _readable(bar, network, args.data, skipped))
    for channel, windows in maps.windows(network.prepare(), shown, list(looks)).items():
        looks[channel]["windows"] = windows
    options.tell_skipped(skipped)
    count, folder = len(images) - len(skipped), Path(args.data).resolve().name
    return [f"The windows: out of {count} images of {folder}; {time.perf_counter() - start:.0f} seconds."]


def _readable(images, network, folder, skipped):
    """The images that functions read, each once the one before is used; the errors of those that cannot be read are added to `skipped`."""
    for read in images:
        try:
            image = read()
            network.card.preprocessing.check_bands(image.shape[2], folder)
        except InputError as error:
            skipped.append(error)
            continue
        yield image


def _images(args):
    """The first images of --data, each as a function that reads it."""
    try:
        paths = image_files(args.data)[: args.limit] if Path(args.data).is_dir() else []
    except InputError:
        paths = []
    if paths:
        return [partial(read_image, path, args.exif) for path in paths]
    dataset = data.open_dataset(args.data, args.split, limit=args.limit, exif=args.exif)
    return [partial(lambda i: dataset[i].image, i) for i in range(len(dataset))]
