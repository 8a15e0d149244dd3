"""What the classifiers share."""

from .. import layers


def fully_connected(inputs, num_classes, rng):
    """The upper half that VGG16 and CaffeNet share, by name: two hidden layers of 4096, each dropped out by half,
    and the scores."""
    return {
        "flatten": layers.Flatten(),
        "fc6": layers.Linear(inputs, 4096, rng),
        "relu6": layers.ReLU(),
        "drop6": layers.Dropout(0.5, rng),
        "fc7": layers.Linear(4096, 4096, rng),
        "relu7": layers.ReLU(),
        "drop7": layers.Dropout(0.5, rng),
        "fc8": layers.Linear(4096, num_classes, rng),
    }
