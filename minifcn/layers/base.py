"""What a layer is: parameters, one cache, a forward, a backward, and what it says about itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import DTypeLike

from .. import ops
from ..backend import Array, array_module, run_blocks, to_device, to_host
from ..errors import DtypeError, InputError
from ..ops.geometry import Cache, require_shape
from .coordinates import IDENTITY, Affine


class Parameter:
    """An array that is learned, its gradient, and how the optimiser should treat it.

    value, grad: arrays of one shape and dtype, on the chosen device. Backward passes add to grad by `add_gradient`.
    lr_mult and decay_mult multiply the learning rate and the weight decay (Caffe's convention: 2 and 0 for biases).
    A frozen parameter gets no update, and no gradient is computed for it.
    """

    def __init__(self, value: Array, *, lr_mult: float = 1.0, decay_mult: float = 1.0, frozen: bool = False):
        self.value = to_device(value)
        self.lr_mult = lr_mult
        self.decay_mult = decay_mult
        self.frozen = frozen
        self._grad = None

    def with_value(self, value: Array) -> "Parameter":
        """Another Parameter that the optimiser treats alike."""
        return Parameter(value, lr_mult=self.lr_mult, decay_mult=self.decay_mult, frozen=self.frozen)

    @property
    def grad(self) -> Array:
        """The sum of the gradients since the last `zero_grad`; zeros that are never read take no memory."""
        if self._grad is None:
            # Zeros by zeros_like are written one by one; these take memory only where something is added to them.
            self._grad = array_module(self.value).zeros(self.value.shape, self.value.dtype)
        return self._grad

    @grad.setter
    def grad(self, gradient):
        self._grad = gradient

    def add_gradient(self, gradient: Array) -> None:
        """grad += gradient. The first one after `zero_grad` is kept without a copy, so the caller must own it."""
        if self.frozen:
            return
        if self._grad is None:
            self._grad = gradient
        else:
            self._grad += gradient

    def zero_grad(self) -> None:
        """Set grad to zero."""
        self._grad = None


class Layer:
    """A named node in a tree of layers. Parameters, generators and children are the attributes that hold them.

    Children may also stand in a list, tuple or dict. A layer with children writes `forward(x, train=False)` and
    `backward(dy)` by hand, or is a `Graph`; a layer that is one operation derives from `Leaf`.
    """

    forward: Callable  # written by Leaf, Graph, or by hand
    backward: Callable
    name: str | None = None  # the dotted name within the network, for messages; set by `name_all`

    @property
    def title(self) -> str:
        kind = type(self).__name__
        return f"{self.name} ({kind})" if self.name else kind

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Any InputError raised inside this context names the layer."""
        try:
            yield
        except InputError as error:
            raise type(error)(f"{self.title}: {error}") from error

    def children(self) -> dict:
        """The layers directly inside this one, by name: the attribute's, and the key or position in a collection."""
        found = {}
        for key, value in vars(self).items():
            if isinstance(value, Layer):
                found[key] = value
            elif isinstance(value, dict | list | tuple):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                found.update({f"{key}.{inner}": layer for inner, layer in items if isinstance(layer, Layer)})
        return found

    def walk(self, prefix: str = "") -> Iterator[tuple[str, "Layer"]]:
        """Yield (dotted prefix, layer) for this layer and all inside it."""
        yield prefix, self
        for key, child in self.children().items():
            yield from child.walk(f"{prefix}{key}.")

    def _collect(self, kind):
        """All attributes of one kind in this tree, by dotted name."""
        return {
            prefix + key: value
            for prefix, layer in self.walk()
            for key, value in vars(layer).items()
            if isinstance(value, kind)
        }

    def parameters(self) -> dict[str, Parameter]:
        """dict of dotted name -> Parameter, frozen ones included, in the order of construction; each shared one once."""
        first = {}
        for name, parameter in self._collect(Parameter).items():
            first.setdefault(id(parameter), (name, parameter))
        return dict(first.values())

    def generators(self) -> dict[str, np.random.Generator]:
        """dict of dotted name -> numpy.random.Generator, for layers that draw at random."""
        return self._collect(np.random.Generator)

    def buffers(self) -> dict:
        """dict of dotted name -> (layer, attribute): arrays that belong to the state without being learned."""
        return {
            prefix + key: (layer, key) for prefix, layer in self.walk() for key in getattr(layer, "buffer_names", ())
        }

    def layers_of(self, kind: type) -> list:
        """All layers of one kind in this tree."""
        return [layer for _, layer in self.walk() if isinstance(layer, kind)]

    def name_all(self) -> Self:
        """Give every layer its dotted name, for error messages. A network does so once it is complete."""
        for prefix, layer in self.walk():
            layer.name = prefix.rstrip(".") or None
        return self

    def zero_grad(self) -> None:
        """Set every gradient to zero; until then, backward passes add up."""
        for parameter in self.parameters().values():
            parameter.zero_grad()

    def _state(self):
        """dict of dotted name -> (owner, attribute) of every array that belongs to the state."""
        return {name: (parameter, "value") for name, parameter in self.parameters().items()} | self.buffers()

    def move_towards(self, other: "Layer", share: float) -> None:
        """Move every array of the state, in place, this share of the way to its counterpart in a network of the same shape."""

        def block(mine, theirs):
            mine += share * (theirs - mine)

        for mine, theirs in zip(self._state().values(), other._state().values(), strict=True):
            run_blocks(block, getattr(*mine), getattr(*theirs))

    def astype(self, dtype: DTypeLike) -> Self:
        """Convert all parameters and buffers to float32 or float64, in place; gradients start again from zero. Raises DtypeError for others."""
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise DtypeError(f"astype: expected float32 or float64, got {np.dtype(dtype)}")
        for owner, key in self._state().values():
            setattr(owner, key, getattr(owner, key).astype(dtype))
        self.zero_grad()
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """dict of dotted name -> NumPy array (a copy) of every parameter and buffer."""
        return {name: to_host(getattr(*at)).copy() for name, at in self._state().items()}

    def load_state_dict(self, state: dict) -> None:
        """Set all values by name. Raises InputError, and changes nothing, unless names and shapes agree exactly.

        Older files call the frozen kernel of an upsampling `line` instead of `kernel_1d`.
        """
        own, state = self._state(), dict(state)
        for name in own.keys() - state.keys():
            old = name.removesuffix("kernel_1d") + "line"
            if name.endswith(".kernel_1d") and old in state:
                state[name] = state.pop(old)
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise InputError(
                f"weights of another network: {len(missing)} missing keys (such as {missing[:2]}), "
                f"{len(unexpected)} unexpected keys (such as {unexpected[:2]})"
            )
        values = {}
        for name, at in own.items():
            given, here = state[name], getattr(*at)
            if given.shape != here.shape or given.dtype.kind != "f":
                raise InputError(
                    f"weights of another network: {name}: expected floating-point numbers of shape {here.shape}, "
                    f"got {given.dtype} of shape {given.shape}"
                )
            values[name] = to_device(to_host(given).astype(here.dtype, copy=True))
        for (owner, key), value in zip(own.values(), values.values(), strict=True):
            setattr(owner, key, value)


class Leaf(Layer):
    """A layer that is one operation. A subclass writes `run(*inputs, train) -> (y, cache)` and, right below it,
    `run_backward(dy, cache)` -> the gradient of its input, or a tuple of those of several inputs (None for one that gets none).

    A `run` that can write y over x takes `overwrite`, and so does a `run_backward` that can write dx over dy; one that can
    leave out the gradient of its input takes `inputs`.

    The layer keeps one cache: a forward with train=True fills it and backward removes it, so that nothing piles up.
    Besides its passes, it declares what tools need that read networks without running them: `output_shape` and, where the
    defaults here do not hold, `multiply_adds`, `coordinates`, `receptive_field`, its ONNX operator and the attributes below.
    """

    run: Callable  # written by the subclass
    run_backward: Callable
    _cache = None

    # What a network may do with the memory around this layer.
    size_only: tuple = ()  # positions of inputs that only lend their size
    caches_input = False  # its cache refers to its first input
    caches_output = False  # its cache refers to its output
    owns_results = False  # y shares no memory with an input, nor dx with the upstream gradient (ReLU in place aside)

    # The operator and attributes of ONNX that compute the same; what depends on an input's size is left to the exporter.
    onnx_operator: str | None = None
    onnx_attributes: dict = {}

    def forward(self, *inputs: Array, train: bool = False, **options: bool) -> Array:
        """inputs -> y. With train=True the layer remembers what backward needs. Raises InputError that names the layer.

        options: further arguments of this layer's `run`.
        """
        with self.named_in_errors():
            y, cache = self.run(*inputs, train=train, **options)
        self._cache = (cache, y.shape, y.dtype) if train else None
        return y

    def backward(self, dy: Array, **options: bool) -> Array:
        """dy -> dx, adding to the parameters' gradients. Raises InputError without a forward(x, train=True) before it and
        unless dy has the shape of that forward's y, DtypeError unless it has its dtype.

        options: further arguments of this layer's `run_backward`.
        """
        with self.named_in_errors():
            if self._cache is None:
                raise InputError("backward needs a forward(x, train=True) before it, and takes its cache only once")
            cache, shape, dtype = self._cache
            require_shape("backward", "an upstream gradient", dy, shape)
            if dy.dtype != dtype:
                raise DtypeError(f"backward: expected an upstream gradient of {dtype}, like the output, got {dy.dtype}")
            self._cache = None
            return self.run_backward(dy, cache, **options)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_cache"}  # a copy has not run

    def forget(self) -> None:
        """Drop the cache, as a forward without train=True does."""
        self._cache = None

    def output_shape(self, *shapes: tuple) -> tuple:
        """The shape of the output for inputs of these shapes. Raises InputError where they do not fit."""
        return shapes[0]

    def multiply_adds(self, *shapes: tuple) -> int:
        """Multiply-adds of the definition, whatever algorithm runs."""
        return 0

    def extra_cached(self, shape: tuple) -> int:
        """How many values the cache holds besides input and output, for an input of `shape`."""
        return 0

    def is_view(self, shape: tuple, train: bool) -> bool:
        """Whether the output lies in the memory of the first input, of this shape."""
        return False

    def coordinates(self) -> Affine:
        """The affine map from a position in the input to one in the output, along the height. See `coordinates`."""
        return IDENTITY

    def receptive_field(self, field: float, step: Fraction) -> tuple:
        """(field, step) of the output, given the input's: the side of the part of the image that one value depends on,
        and the image pixels between neighbours."""
        return field, step

    def reads(self, cells: np.ndarray, axis: int, shapes: list, position: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last cell of input number `position` that these output cells read, along an axis of maps.

        shapes: those of all inputs. Cells outside the input are padding.
        """
        read = cells if shapes[position][axis] > 1 else 0 * cells  # all cells read the one value
        return read, read

    def onnx(self) -> tuple[str, dict]:
        """(operator, attributes) of ONNX that compute the same. Raises NotImplementedError where there are none."""
        if self.onnx_operator is None:
            raise NotImplementedError(f"{type(self).__name__} has no ONNX operator")
        return self.onnx_operator, dict(self.onnx_attributes)


class Operation(Leaf):
    """A layer that binds one operation of `ops`, by name, to its settings: y = operation_forward(x, **settings)."""

    operation: str | None = None
    settings: dict = {}
    owns_results = True

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return getattr(ops, f"{self.operation}_forward")(x, **self.settings)

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        return getattr(ops, f"{self.operation}_backward")(dy, cache)
