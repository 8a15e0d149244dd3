"""Kernels compiled for the CPU: they agree with NumPy on whole networks, give the same bits in every run, and are left out where
they cannot be had."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minifcn import backend, models, ops
from minifcn.backend import compiler, native, tuning
from minifcn.backend.source import Source
from minifcn.training import loop
from minifcn.training.optimizers import AdamW

pytestmark = pytest.mark.skipif(not compiler.compiler(), reason="no C++ compiler is installed")


def trained(steps, dtype="float32", threads=None, **options):
    """(the losses of some updates of a small network, its weights)"""
    backend.set_threads(threads)
    rng = np.random.default_rng(7)
    network = models.fcn(
        **{"variant": "8s", "backbone": "mini", "num_classes": 5, "alignment": "same", **options}
    ).astype(dtype)
    images = rng.standard_normal((2, 3, 64, 96)).astype(dtype)
    labels = rng.integers(0, 5, (2, 64, 96)).astype(np.uint8)
    labels[:, :9] = 255
    optimizer = AdamW(network.parameters(), weight_decay=1e-3)
    losses = [loop.update(network, images, labels, optimizer, 1e-3) for _ in range(steps)]
    backend.set_threads(None)
    return losses, network.state_dict()


@pytest.mark.parametrize("backbone", ["mini", "efficientnet_lite0"])
def test_a_training_takes_the_same_way_as_in_numpy(backbone, compiled):
    by_kernels, weights = trained(4, "float64", backbone=backbone)
    backend.use_native(False)
    by_numpy, expected = trained(4, "float64", backbone=backbone)
    np.testing.assert_allclose(by_kernels, by_numpy, rtol=1e-9)
    for name, array in expected.items():
        np.testing.assert_allclose(weights[name], array, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_training_gives_the_same_bits_in_every_run(threads, compiled):
    first, second = (trained(3, threads=threads)[1] for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("backbone", ["mini", "efficientnet_lite0"])
def test_a_training_gives_the_same_bits_for_any_number_of_threads(backbone, compiled, tiling, monkeypatch):
    worth_a_thread = tuning.WORTH_A_THREAD
    tiling(1 << 14)  # small enough that every thread gets some of the work
    monkeypatch.setattr(tuning, "WORTH_A_THREAD", worth_a_thread)  # BLAS adds up tiny products in another order
    found = [trained(3, threads=threads, backbone=backbone)[1] for threads in (1, 2, 3, 5)]
    for other in found[1:]:
        assert all(np.array_equal(other[name], found[0][name]) for name in other)


def test_kernels_and_numpy_agree_for_any_number_of_channels(compiled, rng):
    """Vectors of 16 and of 4 and single values make up every count."""
    for channels in (*range(1, 22), 33):
        x = rng.standard_normal((2, 7, 12, channels)).transpose(0, 3, 1, 2)
        w = rng.standard_normal((channels, 1, 3, 3))
        found = []
        for on in (True, False):
            backend.use_native(on)
            y, cache = ops.conv2d_forward(x, w, pad=1, stride=1 + channels % 2, groups=channels)
            pooled, of_pool = ops.max_pool2d_forward(x, 3, stride=2, pad=1)
            found.append((y, *ops.conv2d_backward(y, cache)[:2], pooled, ops.max_pool2d_backward(pooled, of_pool)))
        for got, wanted in zip(*found, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def test_softmax_keeps_to_its_range_of_numbers(compiled):
    """Exponentials far below any normal number are 0, and nothing of it is NaN."""
    for dtype, low in (("float32", -200), ("float64", -2000)):
        logits = np.linspace(low, 0, 4001, dtype=dtype)
        logits = np.stack([logits, np.zeros_like(logits)])[None, :, None]
        labels = np.zeros((1, 1, 4001), np.uint8)
        loss, (probabilities, *_) = ops.softmax_cross_entropy_forward(logits, labels, reduction="none")
        shifted = np.exp(logits[0, 0].astype(np.float64))
        np.testing.assert_allclose(probabilities[0, 0], shifted / (1 + shifted), rtol=1e-6, atol=1e-37)
        np.testing.assert_allclose(loss[0], -logits[0, 0] + np.log1p(shifted), rtol=1e-6)


def test_a_nan_is_not_lost(compiled):
    x = np.array([[[[1.0, np.nan], [3.0, 2.0]]]], np.float32)
    assert np.isnan(ops.max_pool2d_forward(x, 2)[0]).all()
    ones = np.ones(1, np.float32)
    normalised, _ = ops.batch_norm_forward(x, ones, ones, ones, ones, activation="relu")
    assert np.isnan(normalised).sum() == 1


def ended(*arguments, **environment):
    """A process of Python's own that has ended well."""
    environment = {**os.environ, "MINIFCN_NATIVE": "1", **environment}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def run(code, **environment):
    """What a process of its own prints."""
    return ended("-c", code, **environment).stdout.strip()


def info(**environment):
    """(what `minifcn info` says of the kernels, the notices beside it)"""
    done = ended("-m", "minifcn", "info", **environment)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("kernels"))
    return line, done.stderr.splitlines()


ASKED = """
import numpy as np
from minifcn import ops
from minifcn.backend import compiler, native, tuning
x = np.ones((1, 16, 4, 4), np.float32)
y, _ = ops.max_pool2d_forward(x, 2)
print(native.runs(ops.pool.SOURCE, x.dtype), compiler.problem(), float(y.sum()))
"""


def test_kernels_are_used_unless_the_environment_says_no(tmp_path):
    cache = str(tmp_path)
    assert run(ASKED, XDG_CACHE_HOME=cache) == "True None 64.0"
    assert len(list((tmp_path / "minifcn").glob("pool.cu-*.so"))) == 1
    kept = tmp_path / "minifcn"
    assert info(XDG_CACHE_HOME=cache) == (f"kernels   compiled by {' '.join(compiler.compiler())}, kept in {kept}", [])
    assert run(ASKED, MINIFCN_NATIVE="0") == "False MINIFCN_NATIVE=0 64.0"


def test_a_compiler_that_fails_leaves_it_to_numpy(tmp_path):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    broken.chmod(0o755)
    assert run(ASKED, XDG_CACHE_HOME=str(tmp_path), CXX=str(broken)).startswith("False activation.cu: ")
    assert run(ASKED, CXX="no-such-compiler").startswith("False CXX=no-such-compiler: expected the command of")


def test_the_environment_is_asked_again(monkeypatch):
    for value, wanted in (("0", False), ("1", True)):
        monkeypatch.setenv("MINIFCN_NATIVE", value)
        backend.use_native(None)
        assert (compiler.is_wanted(), compiler.problem()) == (wanted, None if wanted else "MINIFCN_NATIVE=0")
    backend.use_native(False)


def test_as_many_compilers_run_as_threads_are_allowed(compiled, monkeypatch):
    asked = []
    monkeypatch.setattr(native, "ThreadPoolExecutor", lambda count: asked.append(count) or ThreadPoolExecutor(count))
    for count in (1, 3):
        backend.set_threads(count)
        assert None not in native._libraries.__wrapped__("float32").values()
    backend.set_threads(None)
    assert asked == [1, 3]


NOTICE = "compiling the kernels for this processor, once; this may take a minute"


def test_info_tells_of_a_compiler_that_fails_and_the_wait_is_announced(tmp_path):
    refuses = shutil.which("false")
    reason = f"left to NumPy: activation.cu: {refuses}: exit code 1"
    line, notices = info(XDG_CACHE_HOME=str(tmp_path), CXX=refuses)
    assert line == f"kernels   {reason}"
    assert notices == [NOTICE, f"kernels are {reason}"]
    assert not (tmp_path / "minifcn").exists()


def test_where_no_cache_can_be_written_it_is_numpy_and_nothing_is_left_behind(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "scratch").mkdir()
    places = {"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "scratch")}
    line, notices = info(**places)
    assert line.startswith("kernels   left to NumPy: no folder to keep compiled kernels in")
    assert line.endswith("set XDG_CACHE_HOME to one that can be written to")
    assert len(notices) == 1
    assert run(ASKED, **places).startswith("False no folder to keep compiled kernels in")
    assert not list((tmp_path / "scratch").iterdir())


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    """An empty folder for compiled libraries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler._announce.cache_clear()
    return tmp_path / "minifcn"


def test_what_is_compiled_is_announced_once_and_what_is_loaded_is_not(cache_folder, caplog):
    caplog.set_level("INFO")
    for text in ("int one;", "int two;"):
        compiler.library("some", text, native.OPTIONS)
    assert caplog.messages == [NOTICE]
    compiler._announce.cache_clear()
    compiler.library("some", "int one;", native.OPTIONS)
    assert caplog.messages == [NOTICE]


def test_a_cache_that_is_filled_need_not_be_writable(cache_folder, monkeypatch):
    def refuse(**options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    kept = compiler.library("some", "int one;", native.OPTIONS)
    monkeypatch.setattr(compiler.tempfile, "TemporaryDirectory", refuse)
    assert compiler.library("some", "int one;", native.OPTIONS) == kept
    with pytest.raises(compiler.CompileError, match="Read-only file system"):
        compiler.library("some", "int two;", native.OPTIONS)


def test_every_kind_of_processor_has_libraries_of_its_own(cache_folder, tmp_path, monkeypatch):
    copy, described = tmp_path / "copy.cu", native._processor
    copy.write_text("KERNEL void copy(RANGE, ARRAY(const T) x, ARRAY(T) y) { EACH(i) AT(y, i) = AT(x, i); }")
    counts = []
    for number, text in enumerate(["flags: sse2 avx2", "flags: sse2", "cpu MHz: 2000\nflags: sse2"]):
        processor = tmp_path / f"cpuinfo{number}"
        processor.write_text(text)
        monkeypatch.setattr(native, "_processor", lambda processor=processor: described(processor))
        assert native._library(Source(copy), "float32") is not None
        counts.append(len(list(cache_folder.iterdir())))
    assert counts == [1, 2, 2]


def test_the_compiler_that_pip_brings_is_taken_where_there_is_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    for there, command in ((True, (sys.executable, "-m", "ziglang", "c++")), (None, ())):
        monkeypatch.setattr(compiler, "find_spec", lambda name, there=there: there and name == "ziglang")
        assert compiler.compiler.__wrapped__() == command


def test_importing_compiles_nothing(tmp_path):
    run("import minifcn, minifcn.models, minifcn.training.run", XDG_CACHE_HOME=str(tmp_path))
    assert not (tmp_path / "minifcn").exists()


@pytest.mark.slow
def test_two_processes_may_compile_at_once(tmp_path):
    found = []
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    threads = [threading.Thread(target=lambda: found.append(run(ASKED, **environment))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["True None 64.0"] * 2
    assert not [path for path in (tmp_path / "minifcn").iterdir() if path.suffix != ".so"]


def test_a_kernel_goes_over_its_grid_whatever_the_number_of_threads(compiled, tiling, rng):
    x = rng.standard_normal((1, 5, 6, 37), np.float32).transpose(0, 3, 1, 2)
    found = []
    for threads in (1, 2, 5):
        tiling(1, threads)
        found.append(ops.max_pool2d_forward(x, 2, ceil_mode=True)[0])
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_what_a_kernel_cannot_take_is_told(compiled):
    x = np.zeros((4, 4), np.float32)
    with pytest.raises(ValueError, match="clip_gradient: expected contiguous arrays"):
        native.launch(ops.activation.SOURCE, "clip_gradient", 16, x.T, x, x, 0.0, 1.0)
    with pytest.raises(ValueError, match="expected fewer than 2147483648 results at once"):
        native.launch(ops.activation.SOURCE, "clip_gradient", 1 << 31, x, x, x, 0.0, 1.0)
    with pytest.raises(TypeError, match="one floating dtype"):
        native.launch(ops.activation.SOURCE, "clip_gradient", 16, x, x, x.astype("float64"), 0.0, 1.0)


def test_a_way_back_of_another_dtype_is_told(compiled):
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    _, cache = ops.max_pool2d_forward(x, 2)
    with pytest.raises(
        TypeError, match="max_pool2d backward: expected an upstream gradient of float32, like the output, got float64"
    ):
        ops.max_pool2d_backward(np.ones((1, 1, 2, 2)), cache)


def test_a_pool_finds_its_way_back_where_kernels_are_switched_off_meanwhile(compiled):
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    y, cache = ops.max_pool2d_forward(x, 2)
    backend.use_native(False)
    np.testing.assert_array_equal(ops.max_pool2d_backward(y, cache), np.where(np.isin(x, y), x, 0))


def test_a_kernel_writes_to_no_read_only_array(compiled):
    y = np.ones((4, 4), np.float32)
    y.flags.writeable = False
    with pytest.raises(ValueError, match="clip_gradient: an array to write to is read-only"):
        native.launch(ops.activation.SOURCE, "clip_gradient", 16, y, y, y, 0.0, 1.0)


def test_infinity_behind_a_relu_lets_gradients_through(compiled):
    x = np.full((1, 16, 1, 2), np.inf, np.float32)
    _, cache = ops.relu_forward(x.reshape(-1))
    np.testing.assert_array_equal(ops.relu_backward(np.ones(32, np.float32), cache), np.ones(32))


def test_a_damaged_library_is_compiled_again(cache_folder):
    whole = compiler.opened("some", 'extern "C" int one() { return 1; }', native.OPTIONS)
    assert whole.one() == 1
    text = 'extern "C" int two() { return 2; }'
    compiler.library("some", text, native.OPTIONS).write_bytes(b"")
    assert compiler.opened("some", text, native.OPTIONS).two() == 2
