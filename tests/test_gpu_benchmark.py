"""The GPU benchmark's arithmetic is right, and the script runs, on a machine without a GPU."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from minifcn import models
from minifcn.backend import cuda

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    """The scripts import each other by their bare names."""
    sys.path.insert(0, str(SCRIPT.parent))
    yield
    sys.path.remove(str(SCRIPT.parent))


def test_layers_are_those_of_the_network_they_are_named_after():
    """Against a VGG16 a sixteenth as wide, layer by layer as it is walked."""
    import gpu_works
    import in_minifcn
    import works

    network = in_minifcn.build(replace(works.VGG, narrow=16))
    rows = {row.name.removeprefix("vgg."): row for row in models.explain(network, (500, 500)).rows}
    layers = gpu_works.vgg16(500, "forward")
    assert [layer.name for layer in layers[:3]] == ["conv1_1", "conv1_2", "conv2_1"]
    assert len(layers) == 15
    for layer in layers:
        narrow = replace(layer, inputs=layer.inputs if layer.image else layer.inputs // 16, outputs=layer.outputs // 16)
        row = rows[layer.name]
        assert row.shape == (1, narrow.outputs, layer.out_side, layer.out_side), layer.name
        assert 2 * row.multiply_adds == narrow.flops, layer.name


def test_operations_and_bytes_by_hand():
    """x 2 × 3 × 4 × 4, w 5 × 3 × 3 × 3, b 5, y 2 × 5 × 4 × 4."""
    from gpu_works import Layer

    x, w, b, y = 96, 135, 5, 160
    forward = Layer("layer", "forward", 3, 5, 3, 1, 4, batch=2)
    assert (forward.out_side, forward.flops, forward.bytes) == (4, 2 * 160 * 27, 4 * (x + w + b + y))
    backward = replace(forward, task="backward")
    assert (backward.flops, backward.bytes) == (4 * 160 * 27, 4 * (x + w + y + x + w + b))
    first = replace(backward, image=True)  # no dx, and so w is not needed but for its shape
    assert first.flops == 2 * 160 * 27
    assert first.bytes == 4 * (x + y + w + b)


def test_the_roofline_is_the_higher_of_two_bounds():
    from gpu_works import Layer, roofline

    layer = Layer("layer", "forward", 3, 5, 3, 1, 4, batch=2)
    thinking = roofline(layer, rate=layer.flops / 2, bandwidth=layer.bytes)
    assert (thinking.seconds, thinking.limit) == (2, "operations")
    waiting = roofline(layer, rate=layer.flops, bandwidth=layer.bytes / 3)
    assert (waiting.seconds, waiting.limit) == (3, "bytes")


def record(**more):
    import gpu_works

    layers = [
        {"name": f"layer{i}", "minifcn": seconds, "PyTorch": 0.5 * seconds, "peaks": {}, "layer": True, "flops": 2e9}
        | {"bytes": 3e6, "bound": seconds / 4, "limit": "bytes"}
        for i, seconds in enumerate([0.001, 0.007, 0.003, 0.006, 0.002, 0.005])
    ]
    peaks = {"minifcn": 2 << 20, "PyTorch": 3 << 20}
    network = {"name": "FCN-8s-VGG16 forward, 500 × 500, batch 1", "minifcn": 0.005, "peaks": peaks, "layer": False}
    facts = {"device": "Pretend", "precision": "TF32", "cupy": "14", "rate": 1e12, "bandwidth": 1e11}
    facts |= dict.fromkeys(["driver", "cuda", "torch"])
    assert gpu_works.PAPER_SECONDS == 0.175
    return {**facts, "entries": [*layers, {**network, "batch": 1, **more}]}


def test_the_tables():
    import gpu_table

    text = gpu_table.markdown(record())
    assert text.startswith("device Pretend, cupy 14. Products in TF32 on both sides; goal:")
    assert "| layer1 | 7.000 | 3.500 | 2.00 |  |  |" in text
    assert "| FCN-8s-VGG16 forward, 500 × 500, batch 1 | 5.000 | not measured |  | 2 | 3 |" in text
    roofline = [line.split(" | ")[0] for line in text.split("heaviest")[1].splitlines() if line.startswith("| layer")]
    assert roofline[1:] == [f"| layer{i}" for i in (1, 3, 5, 2, 4)]
    assert "| layer1 | 2.00 | 3.0 | 1.750 | bytes | 7.000 | 4.00 | 3.500 |" in text
    assert "The paper's 175 ms an image is beaten 35 times (goal: 20, 8.75 ms)." in text


def test_what_did_not_fit_is_said_not_to_be_measured():
    import gpu_table

    found = record()
    del found["entries"][-1]["minifcn"]
    text = gpu_table.markdown(found)
    assert "batch 1 | not measured | not measured |" in text
    assert "The paper" not in text
    assert gpu_table.line(found["entries"][-1]).startswith("FCN-8s-VGG16 forward, 500 × 500, batch 1: not measured")


def run(*arguments, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.skipif(cuda.probe()[0] is not None, reason="a GPU works here, and would be measured for minutes")
def test_without_a_gpu_it_says_so_in_one_line():
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpu.py: needs a GPU: ") and line.endswith("minifcn info says what to do")


def test_the_precision_is_not_the_environments_to_say():
    done = run("--dry-run", CUPY_TF32="1")
    assert (done.returncode, done.stderr) == (2, "gpu.py: the precision is --tf32's to say: unset CUPY_TF32\n")


@pytest.mark.slow
def test_everything_runs_and_no_figure_is_shown():
    done = run("--dry-run", "--out", "nowhere/gpu.json")
    assert done.returncode == 0, done.stderr
    *works, last = [line for line in done.stdout.splitlines() if "alone is measured" not in line]
    assert len(works) == 6
    assert all(line.endswith(": ran") for line in works)
    assert last.startswith("dry run: everything ran on the host; nothing was measured")
