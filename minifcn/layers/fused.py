"""Layers fused with those that follow them, in one pass over memory: a convolution in inference, a normalisation in training."""

from .. import ops
from ..backend import Array
from ..errors import InputError
from ..ops.geometry import Cache
from .base import Leaf
from .parametric import BatchNorm2d, Conv2d
from .plain import ReLU


class FusedConv2d(Leaf):
    """A Conv2d fused with the BatchNorm2d and ReLU that follow it: loading a value from memory and storing it costs more
    than changing it.

    norm, relu: those layers, or None. prepared: fold the normalisation into the weights, and transform them for the
    convolution, once instead of at each call; the layers' values must not change after that. For inference only: training
    runs the layers one by one.
    """

    def __init__(
        self, conv: Conv2d, norm: BatchNorm2d | None = None, relu: ReLU | None = None, *, prepared: bool = False
    ):
        self.parts = [layer for layer in (conv, norm, relu) if layer is not None]
        self.conv, self.norm = conv, norm
        self.activation = relu.operation if relu else "none"
        self.folded = self._fold() if prepared else None
        self.cached = {} if prepared else None  # what an algorithm derives from the weights

    def children(self) -> dict:
        return {}  # the parameters are those of the network that this was made of

    @property
    def title(self) -> str:
        return self.conv.title

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        if train:
            raise InputError("prepared for inference only; train the network that it was made of")
        w, b = self.folded or self._fold()
        settings = self.conv.settings_for(x.shape)
        y, _ = ops.conv2d_forward(x, w, b, **settings, activation=self.activation, cached=self.cached)
        if self.folded is None:  # else it is another network than the one that its layers train in
            for layer in self.parts:
                layer.forget()
        return y, None

    def _fold(self):
        w, b = self.conv.weight.value, self.conv.bias and self.conv.bias.value
        return self.norm.folded_into(w, b) if self.norm else (w, b)

    def output_shape(self, shape: tuple) -> tuple:
        return self.conv.output_shape(shape)


class FusedBatchNorm2d(Leaf):
    """A BatchNorm2d and the ReLU that follows it, in both passes of training."""

    caches_input = caches_output = owns_results = True

    def __init__(self, norm: BatchNorm2d, relu: ReLU):
        self.norm, self.relu = norm, relu

    def children(self) -> dict:
        return {}  # the parameters are those of the network that this was made of

    def parameters(self) -> dict:
        return self.norm.parameters()

    @property
    def title(self) -> str:
        return self.norm.title

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        self.norm.forget()
        self.relu.forget()
        return self.norm.run(x, train, activation=self.relu.operation)

    def run_backward(self, dy: Array, cache: Cache, overwrite: bool = False) -> Array:
        return self.norm.run_backward(dy, cache, overwrite)

    def output_shape(self, shape: tuple) -> tuple:
        return self.norm.output_shape(shape)
