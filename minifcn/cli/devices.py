"""The options --device and --tf32, and what to lower where memory runs out."""

from .. import backend
from ..errors import DeviceError

LOWERS_MEMORY = ("batch_size", "crop", "resize", "tile")  # options that make a step or an image smaller


def add_option(parser):
    """Add --device and --tf32 to a command."""
    where = "where arrays live: cpu, cuda (a GPU), cuda:1 (the GPU of that number), or auto, a GPU if one works"
    parser.add_argument("--device", default="auto", help=where)
    tf32 = "let a GPU from Ampere on multiply in TF32: several times as fast, results some 3e-4 off"
    parser.add_argument("--tf32", action="store_true", help=tf32)


def choose(name, tf32=False):
    """Use the device of that name, and TF32 if `tf32`. Raises InputError, saying how to go on, where that cannot be."""
    try:
        backend.use(name)
    except DeviceError as error:
        raise DeviceError(f"{error}; minifcn info says what to do") from error
    if tf32:
        backend.use_tf32()


def out_of_memory(error, args):
    """The message for an error that says that memory ran out, with the options to lower; None for another error."""
    message = backend.out_of_memory(error)
    if message is None:
        return None
    options = ["--" + name.replace("_", "-") for name in LOWERS_MEMORY if hasattr(args, name)]
    return f"{message}; lower {' or '.join(options)}" if options else f"{message}; smaller images need less"
