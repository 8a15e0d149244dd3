"""What the library asks of an array module: read from its source, or recorded while it runs on the strict stand-in.

And CuPy's arrays without a GPU: `ghost` makes one that has shape, strides and dtype but no memory. Views of it can be
taken, as a view is arithmetic on strides; whatever would touch memory raises one of CUDA's errors.
"""

import ast
import inspect
import re
from functools import cache
from pathlib import Path

import numpy as np

import minifcn
from minifcn.testing import strict
from minifcn.testing.strict import StrictArray

PACKAGE = Path(minifcn.__file__).parent
# Where arrays of a device are worked with; elsewhere `.copy()` and the like are dicts', images' and NumPy arrays'.
ROOMS = (
    "ops",
    "layers",
    "models",
    "training/loop.py",
    "training/optimizers.py",
    "gradcheck.py",
    "backend/registry.py",
    "backend/parallel.py",
)


def sources():
    """Every file of the library, but for NumPy's own side and the stand-in."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "cpu.py" and path.parent.name != "testing"]


def is_in_a_room_of_arrays(path):
    return path.relative_to(PACKAGE).as_posix().startswith(ROOMS)


def module_uses(tree):
    """Yield (node, dotted name, Call or None) for every attribute of an array module: xp.f, array_module(x).f, xp.lib.f."""
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:  # the longest of a dotted name
            names, value = [node.attr], node.value
            while isinstance(value, ast.Attribute):
                names.append(value.attr)
                value = value.value
            if _is_module(value):
                yield node, ".".join(reversed(names)), called.get(id(node))


def _is_module(node):
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", getattr(node.func, "attr", "")) == "array_module"
    return isinstance(node, ast.Name) and node.id == "xp"


def method_calls(tree):
    """Yield every Call of a method that NumPy's arrays have, on anything but NumPy itself, an array module or a str(…)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            known = getattr(of, "id", None) == "np" or getattr(getattr(of, "func", None), "id", None) == "str"
            is_method = hasattr(np.ndarray, node.func.attr) and node.func.attr != "to_device"  # that one is a Device's
            if is_method and not known and not _is_module(of):
                yield node


def arguments(call):
    """(how many positional arguments at least, keywords) of a Call."""
    positional = [a for a in call.args if not isinstance(a, ast.Starred)]
    return len(positional), [k.arg for k in call.keywords if k.arg is not None]


@cache
def signature(function):
    """The inspect.Signature of one of CuPy's functions or methods. None where CuPy tells none."""
    import cupy

    P = inspect.Parameter
    if isinstance(function, cupy.ufunc):  # CuPy tells these in words only
        inputs = [P(f"x{i}", P.POSITIONAL_ONLY) for i in range(function.nin)]
        out = [P("out", P.POSITIONAL_OR_KEYWORD, default=None)]
        return inspect.Signature(inputs + out + [P(k, P.KEYWORD_ONLY, default=None) for k in ("dtype", "casting")])
    if function is cupy.einsum:
        keywords = [P(k, P.KEYWORD_ONLY, default=None) for k in ("dtype", "optimize")]
        return inspect.Signature([P("operands", P.VAR_POSITIONAL), *keywords])
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # Cython's methods begin their docstring with it
        told = re.match(r"\w+\.\w+\((.*)\)(?: -> .*)?$", (function.__doc__ or "").splitlines()[0])
        if not told:
            return None
        text = re.sub(r"\b\w+ (?=\w)", "", told[1])  # without C's types
        scope = {}
        exec(f"def method({text}): pass", scope)
        return inspect.signature(scope["method"])


def fits(function, positional, keywords):
    """None if a function of CuPy's takes so many positional arguments (at least) and these keywords, else why not."""
    known = signature(function)
    if known is None:
        return f"CuPy tells no signature of {function}"
    try:
        known.bind_partial(*[None] * positional, **dict.fromkeys(keywords))
    except TypeError as error:
        return str(error)
    return None


def ghost(shape, dtype, strides):
    """A CuPy array of that shape and strides (in bytes) whose memory does not exist."""
    import cupy
    from cupy.cuda import memory

    middle = 1 << 40  # of memory as large as anybody's strides may ask for, in both directions
    nowhere = memory.UnownedMemory(middle, 2 * middle, None, 0)
    return cupy.ndarray(shape, dtype, memory.MemoryPointer(nowhere, middle), strides)


# --- What is called while the library runs on the stand-in ----------------------------------------------------------

VIEWS = ("__getitem__", "reshape", "transpose", "squeeze", "swapaxes", "diagonal")


def record(monkeypatch):
    """From now on, until monkeypatch is undone, write down the views taken on the stand-in.

    -> {key: what is needed to take the view again}
    """
    views = {}
    for name in VIEWS:
        _watch(monkeypatch, views, StrictArray, name)
    _watch(monkeypatch, views, strict.xp.lib.stride_tricks, "as_strided")
    return views


def _watch(monkeypatch, views, owner, name):
    function = getattr(owner, name)

    def watched(*args, **kwargs):
        result = function(*args, **kwargs)
        whole = args[0]._data
        key = (name, whole.shape, whole.strides, whole.dtype.str, repr(args[1:]), repr(kwargs))
        if not any(isinstance(a, StrictArray) for a in _flat(args[1:])):
            views[key] = (args[1:], kwargs, _seen(whole, result._data))
        return result

    monkeypatch.setattr(owner, name, watched)


def _flat(args):
    for a in args:
        yield from _flat(a) if isinstance(a, (tuple, list)) else (a,)


def _seen(whole, part):
    """(shape, strides, first byte's offset) of a view; None for a copy."""
    if part.size and not np.may_share_memory(whole, part):
        return None
    return part.shape, part.strides, part.ctypes.data - whole.ctypes.data


def view_of_cupy(name, whole, args, kwargs):
    """What CuPy makes of the same: as `_seen`."""
    import cupy

    array = ghost(whole[0], whole[2], whole[1])
    try:
        if name == "as_strided":
            part = cupy.lib.stride_tricks.as_strided(array, *args, **kwargs)
        else:
            part = getattr(array, name)(*args, **kwargs)
    except Exception as error:
        if type(error).__name__.startswith("CUDA"):  # it would have copied
            return None
        raise
    return part.shape, part.strides, part.data.ptr - array.data.ptr


def same_view(a, b):
    """Whether two views see the same bytes; the stride of an axis of length 1 means nothing, nor does an empty one's place."""
    if a is None or b is None:
        return a is b
    if a[0] != b[0] or 0 in a[0]:
        return a[0] == b[0]
    strides = [(s, t) for n, s, t in zip(a[0], a[1], b[1], strict=True) if n > 1]
    return a[2] == b[2] and all(s == t for s, t in strides)
