"""What a layer is: parameters, one cache, a forward and a backward. And a chain of layers."""

import numpy as np

from ..backend import array_module, to_device, to_host
from ..errors import InputError


class Parameter:
    """An array that is learned, its gradient, and how the optimiser should treat it.

    value, grad: arrays of one shape and dtype, on the chosen device. Backward passes add to grad by `add_gradient`. lr_mult and decay_mult multiply the learning rate
    and the weight decay (Caffe's convention: 2 and 0 for biases). A frozen parameter gets no gradient and no update.
    """

    def __init__(self, value, *, lr_mult=1.0, decay_mult=1.0, frozen=False):
        self.value = to_device(value)
        self.lr_mult = lr_mult
        self.decay_mult = decay_mult
        self.frozen = frozen
        self._grad = None

    @property
    def grad(self):
        """The sum of the gradients since the last `zero_grad`; zeros that nobody asks for take no memory."""
        if self._grad is None:
            # Zeros by zeros_like are written one by one; these take memory only where something is added to them.
            self._grad = array_module(self.value).zeros(self.value.shape, self.value.dtype)
        return self._grad

    @grad.setter
    def grad(self, gradient):
        self._grad = gradient

    def add_gradient(self, gradient):
        """grad += gradient. The first one after `zero_grad` is taken as it is, so it has to be the caller's to give."""
        if self._grad is None:
            self._grad = gradient
        else:
            self._grad += gradient

    def zero_grad(self):
        """Set grad to zero."""
        self._grad = None


class Layer:
    """A named node in a tree of layers. Parameters, generators and children are the attributes that hold them.

    A subclass with children writes `forward(x, train=False)` and `backward(dy)` by hand; a leaf derives from `Leaf`.
    """

    name = None  # the dotted name within the network, for messages; set by `name_all`

    def children(self):
        """The layers directly inside this one, by attribute name, in the order they were made."""
        return {key: value for key, value in vars(self).items() if isinstance(value, Layer)}

    def _walk(self, prefix=""):
        yield prefix, self
        for key, child in self.children().items():
            yield from child._walk(f"{prefix}{key}.")

    def _collect(self, kind):
        """All attributes of one kind in this tree, by dotted name."""
        found = {}
        for prefix, layer in self._walk():
            found.update({prefix + key: value for key, value in vars(layer).items() if isinstance(value, kind)})
        return found

    def parameters(self):
        """dict of dotted name -> Parameter, frozen ones included, in the order of construction."""
        return self._collect(Parameter)

    def generators(self):
        """dict of dotted name -> numpy.random.Generator, for layers that draw at random."""
        return self._collect(np.random.Generator)

    def buffers(self):
        """dict of dotted name -> (layer, attribute): arrays that belong to the state without being learned."""
        return {
            prefix + key: (layer, key) for prefix, layer in self._walk() for key in getattr(layer, "buffer_names", ())
        }

    def layers_of(self, kind):
        """All layers of one kind in this tree."""
        return [layer for _, layer in self._walk() if isinstance(layer, kind)]

    def name_all(self):
        """Tell every layer its dotted name, for error messages. A network calls it once it is complete."""
        for prefix, layer in self._walk():
            layer.name = prefix.rstrip(".") or None
        return self

    def zero_grad(self):
        """Set every gradient to zero; until then, backward passes add up."""
        for parameter in self.parameters().values():
            parameter.zero_grad()

    def astype(self, dtype):
        """Convert all parameters and buffers to float32 or float64, in place; gradients start again from zero."""
        for parameter in self.parameters().values():
            parameter.value = parameter.value.astype(dtype)
            parameter.zero_grad()
        for layer, key in self.buffers().values():
            setattr(layer, key, getattr(layer, key).astype(dtype))
        return self

    def state_dict(self):
        """dict of dotted name -> NumPy array (a copy) of every parameter and buffer."""
        state = {name: parameter.value for name, parameter in self.parameters().items()}
        state.update({name: getattr(layer, key) for name, (layer, key) in self.buffers().items()})
        return {name: to_host(array).copy() for name, array in state.items()}

    def load_state_dict(self, state):
        """Take over values by name. Raises InputError, and changes nothing, unless names and shapes agree exactly."""
        own = self.state_dict()
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise InputError(
                f"weights of another network: {len(missing)} names missing (such as {missing[:2]}), "
                f"{len(unexpected)} unknown (such as {unexpected[:2]})"
            )
        for name, array in own.items():
            if state[name].shape != array.shape:
                raise InputError(
                    f"weights of another network: {name}: expected shape {array.shape}, got {state[name].shape}"
                )
        values = {}
        for name, array in own.items():
            if state[name].dtype.kind != "f":
                raise InputError(
                    f"weights of another network: {name}: expected floating-point numbers, got {state[name].dtype}"
                )
            values[name] = to_device(to_host(state[name]).astype(array.dtype, copy=True))
        parameters, buffers = self.parameters(), self.buffers()
        for name, value in values.items():
            if name in parameters:
                parameters[name].value = value
            else:
                setattr(*buffers[name], value)


class Leaf(Layer):
    """A layer that is one operation. A subclass writes `run(x, train) -> (y, cache)` and `run_backward(dy, cache) -> dx`.

    The layer keeps one cache: a forward with train=True fills it, backward takes it away, so that nothing piles up.
    """

    _cache = None

    def forward(self, x, train=False, **options):
        """x -> y. With train=True the layer remembers what backward needs. Raises InputError that names the layer.

        options: what this layer's `run` takes besides.
        """
        try:
            y, cache = self.run(x, train, **options)
        except InputError as error:
            raise type(error)(f"{self.title}: {error}") from error
        self._cache = (cache,) if train else None
        return y

    def backward(self, dy, **options):
        """dy -> dx, adding to the parameters' gradients. Raises InputError without a forward(x, train=True) before it.

        options: what this layer's `run_backward` takes besides.
        """
        if self._cache is None:
            raise InputError(
                f"{self.title}: backward needs a forward(x, train=True) before it, and takes its cache only once"
            )
        (cache,), self._cache = self._cache, None
        try:
            return self.run_backward(dy, cache, **options)
        except InputError as error:
            raise type(error)(f"{self.title}: {error}") from error

    def forget(self):
        """Let go of the cache, as a forward without train=True does."""
        self._cache = None

    @property
    def title(self):
        kind = type(self).__name__
        return f"{self.name} ({kind})" if self.name else kind
