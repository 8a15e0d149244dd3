"""FCN-32s, FCN-16s and FCN-8s: one trunk, one to three score layers, and skips joined by hand."""

from .. import layers
from ..backend import one_blas_thread
from ..errors import InputError
from . import alignment as align

VARIANTS = ("32s", "16s", "8s")


class FCN(layers.Layer):
    """A fully convolutional network for semantic segmentation. Long, Shelhamer and Darrell, CVPR 2015, section 4.

        image ── trunk ──┬──────────── pool3 1/8 ── score_pool3 ────────────┐
                         ├── pool4 1/16 ── score_pool4 ───┐                 │
                         └── fc7 1/32 ── score_fr ── ×2 ──┴── + ── ×2 ──────┴── + ── ×8 ── logits     (FCN-8s)

    FCN-16s stops after the first sum and enlarges ×16; FCN-32s has no skip and enlarges ×32. Each branch is cropped
    to lie pixel on pixel over the one it is added to; the offsets are computed from the layers (`alignment`).
    """

    def __init__(self, backbone, variant, num_classes, alignment, *, at_once=False, upsampling="frozen", rng):
        # A trunk that halves its maps exactly needs sizes that are multiples of its stride, and no cropping between branches.
        exact = alignment == "same" or backbone.frame > 0

        def score(tap):
            return layers.Conv2d(backbone.taps[tap][1], num_classes, 1, rng, zero=True)

        def enlarge(factor, at, target):
            """An enlargement of maps at coordinates `at`, and the coordinates after it: those of `target`, if exact."""
            kernel = align.enlarging_kernel(factor, at, target)
            at, pad = align.enlarged(at, factor, kernel), 0
            if exact:  # cut to exactly `factor` times the size, lying on the target
                before = align.crop_offset(at, target)
                at, pad = target, ((before, kernel - factor - before),) * 2
            if upsampling == "learned":
                return layers.LearnedUpsample(num_classes, factor, kernel=kernel, pad=pad), at
            return layers.Upsample(factor, kernel=kernel, pad=pad), at

        self.variant = variant
        self.num_classes = num_classes
        self.backbone = backbone
        # The published at-once training scales the skips' inputs, which start out much larger than fc7's.
        self.pool4_scale, self.pool3_scale = (0.01, 0.0001) if at_once else (1.0, 1.0)
        self.pad_input = layers.PadToMultiple(backbone.stride if exact else 1, frame=backbone.frame)
        self.score_fr = score("fc7")
        image = align.affine_of(self.pad_input)
        pool3, pool4, at = (image.then(align.affine_of_chain(backbone.up_to(tap))) for tap in ("pool3", "pool4", "fc7"))
        if variant == "32s":
            self.upscore, at = enlarge(32, at, image)
        else:
            self.upscore2, at = enlarge(2, at, pool4)
            self.score_pool4 = score("pool4")
            self.crop_pool4 = layers.Crop(align.crop_offset(pool4, at))
            if variant == "16s":
                self.upscore16, at = enlarge(16, at, image)
            else:
                self.upscore_pool4, at = enlarge(2, at, pool3)
                self.score_pool3 = score("pool3")
                self.crop_pool3 = layers.Crop(align.crop_offset(pool3, at))
                self.upscore8, at = enlarge(8, at, image)
        self.crop = layers.Crop(align.crop_offset(at, align.IDENTITY))
        self.name_all()

    def children(self):
        found = super().children()
        return {self.backbone.family if layer is self.backbone else key: layer for key, layer in found.items()}

    @property
    def _enlarge(self):
        """The transposed convolution that leads to the image's own size; it has another name in each variant."""
        return getattr(self, {"32s": "upscore", "16s": "upscore16", "8s": "upscore8"}[self.variant])

    @one_blas_thread
    def forward(self, x, train=False):
        """x (N, 3, H, W) -> logits (N, num_classes, H, W), for any H and W from 1 up."""
        size = x.shape[2:]
        taps = self.backbone.forward(self.pad_input.forward(x, train), train)
        score = self.score_fr.forward(taps["fc7"], train)  # 1/32
        if self.variant != "32s":
            score = self.upscore2.forward(score, train)  # 1/16
            skip = self.score_pool4.forward(_scaled(taps["pool4"], self.pool4_scale), train)
            score = score + self.crop_pool4.forward_to(skip, score.shape[2:], train)
        if self.variant == "8s":
            score = self.upscore_pool4.forward(score, train)  # 1/8
            skip = self.score_pool3.forward(_scaled(taps["pool3"], self.pool3_scale), train)
            score = score + self.crop_pool3.forward_to(skip, score.shape[2:], train)
        return self.crop.forward_to(self._enlarge.forward(score, train), size, train)

    @one_blas_thread
    def backward(self, dlogits, inputs=True):
        """dlogits (N, num_classes, H, W) -> dx (N, 3, H, W), adding to every parameter's gradient. Without `inputs`, None.

        A sum hands its gradient to both of its branches unchanged; the trunk adds up what comes back from the taps.
        """
        dtaps = {}
        d = self._enlarge.backward(self.crop.backward(dlogits))
        if self.variant == "8s":
            dtaps["pool3"] = _scaled(self.score_pool3.backward(self.crop_pool3.backward(d)), self.pool3_scale)
            d = self.upscore_pool4.backward(d)
        if self.variant != "32s":
            dtaps["pool4"] = _scaled(self.score_pool4.backward(self.crop_pool4.backward(d)), self.pool4_scale)
            d = self.upscore2.backward(d)
        dtaps["fc7"] = self.score_fr.backward(d)
        dx = self.backbone.backward(dtaps, inputs)
        return self.pad_input.backward(dx) if inputs else None

    def initialise_from(self, coarser):
        """Take over everything a trained, coarser variant shares with this network: the staged training of the paper.

        The new skip keeps its zero score layer, so that training goes on from the coarser network's prediction. (But for
        the enlargement: twice and then 16 times is not quite 32 times.)
        coarser: an FCN over the same trunk with as many classes. Raises InputError where that does not hold.
        """
        order = VARIANTS.index(self.variant) - VARIANTS.index(coarser.variant)
        if order < 0:
            raise InputError(f"FCN-{self.variant} cannot start from the finer FCN-{coarser.variant}")
        own, given = self.state_dict(), coarser.state_dict()
        if self.variant != coarser.variant:  # the last enlargement, to the image's size, is another one
            last = "upscore" if coarser.variant == "32s" else "upscore16"
            given = {name: value for name, value in given.items() if not name.startswith(last + ".")}
        new = [name for name in own if name not in given and not name.startswith(("score_pool", "upscore"))]
        for name in [*given, *new]:
            here, there = (state[name].shape if name in state else "nothing of that name" for state in (own, given))
            if here != there:
                raise InputError(
                    f"FCN-{self.variant} cannot start from this FCN-{coarser.variant}: {name}: {here} here, {there} there"
                )
        self.load_state_dict({**own, **given})
        return self


def _scaled(maps, scale):
    return maps if scale == 1 else maps * scale
