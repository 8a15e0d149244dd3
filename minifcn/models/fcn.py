"""FCN-32s, FCN-16s and FCN-8s as tables: one backbone, one to three score layers, and the skips where branches meet."""

import numpy as np

from .. import layers
from ..card import Card
from ..errors import InputError, require_known
from ..layers.coordinates import IDENTITY, crop_offset, upsampled, upsampling_kernel
from ..layers.graph import IMAGE, Graph, coordinates, prefixed
from ..preprocessing import CAFFE, LITE0, Preprocessing
from .alexnet import alexnet_backbone
from .backbone import Backbone
from .classifier import generator
from .efficientnet_lite0 import LITE0_BACKBONES
from .vgg import mini_backbone, vgg16_backbone

VARIANTS = ("32s", "16s", "8s")
ALIGNMENTS = ("paper", "same")
UPSAMPLING = ("frozen", "learned")
# The published at-once training scales what its skips read.
AT_ONCE = {"pool4": 0.01, "pool3": 0.0001}
# name -> (builder of the backbone, what its usual weights expect)
BACKBONES: dict = {
    "mini": (mini_backbone, Preprocessing()),
    "vgg16": (vgg16_backbone, CAFFE),
    "alexnet": (alexnet_backbone, CAFFE),
    **{name: (build, LITE0) for name, build in LITE0_BACKBONES.items()},
}

KNOWN = {"variant": VARIANTS, "backbone": tuple(BACKBONES), "alignment": ALIGNMENTS, "upsampling": UPSAMPLING}


def fcn(
    variant: str = "8s",
    backbone: str = "mini",
    num_classes: int = 21,
    alignment: str = "paper",
    at_once: bool = False,
    seed: int = 0,
    *,
    upsampling: str = "frozen",
    width: int | None = None,
) -> Graph:
    """A fully convolutional network with freshly drawn weights: (N, 3, H, W) -> logits (N, num_classes, H, W), for any H and W.

    variant: "32s", "16s" or "8s". backbone: "mini", "vgg16", "alexnet" (CaffeNet), "efficientnet_lite0" or
    "efficientnet_lite0_head" (with its last 1×1 convolution); width: channels of mini's first group. alignment: "paper" pads
    the image by 100 and crops the result; "same" wastes nothing. at_once: scale the skips' inputs, which start out much larger
    than fc7's, to train 8s without the stages before it. upsampling: "frozen" bilinear kernels, or "learned" ones that start
    as bilinear.
    The network's `card` holds these arguments. Raises InputError for an unknown name.
    """
    options = dict(locals())  # the arguments, by name
    require_known("fcn: ", options, KNOWN)
    of_mini = {} if width is None else {"width": width}
    rng = generator("fcn: ", seed, num_classes=num_classes, **of_mini)
    if of_mini and backbone != "mini":
        raise InputError(f"fcn: width: only the mini backbone has one, not {backbone}")
    build, preprocessing = BACKBONES[backbone]
    body = build(alignment, rng, **of_mini)
    nodes = fcn_nodes(body, variant, num_classes, alignment, at_once=at_once, upsampling=upsampling, rng=rng)
    return Graph(nodes, card=Card("fcn", options, preprocessing), backbone_prefix=body.prefix)


def fcn_nodes(
    backbone: Backbone,
    variant: str,
    num_classes: int,
    alignment: str,
    *,
    at_once: bool = False,
    upsampling: str = "frozen",
    rng: np.random.Generator | None = None,
) -> dict:
    """The table of an FCN over a Backbone. Long, Shelhamer and Darrell, CVPR 2015, section 4.

        image ── backbone ──┬──────────── pool3 1/8 ── score_pool3 ────────────┐
                            ├── pool4 1/16 ── score_pool4 ───┐                 │
                            └── fc7 1/32 ── score_fr ── ×2 ──┴── + ── ×2 ──────┴── + ── ×8 ── logits     (FCN-8s)

    FCN-16s stops after the first sum and upsamples ×16; FCN-32s has no skip and upsamples ×32. Each branch is cropped to
    lie pixel on pixel over the one it is added to; the offsets are computed from the layers (`layers.coordinates`).
    """
    # A backbone that halves its maps exactly needs sizes that are multiples of its stride, and no cropping between branches.
    exact = alignment == "same" or backbone.input_pad > 0
    table: dict = {}
    at = {IMAGE: IMAGE}
    if exact:
        coarsest = max(stride for _, _, stride in backbone.features.values())
        table["pad_input"] = (layers.PadToMultiple(coarsest, pad=backbone.input_pad), [IMAGE])
        at[IMAGE] = "pad_input"
    table |= prefixed(backbone.nodes, backbone.prefix, at[IMAGE])
    at |= {feature: f"{backbone.prefix}.{node}" for feature, (node, _, _) in backbone.features.items()}
    positions = {name: coordinates(table, node) for name, node in at.items()}

    def score(feature):
        """A 1×1 convolution to the classes."""
        source = at[feature]
        if at_once and feature in AT_ONCE:
            table[f"scale_{feature}"] = (layers.Scale(AT_ONCE[feature]), [source])
            source = f"scale_{feature}"
        name = "score_fr" if feature == "fc7" else f"score_{feature}"
        table[name] = (layers.Conv2d(backbone.features[feature][1], num_classes, 1, rng, zero=True), [source])

    def upsample(name, factor, source, target):
        """An upsampling of `source` onto the grid of the feature or image `target`."""
        here, there = positions[source], positions[target]
        kernel = upsampling_kernel(factor, here, there)
        here, pad = here.then(upsampled(kernel, factor)), 0
        if exact:  # cut to exactly `factor` times the size, lying on the target
            before = crop_offset(here, there)
            here, pad = there, ((before, kernel - factor - before),) * 2
        if upsampling == "learned":
            layer = layers.LearnedUpsample(num_classes, factor, kernel=kernel, pad=pad)
        else:
            layer = layers.Upsample(factor, kernel=kernel, pad=pad)
        table[name], positions[name] = (layer, [source]), here

    def skip(feature, coarse):
        """Add the scores of a finer feature, cropped to where the upsampled coarser ones lie."""
        score(feature)
        offset = crop_offset(positions[feature], positions[coarse])
        table[f"crop_{feature}"] = (layers.CropLike(offset), [f"score_{feature}", coarse])
        table[f"fuse_{feature}"] = (layers.Add(), [coarse, f"crop_{feature}"])
        positions[f"fuse_{feature}"] = positions[coarse]

    score("fc7")
    positions["score_fr"] = positions["fc7"]
    if variant == "32s":
        upsample("upscore", 32, "score_fr", IMAGE)
    else:
        upsample("upscore2", 2, "score_fr", "pool4")
        skip("pool4", "upscore2")
    if variant == "16s":
        upsample("upscore16", 16, "fuse_pool4", IMAGE)
    if variant == "8s":
        upsample("upscore_pool4", 2, "fuse_pool4", "pool3")
        skip("pool3", "upscore_pool4")
        upsample("upscore8", 8, "fuse_pool3", IMAGE)
    last = list(table)[-1]
    table["crop"] = (layers.CropLike(crop_offset(positions[last], IDENTITY)), [last, IMAGE])
    return table
