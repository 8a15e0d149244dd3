"""A stand-in for a GPU's arrays that runs on any machine: NumPy inside, as strict as CuPy outside.

A StrictArray is not a NumPy array and never becomes one by itself; `get()` is the only way out and copies, as a GPU does.
It raises TypeError where it meets a NumPy array that has axes, and for arguments that CuPy's functions lack. Every result
is a StrictArray, a single number too (shape ()). `empty` is filled with NaN, and tiles run last to first, because
neither contents nor order are promised.
"""

import operator
import types

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..backend import Device
from . import bounds_checked


class StrictArray:
    """An array on the pretended device."""

    __array_priority__ = 100
    __slots__ = ("_data",)

    def __init__(self, data):
        self._data = data

    def get(self):
        """A copy on the host."""
        return self._data.copy()

    def lock(self):
        """Refuse to be written to from now on (a GPU cannot; a test that gives read-only arguments can)."""
        self._data.flags.writeable = False
        return self

    def __array__(self, *args, **kwargs):
        raise TypeError("a strict array does not turn into a NumPy array by itself; use to_host")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__":
            return NotImplemented
        return _wrapped(ufunc)(*inputs, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        return getattr(xp, function.__name__)(*args, **kwargs)

    def __getitem__(self, index):
        index = _unwrap(index)
        index = index if isinstance(index, tuple) else (index,)
        if not any(i is Ellipsis for i in index):
            index += (Ellipsis,)  # a single value too stays an array, and a view
        return StrictArray(self._data[index])

    def __setitem__(self, index, value):
        self._data[_unwrap(index)] = _unwrap(value)

    def __iter__(self):
        return (self[i] for i in range(len(self._data)))

    def __len__(self):
        return len(self._data)

    def __repr__(self):
        return f"strict {self._data!r}"

    def item(self):
        return self._data.item()

    def tolist(self):
        return self._data.tolist()

    @property
    def device(self):
        """Which of several devices. It cannot be a key of a dictionary, as CuPy's cannot."""
        return _Place()

    @property
    def flags(self):
        flags = self._data.flags
        return types.SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous)

    __hash__ = None


class _Place:
    __hash__ = None

    def __str__(self):
        return "the only one"


def _unwrap(value):
    """The NumPy arrays inside the strict arrays of an argument. Raises TypeError where a NumPy array came instead."""
    if isinstance(value, StrictArray):
        return value._data
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError(f"a strict array does not mix with a NumPy array of shape {value.shape}; use to_device_of")
    if type(value) in (tuple, list):
        return type(value)(_unwrap(v) for v in value)
    return value


def _wrap(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return StrictArray(np.asarray(value))
    if type(value) in (tuple, list):
        return type(value)(_wrap(v) for v in value)
    return value


def _wrapped(function, lacking=frozenset()):
    """`function` for strict arrays only, in and out, without the arguments that CuPy's lacks."""

    def call(*args, **kwargs):
        if unknown := lacking & kwargs.keys():
            raise TypeError(f"{function.__name__}: CuPy's has no argument {', '.join(sorted(unknown))}")
        out = kwargs.get("out")
        result = function(*_unwrap(args), **{key: _unwrap(value) for key, value in kwargs.items()})
        if out is not None:
            return out[0] if isinstance(out, tuple) else out
        return _wrap(result)

    return call


BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
COMPARISONS_AND_UNARY = "eq ne lt le gt ge neg pos abs invert"
NUMBERS = "int float bool complex"
METHODS = (
    "all any argmax argmin argsort astype clip copy cumsum diagonal dot fill flatten max mean min nonzero prod "
    "ravel repeat reshape round squeeze std sum swapaxes take trace transpose var view"
)
ATTRIBUTES = "T dtype itemsize nbytes ndim shape size strides"
FUNCTIONS = (
    "abs absolute add all allclose amax amin any arange argmax argmin argsort array_equal atleast_1d bincount "
    "bitwise_and bitwise_or bitwise_xor broadcast_to ceil clip concatenate cos count_nonzero cumsum diag diff "
    "divide dot einsum equal exp expand_dims expm1 eye flip floor floor_divide full full_like greater greater_equal "
    "hstack identity invert isclose isfinite isinf isnan kron less less_equal linspace log log1p log2 logical_and "
    "logical_not logical_or logical_xor matmul max maximum mean min minimum moveaxis multiply negative nonzero "
    "not_equal ones ones_like outer pad power prod ravel reciprocal repeat reshape result_type rint roll round "
    "partition searchsorted sign sin split sqrt square squeeze stack std subtract sum swapaxes take take_along_axis tanh tensordot tile "
    "trace transpose tri tril triu true_divide unique var vdot vstack where zeros zeros_like"
)
CONSTANTS = (
    "bool_ dtype e finfo float16 float32 float64 iinfo inf int8 int16 int32 int64 intp nan newaxis pi "
    "uint8 uint16 uint32 uint64"
)


UFUNC_LACKS = "axes axis keepdims order signature subok where"  # CuPy's know out, dtype and casting
OTHERS_LACK = "correction initial mean sorted stable where"  # no other function of CuPy's has one of them
LACKS = {  # and these functions of CuPy's lack what others have
    "argsort": "order",
    "clip": "max min",
    "count_nonzero": "keepdims",
    "einsum": "casting order out",
    "partition": "kind order",
    "take": "mode",
}


def lacking(name):
    """Which arguments CuPy's function of this name lacks, of those that NumPy's functions have."""
    if isinstance(function := getattr(np, name), np.ufunc) and not function.signature:
        return frozenset(UFUNC_LACKS.split())
    return frozenset([*OTHERS_LACK.split(), *LACKS.get(name, "").split()])


_tf32 = False


def set_tf32(on):
    """Let matrix products round as TF32's do."""
    global _tf32
    _tf32 = on


def _matmul(a, b, out=None):
    if _tf32 and a.dtype == "float32":
        a, b = _rounded(a), _rounded(b)
    return np.matmul(a, b, out=out)


def _rounded(array):
    """float32 values to the nearest with 10 of the 23 bits after the point, on a tie to the even one; a GPU may round otherwise."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


def _in_place(function):
    def call(self, other):
        function(self._data, _unwrap(other))
        return self

    return call


def _equip():
    """Give StrictArray the operators, methods and attributes of an array."""
    for name in BINARY.split():
        forward = _wrapped(_matmul if name == "matmul" else getattr(operator, f"__{name}__"))
        setattr(StrictArray, f"__{name}__", forward)
        setattr(StrictArray, f"__r{name}__", lambda self, other, forward=forward: forward(other, self))
        if name != "matmul":  # CuPy's arrays have no @=
            setattr(StrictArray, f"__i{name}__", _in_place(getattr(operator, f"__i{name}__")))
    for name in COMPARISONS_AND_UNARY.split():
        setattr(StrictArray, f"__{name}__", _wrapped(getattr(operator, f"__{name}__")))
    for name in NUMBERS.split():
        setattr(StrictArray, f"__{name}__", lambda self, kind=name: getattr(self._data, f"__{kind}__")())
    for name in METHODS.split():
        # A method lacks what the function lacks, but for the limits of clip, which only CuPy's method knows by name.
        missing = lacking(name) if name in FUNCTIONS.split() and name != "clip" else frozenset()
        setattr(StrictArray, name, _wrapped(getattr(np.ndarray, name), missing))
    for name in ATTRIBUTES.split():
        setattr(StrictArray, name, property(lambda self, key=name: _wrap(getattr(self._data, key))))


def _module():
    """The NumPy-like module: only functions that CuPy has too."""
    module = types.ModuleType("strict")
    for name in FUNCTIONS.split():
        setattr(module, name, _wrapped(getattr(np, name), lacking(name)))
    for name in CONSTANTS.split():
        setattr(module, name, getattr(np, name))
    module.add.reduceat = _wrapped(np.add.reduceat)
    module.matmul = _wrapped(_matmul, lacking("matmul"))
    module.ndarray = StrictArray
    module.lib = types.SimpleNamespace(stride_tricks=types.SimpleNamespace(as_strided=_wrapped(as_strided)))
    module.empty = _empty
    module.empty_like = lambda a, dtype=None: _empty(a.shape, dtype or a.dtype)
    module.array = _array
    module.asarray = _asarray
    module.ascontiguousarray = lambda a, dtype=None: _wrap(np.ascontiguousarray(_unwrap(_asarray(a, dtype))))
    return module


def _array(a, dtype=None):
    """The transfer: the only way in for NumPy arrays, and always a copy."""
    return StrictArray(np.array(a if isinstance(a, np.ndarray) else _unwrap(a), dtype=dtype))


def _asarray(a, dtype=None):
    is_there = isinstance(a, StrictArray) and (dtype is None or a.dtype == dtype)
    return a if is_there else _array(a, dtype)


def _empty(shape, dtype=float):
    """What uninitialised memory may hold, so that reading it shows."""
    return StrictArray(np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 1, dtype))


def run_tiles(task, tiles):
    """One after the other, last to first."""
    for tile in reversed(tiles):
        task(*tile)


def launch(source, name, grid, *arguments):
    """A CUDA kernel, compiled for the CPU."""
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            raise TypeError(f"{name}: a kernel on the strict device was given a NumPy array of shape {argument.shape}")
    bounds_checked.launch(source, name, grid, *map(_unwrap, arguments))


_equip()
xp = _module()
DEVICE = Device(
    "strict",
    StrictArray,
    xp,
    xp.asarray,
    StrictArray.get,
    run_tiles,
    launch=launch if bounds_checked.COMPILER else None,
    set_tf32=set_tf32,
    in_tf32=lambda: _tf32,
)
