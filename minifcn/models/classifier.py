"""A classifier: layers in a row from an image to one score a class."""

from .. import layers


class Classifier(layers.Sequential):
    """An ImageNet network as it was published: (N, 3, H, W) -> (N, num_classes).

    map_size: the side of the last maps of an image of the native size, where the fully connected part begins.
    """

    def __init__(self, chain, *, card, map_size):
        super().__init__(**chain)
        self.card, self.map_size = card, map_size
        self.name_all()


def fully_connected(inputs, num_classes, rng):
    """The upper half that VGG16 and CaffeNet share, by name: two hidden layers of 4096, each dropped out by half,
    and the scores."""
    return {
        "flatten": layers.Flatten(),
        "fc6": layers.Linear(inputs, 4096, rng),
        "relu6": layers.ReLU(in_place=True),
        "drop6": layers.Dropout(0.5, rng),
        "fc7": layers.Linear(4096, 4096, rng),
        "relu7": layers.ReLU(in_place=True),
        "drop7": layers.Dropout(0.5, rng),
        "fc8": layers.Linear(4096, num_classes, rng),
    }
