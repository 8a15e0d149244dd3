"""FCN-32s, FCN-16s and FCN-8s as tables: one backbone, one to three score layers, and the skips where branches meet."""

import numpy as np

from .. import layers
from ..card import Card
from ..errors import InputError
from ..layers.coordinates import IDENTITY, crop_offset, upsampled, upsampling_kernel
from ..preprocessing import CAFFE, LITE0, Preprocessing
from .alexnet import alexnet_backbone
from .efficientnet_lite0 import efficientnet_lite0_backbone
from .graph import IMAGE, Graph, prefixed
from .vgg import mini_backbone, vgg16_backbone

VARIANTS = ("32s", "16s", "8s")
ALIGNMENTS = ("paper", "same")
UPSAMPLING = ("frozen", "learned")
# name -> (builder of the backbone, what its usual weights expect)
BACKBONES = {
    "mini": (mini_backbone, Preprocessing()),
    "vgg16": (vgg16_backbone, CAFFE),
    "alexnet": (alexnet_backbone, CAFFE),
    "efficientnet_lite0": (efficientnet_lite0_backbone, LITE0),
}


def fcn(
    variant="8s",
    backbone="mini",
    num_classes=21,
    alignment="paper",
    at_once=False,
    seed=0,
    *,
    upsampling="frozen",
    width=None,
):
    """A fully convolutional network with freshly drawn weights: (N, 3, H, W) -> logits (N, num_classes, H, W), for any H and W.

        image ── backbone ──┬──────────── pool3 1/8 ── score_pool3 ────────────┐
                            ├── pool4 1/16 ── score_pool4 ───┐                 │
                            └── fc7 1/32 ── score_fr ── ×2 ──┴── + ── ×2 ──────┴── + ── ×8 ── logits     (FCN-8s)

    FCN-16s stops after the first sum and upsamples ×16; FCN-32s has no skip and upsamples ×32. Each branch is cropped to
    lie pixel on pixel over the one it is added to; the offsets are computed from the layers (`layers.coordinates`).
    (Long, Shelhamer and Darrell, CVPR 2015, section 4.)

    variant: "32s", "16s" or "8s". backbone: "mini", "vgg16", "alexnet" (CaffeNet) or "efficientnet_lite0"; width: mini's
    number of channels in its first group. alignment: "paper" pads the image by 100 and crops the result; "same" wastes
    nothing. at_once: scale the skips' inputs, which start out much larger than fc7's, to train 8s without the stages
    before it. upsampling: "frozen" bilinear kernels, or "learned" ones that start so.
    The network's `card` holds these arguments. Raises InputError for an unknown name.
    """
    options = {
        "variant": variant,
        "backbone": backbone,
        "num_classes": num_classes,
        "alignment": alignment,
        "at_once": at_once,
        "seed": seed,
        "upsampling": upsampling,
        "width": width,
    }
    _check(options)
    rng = np.random.default_rng(seed)
    build, preprocessing = BACKBONES[backbone]
    body = build(alignment, rng, **({} if width is None else {"width": width}))
    # A backbone that halves its maps exactly needs sizes that are multiples of its stride, and no cropping between branches.
    exact = alignment == "same" or body.input_pad > 0
    table = {}
    if exact:
        table["pad_input"] = (layers.PadToMultiple(body.stride, pad=body.input_pad), [IMAGE])
    table |= prefixed(body.nodes, body.prefix, "pad_input" if exact else IMAGE)
    image = table["pad_input"][0].coordinates() if exact else IDENTITY
    pool3, pool4, fc7 = (Graph(table).coordinates(body.node(feature)) for feature in ("pool3", "pool4", "fc7"))

    def score(feature):
        return layers.Conv2d(body.features[feature][1], num_classes, 1, rng, zero=True)

    def skip(feature, scale, before, offset):
        """The nodes that add a skip to the node `before`: score_pool4, crop_pool4, fuse_pool4."""
        source = body.node(feature)
        if at_once:
            table[f"scale_{feature}"] = (layers.Scale(scale), [source])
            source = f"scale_{feature}"
        table[f"score_{feature}"] = (score(feature), [source])
        table[f"crop_{feature}"] = (layers.CropLike(offset), [f"score_{feature}", before])
        table[f"fuse_{feature}"] = (layers.Add(), [before, f"crop_{feature}"])

    def upsample(factor, at, target):
        """An upsampling of maps at coordinates `at`, and the coordinates after it: those of `target`, if exact."""
        kernel = upsampling_kernel(factor, at, target)
        at, pad = at.then(upsampled(kernel, factor)), 0
        if exact:  # cut to exactly `factor` times the size, lying on the target
            before = crop_offset(at, target)
            at, pad = target, ((before, kernel - factor - before),) * 2
        if upsampling == "learned":
            return layers.LearnedUpsample(num_classes, factor, kernel=kernel, pad=pad), at
        return layers.Upsample(factor, kernel=kernel, pad=pad), at

    table["score_fr"] = (score("fc7"), [body.node("fc7")])
    if variant == "32s":
        layer, at = upsample(32, fc7, image)
        table["upscore"] = (layer, ["score_fr"])
    else:
        layer, at = upsample(2, fc7, pool4)
        table["upscore2"] = (layer, ["score_fr"])
        skip("pool4", 0.01, "upscore2", crop_offset(pool4, at))
        if variant == "16s":
            layer, at = upsample(16, at, image)
            table["upscore16"] = (layer, ["fuse_pool4"])
        else:
            layer, at = upsample(2, at, pool3)
            table["upscore_pool4"] = (layer, ["fuse_pool4"])
            skip("pool3", 0.0001, "upscore_pool4", crop_offset(pool3, at))
            layer, at = upsample(8, at, image)
            table["upscore8"] = (layer, ["fuse_pool3"])
    table["crop"] = (layers.CropLike(crop_offset(at, IDENTITY)), [list(table)[-1], IMAGE])
    return Graph(table, card=Card("fcn", options, preprocessing), backbone_prefix=body.prefix)


def _check(options):
    """Raise InputError for an option that no FCN has."""
    for what, known in (
        ("variant", VARIANTS),
        ("backbone", tuple(BACKBONES)),
        ("alignment", ALIGNMENTS),
        ("upsampling", UPSAMPLING),
    ):
        if options[what] not in known:
            raise InputError(f"fcn: {what}: expected one of {', '.join(known)}; got {options[what]!r}")
    if options["num_classes"] < 1:
        raise InputError(f"fcn: num_classes: expected at least 1, got {options['num_classes']}")
    if options["width"] is not None and options["backbone"] != "mini":
        raise InputError(f"fcn: width: only the mini backbone has one, not {options['backbone']}")
