"""The pickles inside PyTorch's files, read without running anything.

A pickle is a program for a small stack machine. Python's own machine calls whatever function the program names, so that
a hostile pickle can do anything; even with `find_class` overridden it sets attributes of what it built, and reserves as
much memory as the program says. The machine below does neither: it knows only the instructions that `torch.save` writes,
makes only plain Python values, and calls only the functions of `ADMITTED`, which make plain values too. A tensor becomes
a `Tensor`: where its numbers lie.
"""

import io
import pickletools
from typing import NamedTuple

from ..errors import InputError

# A text takes at most five times its bytes, an instruction about 100 bytes more; so these bound the memory a pickle can take.
# A network of 300 tensors takes 60 KB and 10,000 instructions.
MAX_BYTES = 4 << 20
MAX_INSTRUCTIONS = 250_000
_MAX_RANK = 64  # NumPy's


class Storage(NamedTuple):
    """A run of `count` numbers of type `dtype`, to be found in the file under `key`."""

    dtype: str
    key: str
    count: int  # type: ignore[assignment]  # a tuple's own `count` is not used


class Tensor(NamedTuple):
    """A view of a storage: its first element, its size and its strides, all counted in elements."""

    storage: Storage
    offset: int
    size: tuple
    stride: tuple


def _ordered_dict(items=None):
    made = {}
    if items is not None:  # as Python 2 wrote it; Python 3 sets the items afterwards
        if type(items) is not list:
            raise InputError(f"an OrderedDict made of a {type(items).__name__}")
        for key, value in items:
            _set_item(made, key, value)
        items.clear()  # or one list in the program could be made into any number of dictionaries
    return made


def _rebuild_tensor(storage, offset, size, stride, _requires_grad=False, _hooks=None, metadata=None):
    if metadata:
        raise InputError("a conjugated or negated tensor")
    if not (isinstance(storage, Storage) and type(size) is type(stride) is tuple):
        raise InputError("a tensor without a storage, a size or a stride")
    if len(size) != len(stride) or len(size) > _MAX_RANK:
        raise InputError(f"a tensor of {len(size)} dimensions and {len(stride)} strides")
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in (offset, *size, *stride)):
        raise InputError("a tensor with a negative or impossible offset, size or stride")
    return Tensor(storage, offset, size, stride)


def _parameter(tensor, _requires_grad=True, _hooks=None):
    return tensor


_DTYPES = {"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Bool": "bool"}
_DTYPES |= {"Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8"}
# What a program may ask for: a function, or the type of a storage's numbers.
ADMITTED = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": lambda numbers: numbers,
    **{f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()},
}


def _admitted(name):
    if name not in ADMITTED:
        raise InputError(
            f"a pickle that asks for {name[:100]!r}, which is refused (nothing was executed); save the network's state_dict() alone"
        )
    return ADMITTED[name]


def _set_item(target, key, value):
    # Only these two kinds of key: a tuple nested deep enough would overflow the stack when it is hashed.
    if type(target) is not dict or type(key) not in (str, int):
        raise InputError(f"a pickle that sets an item {type(key).__name__} of a {type(target).__name__}")
    if key in target:
        raise InputError(f"the name {str(key)[:100]!r} twice")
    target[key] = value


def _storage(id):
    """The storage that a persistent id stands for: ("storage", type, key, device, count), and None in old files."""
    if type(id) is not tuple or id[0] != "storage":
        raise InputError("a pickle with a persistent id that is no storage")
    _, dtype, key, _device, count, *view = id
    if view not in ([], [None]):
        raise InputError("a storage that is a view of another storage")
    if dtype not in _DTYPES.values() or type(key) is not str or type(count) is not int or count < 0:
        raise InputError("a pickle with a storage of unknown type, key or size")
    return Storage(dtype, key, count)


def load(content, start=0):
    """(value, end, storages by key) of the pickle in `content` (bytes) that begins at `start`; more may follow it.

    Values are None, bool, int, float, str, list, tuple, dict, Tensor and what is in ADMITTED. Raises InputError or
    another error for any other program.
    """
    file = io.BytesIO(content[start : start + MAX_BYTES])
    stack, marks, memo, storages = [], [], {}, {}

    def pop_to_mark():
        at = marks.pop()
        values = stack[at:]
        del stack[at:]
        return values

    for executed, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if executed == MAX_INSTRUCTIONS:
            raise InputError(f"a pickle of more than {MAX_INSTRUCTIONS} instructions")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINSTRING" | "SHORT_BINSTRING":  # by Python 2
                stack.append(argument)
            case "MARK":
                marks.append(len(stack))
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                if opcode.name != "TUPLE":
                    marks.append(len(stack) - int(opcode.name[-1]))
                stack.append(tuple(pop_to_mark()))
            case "APPEND" | "APPENDS":
                values = pop_to_mark() if opcode.name == "APPENDS" else [stack.pop()]
                stack[-1].extend(values)
            case "SETITEM" | "SETITEMS":
                if opcode.name == "SETITEM":
                    marks.append(len(stack) - 2)
                values = pop_to_mark()
                for key, value in zip(values[::2], values[1::2], strict=True):
                    _set_item(stack[-1], key, value)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_admitted(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if type(name) is not str or type(module) is not str:  # whose text could be endless
                    raise InputError("a pickle that names a function by a value that is no text")
                stack.append(_admitted(f"{module}.{name}"))
            case "BINPERSID":
                storage = _storage(stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    raise InputError(f"two storages with the key {storage.key[:100]!r}")
                stack.append(storage)
            case "REDUCE" | "NEWOBJ":  # nothing on the stack can be called but the functions of ADMITTED
                arguments, function = stack.pop(), stack.pop()
                if type(arguments) is not tuple:
                    raise InputError(f"a pickle that calls a function with a {type(arguments).__name__}")
                stack.append(function(*arguments))
            case "BUILD":  # a module's `_metadata`, an old parameter's flags: nothing that a state needs
                stack.pop()
            case "STOP":
                return stack.pop(), start + file.tell(), storages
            case _:
                what = opcode.name if argument is None else f"{opcode.name} {str(argument)[:100].replace(' ', '.')!r}"
                raise InputError(f"a pickle with the instruction {what}, which is refused (nothing was executed)")
    raise InputError("a pickle without an end")
