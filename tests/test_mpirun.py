"""Training in two processes that mpirun starts: the whole command, and how it ends where one of them comes to harm."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import bad_ranks
import kill_ranks
import kills
import mpi
import numpy as np
import pytest

from minifcn import cli
from minifcn.training import checkpoint
from minifcn.training.config import Config
from minifcn.training.run import Run, read_metrics

pytestmark = pytest.mark.skipif(bool(mpi.PROBLEM), reason=mpi.PROBLEM)
in_a_terminal = pytest.mark.skipif(
    not shutil.which("setsid"), reason="a terminal of its own takes setsid of util-linux"
)


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The folder of a run in two processes that nobody disturbed; beside it what it said in a terminal."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    command = [sys.executable, "-m", "minifcn", "train", "--data", toy, "--out", folder, *kills.SETTINGS]
    terminal, end = os.openpty()
    environment = {**os.environ, **mpi.SETTINGS, "COLUMNS": "66"}
    process = subprocess.Popen(
        [*map(str, command), "--processes", "2"], stdin=subprocess.DEVNULL, stdout=end, stderr=end, env=environment
    )
    os.close(end)
    said = b""
    with suppress(OSError):  # the terminal's end, once nobody has it open
        while part := os.read(terminal, 4096):
            said += part
    os.close(terminal)
    folder.with_suffix(".txt").write_bytes(said)
    assert process.wait(mpi.PATIENCE) == 0, said
    return folder


def losses(folder):
    return [record["loss"] for record in read_metrics(folder) if record["event"] == "step"]


def steps_done(folder, count):
    return lambda: (folder / "metrics.jsonl").exists() and len(losses(folder)) >= count


def own_lines(said):
    return [line.strip() for line in said.splitlines() if line.strip().startswith("minifcn:")]


def test_what_processes_see_of_each_other(tmp_path):
    code, said = mpi.Job(mpi.mpirun(3, mpi.ROOT / "tests" / "mpi_primitives.py"), tmp_path / "said").wait()
    assert code == 0, said
    found = json.loads(said.splitlines()[-1])
    assert found.pop("differs").startswith("version: not the same in process 2 on ")
    assert 0 < found.pop("half") < 0.005
    assert found == {
        "size": 3,
        "local": 3,
        "sum": [[6.0, 6.0]] * 2,
        "number": 1.5,
        "sums": [[6.0, 3003.0, 900_003.0]] * 2,
        "equal": 1,
        "joined": [0, 1, 1, 2, 2, 2],
        "first": [0, 1, 3],
        "any": [True, False],
        "shared": "of 0",
        "everyone": [0, 1, 2],
    }


def test_one_bar_in_the_terminal_and_each_line_once(whole):
    said = whole.with_suffix(".txt").read_text()
    assert said.count("report:") == said.count("iteration 7:") == 1, said
    bars = re.findall(r"[^\r\n]*\d+/\d+ \[[^]\r\n]*\]", said)
    counts = [int(re.search(r"(\d+)/\d+ \[", bar)[1]) for bar in bars]
    assert len(bars) > 1 and counts == sorted(counts) and counts[-1] == kills.ITERATIONS
    assert max(map(len, bars)) <= 66


def test_two_processes_learn_what_one_learns(whole, tmp_path):
    config = Config.from_dict(json.loads((whole / "config.json").read_text()), "test")
    alone = Run(config, tmp_path / "alone")
    list(alone.events())
    assert losses(whole)[:5] == pytest.approx(losses(alone.folder)[:5], abs=1e-3)  # in float32, which soon parts ways


def test_two_processes_learn_in_float64_what_one_learns(toy, tmp_path):
    (tmp_path / "toy").symlink_to(toy)
    learn = [mpi.ROOT / "benchmarks" / "distributed.py", "--learn", "--network=mini", "--steps=4"]
    found = []
    for size in (1, 2):
        code, said = mpi.Job(mpi.mpirun(size, *learn, "--folder", tmp_path), tmp_path / f"{size}.txt").wait()
        assert code == 0, said
        with np.load(tmp_path / f"mini{size}.npz") as file:
            found.append(dict(file))
    alone, two = found
    assert len(alone["losses"]) == 4 and two.keys() == alone.keys()
    for name, array in alone.items():
        np.testing.assert_allclose(two[name], array, rtol=1e-10, atol=1e-10, err_msg=name)


def test_a_killed_process_ends_the_job_which_goes_on_to_the_same_bits(toy, whole, tmp_path):
    folder = tmp_path / "killed"
    job = kill_ranks.start(toy, folder, 2)
    assert mpi.until(steps_done(folder, 9), job)
    os.kill(mpi.ranks(str(folder))[1], signal.SIGKILL)
    began = time.monotonic()
    code, said = job.wait()
    assert code not in (0, 2)
    assert time.monotonic() - began < kill_ranks.LIMIT
    (line,) = own_lines(said)
    assert "rank 1" in line
    kills.require_sound(folder)
    code, said = kill_ranks.start(toy, folder, 2).wait()
    assert code == 0 and "it/s" not in said, said  # no bar where there is no terminal
    kills.require_same(folder, whole)


def test_ctrl_c_saves_and_one_process_goes_on(toy, whole, tmp_path):
    folder = tmp_path / "stopped"
    job = kill_ranks.start(toy, folder, 2)
    assert mpi.until(steps_done(folder, 5), job)
    job.process.send_signal(signal.SIGINT)
    code, said = job.wait()
    assert code == 130, said
    assert f"stopped and saved; go on with: minifcn train --resume {folder} --processes 2" in said
    assert read_metrics(folder)[-1]["event"] == "stopped"
    done = len(losses(folder))
    list(Run.resume(folder).events())
    assert losses(folder)[:done] == losses(whole)[:done]
    assert losses(folder)[done] == pytest.approx(losses(whole)[done], abs=1e-4)
    assert len(losses(folder)) == kills.ITERATIONS


@in_a_terminal
def test_ctrl_c_at_mpirun_says_how_to_go_on(toy, tmp_path):
    """Which it does on the terminal itself: mpirun hands on nothing any more."""
    folder = tmp_path / "run"
    settings = ["--data", toy, "--out", folder, *kills.SETTINGS, "--iterations", "100000"]
    job = mpi.Terminal(*mpi.mpirun(2, "-m", "minifcn", "train", *settings))
    assert mpi.until(steps_done(folder, 3), job)
    job.press_ctrl_c()
    code, said = job.wait()
    assert code != 0
    assert own_lines(said) == [f"minifcn: interrupted; go on with: minifcn train --resume {folder}"], said
    kills.require_sound(folder)


@in_a_terminal
def test_the_shell_line_that_makes_ctrl_c_save_under_mpirun(toy, tmp_path):
    (line,) = re.findall(r"^\(setsid mpirun .*\)$", (mpi.ROOT / "docs" / "processes.md").read_text(), re.MULTILINE)
    folder = tmp_path / "run"
    settings = ["--data", toy, "--out", folder, *kills.SETTINGS, "--iterations", "100000"]
    command = shlex.join(map(str, [sys.executable, "-m", "minifcn", "train", *settings]))
    line = line.replace("minifcn train --data mydata --out runs/mine", command).replace("-n 4", "-n 2")
    job = mpi.Terminal("sh", "-c", line.replace("mpirun", shlex.quote(mpi.MPIRUN)))
    assert mpi.until(steps_done(folder, 3), job)
    job.press_ctrl_c()
    _, said = job.wait()
    assert f"stopped and saved; go on with: minifcn train --resume {folder}" in said
    assert read_metrics(folder)[-1]["event"] == "stopped"


def with_a_bad_rank(what, rank, said, *arguments):
    return mpi.Job(mpi.mpirun(2, mpi.ROOT / "tests" / "bad_ranks.py", what, rank, "train", *arguments), said)


def test_a_full_disk_ends_the_job_in_a_line_and_costs_nothing(toy, whole, tmp_path):
    folder = tmp_path / "full"
    code, said = with_a_bad_rank("full", 0, tmp_path / "said", "--data", toy, "--out", folder, *kills.SETTINGS).wait()
    assert code == 2, said
    assert own_lines(said) == [f"minifcn: {folder}/checkpoint.npz: cannot be written (No space left on device)"]
    kills.require_sound(folder)
    assert checkpoint.read(folder / "checkpoint.npz")[1]["iteration"] == bad_ranks.FULL_AFTER
    code, said = kill_ranks.start(toy, folder, 2).wait()
    assert code == 0, said
    kills.require_same(folder, whole)


def test_a_slow_process_is_waited_for_and_changes_nothing(toy, whole, tmp_path):
    folder = tmp_path / "slow"
    code, said = with_a_bad_rank("slow", 1, tmp_path / "said", "--data", toy, "--out", folder, *kills.SETTINGS).wait()
    assert code == 0, said
    kills.require_same(folder, whole)


@pytest.mark.parametrize(
    ("what", "size", "expected"),
    [
        ("a broken image", 3, r"minifcn: process 2 on \S+: toy/VOC2012/JPEGImages/\S+: not a readable image"),
        ("another image", 2, r"minifcn: data toy: not the same in process 1 on \S+ as in process 0 on"),
        ("another mask", 2, r"minifcn: data toy: not the same in process 1 on \S+ as in process 0 on"),
    ],
)
def test_hosts_whose_disks_differ_end_in_a_line(what, size, expected, toy, tmp_path):
    """The last process is on a host of its own."""
    for host in ("here", "there"):
        shutil.copytree(toy, tmp_path / host / "toy")
    images = sorted((tmp_path / "there" / "toy" / "VOC2012" / "JPEGImages").iterdir())
    if what == "another image":
        images[3].write_bytes(images[1].read_bytes())
    elif what == "another mask":  # of the same size
        mask = min((tmp_path / "there" / "toy" / "VOC2012" / "SegmentationClass").iterdir())
        content = bytearray(mask.read_bytes())
        content[len(content) // 2] ^= 1
        mask.write_bytes(content)
    else:  # all, since which images a process reads depends on who is free
        for image in images:
            image.write_bytes(bytes(image.stat().st_size))
    settings = [*kills.SETTINGS, "--batch-size", size, "--data", "toy", "--out", tmp_path / "run"]
    command = [mpi.MPIRUN]
    for host, processes in (("here", size - 1), ("there", 1)):
        command += [
            "-n",
            processes,
            "--wdir",
            tmp_path / host,
            sys.executable,
            "-m",
            "minifcn",
            "train",
            *settings,
            ":",
        ]
    code, said = mpi.Job(command[:-1], tmp_path / "said").wait()
    assert code == 2, said
    (line,) = own_lines(said)
    assert re.match(expected, line), said


def test_without_mpirun_a_line_says_what_to_install(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *names, **more: None)
    assert cli.main(["train", "--data", str(toy), "--out", str(tmp_path / "run"), "--processes", "2"]) == 2
    assert 'expected mpirun, found none; pip install "minifcn[mpi]"' in capsys.readouterr().err


@pytest.mark.slow
def test_jobs_survive_kills_at_random_moments(tmp_path):
    assert len(kill_ranks.kill_jobs(tmp_path, 5, seed=1)) == 5
