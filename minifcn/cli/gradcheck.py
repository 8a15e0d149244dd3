"""Compare the backward passes of whole networks with finite differences: few channels, float64, random upstream
gradients, read-only inputs. The exit code is 2 if the worst relative error is above 1e-6."""

import numpy as np

from .. import gradcheck, models
from ..errors import InputError
from . import options

UNET = "unet"
HELP = "check the backward passes against finite differences"


def add_arguments(parser):
    options.add_device(parser)
    add = parser.add_argument
    add("--variant", default="all", choices=("all", *models.VARIANTS, UNET), help="which network")
    alignment = "of an FCN; paper: pad 100 and crop; same: no such padding"
    add("--alignment", default="same", choices=models.ALIGNMENTS, help=alignment)
    add("--seed", type=options.at_least(0), default=0, help="random seed of weights, image and directions")


def run(args):
    rng = np.random.default_rng(args.seed)
    worst = 0.0
    for name in (*models.VARIANTS, UNET) if args.variant == "all" else (args.variant,):
        if name == UNET:
            size = (44, 48)
            model = models.unet(4, width=2, depth=2, padding="valid", seed=args.seed)
        else:
            size = (64, 70)
            model = models.fcn(name, "mini", 4, args.alignment, seed=args.seed, width=2)
        for key, parameter in model.parameters().items():
            if key.startswith("score"):  # zero at the start: no gradient would reach what they read
                parameter.value = rng.standard_normal(parameter.value.shape).astype(np.float32)
        found = gradcheck.check_layer(model, rng.standard_normal((3, 3, *size)), rng, directions=2, elements=2)
        print(f"{'U-Net' if name == UNET else f'FCN-{name}'}: {found}")
        worst = max(worst, found.max_relative_error)
    if not worst <= gradcheck.TOLERANCE:
        raise InputError(f"gradcheck: the worst relative error {worst:.1e} is above {gradcheck.TOLERANCE:.0e}")
    return 0
