"""Where the helping threads run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import minifcn
from minifcn.backend import numpy_kernels

GRANTED = getattr(os, "sched_getaffinity", lambda pid: set())(0)  # before any test could change it
PATIENCE = 20  # seconds that a thread waits for another before the test fails

SCRIPT = """
import os, threading
import numpy as np
from minifcn import backend

granted, together, found = PROCESSORS, threading.Barrier(THREADS, timeout=PATIENCE), {}
os.sched_setaffinity(0, granted)

def task(_):
    together.wait()
    found[threading.current_thread()] = os.sched_getaffinity(0)

backend.set_threads(THREADS)
for _ in range(2):
    backend.run_tiles(np.zeros(1), task, [(number,) for number in range(THREADS)])
assert found.pop(threading.main_thread()) == granted == os.sched_getaffinity(0)
assert len(found) == THREADS - 1
print(*sorted({processor for mine in found.values() for processor in mine}))
"""


def processors_of_helpers(granted, threads):
    """Where the helpers may run in a process that is granted some processors."""
    script = SCRIPT.replace("PROCESSORS", repr(granted)).replace("THREADS", str(threads))
    environment = {**os.environ, "PYTHONPATH": str(Path(minifcn.__file__).parents[1]), "MINIFCN_THREADS": ""}
    command = [sys.executable, "-c", script.replace("PATIENCE", str(PATIENCE))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return {int(number) for number in done.stdout.split()}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be bound to processors here")
@pytest.mark.parametrize("threads", [2, 3])
def test_helpers_leave_the_first_processor_to_the_caller(threads):
    if len(GRANTED) < 2:
        pytest.skip("there is one processor only")
    assert processors_of_helpers(GRANTED, threads) == GRANTED - {min(GRANTED)}
    assert os.sched_getaffinity(0) == GRANTED


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be bound to processors here")
def test_a_single_processor_is_the_helpers_too():
    one = {max(GRANTED)}
    assert processors_of_helpers(one, 2) == one


@pytest.mark.parametrize(("granted", "expected"), [({3}, []), ({7, 2, 5}, [{5, 7}]), ({0, 1}, [{1}])])
def test_the_first_processor_is_the_one_of_the_least_number(granted, expected, monkeypatch):
    bound = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(granted), raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, those: bound.append(set(those)), raising=False)
    numpy_kernels._leave_a_core_to_the_caller()
    assert bound == expected


def test_where_threads_cannot_be_bound_nothing_is_done(monkeypatch):
    for name in ("sched_setaffinity", "sched_getaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    numpy_kernels._leave_a_core_to_the_caller()


def test_threads_that_may_not_choose_their_processor_work_all_the_same():
    code = "import os, numpy as np; from minifcn import backend\n"
    code += "def deny(*_): raise PermissionError\n"
    code += "os.sched_setaffinity = deny; backend.set_threads(3); done = []\n"
    code += "for _ in range(3): backend.run_tiles(np.zeros(1), done.append, [(i,) for i in range(9)])\n"
    code += "assert sorted(done) == sorted(list(range(9)) * 3)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
