"""Checkpoints: everything that a run needs to go on as if it had never stopped; and networks rebuilt from files."""

import logging
from dataclasses import asdict

from .. import backend, models, weights
from ..card import settings_of
from ..data.labels import VOC_CLASSES
from ..errors import InputError
from ..tasks import SemanticSegmentation
from ..weights import formats, npz

log = logging.getLogger("minifcn.training")
IMAGENET = "imagenet"  # in place of a file: the ImageNet weights of the installed package


def write(run, stream):
    """Write a run's weights, optimiser, data stream, random generators and best score, whole or not at all.

    Under "weights" are those to use; where they are an average, those to go on with are under "latest".
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
        "class_weights": None if run.task.class_weights is None else run.task.class_weights.tolist(),
        "threads": backend.threads(),
        "optimizer": optimizer_rest,
        "stream": stream_rest,
        "generators": {name: g.bit_generator.state for name, g in run.model.generators().items()},
    }
    npz.write_archive(run.checkpoint, arrays, meta)


def read(path):
    """(arrays, meta) of a checkpoint. Raises InputError, naming the file, if it is none."""
    arrays, meta = npz.read_archive(path)
    if not {"config", "iteration", "best", "optimizer", "stream", "generators"} <= meta.keys():
        raise InputError(f"{path}: expected a checkpoint to resume from, got weights only")
    return arrays, meta


def restore(run, arrays, meta):
    """Put a checkpoint's state back into a new run. Raises InputError, naming the file, if it belongs to another one."""
    model, stream = run.model, run.stream
    model.card.take_over(meta, run.checkpoint)
    stream.preprocessing = model.card.preprocessing
    if meta.get("threads", backend.threads()) != backend.threads():  # which older files do not tell
        log.warning(
            "%s: trained with MINIFCN_THREADS=%s, goes on with %s: not the same bits as never stopped, for sums are added up in "
            "another order",
            run.folder,
            meta["threads"],
            backend.threads(),
        )
    try:
        run.network.load_state_dict(npz.section(arrays, "weights"))
        if run.network is not model:
            model.load_state_dict(npz.section(arrays, "latest"))
        run.optimizer.restore(npz.section(arrays, "optimizer"), meta["optimizer"])
        stream.restore(npz.section(arrays, "stream"), meta["stream"])
        for name, generator in model.generators().items():
            generator.bit_generator.state = meta["generators"][name]
        run.task = SemanticSegmentation(run.config.reduction, meta.get("class_weights"))
        run.done, run.best = int(meta["iteration"]), meta["best"]
    except (InputError, LookupError, TypeError, ValueError) as error:  # all but the first: a file edited by hand
        raise InputError(f"{run.checkpoint}: expected the state of this run: {error!s:.200}") from error


def load_network(path):
    """The network that a file of this library holds, .npz or .safetensors. Raises InputError, naming the file."""
    arrays, meta = formats.read(path)
    if not meta:
        raise InputError(
            f"{path}: weights of another library ({', '.join(list(arrays)[:3])}, … {len(arrays)} in all), which do not say of what "
            f"network; convert them first: minifcn convert {path} NEW.npz --network vgg16 --variant 8s (or what they are of)"
        )
    builder, options = settings_of(meta.get("network"), path)
    try:
        # Options that ask for more channels than any array has are refused before a network is made.
        widths = {len(array) for array in arrays.values() if array.ndim}
        for option in ("num_classes", "width"):
            if options.get(option) is not None and options[option] not in widths:
                raise InputError(f"{option} {options[option]} but no array of so many channels")
        model = models.build(builder, options)
        model.load_state_dict(arrays)
    except (InputError, TypeError) as error:  # TypeError: options that the builder does not have
        raise InputError(f"{path}: {error}") from error
    model.card.take_over(meta, path)
    return model


def load_segmenter(path):
    """The FCN that a file holds. Raises InputError for a file that holds another network.

    Where the file has no class names, as one converted from another library's, they are VOC's or "class 0", "class 1", ….
    """
    model = load_network(path)
    if model.card.builder != "fcn":
        raise InputError(f"{path}: expected a trained FCN, got a classifier's weights")
    if model.card.classes is None:
        count = model.card.num_classes
        model.card.classes = VOC_CLASSES if count == len(VOC_CLASSES) else numbered(count)
    return model


def numbered(count):
    """The names of classes that have none: class 0, class 1, …"""
    return tuple(f"class {i}" for i in range(count))


def start_from(source, model):
    """Begin an FCN where something else ended: an FCN as coarse or coarser, or a classifier with the same backbone.

    source: "imagenet", for the installed package's weights; a file of this library; or one of another's.
    -> what was taken over, as a message. Raises InputError or FileNotFoundError, naming the file, if it does not fit.
    """
    if source == IMAGENET:
        return str(weights.load_pretrained(model))
    if not formats.is_own(source):
        return str(weights.load_any(source, model))
    given = load_network(source)
    try:
        if given.card.builder == "fcn":
            variant, theirs, ours = given.card.options["variant"], given.card.num_classes, model.card.num_classes
            message = f"starts where FCN-{variant} ended; what that does not have starts from zero"
            if theirs != ours:
                given = models.surgery.replace_scores(given, ours)
                message += f", as do all score layers: it has {theirs} classes, this network {ours}"
            models.surgery.initialise_from(model, given)
        else:
            unexpected = models.surgery.transplant(given, model)
            message = f"gives its backbone; {len(unexpected)} unexpected keys: {', '.join(unexpected)}"
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    model.card.preprocessing = given.card.preprocessing
    return f"{source}: {message}"
