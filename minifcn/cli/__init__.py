"""The command line. Each command is a module here: its docstring and HELP are its help, and it defines add_arguments(parser)
and run(args)."""

import argparse
import errno
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from importlib import import_module

from .. import __version__, backend
from ..distributed import world
from ..errors import InputError, one_line
from . import launch, options
from .progress import INTERRUPTED, alone, leads, notice

COMMANDS = (
    "train", "reproduce", "evaluate", "predict", "crf-search", "classify", "explain", "explore", "convert", "export", "gradcheck", "info", "data",
)  # fmt: skip
PATIENCE = 0.5  # seconds between the reports of two processes of a job on the same mistake


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, as the commands do, and ends with exit code 2."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser():
    """The argument parser of the whole command line. `run` in what it returns is the command's function."""
    parser = Parser(
        prog="minifcn",
        description="Fully convolutional networks for semantic segmentation, every forward and backward pass written by hand.",
        epilog="Start with: minifcn data toy toydata; minifcn reproduce --data toydata --out runs/demo",
    )
    parser.add_argument("--version", action="version", version=f"minifcn {__version__}")
    parser.add_argument("--debug", action="store_true", help="also show the traceback when the input is wrong")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f".{name.replace('-', '_')}", __name__)
        command = commands.add_parser(
            name, help=module.HELP, description=module.__doc__, formatter_class=options.HelpFormatter
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv=None):
    """Run one command. -> the exit code: 0, 2 for wrong input (one line on stderr), 130 after Ctrl-C, 1 if nobody reads on.

    Any other exception is a bug and is raised.
    """
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115 (None if closed; open to the end)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what an old code page lacks becomes a question mark
            stream.reconfigure(errors="replace")
    if argv is None:
        # A notebook passes its own backend on to the programs that it starts; it may not be installed here.
        os.environ["MPLBACKEND"] = "agg"
    args = build_parser().parse_args(argv)
    args.command_line = sys.argv[1:] if argv is None else list(argv)
    code = _exit_code(args)
    if argv is None:  # the program ends now, and another Ctrl-C would only garble its last line
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    elif signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # set when Ctrl-C stopped a run; the caller goes on
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return code


def _exit_code(args):
    level = logging.INFO if leads() else logging.ERROR
    logging.basicConfig(format="%(message)s", level=level, stream=sys.stderr)
    logging.getLogger("minifcn.backend").setLevel(logging.ERROR)  # `use_device` says it in fewer words
    # What is wrong with an image is reported in one line, or does not matter.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        backend.threads()  # a wrong MINIFCN_THREADS is refused here, not in the first layer
        if launch.wanted(args):
            return launch.start(args)
        if hasattr(args, "device"):
            options.use_device(args)
        code = args.run(args)
        sys.stdout.flush()  # here, where a full disk is told in one line
        return code
    except KeyboardInterrupt:
        return _ended("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has ended, as in `minifcn evaluate … | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _ended(None, 1)
    except Exception as error:
        message = options.out_of_memory(error, args)
        bug = message is None and not isinstance(error, InputError | OSError)
        if args.debug or (bug and not alone()):
            traceback.print_exc()
        if bug:
            _ended(None, 1)
            raise
        if message is None and isinstance(error, OSError) and error.filename and error.strerror:  # the system's own
            message = f"{error.filename}: {error.strerror}"
        elif message is None and isinstance(error, OSError) and error.errno == errno.ENOSPC:  # files are named
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the end would try once more
            message = f"standard output: {error.strerror}"
        return _ended(message or one_line(error), 2)


def _ended(message, code):
    """Say why the command ends. -> the exit code. Of several processes all end here: the healthy ones would wait for this one."""
    if alone():
        if message:
            notice(f"minifcn: {message}")
        return code
    job = world()
    # A mistake that all processes see, such as a missing file, is reported once, by the quickest; the wait makes that the first.
    time.sleep(PATIENCE * min(job.rank, 6))
    if message:
        who = "" if leads() else f" process {job.rank} on {job.host}:"
        print(f"minifcn:{who} {message}", file=sys.stderr, flush=True)
    time.sleep(PATIENCE / 5)  # for mpirun to pass that on
    job.abort(code)
    return code
