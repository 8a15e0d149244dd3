"""A run can be stopped anywhere and goes on bit by bit; it ends cleanly on Ctrl-C and on divergence."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minifcn import data, inference
from minifcn.training import checkpoint, loop
from minifcn.training.config import Config
from minifcn.training.run import Evaluated, Run, read_metrics


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    data.write_toyvoc(root, train=6, val=2, size=40, seed=3)
    return root


def settings(toy, **more):
    values = {
        "data": str(toy),
        "width": 2,
        "crop": 32,
        "batch_size": 2,
        "iterations": 7,
        "save_every": 1,
        "colour": 0.2,
    }
    return Config.from_dict({**values, "scale": (0.8, 1.2), "eval_every": 3, **more}, "test")


def run_to_end(run):
    return list(run.events())


def weights_of(run):
    return run.model.state_dict()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_resume_is_exact_to_the_last_bit(toy, tmp_path, optimizer, stop_after):
    whole = Run(settings(toy, optimizer=optimizer, lr=1e-2), tmp_path / "whole")
    run_to_end(whole)

    halted = Run(settings(toy, optimizer=optimizer, lr=1e-2), tmp_path / "halted")
    steps = []

    def stop():
        return len(steps) == stop_after

    for event in halted.events(stop):
        steps += [event] if isinstance(event, loop.Step) else []
    assert halted.model is not whole.model and len(steps) == stop_after

    resumed = Run.resume(tmp_path / "halted")
    run_to_end(resumed)
    for name, value in weights_of(whole).items():
        np.testing.assert_array_equal(weights_of(resumed)[name], value, err_msg=name)
    want, _ = checkpoint.read(whole.checkpoint)
    have, _ = checkpoint.read(resumed.checkpoint)
    assert want.keys() == have.keys()
    assert all(np.array_equal(want[name], have[name]) for name in want)


def test_resume_writes_the_same_metrics_as_an_unbroken_run(toy, tmp_path):
    def losses(folder):
        return [(r["iteration"], r["loss"]) for r in read_metrics(folder) if r["event"] == "step"]

    run_to_end(Run(settings(toy), tmp_path / "whole"))
    halted = Run(settings(toy, save_every=4), tmp_path / "halted")
    for event in halted.events():  # a crash two steps after the checkpoint of iteration 4, in the middle of a line
        if isinstance(event, loop.Step) and event.iteration == 6:
            break
    with open(halted.metrics, "a") as file:
        file.write('{"event": "st')
    run_to_end(Run.resume(tmp_path / "halted"))
    assert losses(tmp_path / "halted") == losses(tmp_path / "whole")
    scores = [r for r in read_metrics(tmp_path / "halted") if r["event"] == "evaluated"]
    assert [r["iteration"] for r in scores] == [3, 6, 7]


def test_the_same_seed_trains_the_same_network_and_another_seed_another(toy, tmp_path):
    runs = [
        Run(settings(toy, seed=seed, iterations=2), tmp_path / name) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    for run in runs:
        run_to_end(run)
    first, same, other = (weights_of(run)["vgg.conv3_1.weight"] for run in runs)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_divergence_stops_at_once_and_keeps_the_last_good_checkpoint(toy, tmp_path):
    run = Run(settings(toy, optimizer="sgd", lr=1e20, iterations=20), tmp_path / "run")
    with pytest.raises(loop.Diverged, match="try a smaller one"):
        run_to_end(run)
    arrays, meta = checkpoint.read(run.checkpoint)
    assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")
    assert meta["iteration"] < 20
    assert all(np.isfinite(r["loss"]) for r in read_metrics(run.folder) if r["event"] == "step")


def test_best_weights_are_those_of_the_highest_score(toy, tmp_path):
    run = Run(settings(toy, iterations=9), tmp_path / "run")
    best = [e for e in run.events() if isinstance(e, Evaluated) and e.best][-1]
    model, classes = checkpoint.load_network(run.folder / "best.npz")
    matrix = inference.evaluate(model, run.val_data, len(classes))
    assert matrix.mean_iou() == best.scores["mean_iou"]


def test_a_finer_stage_begins_where_the_coarser_one_ended(toy, tmp_path):
    coarse = Run(settings(toy, variant="32s", iterations=3), tmp_path / "32s")
    run_to_end(coarse)
    fine = Run(settings(toy, variant="16s", start=str(coarse.checkpoint)), tmp_path / "16s")
    for name in ("vgg.conv1_1.weight", "vgg.bn7.running_mean", "score_fr.bias"):
        np.testing.assert_array_equal(weights_of(fine)[name], weights_of(coarse)[name])
    assert not weights_of(fine)["score_pool4.weight"].any()


def test_a_folder_with_a_run_is_not_overwritten(toy, tmp_path):
    run_to_end(Run(settings(toy, iterations=1), tmp_path / "run"))
    with pytest.raises(ValueError, match="holds a run already"):
        Run(settings(toy), tmp_path / "run")


def test_metrics_are_json_lines(toy, tmp_path):
    run = Run(settings(toy, iterations=2), tmp_path / "run")
    run_to_end(run)
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [r["event"] for r in records if r["event"] != "saved"] == ["step", "step", "evaluated"]
    assert {"iteration", "loss", "rate", "seconds"} <= records[0].keys()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to another process")
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(toy, tmp_path):
    out = tmp_path / "run"
    command = ["train", "--data", str(toy), "--out", str(out), "--width", "2", "--crop", "32", "--iterations", "100000"]
    process = subprocess.Popen([sys.executable, "-m", "minifcn", *command], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "metrics.jsonl").exists() or len(read_metrics(out)) < 3:
        assert process.poll() is None and time.monotonic() < deadline, "the run never began"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"minifcn train --resume {out}" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert Run.resume(out).done == [r for r in read_metrics(out) if r["event"] == "step"][-1]["iteration"]
