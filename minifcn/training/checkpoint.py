"""Checkpoints: everything that a run needs to go on as if it had never stopped; and what a run may start from."""

import logging
from dataclasses import asdict
from shlex import quote

import numpy as np

from .. import backend, models
from ..errors import InputError
from ..weights import formats, npz
from ..weights.pretrained import PACKAGES

log = logging.getLogger("minifcn.training")
WHOLE = "frozen-semantic: expected --start with a network of the same classes, whose semantic part stays"
# Options that a panoptic network needs of its semantic network, which names and shapes of weights do not show.
SEMANTIC: dict = {
    "fcn": {"alignment": "same", "at_once": False},
    "unet": {"padding": "same"},
    "deeplab": {"output_stride": 16, "rates": [3, 6, 9]},
}


def write(run, stream):
    """Write a run's weights, optimiser, data stream, random generators and best score, whole or not at all.

    "weights" holds those to use; if they are an average, "latest" holds those to continue training with.
    """
    moments, optimizer_rest = run.optimizer.state()
    order, stream_rest = stream.state()
    sections = {"weights": run.network.state_dict(), "optimizer": moments, "stream": order}
    if run.network is not run.model:
        sections["latest"] = run.model.state_dict()
    arrays = {f"{section}/{name}": a for section, named in sections.items() for name, a in named.items()}
    meta = {
        **run.model.card.describe(),
        "config": asdict(run.config),
        "iteration": run.done,
        "best": run.best,
        "class_weights": None if run.class_weights is None else [float(weight) for weight in run.class_weights],
        "sums": _order_of_sums(run),
        "optimizer": optimizer_rest,
        "stream": stream_rest,
        "generators": {name: g.bit_generator.state for name, g in run.model.generators().items()},
    }
    npz.write_archive(run.checkpoint, arrays, meta)


def _order_of_sums(run):
    """In words, what the bits of a run depend on besides its settings."""
    size = run.world.size
    return backend.order_of_sums() + (f" in {size} processes" if size > 1 else "")


def read(path):
    """(arrays, meta) of a checkpoint. Raises InputError, naming the file, if it is not one."""
    arrays, meta = npz.read_archive(path)
    if not {"config", "iteration", "best", "optimizer", "stream", "generators"} <= meta.keys():
        raise InputError(f"{path}: expected a checkpoint to resume from, got weights only")
    return arrays, meta


def restore(run, arrays, meta):
    """Put a checkpoint's state back into a new run. Raises InputError, naming the file, if it belongs to another one."""
    model, stream = run.model, run.stream
    classes, begun = model.card.classes, np.size(npz.section(arrays, "stream").get("order", ()))
    model.card.take_over(meta, run.checkpoint)
    if classes != model.card.classes or begun not in (0, len(run.train_data)):
        raise InputError(
            f"{run.checkpoint}: began with {begun} images, classes {', '.join(model.card.classes)}; {run.config.data} has "
            f"{len(run.train_data)}, {', '.join(classes)}; put the data back, or begin anew with --start {quote(str(run.folder / 'best.npz'))}"
        )
    stream.preprocessing = model.card.preprocessing
    order = _order_of_sums(run)
    if (before := meta.get("sums", order)) != order:  # older files lack it
        log.warning(
            "%s: trained with %s, goes on with %s: not the same bits as never stopped, for sums are added up in another order",
            run.folder,
            before,
            order,
        )
    try:
        run.network.load_state_dict(npz.section(arrays, "weights"))
        if run.network is not model:
            model.load_state_dict(npz.section(arrays, "latest"))
        run.optimizer.restore(npz.section(arrays, "optimizer"), meta["optimizer"])
        stream.restore(npz.section(arrays, "stream"), meta["stream"])
        for name, generator in model.generators().items():
            generator.bit_generator.state = meta["generators"][name]
        run.weigh(meta.get("class_weights"))
        run.done, run.best = int(meta["iteration"]), meta["best"]
    except (InputError, LookupError, TypeError, ValueError) as error:  # all but the first: a file edited by hand
        raise InputError(f"{run.checkpoint}: expected the state of this run: {error!s:.200}") from error


def start_from(source, model, whole=False):
    """Begin a network where another ended: an FCN as coarse or coarser, a U-Net, a DeepLab, a panoptic network or its semantic part,
    or any network with the same backbone.

    source: "imagenet" or "hed", for the installed packages' weights; a file of this library; one of another's; or the name of
    a network that comes with this one. whole: the source must supply the whole semantic part, scores included.
    -> what was taken over, as a message. Raises InputError or FileNotFoundError, naming the file, if it does not fit.
    """
    if models.is_trained(source):
        given = models.pretrained(source)
    elif source in PACKAGES or not formats.is_own(source):
        if whole:
            raise InputError(f"{source}: {WHOLE}")
        return models.surgery.load_foreign(source, model)
    else:
        given = models.load(source)
    try:
        models.surgery.options_to_train(given)
        theirs, ours = given.card.num_classes, model.card.num_classes
        semantic = model.card.builder == "panoptic" and given.state_dict().keys() <= model.state_dict().keys()
        named = given.card.classes in (None, model.card.classes)
        if whole and not (theirs == ours and named and (semantic or given.card.builder == model.card.builder)):
            which = (
                f"{theirs} classes, the data have {ours}"
                if theirs != ours or named
                else "other classes than the data have"
            )
            raise InputError(f"a {given.card.title} for {which}; {WHOLE}")
        if semantic or (
            given.card.builder == model.card.builder and model.card.builder in ("unet", "deeplab", "panoptic")
        ):
            seen, channels = (one.card.options.get("channels", 3) for one in (given, model))
            if seen != channels:
                raise InputError(
                    f"a network for images of {seen} channel{'s' * (seen > 1)}, the data have {channels}; "
                    + (
                        "save them in colours, three equal channels will do"
                        if (seen, channels) == (3, 1)
                        else "train without --start"
                    )
                )
            expected = SEMANTIC.get(given.card.builder, {}) if model.card.builder == "panoptic" else {}
            for name, value in expected.items():
                if (found := given.card.options.get(name, value)) != value:
                    raise InputError(
                        f"{name.replace('_', '-')}: expected {value}, as a panoptic network has it, got {found}; train it so"
                    )
            models.surgery.take_over(model, given)
            message = f"starts where that {given.card.title} ended"
            message += ", and its objects afresh" if given.card.builder != model.card.builder else ""
            message += f", but for the scores: it has {theirs} classes, this network {ours}" if theirs != ours else ""
        elif given.card.builder in models.SEGMENTERS and given.card.builder != model.card.builder:
            models.surgery.take_over(model, given, backbone=True)
            message = "gives its backbone"
        elif given.card.builder == "fcn":
            variant, at_once = given.card.options["variant"], given.card.options.get("at_once", False)
            if variant != "32s" and theirs == ours and at_once != model.card.options.get("at_once", False):
                scaled = "scales" if at_once else "does not scale"
                raise InputError(
                    f"at-once: an FCN-{variant} that {scaled} its skips; {'add' if at_once else 'leave out'} --at-once"
                )
            message = f"starts where FCN-{variant} ended; what that does not have starts from zero"
            if theirs != ours:
                given = models.surgery.replace_scores(given, ours)
                message += f", as do all score layers: it has {theirs} classes, this network {ours}"
            models.surgery.initialise_from(model, given)
        else:
            same = given.card.classes is not None and given.card.classes == model.card.classes
            if given.card.builder == "vgg16" and model.card.options.get("variant") in ("largefov", "aspp"):
                unexpected, more = models.surgery.decimate(given, model), " and parts of fc6 and fc7"
            else:
                unexpected = models.surgery.transplant(given, model, scores=same)
                more = " and its scores" if same else ""
            message = f"gives its backbone{more}; {len(unexpected)} unexpected keys"
            message += f": {', '.join(unexpected)}" if unexpected else ""
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    model.card.preprocessing = given.card.preprocessing
    return f"{source}: {message}{other_name(given.card.classes, model.card.classes)}"


def other_name(theirs, ours):
    """What to add to a message where as many classes have other names: the first that differs; else nothing."""
    if not theirs or not ours or len(theirs) != len(ours) or theirs == ours:
        return ""
    number = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
    return f"; its class {number} is {theirs[number]}, here it is {ours[number]}"
