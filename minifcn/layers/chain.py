"""Layers one after the other."""

from .base import Layer
from .blocks import BatchNorm2d, Conv2d
from .plain import ReLU


def run_chain(chain, x, train=False):
    """Yield (name, x) after each layer of a chain {name: layer}.

    A value costs more to fetch from memory and to put back than to change. So in inference, where nobody asks for what
    lies between, a convolution does at once what its normalisation and its ReLU would do: one step, of the last's name.
    """
    names = list(chain)
    while names:
        name = names.pop(0)
        layer, followers = chain[name], {}
        if isinstance(layer, Conv2d) and not train:
            if names and isinstance(chain[names[0]], BatchNorm2d):
                followers["norm"] = chain[name := names.pop(0)]
            if names and isinstance(chain[names[0]], ReLU):
                followers["relu"] = chain[name := names.pop(0)]
        x = layer.forward(x, train, **followers)
        for follower in followers.values():
            follower.forget()
        yield name, x


class Sequential(Layer):
    """Layers one after the other, by name: Sequential(conv1=Conv2d(...), relu1=ReLU(), ...)."""

    def __init__(self, **layers):
        self.layers = layers

    def children(self):
        return self.layers

    def forward(self, x, train=False):
        """x through every layer in turn."""
        for _, maps in run_chain(self.layers, x, train):
            x = maps
        return x

    def backward(self, dy):
        """dy back through every layer, last to first."""
        for layer in reversed(self.layers.values()):
            dy = layer.backward(dy)
        return dy
