"""Measuring one comparison: every side in its own process, taking turns, so that disturbances hit all alike."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

WARM_UP = 2  # rounds that are not counted
PAUSE = (
    0.15  # seconds before a turn: the threads of OpenMP and OpenBLAS keep spinning for a while after they have worked
)
THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MINIFCN_THREADS")


class Child:
    """The process of one side (`worker.py`). facts: what it said about itself, once it is ready."""

    def __init__(self, comparison, side, threads, smoke):
        self.side, self.name, self.pause = side, f"{comparison.name}, {side.label}", 0 if smoke else PAUSE
        command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
        command += [comparison.group, comparison.name, side.label, "--threads", str(threads)]
        command += ["--smoke"] if smoke else []
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(THREAD_SETTINGS, str(threads))},
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def wait_until_ready(self):
        self.facts = self._answer()

    def turn(self):
        """Let it have a turn. -> seconds of doing its work once"""
        time.sleep(self.pause)
        print(file=self.process.stdin, flush=True)
        return self._answer()["seconds"]

    def end(self):
        """Let it go. -> the peak of its memory in MB"""
        self.process.stdin.close()
        return self._answer()["peak_mb"]

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the process ended with code {self.process.wait()}")
        return json.loads(line)


def measure(comparison, sides, rounds, threads, smoke=False):
    """Measure these sides of a comparison. -> a list of {"label", "threads", "seconds" of each round, "peak_mb", …}

    They prepare side by side; then one works while the others wait, and each round begins with another one.
    """
    with ExitStack() as stack:
        children = [stack.enter_context(Child(comparison, side, threads, smoke)) for side in sides]
        for child in children:
            child.wait_until_ready()
        seconds = {child: [] for child in children}
        warm_up = 0 if smoke else WARM_UP
        for number in range(-warm_up, rounds):
            first = number % len(children)
            for child in children[first:] + children[:first]:
                taken = child.turn()
                if number >= 0:
                    seconds[child].append(taken)
        return [
            {"label": child.side.label, **child.facts, "seconds": seconds[child], "peak_mb": child.end()}
            for child in children
        ]
