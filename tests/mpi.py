"""Commands in several processes through mpirun, for the tests that need the real one."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from minifcn.cli.launch import OPEN_MPI, find_mpirun

ROOT = Path(__file__).parents[1]
MPIRUN = find_mpirun()
PROBLEM = "" if MPIRUN and importlib.util.find_spec("mpi4py") else 'needs MPI: pip install "minifcn[mpi]"'
SETTINGS = OPEN_MPI | {"MINIFCN_THREADS": "1", "PYTHONPATH": str(ROOT)}
PATIENCE = 120  # seconds


class Job:
    """A program that runs beside the test, in a session of its own; what it says goes to a file."""

    def __init__(self, command, said, **environment):
        self.said = Path(said)
        with open(said, "w") as file:
            self.process = subprocess.Popen(
                [str(a) for a in command],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **SETTINGS, **environment},
                start_new_session=True,
            )

    def wait(self):
        """-> (exit code, what it said)"""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)
            raise
        return code, self.said.read_text()


class Terminal:
    """A program in a terminal of its own, at which keys can be pressed. Takes setsid, of util-linux."""

    def __init__(self, *command):
        self._keys, end = os.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *map(str, command)], stdin=end, stdout=end, stderr=end, env={**os.environ, **SETTINGS}
        )
        os.close(end)

    def press_ctrl_c(self):
        os.write(self._keys, b"\x03")

    def wait(self):
        """-> (exit code, what it said)"""
        said = b""
        with suppress(OSError):  # the terminal's end, once nobody has it open
            while part := os.read(self._keys, 4096):
                said += part
        os.close(self._keys)
        return self.process.wait(PATIENCE), said.decode().replace("\r\n", "\n")


def mpirun(size, *command):
    """The command line that starts a Python program in so many processes."""
    return MPIRUN, "-n", size, sys.executable, *command


def train(said, *arguments):
    """`minifcn train` as a Job."""
    return Job([sys.executable, "-m", "minifcn", "train", *arguments], said)


def ranks(mark):
    """{rank: process id} of the processes that mpirun started and whose command line has this text."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "cmdline").read_bytes():
                environment = (place / "environ").read_bytes().split(b"\0")
                found |= {int(v[21:]): int(place.name) for v in environment if v.startswith(b"OMPI_COMM_WORLD_RANK=")}
        except (OSError, ValueError):  # it has ended meanwhile, or is somebody else's
            continue
    return found


def until(condition, job):
    """Wait until something is so, or the job has ended. -> whether it is"""
    end = time.monotonic() + PATIENCE
    while not condition():
        if job.process.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
