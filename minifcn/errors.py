"""What wrong input raises. Everything else that is raised is a bug, and shows its traceback."""


class InputError(ValueError):
    """Wrong input. The message names the file or layer, what was expected, what came, and what to do, in one line."""


class DtypeError(InputError, TypeError):
    """Arrays of a dtype, or of several dtypes, that an operation does not take."""


class MissingFileError(InputError, FileNotFoundError):
    """A file that is not there. The message names it and says what was expected."""


class DeviceError(InputError, RuntimeError):
    """A device that was asked for and cannot be used."""


def one_line(error: BaseException) -> str:
    """An error's message in one line, or what kind of error it is."""
    return " ".join(str(error).split()) or type(error).__name__
