"""Checkpoints: everything that a run needs to go on as if it had never stopped; and networks rebuilt from files."""

from .. import models, weights
from ..data.labels import VOC_CLASSES, palette_from
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
    """(the network that a file of this library holds, .npz or .safetensors; its class names). Raises ValueError or
    FileNotFoundError, naming the file.

    The class names are None where the file does not tell them.
    """
    arrays, meta = foreign.read_own(path)
    network, classes = meta["network"], meta.get("classes")
    try:
        _require_as_wide(network, arrays)
        model = models.from_config(network)
        model.load_state_dict(arrays)
        if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
            raise ValueError(f"expected a list of class names, got {str(classes)[:60]!r}")
        if classes is not None and len(classes) != network["num_classes"]:
            raise ValueError(f"expected {network['num_classes']} class names, got {len(classes)}")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    model.preprocessing = Preprocessing.from_dict(meta.get("preprocessing"), path) or model.preprocessing
    if "palette" in meta:
        model.palette = palette_from(meta["palette"], path)
    return model, classes and tuple(classes)


def _require_as_wide(network, arrays):
    """Raise ValueError if a file's settings ask for a larger network than its arrays fill: before one is made."""
    if not isinstance(network, dict) or "num_classes" not in network:
        raise ValueError(f"expected the settings of a network, got {str(network)[:60]!r}")
    for setting, names in (("num_classes", ("score_fr", "fc8", "fc")), ("width", ("vgg.conv1_1",))):
        there = [len(arrays[f"{name}.weight"]) for name in names if f"{name}.weight" in arrays]
        if network.get(setting) is not None and there != [network[setting]]:
            raise ValueError(f"{setting} {network[setting]} but arrays for {there[0] if there else 'none'}")


def load_segmenter(path):
    """(the FCN that a file holds, its class names). Raises ValueError for a file that holds another network.

    Where the file tells no names, as one converted from another library's, they are VOC's or "class 0", "class 1", ….
    """
    model, classes = load_network(path)
    if not isinstance(model, models.FCN):
        raise ValueError(f"{path}: expected a trained FCN, got a classifier's weights")
    if classes is None and model.num_classes == len(VOC_CLASSES):
        classes = VOC_CLASSES
    return model, classes or tuple(f"class {i}" for i in range(model.num_classes))


def start_from(source, model):
    """Begin an FCN where something else ended: an FCN as coarse or coarser, or a classifier over whose trunk it is
    built.

    source: "imagenet", for the installed package's weights; a file of this library; or one of another's.
    -> what was taken over, in words. Raises ValueError or FileNotFoundError, naming the file, if it does not fit.
    """
    if source == IMAGENET:
        return str(weights.load_pretrained(model))
    if not foreign.is_own(source):
        return str(weights.load_any(source, model))
    given, _ = load_network(source)
    try:
        if isinstance(given, models.FCN):
            model.initialise_from(given)
            told = f"starts where FCN-{given.variant} ended; what that does not have starts from zero"
        else:
            left = models.surgery.transplant(given, model)
            told = f"gives its trunk; {len(left)} arrays left over there: {', '.join(left)}"
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    model.preprocessing = given.preprocessing
    return f"{source}: {told}"
