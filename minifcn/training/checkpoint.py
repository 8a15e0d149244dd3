"""Checkpoints: everything that a run needs to go on as if it had never stopped; and networks rebuilt from files."""

from .. import models
from ..data.transforms import Preprocessing
from ..weights import npz


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
    stream.restore(npz.section(arrays, "stream"), meta["stream"])
    for name, generator in model.generators().items():
        generator.bit_generator.state = meta["generators"][name]


def load_network(path):
    """(the FCN that a weights or checkpoint file holds, its class names). Raises ValueError or FileNotFoundError, naming the file."""
    arrays, meta = npz.read_archive(path)
    if "network" not in meta or "classes" not in meta:
        raise ValueError(f"{path}: expected a trained network; the file does not say which network its weights are for")
    try:
        model = models.fcn(**meta["network"])
        model.load_state_dict(npz.section(arrays, "weights"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    if "preprocessing" in meta:
        values = meta["preprocessing"]
        model.preprocessing = Preprocessing(values["order"], tuple(values["mean"]), tuple(values["scale"]))
    return model, tuple(meta["classes"])
