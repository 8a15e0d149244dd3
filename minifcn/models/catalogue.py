"""Networks by name, and networks with their weights: from files of this library, and those that come with it."""

from pathlib import Path
from shlex import quote

from ..card import settings_of
from ..data.labels import VOC_CLASSES
from ..errors import InputError
from ..layers import ExactSize
from ..layers.graph import IMAGE, Graph
from ..weights import formats, load_onnx
from . import surgery
from .alexnet import alexnet, alexnet_torchvision
from .deeplab import deeplab
from .efficientnet_lite0 import efficientnet_lite0
from .fcn import fcn
from .panoptic import panoptic
from .unet import sizes, unet
from .vgg import mini, vgg16

CLASSIFIERS = {
    "vgg16": vgg16,
    "alexnet": alexnet,
    "alexnet_torchvision": alexnet_torchvision,
    "efficientnet_lite0": efficientnet_lite0,
    "mini": mini,
}
SEGMENTERS = {"fcn": fcn, "unet": unet, "deeplab": deeplab, "panoptic": panoptic}
TRAINED = Path(__file__).parent / "trained"  # NAME.npz, and beside it a readable card, NAME.md
LONGEST = {"animals": 500, "animals_v3plus": 500}  # Card.longest of those trained on photographs of at most this side


def build(builder: str, options: dict) -> Graph:
    """A network with freshly drawn weights by its builder's name: "fcn", "unet", "deeplab", "panoptic" or a classifier's. See `Card`.

    The option "convolutional" turns a classifier into its heat-map network, the option "folded" any network into what
    `Graph.folded` makes of it. Raises InputError for an unknown builder, TypeError for options that it does not have.
    """
    builders: dict = {**SEGMENTERS, **CLASSIFIERS}
    if builder not in builders:
        raise InputError(f"expected a network out of {', '.join(builders)}, got {builder!r}")
    options = dict(options)
    convolutional, window = options.pop("convolutional", False), options.pop("window", None)
    folded = options.pop("folded", False)
    network = builders[builder](**options)
    network = surgery.convolutionalize(network, window) if convolutional else network
    return network.folded() if folded else network


def load(path: str | Path) -> Graph:
    """The network that a file of this library holds: float32 from .npz and .safetensors, as declared from .onnx. Raises InputError, naming the file."""
    if formats.kind(path) == "ONNX":
        network = load_onnx(path)
        if network.card is None:
            raise InputError(
                f"{path}: expected a network that minifcn exported, got another program's, which does not say how it sees pixels; "
                "load it in Python, by weights.load_onnx, and give it a card"
            )
        unpadded = network.card.builder == "unet" and network.card.options.get("padding", "valid") == "valid"
        return _of_sizes(network) if unpadded else network
    arrays, meta = formats.read(path)
    if not meta:
        raise InputError(
            f"{path}: weights of another library ({', '.join(list(arrays)[:3])}, … {len(arrays)} in all), which do not say of what "
            "network; " + formats.CONVERT.format(quote(str(path)))
        )
    builder, options = settings_of(meta.get("network"), path)
    try:
        # Options that ask for more channels than any array has are refused before a network is made.
        outputs, inputs = ({a.shape[i] for a in arrays.values() if a.ndim > i} for i in (0, 1))
        for option, found in (("num_classes", outputs), ("width", outputs), ("channels", inputs)):
            if options.get(option) is not None and options[option] not in found:
                raise InputError(f"{option} {options[option]} but no array of so many channels")
        network = build(builder, options)
        network.load_state_dict(arrays)
    except (InputError, TypeError) as error:  # TypeError: options that the builder does not have
        raise InputError(f"{path}: {error}") from error
    network.card.take_over(meta, path)
    return network


def _of_sizes(network):
    """An unpadded U-Net from an ONNX file, which does not say what sizes it takes, plus the layer that checks them."""
    table = {"size": (ExactSize(*sizes(network.card.options.get("depth", 4))), [IMAGE])}
    for name, (layer, inputs) in network.nodes.items():
        table[name] = layer, ["size" if i == IMAGE else i for i in inputs]
    found = Graph(table, network.outputs, card=network.card)
    found.image_shape = network.image_shape
    return found


def load_segmenter(path: str | Path) -> Graph:
    """The segmentation network that a file holds, or that comes with the library by this name (`pretrained`). Raises InputError for a file that holds another network.

    If the file has no class names, such as one converted from another library, they are VOC's or "class 0", "class 1", ….
    """
    if is_trained(path):
        return pretrained(str(path))
    network = load(path)
    if network.card.builder not in SEGMENTERS:
        raise InputError(f"{path}: expected a trained FCN, U-Net or DeepLab, got a classifier's weights")
    if (count := network.card.num_classes) > 256:
        raise InputError(f"{path}: expected at most 256 classes, as many as uint8 labels hold, got {count}")
    if network.card.classes is None:
        network.card.classes = VOC_CLASSES if count == len(VOC_CLASSES) else numbered(count)
    return network


def numbered(count: int) -> tuple:
    """The names of classes that have none: class 0, class 1, …"""
    return tuple(f"class {i}" for i in range(count))


def trained() -> list[str]:
    """The names of the networks whose weights come with this library."""
    return sorted(path.stem for path in TRAINED.glob("*.npz"))


def is_trained(source: str | Path) -> bool:
    """Whether this is the name of a network that comes with this library, and of no file."""
    return str(source) in trained() and not Path(source).exists()


def pretrained(name: str = "animals") -> Graph:
    """A segmentation network with the trained weights that come with this library, its class names and its colours.

    "animals": FCN-8s over EfficientNet-Lite0, for photographs: background, cat, cow, dog, horse, person, sheep; "animals_v3plus": DeepLabv3+
    for the same, better and slower. "nuclei": U-Net, for cells under a microscope: background, nucleus, border; see `inference.objects`. What each
    was trained on, and how good it is: see trained/NAME.md beside the weights. Raises InputError for another name.
    """
    if name not in trained():
        raise InputError(f"pretrained: expected one of {', '.join(trained())}; got {name!r}")
    network = load(TRAINED / f"{name}.npz")
    network.card.longest = LONGEST.get(name)
    return network
