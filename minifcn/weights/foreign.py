"""Weights from the places people have them, put into a network: which names fit, which are missing, which are left
over."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingFileError
from ..layers.init import bilinear
from ..preprocessing import CAFFE, LITE0, TORCHVISION, Preprocessing
from . import names, npz
from .caffe import read_caffemodel
from .safetensors_file import read_safetensors, write_safetensors
from .torch_file import read_torch

# network or trunk -> (their names -> ours, the preprocessing of the weights that are published for it)
_TORCH = {
    "vgg16": (names.torchvision_vgg16, TORCHVISION),
    "alexnet_torchvision": (names.torchvision_alexnet, TORCHVISION),
    "efficientnet_lite0": (names.pytorch_lite0, LITE0),
}
_CAFFE = ("vgg16", "alexnet")


@dataclass
class Loaded:
    """What an import did. matched: their name -> ours; missing: ours that keep their start; left_over: theirs,
    unused."""

    source: str
    matched: dict = field(default_factory=dict)
    missing: list = field(default_factory=list)
    left_over: list = field(default_factory=list)

    def __str__(self):
        text = f"{self.source}: {len(self.matched)} arrays taken"
        for what, these in (("missing here, left as they were", self.missing), ("left over there", self.left_over)):
            if these:
                more = f" and {len(these) - 8} more" if len(these) > 8 else ""
                text += f"; {len(these)} {what}: {', '.join(these[:8])}{more}"
        return text


def load_torchvision(path, model, sha256=None):
    """Read a .pth file (a state dict of PyTorch's) into a VGG16, torchvision's AlexNet, an EfficientNet-Lite0, or an
    FCN over one.

    PyTorch is not needed. The preprocessing that belongs to the weights is set on the model. -> Loaded. Raises
    ValueError, and changes nothing, for a file that holds something else, a shape that does not fit, or a missing name
    other than a score layer's; FileNotFoundError if there is no file.
    """
    rename, preprocessing = _for(path, model, _TORCH, "a PyTorch file")
    arrays = {name: (rename(name), array) for name, array in read_torch(path, sha256).items()}
    return _adopt(path, model, arrays, preprocessing)


def load_caffemodel(path, model, sha256=None):
    """Read a .caffemodel into a VGG16, a CaffeNet, or an FCN over one (voc-fcn32s, 16s, 8s, at-once, alexnet).

    The blobs of a frozen upsampling must be the bilinear kernel that the network has; otherwise learned upsampling is
    the one to choose. Returns and raises as load_torchvision.
    """
    _for(path, model, dict.fromkeys(_CAFFE, True), "a Caffe model")
    arrays = {
        f"{layer}[{i}]": (names.caffe(layer, i), blob)
        for layer, blobs in read_caffemodel(path, sha256).items()
        for i, blob in enumerate(blobs)
    }
    return _adopt(path, model, arrays, CAFFE)


def save_safetensors(path, model, **meta):
    """Write a model's weights as .safetensors, bit-equal when read back; its `config`, preprocessing and `meta` go
    along as metadata."""
    told = {**model.card.describe(), **meta}
    write_safetensors(path, model.state_dict(), {key: json.dumps(value) for key, value in told.items()})


def load_safetensors(path, model, sha256=None):
    """Read a .safetensors file into a model: one that `save_safetensors` wrote, or a PyTorch state dict of a known
    network.

    Returns and raises as load_torchvision; the preprocessing is the file's own where it tells one.
    """
    arrays, meta = _read_safetensors(path, sha256)
    if meta:
        npz.require_same_network(path, meta, model)
        arrays = {name: (name, array) for name, array in arrays.items()}
        return _adopt(path, model, arrays, Preprocessing.from_dict(meta.get("preprocessing"), path))
    rename, preprocessing = _for(path, model, _TORCH, "a PyTorch state dict")
    return _adopt(path, model, {name: (rename(name), array) for name, array in arrays.items()}, preprocessing)


def read_own(path):
    """(arrays by our names, meta data) of a file that this library wrote, .npz or .safetensors.

    Raises InputError or FileNotFoundError, naming the file; also for one that does not say which network it is of.
    """
    if Path(path).suffix == ".safetensors":
        arrays, meta = _read_safetensors(path)
    else:
        arrays, meta = npz.read_archive(path)
        arrays = npz.section(arrays, "weights")
    if "network" not in meta:
        raise InputError(f"{path}: expected a network of this library; the file does not say which its weights are for")
    return arrays, meta


def is_own(path):
    """Whether a file is an .npz, or a .safetensors that `save_safetensors` wrote. Raises as its reader does."""
    return Path(path).suffix == ".npz" or (Path(path).suffix == ".safetensors" and bool(_read_safetensors(path)[1]))


def _read_safetensors(path, sha256=None):
    """(arrays, the meta data that `save_safetensors` wrote; none if another program wrote the file)"""
    arrays, metadata = read_safetensors(path, sha256)
    if "network" not in metadata:
        return arrays, {}
    try:
        return arrays, {key: json.loads(text) for key, text in metadata.items()}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected metadata in JSON, got {error}") from error


def load_any(path, model):
    """Read weights into a model from a file of any known kind, told by its ending. -> Loaded"""
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; expected weights")
    readers = {
        ".pth": load_torchvision,
        ".pt": load_torchvision,
        ".caffemodel": load_caffemodel,
        ".safetensors": load_safetensors,
        ".npz": _load_npz,
    }
    if path.suffix not in readers:
        raise InputError(
            f"{path}: expected weights ({', '.join(readers)}), got a file ending in {path.suffix or 'nothing'}"
        )
    return readers[path.suffix](path, model)


def _load_npz(path, model):
    meta = npz.load(path, model)
    model.card.take_over(meta, path)
    return Loaded(str(path), {name: name for name in model.state_dict()})


def network_name(model):
    """The name of a classifier, or of the trunk of an FCN; None where the model does not tell."""
    return model.card.options.get("backbone", model.card.builder)


def _for(path, model, known, what):
    """The entry of `known` for a model's network or trunk."""
    name = network_name(model)
    if name not in known:
        raise InputError(f"{path}: {what} can be read for {', '.join(known)}; this network is {name or 'unnamed'}")
    return known[name]


def _adopt(path, model, arrays, preprocessing):
    """Put arrays {their name: (our name or None, array)} into the model, and its preprocessing with them. -> Loaded"""
    own, loaded = model.state_dict(), Loaded(str(path))
    prefix = f"{model.backbone_prefix}." if model.backbone_prefix else ""
    sources = {}
    for theirs, (ours, array) in arrays.items():
        if ours is None:
            continue
        target = next((name for name in (prefix + ours, ours) if name in own), None)
        frozen = ours.removesuffix(".weight") + ".kernel_1d"
        if target:
            if target in sources:
                raise InputError(f"{path}: {theirs} and {sources[target]} are both {target}")
            own[target] = _fitted(path, theirs, array, target, own[target])
        elif frozen in own:
            target = frozen
            _require_bilinear(path, theirs, array, own[frozen])
        else:
            loaded.left_over.append(theirs)
            continue
        sources[target] = theirs
    loaded.matched = {theirs: target for target, theirs in sources.items()}
    loaded.missing = [name for name in own if name not in sources and not name.endswith(".kernel_1d")]
    needed = [name for name in loaded.missing if not name.startswith(("score", "upscore"))]
    if needed or not sources:
        raise InputError(
            f"{path}: weights of another network: {len(needed)} names missing (such as {', '.join(needed[:3])}); "
            f"it has {', '.join(list(arrays)[:3])}, … ({len(arrays)} in all)"
        )
    model.load_state_dict(own)
    if preprocessing:
        model.card.preprocessing = preprocessing
    return loaded


def _fitted(path, theirs, array, ours, like):
    """An array in the shape of `like`, if it has the same numbers in the same order.

    Old Caffe files write every blob with four axes, and a fully connected layer is a convolution's kernels laid flat.
    """
    shape = array.shape
    while len(shape) > 1 and shape[0] == 1 != like.shape[0]:
        shape = shape[1:]
    flat = (shape[0], int(np.prod(shape[1:]))) if shape else ()
    if array.size != like.size or flat != (like.shape[0], int(np.prod(like.shape[1:]))):
        raise InputError(f"{path}: {theirs}: expected shape {like.shape} for {ours}, got {array.shape}")
    if array.dtype.kind != "f":
        raise InputError(f"{path}: {theirs}: expected floating-point numbers, got {array.dtype}")
    return array.reshape(like.shape)


def _require_bilinear(path, theirs, array, line):
    """Raise InputError unless a transposed convolution's kernel is line ⊗ line on the diagonal and zero elsewhere."""
    k = len(line)
    square = array.ndim == 4 and array.shape[0] == array.shape[1] and array.shape[2:] == (k, k)
    if not (square and np.allclose(array, bilinear(len(array), k), atol=1e-6)):
        raise InputError(
            f"{path}: {theirs} {array.shape} is not the bilinear {k}x{k} kernel that this network upsamples with; "
            "a network with upsampling='learned' can take it"
        )
