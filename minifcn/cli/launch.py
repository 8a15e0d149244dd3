"""--processes: a command restarts itself in several processes, through mpirun."""

import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from .. import backend
from ..backend import cuda
from ..distributed import INSTALL, world
from ..errors import InputError
from .networks import at_least
from .progress import COLUMNS, HANGUP, INTERRUPTED, STOP, catch, notice

# Environment variables rather than options, since those differ from MPI to MPI: allow more processes than cores, let threads choose
# their cores, and allow root, as in a container, which Open MPI has to be told twice.
OPEN_MPI = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
IMAGES = "divide the images among N processes on this host, through mpirun"


def add_processes(parser, help):
    """Add --processes to a command, which `start` then runs in that many."""
    parser.add_argument("--processes", type=at_least(1), metavar="N", help=help)


def wanted(args):
    """Whether the command still has to be started in several processes. Each of several takes the GPU of its rank on its
    host. Raises InputError where mpirun started another number, or several for a command that runs in one process."""
    asked, started = getattr(args, "processes", None) or 1, world().size
    if started > 1 and not hasattr(args, "processes"):
        raise InputError(f"{args.command}: not a command for several processes; start it without mpirun")
    if started > 1 and asked not in (1, started):
        raise InputError(f"processes: {started} were started by mpirun; leave out --processes {asked}")
    if started > 1 and getattr(args, "device", None) in ("auto", "cuda", "cupy") and (found := cuda.devices()):
        # That makes it this thread's GPU; what is wrong with it is reported when it is used.
        cuda.probe(world().local_rank % len(found))
    return asked > started


def start(args):
    """Do the command in args.processes processes on this host. -> the exit code

    They divide the threads that this process would use. Ctrl-C asks them to stop, as it would one process; a second one ends them.
    """
    command = [_mpirun(), "-n", str(args.processes), sys.executable, "-m", "minifcn", *args.command_line]
    threads = max(1, backend.threads() // args.processes)
    environment = {**os.environ, **OPEN_MPI, "MINIFCN_THREADS": str(threads)}
    if sys.stderr.isatty():
        environment[COLUMNS] = str(shutil.get_terminal_size().columns)
    # In its own session: else a terminal's Ctrl-C would reach mpirun, too, which ends all processes at once.
    job = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    asked = []

    def stop(number, frame):
        if not asked or number != HANGUP:
            job.send_signal(signal.SIGTERM if asked or number == signal.SIGTERM else STOP)
        asked.append(number)

    before = catch(stop)
    try:
        explained, boxes = _hand_on(io.TextIOWrapper(job.stderr, errors="replace", newline=""))
        code = job.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        return INTERRUPTED
    if code and not explained:
        notice(f"minifcn: {' '.join(boxes.split()) or f'mpirun ended with {code}'} What is saved is good.")
    return code


def _hand_on(lines):
    """Print what the processes write. -> (whether one has said why it ends, mpirun's own messages, which come in boxes of dashes)"""
    explained, boxed, boxes = False, False, []
    for line in lines:
        own = line.strip().startswith(("minifcn:", "skipped:"))
        if set(line.strip()) == {"-"}:
            boxed = not boxed
        elif boxed and not own:
            boxes.append(line)
        elif line.endswith("\r"):  # a bar, which is drawn over
            print(line, end="", file=sys.stderr, flush=True)
        elif line.strip():  # mpirun puts blank lines around its boxes
            print(line.strip() if own else line.rstrip("\r\n"), file=sys.stderr, flush=True)
        explained |= own
    return explained, "".join(boxes)


def find_mpirun():
    """The mpirun of this Python's environment, or else that of the system; None if there is none."""
    return shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def _mpirun():
    """The mpirun to start with. Raises InputError, saying what to install."""
    if not (found := find_mpirun()):
        raise InputError(f"processes: expected mpirun, found none; {INSTALL} brings Open MPI's")
    if not importlib.util.find_spec("mpi4py"):
        raise InputError(f"processes: expected mpi4py beside {found}, found none: {INSTALL}")
    return found
