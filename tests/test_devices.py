"""--device, `minifcn info`, and running out of memory: as people meet them, on machines that have no GPU."""

import dataclasses
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from minifcn import backend, cli, data
from minifcn.backend import cuda, diagnosis
from minifcn.cli import options
from minifcn.training import loop

COMPLETE = {"cublas": "/lib/libcublas.so", "nvrtc": "/lib/libnvrtc.so", "cudart": "/include"}
PACKAGES, DEVICES = {"cupy-cuda13x": "14.2.0"}, ["Pretend"]
WORKS = diagnosis.Environment(
    "580.65.06", (13, 0), PACKAGES, COMPLETE, DEVICES, works="GPU Pretend, CuPy 14.2.0", problem=None, visible=None
)
FAILS = dataclasses.replace(WORKS, works=None, problem="some error")
TWELVE, THIRTEEN = 'pip install ".[cuda12]"', 'pip install ".[cuda13]"'

# what is found -> the line to do
CASES = {
    "no driver, no CuPy": ({"cuda": None, "packages": {}, "libraries": {}}, f"then: {TWELVE} or {THIRTEEN}"),
    "no driver, CuPy": ({"cuda": None}, "580 or newer), then: minifcn info"),
    "a driver from before CUDA 12": ({"cuda": (11, 8)}, "runs CUDA up to 11.8: install driver 525 or newer"),
    "a driver for CUDA 12, no CuPy": ({"cuda": (12, 4), "packages": {}}, TWELVE),
    "a driver for CUDA 13, no CuPy": ({"packages": {}}, THIRTEEN),
    "a driver newer than all CuPys": ({"cuda": (14, 1), "packages": {}}, THIRTEEN),
    "CuPy newer than the driver": ({"cuda": (12, 9)}, f"pip uninstall -y cupy-cuda13x && {TWELVE}"),
    "CuPy of an old CUDA": ({"packages": {"cupy-cuda11x": "13"}}, f"pip uninstall -y cupy-cuda11x && {THIRTEEN}"),
    "two CuPys": ({"packages": {"cupy-cuda12x": "14", **PACKAGES}}, f"cupy-cuda12x cupy-cuda13x && {THIRTEEN}"),
    "libraries missing": ({"libraries": {**COMPLETE, "cublas": None}}, THIRTEEN),
    "libraries missing beside a CuPy of one's own": (
        {"packages": {"cupy": "14"}, "libraries": {**COMPLETE, "cublas": None}},
        f"pip uninstall -y cupy && {THIRTEEN}",
    ),
    "no GPU": ({"devices": []}, "see whether nvidia-smi lists one"),
    "all GPUs hidden": ({"devices": [], "visible": ""}, "CUDA_VISIBLE_DEVICES='': unset CUDA_VISIBLE_DEVICES"),
    "anything else": ({}, "pip install --force-reinstall --no-cache-dir cupy-cuda13x"),
}


@pytest.mark.parametrize(("change", "line"), CASES.values(), ids=CASES)
def test_what_to_do_is_told_exactly(change, line):
    told = diagnosis.remedy(dataclasses.replace(FAILS, **change))
    assert line in told and "\n" not in told
    assert diagnosis.remedy(WORKS) is None


def test_the_extras_that_are_told_of_exist():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    for major in diagnosis.OLDEST_DRIVER:
        assert f'cuda{major} = ["cupy-cuda{major}x[ctk]' in text


def printed(capsys, found, monkeypatch):
    monkeypatch.setattr(diagnosis, "inspect", lambda: found)
    assert cli.main(["info"]) == 0
    return capsys.readouterr().out.splitlines()


def test_info_shows_what_works_what_is_missing_and_what_to_do(capsys, monkeypatch):
    lines = printed(capsys, WORKS, monkeypatch)
    assert "driver    580.65.06, runs CUDA up to 13.0" in lines
    assert "device    cuda:0, Pretend" in lines
    assert "CuPy      cupy-cuda13x 14.2.0" in lines
    assert "GPU       works: GPU Pretend, CuPy 14.2.0" in lines
    assert not any(line.startswith("to do") for line in lines)
    lines = printed(capsys, dataclasses.replace(FAILS, libraries={**COMPLETE, "nvrtc": None}), monkeypatch)
    assert "  nvrtc   missing" in lines
    assert "GPU       cannot be used: some error" in lines
    assert lines[-1] == f"to do     {THIRTEEN}"


def test_info_on_this_machine(capsys):
    assert cli.main(["info"]) == 0
    shown = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert np.__version__ in shown["NumPy"]
    assert shown["threads"].split()[1] == str(backend.threads())
    assert {"Python", "BLAS", "driver", "CuPy", "GPU"} <= shown.keys()
    assert ("to" in shown) == ("cannot be used" in shown["GPU"])
    assert (find_spec("cupy") is None) == ("not installed" in shown["CuPy"])


def test_every_command_that_computes_has_the_option(capsys):
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        computes = command not in ("explain", "convert", "export", "info", "data")
        assert ("--device" in capsys.readouterr().out) == computes, command


@pytest.fixture
def two_gpus(choose, monkeypatch):
    """A CuPy with two GPUs that is NumPy inside. -> the list of the numbers that were chosen"""
    chosen = []
    names = types.SimpleNamespace
    runtime = names(
        getDeviceCount=lambda: 2,
        getDevice=lambda: chosen[-1] if chosen else 0,
        getDeviceProperties=lambda number: {"name": b"Pretend %d" % number},
    )
    cuda = names(runtime=runtime, Device=lambda number: names(use=lambda: chosen.append(number)))
    of_numpy = {"ones": np.ones, "float32": np.float32, "asarray": np.asarray, "asnumpy": np.asarray}
    cupy = names(cuda=cuda, ndarray=type("ndarray", (), {}), __version__="0.0", **of_numpy)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return chosen


@pytest.mark.parametrize(("name", "number"), [("cuda", 0), ("cupy", 0), ("auto", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_is_chosen_by_its_number(name, number, two_gpus, capsys):
    assert cuda.devices() == ["Pretend 0", "Pretend 1"]
    assert "there is no cuda:2, only cuda:0, cuda:1; minifcn info" in refused(capsys, "cuda:2")
    assert two_gpus == []
    assert type(backend.to_device([1.0])) is np.ndarray
    assert backend.use(name) == f"backend {name}: using cupy (GPU Pretend {number}, CuPy 0.0)"
    assert two_gpus == [number] * (":" in name)


def refused(capsys, device):
    assert cli.main(["gradcheck", "--device", device]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_a_device_that_cannot_be_had_is_refused_in_one_line(device, capsys, monkeypatch):
    monkeypatch.setattr(cuda, "probe", lambda: (None, "pretended failure"))
    for name in ("gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "CUDA"):
        line = refused(capsys, name)
        assert "expected one of auto, cupy, numpy" in line and line.endswith(f"got {name!r}")
    assert refused(capsys, "cuda").endswith("CuPy cannot be used: pretended failure; minifcn info says what to do")
    for name, chosen in (("cpu", "numpy"), ("numpy", "numpy"), ("strict", "strict")):
        assert backend.use(name).startswith(f"backend {name}: using {chosen} ")


def of_numpy():
    try:
        np.empty((1 << 20, 1 << 30))
    except MemoryError as error:
        return error
    return pytest.skip("this machine has petabytes of memory")


def of_cupy():
    if find_spec("cupy") is None:
        return MemoryError("Out of memory allocating 1,610,612,736 bytes (allocated so far: 1,073,741,824 bytes).")
    from cupy.cuda.memory import OutOfMemoryError

    return OutOfMemoryError(1610612736, 1 << 30)


ERRORS = {
    "NumPy": (of_numpy, "out of memory: unable to allocate 8.00 PiB for an array with shape (1048576, 1073741824)"),
    "CuPy": (of_cupy, "out of memory on the GPU: 1.5 GiB asked for, 1 GiB in use"),
    "cuBLAS": (lambda: RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), "on the GPU (CUBLAS_STATUS_ALLOC_FAILED)"),
    "nobody's": (MemoryError, "out of memory"),
}


@pytest.mark.parametrize(("make", "told"), ERRORS.values(), ids=ERRORS)
def test_running_out_of_memory_is_told_with_the_size_and_other_errors_are_not(make, told):
    assert told in backend.out_of_memory(make())
    for error in (ValueError("memory"), RuntimeError("cudaErrorIllegalAddress"), OSError("memory")):
        assert backend.out_of_memory(error) is None
    assert options.out_of_memory(MemoryError(), types.SimpleNamespace()) == "out of memory; smaller images need less"


def test_training_out_of_memory_ends_in_one_line_that_says_what_to_lower(tmp_path, capsys, monkeypatch):
    data.write_toyvoc(tmp_path / "toy", train=2, val=1, size=40, seed=0)
    error = of_cupy()

    def too_large(*_):
        raise error

    monkeypatch.setattr(loop, "update", too_large)
    command = ["train", "--data", str(tmp_path / "toy"), "--out", str(tmp_path / "run"), "--width", "2", "--crop", "32"]
    assert cli.main(command) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == (
        "minifcn: out of memory on the GPU: 1.5 GiB asked for, 1 GiB in use; lower --batch-size or --crop or --resize"
    )
    assert "Traceback" not in captured.err
