"""Training runs that are killed again and again, and whether they come out as if nobody had touched them.

    python tests/kills.py --kills 100 --seed 0

A run is a real process, `minifcn train`. Half of the kills (SIGKILL, which no process can notice) come at a random
moment of its life; the other half up to a few milliseconds after it was seen writing a checkpoint. After each kill
everything in the run's folder has to load; then the same run goes on in a new process, is killed again, and so on until
one gets to its end. What it leaves is compared with what a run leaves that nobody disturbed: weights, optimiser, data
stream, best weights, settings and metrics.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from minifcn import cli, data, models
from minifcn.training import checkpoint
from minifcn.training.run import read_metrics

ITERATIONS = 30
SETTINGS = ["--width", "2", "--crop", "32", "--batch-size", "2", "--iterations", str(ITERATIONS), "--save-every", "1"]
SETTINGS += ["--eval-every", "7", "--scale", "0.8", "1.2", "--colour", "0.2", "--optimizer", "adam", "--seed", "5"]
A_SAVE = 0.006  # seconds: about as long as writing a checkpoint takes here
PATIENCE = 120

# Processes are forked from one that has imported everything already, which spares each the second that this takes.
# Windows has no fork, and starts them anew.
PROCESSES = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
PROCESSES.set_forkserver_preload(["minifcn.cli"])


def command(arguments, said):
    """What `python -m minifcn` does, in the process that was started for it."""
    sys.argv = ["minifcn", *arguments]
    with open(said, "w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(cli.main())


class Process(PROCESSES.Process):
    """A command in a process of its own. said: the file with what it prints; words: its content, once `finish` has it."""

    words = None

    def __init__(self, *arguments):
        descriptor, self.said = tempfile.mkstemp()
        os.close(descriptor)
        super().__init__(target=command, args=([str(a) for a in arguments], self.said))
        self.start()


def start(toy, folder):
    """A process that begins the run in `folder`, or goes on with it."""
    what = ["--resume", folder] if (folder / "checkpoint.npz").exists() else ["--data", toy, "--out", folder]
    return Process("train", *what, *SETTINGS)


def finish(process):
    """Wait until a process has ended. -> its exit code, what it said"""
    process.join(PATIENCE)
    if process.words is None:
        process.words = Path(process.said).read_text()
        Path(process.said).unlink()
    return process.exitcode, process.words


def run_to_end(toy, folder):
    code, said = finish(start(toy, folder))
    assert code == 0, said


def kill_somewhere(process, folder, rng, longest):
    """Kill it at a random moment of its life; every other time in or just after the next checkpoint that it writes from
    then on. -> whether it was still alive"""
    moment, while_saving = time.monotonic() + rng.uniform(0, longest), rng.random() < 0.5
    while process.is_alive() and time.monotonic() < moment:
        time.sleep(0.0005)
    if while_saving:
        while process.is_alive() and "checkpoint.npz" not in unfinished(folder, process.pid):
            pass
        pause = time.perf_counter() + rng.uniform(0, A_SAVE)
        while time.perf_counter() < pause:
            pass
    alive = process.is_alive()
    process.kill()
    finish(process)
    return alive


def unfinished(folder, pid="*"):
    """The names of the files that a process was writing, and that did not take their places yet."""
    return [path.name[1:].rsplit(".", 2)[0] for path in folder.glob(f".*.{pid}.part")]


def require_sound(folder):
    """Raise unless everything in the folder of a run that was killed can be read and fits together."""
    if not (folder / "checkpoint.npz").exists():  # killed before the first one: the run begins anew
        return
    _, meta = checkpoint.read(folder / "checkpoint.npz")
    models.load(folder / "checkpoint.npz")
    assert json.loads((folder / "config.json").read_text()) == json.loads(json.dumps(meta["config"]))
    steps = [r["iteration"] for r in read_metrics(folder) if r["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1)), f"{folder}: steps missing or twice"
    assert len(steps) >= meta["iteration"], (
        f"{folder}: a checkpoint of iteration {meta['iteration']}, {len(steps)} steps"
    )
    if meta["best"] is not None:
        models.load(folder / "best.npz")


def content(folder):
    """All that a finished run has to have in common with an undisturbed one: {name: value or array}."""
    found = {"config": json.loads((folder / "config.json").read_text())}
    for name in ("checkpoint.npz", "best.npz"):
        arrays, meta = checkpoint.npz.read_archive(folder / name)
        found |= {f"{name}/{key}": array for key, array in arrays.items()} | {name: meta}
    times = ("seconds", "waited")
    happened = [r for r in read_metrics(folder) if r["event"] != "stopped"]
    found["metrics"] = [{k: v for k, v in r.items() if k not in times} for r in happened]
    return found


def require_same(folder, whole):
    """Raise unless two runs left the same, to the last bit."""
    have, want = content(folder), content(whole)
    assert have.keys() == want.keys()
    for name, value in want.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == have[name].dtype
            assert value.tobytes() == have[name].tobytes(), f"{folder}: {name} differs"
        else:
            assert have[name] == value, f"{folder}: {name} differs"
    assert not unfinished(folder), f"{folder}: {unfinished(folder)} left over"


def kill_runs(workplace, kills, seed, tell=lambda line: None):
    """Kill runs that many times. -> {"kills", "inside": {file: kills while it was written}, "runs", "before": kills
    before the first checkpoint}. Raises AssertionError at the first thing that is lost."""
    rng = random.Random(seed)
    toy, whole = workplace / "toy", workplace / "whole"
    data.write_toyvoc(toy, train=6, val=2, size=40, seed=3)
    began = time.monotonic()
    run_to_end(toy, whole)
    longest = time.monotonic() - began
    counts = {"kills": 0, "runs": 0, "before": 0, "inside": {}}
    while counts["kills"] < kills:
        folder = workplace / f"killed{counts['runs']}"
        counts["runs"] += 1
        here = 0
        while True:
            process = start(toy, folder)
            if counts["kills"] == kills or not kill_somewhere(process, folder, rng, longest):
                code, said = finish(process)
                assert code == 0, said
                break
            counts["kills"] += 1
            here += 1
            for name in unfinished(folder, process.pid):
                counts["inside"][name] = counts["inside"].get(name, 0) + 1
            counts["before"] += not (folder / "checkpoint.npz").exists()
            require_sound(folder)
        require_same(folder, whole)
        tell(f"run {counts['runs']}: killed {here} times, the same to the last bit; {counts['kills']} kills so far")
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        counts = kill_runs(Path(scratch), args.kills, args.seed, tell=lambda line: print(line, flush=True))
    inside = ", ".join(f"{n} in {name}" for name, n in sorted(counts["inside"].items()))
    print(f"survived {counts['kills']} of {counts['kills']} kills in {counts['runs']} runs (seed {args.seed})")
    print(
        f"inside a save: {sum(counts['inside'].values())} ({inside}); before the first checkpoint: {counts['before']}"
    )


if __name__ == "__main__":
    main()
