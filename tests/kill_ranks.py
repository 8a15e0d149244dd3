"""Jobs of several processes of which one is killed, again and again, and whether the run comes out as if nobody had touched it.

    python tests/kill_ranks.py --kills 50 --processes 2 --seed 0

A run is a real job, `minifcn train --processes N`. At a random moment of its life a process out of it, chosen at random, gets
SIGKILL; the job then has to end within LIMIT seconds, in one line that says so, and everything in the run's folder has to load. The
run goes on, is killed again, and so on until one gets to its end; what it leaves is compared with what an undisturbed job
of as many processes leaves, to the last bit.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import kills  # noqa: E402
import mpi  # noqa: E402

from minifcn import data  # noqa: E402

LIMIT = 10  # seconds in which a job has to end that has lost a process


def start(toy, folder, processes):
    what = ["--resume", folder] if (folder / "checkpoint.npz").exists() else ["--data", toy, "--out", folder]
    return mpi.train(folder.with_suffix(".txt"), *what, *kills.SETTINGS, "--processes", processes)


def finish(job):
    code, said = job.wait()
    assert code == 0, said


def kill_one(job, folder, rng, longest, processes):
    """Kill one process of a job at a random moment. -> the seconds that the job then took to end; None if it had ended before"""
    moment, rank = time.monotonic() + rng.uniform(0, longest), rng.randrange(processes)
    mpi.until(lambda: time.monotonic() > moment, job)
    if not mpi.until(lambda: rank in mpi.ranks(str(folder)), job):
        return None
    try:
        os.kill(mpi.ranks(str(folder))[rank], signal.SIGKILL)
    except (KeyError, ProcessLookupError):
        return None
    began = time.monotonic()
    code, said = job.wait()
    if code == 0:  # it had done its work already
        return None
    lines = [line for line in said.splitlines() if line.startswith("minifcn:")]
    assert len(lines) == 1, said
    return time.monotonic() - began


def kill_jobs(workplace, count, seed, processes=2, tell=lambda line: None):
    """Kill so many times. -> the seconds that each job took to end. Raises AssertionError at the first thing that is lost."""
    rng = random.Random(seed)
    toy, whole = workplace / "toy", workplace / "whole"
    data.write_toyvoc(toy, train=6, val=2, size=40, seed=3)
    began = time.monotonic()
    finish(start(toy, whole, processes))
    longest, ended, runs = time.monotonic() - began, [], 0
    while len(ended) < count:
        folder, here = workplace / f"killed{runs}", 0
        runs += 1
        while True:
            job = start(toy, folder, processes)
            seconds = kill_one(job, folder, rng, longest, processes) if len(ended) < count else None
            if seconds is None:
                finish(job)
                break
            assert seconds < LIMIT, f"{folder}: ended {seconds:.1f} s after a process was killed"
            ended.append(seconds)
            here += 1
            kills.require_sound(folder)
        kills.require_same(folder, whole)
        tell(f"run {runs}: {here} processes killed, the same to the last bit; {len(ended)} kills so far")
    return ended


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ended = kill_jobs(
            Path(scratch), args.kills, args.seed, args.processes, tell=lambda line: print(line, flush=True)
        )
    print(
        f"{len(ended)} of {args.kills} jobs ended within {max(ended):.1f} s of a kill, in the median {sorted(ended)[len(ended) // 2]:.1f} s"
    )


if __name__ == "__main__":
    main()
