"""Sums over GPUs by NCCL: the order of what two streams do, tried on the stand-in for a GPU, and on a GPU where there is one."""

import logging
import re
import sys
import threading
from types import SimpleNamespace
from weakref import WeakValueDictionary

import numpy as np
import pytest
from conftest import NO_GPU
from networks import narrow_fcn, picture, without_chance
from together import together, world

from minifcn import backend, distributed
from minifcn.cli import launch
from minifcn.testing import strict
from minifcn.training import exchange
from minifcn.training.optimizers import SGD

GPUS = 2


class Stream:
    """What one GPU was told to do, in order. What is not the computing stream's is done as late as can be: when that has to wait for it."""

    def __init__(self, told, name):
        self.told, self.name, self.ptr, self.late = told, name, id(self), []

    def record(self):
        self.told.append(f"{self.name} records")
        return len(self.told), self, len(self.late)

    def wait_event(self, event):
        when, other, count = event
        self.told.append(f"{self.name} waits for {other.name}'s {when}")
        for one in other.late[:count]:
            one()
        del other.late[:count]


class CUDA:
    """cupy.cuda, and cupy.cuda.nccl, of processes that are threads: each has a GPU, unless another's is given. broken: whose NCCL does not join."""

    available = True
    NCCL_SUM, NCCL_FLOAT32, NCCL_FLOAT64 = 0, 7, 8

    def __init__(self, gpus=range(GPUS), broken=None):
        self.gpus, self.broken, self.own, self.memory = gpus, broken, threading.local(), WeakValueDictionary()
        self.nccl = self
        self.runtime = SimpleNamespace(
            getDevice=lambda: 0, deviceGetPCIBusId=lambda _: f"0000:0{self.gpus[world().rank]}:00.0"
        )

    @property
    def told(self):
        return self.own.__dict__.setdefault("told", [])

    def get_current_stream(self):
        if not hasattr(self.own, "computing"):
            self.own.computing = Stream(self.told, "computing")
        return self.own.computing

    def Stream(self, non_blocking):
        assert non_blocking  # or it would wait for the computing stream, and that for it
        self.own.sums = Stream(self.told, "sums")
        return self.own.sums

    def get_unique_id(self):
        assert world().rank == 0
        return "identity"

    def NcclCommunicator(self, size, identity, rank):
        assert (size, identity, rank) == (world().size, "identity", world().rank)
        if rank == self.broken:
            raise RuntimeError("NCCL_ERROR_SYSTEM_ERROR:\nunhandled system error")
        return self

    def allReduce(self, sent, received, count, kind, operation, stream):
        assert (stream, operation) == (self.own.sums.ptr, self.NCCL_SUM)
        self.told.append(f"sums reduces {count}")
        job = world()

        def reduce():  # reads and writes memory as it is then, if it still is
            assert self.memory[sent].size == self.memory[received].size == count
            assert str(self.memory[sent].dtype) == {7: "float32", 8: "float64"}[kind]
            self.memory[received][...] = sum(job.everyone(self.memory[sent].copy()))

        self.own.sums.late.append(reduce)

    def pointer(self, array):
        data = array._data
        assert data.flags.c_contiguous
        self.memory[id(data)] = data
        return SimpleNamespace(ptr=id(data))


@pytest.fixture
def pretend(choose, monkeypatch):
    """pretend(...): choose the stand-in as if it were CuPy, with such a CUDA. -> it"""
    monkeypatch.setattr(distributed, "world", world)
    backend.set_threads(1)

    def make(**settings):
        made = CUDA(**settings)
        choose(strict.DEVICE)
        monkeypatch.setattr(strict.xp, "__name__", "cupy")
        monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=made))
        monkeypatch.setitem(sys.modules, "cupy.cuda", made)
        monkeypatch.setattr(strict.StrictArray, "data", property(made.pointer), raising=False)
        return made

    yield make
    backend.set_threads()


def gradients(job, images, dy, **settings):
    """The gradients of this process's half, or of all, summed over all; and what a step by them makes of the weights."""
    network = without_chance(narrow_fcn("8s", "same").astype(np.float64))
    part = slice(job.rank, job.rank + 1) if job.size > 1 else slice(None)
    exchange.share(network, job, len(images))
    sums = exchange.Exchange(network, job, **settings) if job.size > 1 else None
    network.forward(backend.to_device(images[part]), train=True)
    network.backward(backend.to_device(dy[part]), inputs=False, passed=sums and sums.passed)
    if sums:
        sums.finish()
    SGD(network.parameters()).step(0.1)
    return network.state_dict()


def batch():
    images = np.concatenate([picture(32, 32, np.float64), picture(32, 32, np.float64)[..., ::-1]])
    return images, np.random.default_rng(0).normal(size=(2, *narrow_fcn("8s", "same").output_shape(images.shape)[1:]))


def test_gradients_are_added_up_beside_backward_and_the_update_waits_for_them(pretend, caplog):
    caplog.set_level(logging.INFO)
    want = gradients(distributed.World(), *batch())
    made = pretend()
    for found, told in together(GPUS, lambda job: (gradients(job, *batch(), bucket_bytes=400), made.told)):
        for name, array in found.items():
            np.testing.assert_allclose(array, want[name], rtol=0, atol=1e-10, err_msg=name)
        reduced = [i for i, line in enumerate(told) if line.startswith("sums reduces")]
        assert len(reduced) > 3
        for i in reduced:
            at = (
                i - 1
            )  # where the event was recorded that the reduction waits for: in the line before, what computes the array is told
            assert told[i - 2 : i] == ["computing records", f"sums waits for computing's {at}"]
            assert told[i + 1] == "sums records"
        # While the last layers' sums travel, the first layers compute; at the end each sum is waited for once.
        assert told[-len(reduced) :] == [f"computing waits for sums's {i + 2}" for i in reduced]
    assert "2 processes, each on the GPU of its rank on its host, which NCCL joins" in caplog.text


def test_a_sum_on_a_gpu_is_in_the_arrays_place(pretend):
    made = pretend()

    def work(job):
        job.join_gpus()
        arrays = [np.full((2, 3), job.rank + 1.0)[:, ::2], np.array(0.5), np.full(3, job.rank + 1, np.float32)]
        return [job.sum(backend.to_device(array)).tolist() for array in arrays], job.sum(np.ones(2)).tolist(), made.told

    for sums, on_the_host, told in together(GPUS, work):
        assert sums == [[[3.0, 3.0]] * 2, 1.0, [3.0] * 3]
        assert on_the_host == [2.0] * 2
        assert sum(line.startswith("sums reduces") for line in told) == 3


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"gpus": (5, 5)}, r"process 1 on \S+: on the same GPU as process 0"),
        ({"broken": 1}, r"process 1 on \S+: NCCL_ERROR_SYSTEM_ERROR: unhandled system error"),
        ({"available": False}, r"process 0 on \S+: CuPy finds no NCCL, which pip install"),
    ],
)
def test_where_nccl_cannot_be_sums_travel_by_mpi_and_a_line_says_why(settings, why, pretend, monkeypatch, caplog):
    want = gradients(distributed.World(), *batch())
    made = pretend(**{key: value for key, value in settings.items() if key != "available"})
    monkeypatch.setattr(made, "available", settings.get("available", True), raising=False)
    for found, told in together(GPUS, lambda job: (gradients(job, *batch()), made.told)):
        assert told == []
        for name, array in found.items():
            np.testing.assert_allclose(array, want[name], rtol=0, atol=1e-10, err_msg=name)
    assert {record.message for record in caplog.records} == {caplog.records[0].message}
    (line,) = caplog.records[0].message.splitlines()
    assert line.endswith("sums travel through the host's memory, by MPI")
    assert re.match(why, line)


def test_processes_without_gpus_say_nothing_of_them(pretend, choose, caplog):
    made = pretend()
    choose("numpy")
    together(GPUS, lambda job: job.join_gpus())
    assert made.told == []
    assert caplog.text == ""


@pytest.mark.parametrize(("device", "chosen"), [("cuda", [3, 1]), ("auto", [3, 1]), ("cuda:0", []), ("cpu", [])])
def test_a_process_takes_the_gpu_of_its_rank_on_its_host(device, chosen, monkeypatch):
    found = []
    monkeypatch.setattr(launch.cuda, "devices", lambda: ["Pretend"] * 4)
    monkeypatch.setattr(launch.cuda, "probe", found.append)
    for local_rank in (3, 5):
        job = SimpleNamespace(size=12, rank=7, local_rank=local_rank)
        monkeypatch.setattr(launch, "world", lambda job=job: job)
        assert not launch.wanted(SimpleNamespace(device=device, processes=None, command="train"))
    assert found == chosen


@pytest.mark.gpu
@pytest.mark.skipif(bool(NO_GPU), reason=f"needs a GPU: {NO_GPU}")
def test_nccl_sums_on_a_real_gpu_what_one_process_has(choose, caplog):
    choose("cupy")
    if not pytest.importorskip("cupy.cuda.nccl").available:
        pytest.skip("CuPy finds no NCCL: pip install nvidia-nccl-cu12")

    def work(job):
        job.join_gpus()
        arrays = [backend.to_device(np.arange(n, dtype=kind)) for n in (1, 1000, 300_000) for kind in "fd"]
        begun = [job.start_sum(array * 2) for array in arrays]
        sums = [arrived() for arrived in begun]
        return [
            np.array_equal(backend.to_host(one), 2 * backend.to_host(a)) for one, a in zip(sums, arrays, strict=True)
        ]

    caplog.set_level(logging.INFO)
    assert together(1, work) == [[True] * 6]
    assert "which NCCL joins" in caplog.text
