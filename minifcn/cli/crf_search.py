"""Search the dense CRF's parameters for a network. Prints the mean IU on labelled images without a CRF and with each bilateral kernel
of a grid, best last, and then the options for `evaluate` and `predict`. Search on images that the network is not judged by; --limit
100 is enough."""

from itertools import product

from tqdm import tqdm

from .. import inference, models
from ..backend import to_device, to_host
from ..errors import InputError
from ..inference.segment import likeliest
from ..metrics import ConfusionMatrix
from . import options

HELP = "search the parameters of predict --crf"


def add_arguments(parser):
    options.add_device(parser)
    options.add_segmenter(parser)
    options.add_labelled(parser)
    add = parser.add_argument
    add("--weight", type=float, nargs="+", default=[3, 5, 10], help="weights of nearby pixels of similar colour")
    add("--xy", type=float, nargs="+", default=[30, 50, 80], help="how near, in pixels")
    add("--rgb", type=float, nargs="+", default=[3, 5, 10], help="how similar, in grey levels")
    add("--spatial", type=float, nargs=2, default=[3, 3], metavar=("WEIGHT", "XY"), help=options.SPATIAL)


def run(args):
    network = models.load_segmenter(args.weights).prepare()
    if network.card.builder == "panoptic":
        raise InputError(f"{args.weights}: a panoptic network takes no CRF; expected one of classes only")
    options.check_colours(args, network.card, "the CRF goes by colours")
    samples, classes = options.labelled(args, network.card)
    longest = options.longest_of(args, network.card)
    grid = list(product(args.weight, args.xy, args.rgb))
    matrices = {bilateral: ConfusionMatrix(len(classes)) for bilateral in [None, *grid]}
    for sample in tqdm(samples, unit="image", disable=None):
        image = inference.shrunk(sample.image, longest)
        probabilities = to_device(inference.probabilities(network, image, args.tile))
        for bilateral, matrix in matrices.items():
            found = probabilities
            if bilateral:
                found = inference.dense_crf(probabilities, image, bilateral=bilateral, spatial=args.spatial)
            matrix.update(sample.label, likeliest(to_host(found), sample.label.shape))
    if not matrices[None].counts.any():
        raise InputError(f"{args.data}: no pixel of split {args.split} is labelled, so there is nothing to choose by")
    scores = {bilateral: matrix.mean_iou() for bilateral, matrix in matrices.items()}
    ranked = sorted(scores, key=scores.get)
    for bilateral in ranked:
        name = "--bilateral {:g} {:g} {:g}".format(*bilateral) if bilateral else "without a CRF"
        print(f"{name:28}{100 * scores[bilateral]:8.2f}")
    if best := ranked[-1]:
        print("--bilateral {:g} {:g} {:g} --spatial {:g} {:g}".format(*best, *args.spatial))
    return 0
