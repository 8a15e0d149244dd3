"""A network's weights in a file of any known format: written, read, and matched with the network."""

import copy
import json
from contextlib import suppress
from pathlib import Path
from shlex import quote

import numpy as np

from ..card import Network, settings_of
from ..errors import InputError
from ..files import START
from ..preprocessing import CAFFE, LITE0, TORCHVISION
from . import names
from .adopt import Loaded, adopt
from .caffe import has_layer, read_caffemodel
from .checks import check_arrays, existing, parsing, require_ending
from .npz import by_chainer, read_archive, section, write_archive
from .safetensors import read_safetensors, write_safetensors
from .torch import read_torch

# network or backbone -> (their names -> ours, the preprocessing of the weights that are published for it)
_TORCH = {
    "vgg16": (names.torchvision_vgg16, TORCHVISION),
    "alexnet_torchvision": (names.torchvision_alexnet, TORCHVISION),
    "efficientnet_lite0": (names.pytorch_lite0, LITE0),
    "efficientnet_lite0_head": (names.pytorch_lite0, LITE0),
}
_CAFFE = {"vgg16": (names.caffe, CAFFE), "alexnet": (names.caffe, CAFFE)}
_CHAINER = {"vgg16": (names.chainer, CAFFE)}

# how a file's name ends -> its kind
_ENDINGS = {".npz": ".npz", ".safetensors": ".safetensors", ".caffemodel": "Caffe", ".onnx": "ONNX"}
_ENDINGS |= dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".tar"), "PyTorch")  # last.ckpt, model_best.pth.tar
CONVERT = "convert it first: minifcn convert {} NEW.npz --network vgg16 --variant 8s (or what it is of)"
_OTHERWISE = {"PyTorch": CONVERT, "Caffe": CONVERT, "ONNX": "weights.load_onnx reads it, without a network"}


def kind(path: str | Path, known: tuple = tuple(_ENDINGS.values())) -> str:
    """The kind of a weight file, one of `known`: by how it begins, or else by how its name ends.

    Raises MissingFileError, or InputError that says what else to do with a file of another kind.
    """
    path = existing(path, "weights")
    with open(path, "rb") as file:
        start = file.read(START)
    found = _ENDINGS.get(path.suffix.lower())
    if start.startswith(b"PK\x03\x04"):  # a zip file; its first member's name begins at byte 30
        found = ".npz" if start[30 : 30 + int.from_bytes(start[26:28], "little")].endswith(b".npy") else "PyTorch"
    elif start[4:9] == b"\0\0\0\0{":
        found = ".safetensors"
    elif start.startswith(b"\x80"):  # a pickle
        found = "PyTorch"
    if found is None:
        endings = ", ".join(_ENDINGS)
        raise InputError(f"{path}: expected weights ({endings}), got a file ending in {path.suffix or 'nothing'}")
    if found not in known:
        what = _OTHERWISE[found].format(quote(str(path)))
        raise InputError(f"{path}: expected a {' or '.join(known)} file, got one of {found}; {what}")
    return found


def save(path: str | Path, network: Network, half: bool = False, **meta: object) -> None:
    """Write a network's weights as .npz, with its card and `meta` (JSON-ready, or NumPy's numbers) beside them.

    half: as float16, in half the space. Whatever the type, `models.load` makes a float32 network of them. Raises InputError for what
    float16 cannot hold.
    """
    require_ending(path, ".npz")
    arrays = {f"weights/{name}": array for name, array in _arrays(network, half).items()}
    write_archive(path, arrays, _describe(path, network, meta))


def save_safetensors(path: str | Path, network: Network, half: bool = False, **meta: object) -> None:
    """Write a network's weights as .safetensors, with its card and `meta` as metadata; the arguments are those of `save`."""
    require_ending(path, ".safetensors")
    texts = {key: json.dumps(value) for key, value in _describe(path, network, meta).items()}
    write_safetensors(path, _arrays(network, half), texts)


def _arrays(network, half):
    if getattr(network, "prepared", False):
        raise InputError(
            "prepared for inference, which folds weights into each other; save the network that it was made of"
        )
    arrays = network.state_dict()
    check_arrays(arrays)  # what no reader would take
    if not half:
        return arrays
    for name, array in arrays.items():
        if (largest := np.abs(array).max(initial=0)) > np.finfo(np.float16).max:
            raise InputError(f"{name}: expected numbers that float16 can hold, got one of {largest:.3g}")
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def load(path: str | Path, network: Network = None) -> Network | dict:
    """Read what `save` or `save_safetensors` wrote into a network and its card. -> the file's metadata

    Without a network: -> the one that the file holds, as `models.load`.
    Raises MissingFileError, or InputError naming the file, and changes nothing, if it is of another network or of none.
    """
    if network is None:
        from ..models import load as load_network  # the one import that runs upward: only there networks are built

        return load_network(path)
    arrays, meta = read(path)
    _load(path, network, arrays, meta)
    return meta


def is_own(path: str | Path) -> bool:
    """Whether a file says of what network it is, for `models.load`. Raises as its reader does."""
    found = kind(path)
    if found == ".npz":
        return not by_chainer(path)
    return found == "ONNX" or (found == ".safetensors" and bool(read(path)[1]))


def _describe(path, network, meta):
    """The metadata of a file: a network's card, and what else is to be said. NumPy's numbers become Python's."""
    card = network.card.describe() if network.card else {}
    try:
        return json.loads(json.dumps({**card, **meta}, default=np.generic.item))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: expected metadata that JSON holds, got {error}") from error


def read(path: str | Path, sha256: str | None = None) -> tuple[dict, dict]:
    """(arrays by name, metadata) of an .npz or .safetensors file; without metadata if another program wrote it.

    Raises MissingFileError, or InputError naming the file.
    """
    if kind(path, (".npz", ".safetensors")) == ".npz":
        arrays, meta = read_archive(path)
        return section(arrays, "weights") if meta else arrays, meta
    arrays, texts = read_safetensors(path, sha256)
    network: object = None
    with suppress(LookupError, ValueError, RecursionError):
        network = json.loads(texts["network"])
    if not isinstance(network, dict) or not network.keys() & {"builder", "num_classes"}:  # no card of ours
        return arrays, {}
    with parsing(path, "metadata in JSON"):
        return arrays, {key: json.loads(text) for key, text in texts.items()}


def _load(path, network, arrays, meta):
    """Put a file's arrays and its metadata into a network. -> Loaded"""
    card = copy.copy(network.card)
    if card and "network" in meta:
        builder, options = settings_of(meta["network"], path)
        theirs, ours = {"builder": builder, **options}, {"builder": card.builder, **card.options}
        differ = [key for key in ours | theirs if key != "seed" and theirs.get(key) != ours.get(key)]
        if differ:
            values = ", ".join(f"{key} {theirs.get(key)!r} (expected {ours.get(key)!r})" for key in differ)
            raise InputError(f"{path}: weights of another network: {values}")
        card.take_over(meta, path)
    try:
        network.load_state_dict(arrays)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if card:
        network.card = card
    return Loaded(str(path), {name: name for name in arrays})


def load_any(path: str | Path, network: Network) -> Loaded:
    """Read weights into a network from a file of any kind but ONNX, whose networks come whole: ours, Chainer's (.npz), PyTorch's, Caffe's.
    -> Loaded. Raises as load_torchvision."""
    found = kind(path, (".npz", ".safetensors", "PyTorch", "Caffe"))
    if found == ".npz":
        return _take(path, network, read(path), _CHAINER, "Chainer's weights")
    readers = {".safetensors": load_safetensors, "PyTorch": load_torchvision, "Caffe": load_caffemodel}
    return readers[found](path, network)


def load_torchvision(path: str | Path, network: Network, sha256: str | None = None) -> Loaded:
    """Read a .pth file (a state dict of PyTorch's) into a VGG16, torchvision's AlexNet, an EfficientNet-Lite0, or an
    FCN or DeepLab over one.

    PyTorch is not needed. The preprocessing that belongs to the weights is set in the network's card. -> Loaded. Raises
    InputError, and changes nothing, for a file that holds something else, a shape that does not fit, or a missing key
    outside an FCN's own layers; MissingFileError if there is no file.
    """
    return _adopt(path, network, read_torch(path, sha256), _TORCH, "a PyTorch state dict")


def load_safetensors(path: str | Path, network: Network, sha256: str | None = None) -> Loaded:
    """Read a .safetensors file into a network: one that `save_safetensors` wrote, or a PyTorch state dict of a known
    network. Returns and raises as load_torchvision."""
    return _take(path, network, read(path, sha256), _TORCH, "a PyTorch state dict")


def load_caffemodel(path: str | Path, network: Network, sha256: str | None = None) -> Loaded:
    """Read a .caffemodel into a VGG16, a CaffeNet, an FCN over one (voc-fcn32s, 16s, 8s, at-once, alexnet), or a
    DeepLab-LargeFOV or -ASPP (also vgg16_20M, which they start from).

    The blobs of a frozen upsampling must be the bilinear kernel that the network has; a network with
    upsampling="learned" takes any. Returns and raises as load_torchvision.
    """
    loaded = _adopt(path, network, read_caffemodel(path, sha256), _CAFFE, "a Caffe model")
    if network.card.builder == "deeplab" and has_layer(path, "pool5a"):
        loaded.notes.append(
            "its pool5a, an average of 3x3 behind pool5, is not in this network: scores are not the published ones"
        )
    return loaded


def _take(path, network, given, known, what):
    arrays, meta = given
    return _load(path, network, arrays, meta) if meta else _adopt(path, network, arrays, known, what)


def _adopt(path, network, arrays, known, what):
    """Put another library's arrays into a network for which its names are known. -> Loaded"""
    if (name := network_name(network)) not in known:
        raise InputError(f"{path}: expected {what} for {', '.join(known)}, got a network {name or 'without a name'}")
    arrays, (rename, preprocessing) = names.unwrapped(arrays), known[name]
    if "conv1_1.weight" in arrays:  # Caffe's names: converted weights, which expect Caffe's preprocessing
        preprocessing = CAFFE
    loaded = adopt(path, network, arrays, rename, preprocessing)
    if known is _TORCH and name == "vgg16" and any(target.startswith("score") for target in loaded.matched.values()):
        loaded.notes.append(_pixels(preprocessing))
    return loaded


def _pixels(taken):
    """The note on a whole network over VGG16 in a PyTorch file: its preprocessing is guessed from names, and may be wrong."""
    seen = {
        "CAFFE": "as Caffe's weights do, in BGR less the mean",
        "TORCHVISION": "as torchvision's do, in RGB by mean and deviation",
    }
    own, other = ("CAFFE", "TORCHVISION") if taken == CAFFE else ("TORCHVISION", "CAFFE")
    return (
        f"taken to see pixels {seen[own]}; if {seen[other]}: network.card.preprocessing = minifcn.preprocessing.{other}"
    )


def network_name(network: Network) -> str | None:
    """The name of a classifier, or of the backbone of an FCN; None for a network without a card."""
    return network.card and network.card.options.get("backbone", network.card.builder)
