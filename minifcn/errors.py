"""The errors that wrong input raises. Any other exception is a bug, and shows its traceback."""

from collections.abc import Collection, Mapping
from numbers import Integral
from typing import Any


class InputError(ValueError):
    """Wrong input. The message names the file or layer, what was expected, what was found, and what to do, in one line."""


class DtypeError(InputError, TypeError):
    """Arrays of a dtype, or of several dtypes, that an operation does not take."""


class MissingFileError(InputError, FileNotFoundError):
    """A file that is not there. The message names it and says what was expected."""


class DeviceError(InputError, RuntimeError):
    """A device that was asked for and cannot be used."""


def require_known(where: str, given: Mapping[str, Any], choices: Mapping[str, Collection]) -> None:
    """Raise InputError unless given[name] is among choices[name], for each name in choices. where: begins the message, such as "fcn: "."""
    for name, known in choices.items():
        if given[name] not in tuple(known) or isinstance(given[name], float):  # 8.0 is no stride
            raise InputError(f"{where}{name}: expected one of {', '.join(map(str, known))}; got {given[name]!r}")


def require_counts(where: str, given: Mapping[str, Any], least: int = 1, most: int | None = None) -> None:
    """Raise InputError unless all values are whole numbers, of at least `least` and at most `most`. where: as in require_known."""
    for name, value in given.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or value < least or (most is not None and value > most):
            numbers = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise InputError(f"{where}{name}: expected a whole number {numbers}, got {value!r:.60}")


def one_line(error: BaseException) -> str:
    """An error's message in one line, or what kind of error it is."""
    return " ".join(str(error).split()) or type(error).__name__
