"""Checkpoints: everything that a run needs to go on as if it had never stopped; and networks rebuilt from files."""

from pathlib import Path

from .. import models, weights
from ..data.transforms import Preprocessing
from ..weights import foreign, npz

IMAGENET = "imagenet"  # in place of a file: the ImageNet weights of the installed package


def write(path, *, model, optimizer, stream, classes, config, iteration, best):
    """Write weights, optimiser, data stream, random generators and the best score, whole or not at all."""
    arrays = {f"weights/{name}": a for name, a in model.state_dict().items()}
    moments, optimizer_rest = optimizer.state()
    order, stream_rest = stream.state()
    arrays.update({f"optimizer/{name}": a for name, a in moments.items()})
    arrays.update({f"stream/{name}": a for name, a in order.items()})
    meta = {
        **npz.describe(model),
        "classes": list(classes),
        "config": config.as_dict(),
        "iteration": iteration,
        "best": best,
        "optimizer": optimizer_rest,
        "stream": stream_rest,
        "generators": {name: g.bit_generator.state for name, g in model.generators().items()},
    }
    npz.write_archive(path, arrays, meta)


def read(path):
    """(arrays, meta) of a checkpoint. Raises FileNotFoundError or ValueError, naming the file, if it is none."""
    arrays, meta = npz.read_archive(path)
    missing = [key for key in ("config", "iteration", "best", "optimizer", "stream", "generators") if key not in meta]
    if missing:
        raise ValueError(f"{path}: expected a checkpoint to resume from, got weights only (no {', '.join(missing)})")
    return arrays, meta


def restore(path, arrays, meta, *, model, optimizer, stream):
    """Put a checkpoint's state back. Raises ValueError, naming the file, if it belongs to something else."""
    try:
        model.load_state_dict(npz.section(arrays, "weights"))
        optimizer.restore(npz.section(arrays, "optimizer"), meta["optimizer"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    model.preprocessing = Preprocessing.from_dict(meta.get("preprocessing"), path) or model.preprocessing
    stream.preprocessing = model.preprocessing
    stream.restore(npz.section(arrays, "stream"), meta["stream"])
    for name, generator in model.generators().items():
        generator.bit_generator.state = meta["generators"][name]


def load_network(path):
    """(the network that a file of this library holds, .npz or .safetensors; its class names). Raises ValueError or FileNotFoundError, naming the file.

    The class names are None where the file does not tell them.
    """
    arrays, meta = foreign.read_own(path)
    try:
        model = models.from_config(meta["network"])
        model.load_state_dict(arrays)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    model.preprocessing = Preprocessing.from_dict(meta.get("preprocessing"), path) or model.preprocessing
    return model, tuple(meta["classes"]) if "classes" in meta else None


def load_segmenter(path):
    """(the FCN that a file holds, its class names). Raises ValueError for a file that holds another network."""
    model, classes = load_network(path)
    if not isinstance(model, models.FCN) or classes is None:
        raise ValueError(f"{path}: expected a trained FCN and its class names, got {type(model).__name__} weights")
    return model, classes


def start_from(source, model):
    """Begin an FCN where something else ended: an FCN as coarse or coarser, or a classifier over whose trunk it is built.

    source: "imagenet", for the installed package's weights; an .npz file of this library; or a file of another one's.
    Raises ValueError or FileNotFoundError, naming the file, if it does not fit.
    """
    if source == IMAGENET:
        weights.load_pretrained(model)
        return
    if Path(source).suffix != ".npz":
        weights.load_any(source, model)
        return
    given, _ = load_network(source)
    try:
        if isinstance(given, models.FCN):
            model.initialise_from(given)
        else:
            models.surgery.transplant(given, model)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    model.preprocessing = given.preprocessing
