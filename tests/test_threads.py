"""How many threads there are, how tiles are spread over them, and what they leave as it was."""

import importlib
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from minifcn import backend
from minifcn.backend import memory, tuning

counting = importlib.import_module("minifcn.backend.threads")  # `backend.threads` is the function of that name
PATIENCE = 10  # seconds that a thread waits for another before the test fails


@pytest.fixture(autouse=True)
def as_before():
    backend.set_threads(None)
    yield
    backend.set_threads(None)


@pytest.fixture(params=["the standard library's", "compiled"])
def helpers(request):
    """Which threads help with tiles."""
    if request.param == "compiled":
        request.getfixturevalue("compiled")


# How many threads


@pytest.fixture
def machine(monkeypatch):
    """machine(cpus, limits): a machine that grants this process so many processors, in a container with such limits."""

    def grant(cpus, limits=()):
        monkeypatch.delenv("MINIFCN_THREADS", raising=False)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpus)), raising=False)
        monkeypatch.setattr(counting, "container_limits", lambda: list(limits))
        backend.set_threads(None)

    return grant


@pytest.mark.parametrize(
    ("cpus", "limits", "expected"), [(1, [], 1), (5, [], 5), (5, [8], 5), (5, [4, 2, 3], 2), (5, [0], 1)]
)
def test_the_machine_grants_what_both_affinity_and_container_allow(cpus, limits, expected, machine):
    machine(cpus, limits)
    assert backend.threads() == expected


def test_what_was_set_goes_before_the_variable_and_the_variable_before_the_machine(machine, monkeypatch):
    def found():
        return backend.threads(), backend.threads_because()

    machine(2)
    assert found() == (2, "2 processors may be used")
    machine(8, [3, 5])
    assert found() == (3, "8 processors may be used, and the container grants the time of 3")
    monkeypatch.setenv("MINIFCN_THREADS", "7")
    assert backend.threads() == 3  # looked up once
    backend.set_threads(None)
    assert found() == (7, "MINIFCN_THREADS=7")
    backend.set_threads(5)
    assert found() == (5, "set_threads")
    monkeypatch.delenv("MINIFCN_THREADS")
    monkeypatch.delattr(os, "sched_getaffinity")
    for count, expected in ((2, 2), (None, 1)):  # without affinity all processors count
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        backend.set_threads()
        assert backend.threads() == expected


@pytest.mark.parametrize(("text", "expected"), [("", 2), (" \t", 2), ("1", 1), (" 4 ", 4), ("64", 64)])
def test_the_variable_may_ask_for_more_than_there_are_and_blank_it_is_none(text, expected, machine, monkeypatch):
    machine(2)
    monkeypatch.setenv("MINIFCN_THREADS", text)
    assert backend.threads() == expected


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "2 threads", "1e1", "\u221e"])
def test_what_is_no_number_of_threads_is_refused_and_changes_nothing(text, machine, monkeypatch):
    machine(2)
    monkeypatch.setenv("MINIFCN_THREADS", text)
    for _ in range(2):  # the second time no less
        with pytest.raises(ValueError, match="^MINIFCN_THREADS: expected a whole number .* of at least 1, got "):
            backend.threads()
    backend.set_threads(3)  # who does not need the variable is not bothered by it
    for count in (text, 0, -2, 1.5, "", True, [2]):
        with pytest.raises(ValueError, match="^set_threads: expected a whole number of threads of at least 1, got "):
            backend.set_threads(count)
    assert backend.threads() == 3


def control_groups(folder, own, **files):
    """What `container_limits` finds in a made-up /sys/fs/cgroup; files: path with __ for / -> text."""
    root = folder / "cgroup"
    root.mkdir()
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cpu_cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if own is not None:
        (folder / "own").write_bytes(own if isinstance(own, bytes) else own.encode())
    return sorted(counting.container_limits(root, folder / "own"))


PERIOD = "100000"  # microseconds
LIMITS = [  # cpu.max of version 2, quota and period of version 1, the limit
    *(("200000 100000\n", None, None, [2]), ("100001 100000\n", None, None, [2]), ("10000 100000", None, None, [1])),
    *(
        (text, None, None, [])
        for text in ("max 100000\n", "", "max", "1 2 3", "1.5 2", "100000 0", "-1 100000", b"\xff")
    ),
    *((None, "250000\n", PERIOD, [3]), (None, "-1", PERIOD, []), (None, "100000", "0", []), (None, "", "", [])),
    *((None, "100000", None, []), (None, None, PERIOD, []), (None, None, None, [])),
    ("400000 100000", "200000", PERIOD, [2, 4]),
]


@pytest.mark.parametrize(("both", "quota", "period", "expected"), LIMITS)
def test_a_limit_of_either_version_is_read_and_garbage_is_none(both, quota, period, expected, tmp_path):
    files = {"cpu_max": both, "cpu__cpu_cfs_quota_us": quota, "cpu__cpu_cfs_period_us": period}
    files = {name: text for name, text in files.items() if text is not None}
    assert control_groups(tmp_path, "4:cpu,cpuacct:/\n0::/\n", **files) == expected


def test_every_group_around_a_process_counts_and_no_other(tmp_path, machine, monkeypatch):
    files = {
        "cpu_max": "max 100000",
        "a__cpu_max": "250000 100000",
        "a__b__cpu_max": "max 100000",
        "a__b__c__cpu_max": "600000 100000",
        "a__b__c__d__cpu_max": "100000 100000",  # inside this process's group
        "a__x__cpu_max": "100000 100000",  # beside it
    }
    (tmp_path / "cpu.max").write_text("100000 100000")  # above the root
    limits = control_groups(tmp_path, "1:name=systemd:/a/x\n0::/a/b/c\n", **files)
    assert limits == [3, 6]
    machine(8, limits)
    assert backend.threads() == 3


@pytest.mark.parametrize(
    "own", [None, "", "garbage\n", "4:cpu:/a\n", "0::/no/such/group\n", "0::/../..\n", b"\xff\xfe\n"]
)
def test_without_a_group_of_its_own_the_root_counts(own, tmp_path):
    assert control_groups(tmp_path, own, cpu_max="200000 100000") == [2]


# Tiles


def run(task, tiles):
    backend.run_tiles(np.zeros(1), task, tiles)


def within_patience(function):
    """Its result, from a thread of its own; fails if it does not come."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "still waiting"
    return results[0]


class Guest:
    """A thread that is inside tiles of its own from `begin` to `end`."""

    def __init__(self):
        self.inside, self.leave = threading.Event(), threading.Event()

    def begin(self, tiles=1):
        together = threading.Barrier(tiles, action=self.inside.set, timeout=PATIENCE)

        def stay():
            together.wait()
            self.leave.wait(2 * PATIENCE)

        self.thread = threading.Thread(target=run, args=(stay, [()] * tiles), daemon=True)
        self.thread.start()
        assert self.inside.wait(PATIENCE)

    def end(self):
        self.leave.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def guest():
    """A thread that may be inside a tile; it has left when the test ends."""
    guest = Guest()
    yield guest
    guest.leave.set()
    if guest.inside.is_set():
        guest.thread.join(PATIENCE)


def times_run(count):
    """How often each of so many tiles runs."""
    done = np.zeros(count, int)

    def task(number, step):
        done[number] += step

    run(task, [(number, 1) for number in range(count)])
    return done.tolist()


def threads_that_meet(count):
    """The threads of so many tiles, which wait for each other."""
    together, where = threading.Barrier(count, timeout=PATIENCE), set()

    def task(_):
        together.wait()
        where.add(threading.current_thread())

    run(task, [(number,) for number in range(count)])
    return where


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 200])
def test_every_tile_runs_exactly_once(count, threads):
    backend.set_threads(threads)
    assert times_run(count) == [1] * count


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tiles_run_side_by_side_in_the_caller_and_the_helpers(threads):
    """One thread is the caller's."""
    backend.set_threads(threads)
    where = threads_that_meet(threads)
    run(lambda _: where.add(threading.current_thread()), [(number,) for number in range(5)] if threads == 1 else [])
    assert len(where) == threads
    assert threading.current_thread() in where


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize("places", [[True], [False], [True, False]])
def test_an_error_in_any_thread_is_raised_and_the_next_tiles_run_as_ever(places):
    """In the caller's thread, in another, in both."""
    backend.set_threads(2)
    both, caller = threading.Barrier(2, timeout=PATIENCE), threading.current_thread()

    def task(_):
        both.wait()
        if (threading.current_thread() is caller) in places:
            raise IndexError("from a tile")

    for _ in range(3):
        with pytest.raises(IndexError, match="from a tile"):
            run(task, [(0,), (1,)])
        assert times_run(200) == [1] * 200
        assert len(threads_that_meet(2)) == 2


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize("threads", [1, 2])
def test_after_an_error_no_further_tile_begins(threads):
    backend.set_threads(threads)
    begun, at_work = [], threading.Event()

    def task(number):
        begun.append(number)
        if number == 0:
            assert threads == 1 or at_work.wait(PATIENCE)  # until the helper is there
            raise KeyError
        at_work.set()
        time.sleep(0.001)

    with pytest.raises(KeyError):
        run(task, [(number,) for number in range(1000)])
    assert len(begun) < 500


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize("threads", [2, 3, 6])  # six: some have nothing to do meanwhile
def test_tiles_of_a_tile_run_in_its_thread(threads):
    backend.set_threads(threads)
    done, same = np.zeros((4, 10, 2), int), []

    def outer(i):
        here = threading.current_thread()

        def inner(j):
            same.append(threading.current_thread() is here)
            time.sleep(0.001)
            run(lambda k: np.add.at(done, (i, j, k), 1), [(0,), (1,)])

        run(inner, [(j,) for j in range(10)])

    within_patience(lambda: run(outer, [(i,) for i in range(4)]))
    assert (done == 1).all()
    assert all(same)


@pytest.mark.usefixtures("helpers")
def test_the_only_tile_may_spread_its_own():
    backend.set_threads(2)
    met = []
    within_patience(lambda: run(lambda count: met.extend(threads_that_meet(count)), [(2,)]))
    assert len(met) == 2


@pytest.mark.usefixtures("helpers")
def test_a_caller_does_not_wait_for_helpers_that_are_busy_elsewhere(guest):
    backend.set_threads(2)
    guest.begin(tiles=2)  # one of them in the only helper
    assert within_patience(lambda: times_run(20)) == [1] * 20
    array = np.zeros(5)
    run(lambda _, array=array: None, [(0,), (1,)])
    array = weakref.ref(array)
    assert array() is None  # nor do the helpers, who come to it later, hold what it worked on
    guest.end()


@pytest.mark.usefixtures("helpers")
def test_the_callers_error_state_holds_in_every_tile():
    backend.set_threads(2)
    both, seen = threading.Barrier(2, timeout=PATIENCE), []

    def task(_):
        both.wait()
        seen.append(np.geterr()["over"])

    for state in ("raise", "ignore", "warn"):
        with np.errstate(over=state):
            run(task, [(0,), (1,)])
    assert seen == ["raise", "raise", "ignore", "ignore", "warn", "warn"]


# Processes


@pytest.mark.usefixtures("helpers")
def test_a_forked_child_has_threads_of_its_own_and_holds_nothing_of_its_parents(guest):
    """The guest is inside tiles, in the only helper, while the main thread forks: in the child neither exists."""
    backend.set_threads(2)
    with threadpool_limits(2, user_api="blas"):
        before = blas()
        guest.begin(tiles=2)
        if (child := os.fork()) == 0:  # no assertion may leave this block: pytest would go on twice
            code = 1
            with suppress(BaseException):
                as_before = blas() == before
                array = np.zeros(9)
                met = within_patience(lambda: len(threads_that_meet(2)))
                run(lambda _, array=array: array.sum(), [(number,) for number in range(9)])
                array = weakref.ref(array)
                code = 0 if (as_before, met, array(), blas()) == (True, 2, None, before) else 2
            os._exit(code)
        guest.end()
    deadline = time.monotonic() + 3 * PATIENCE
    while (status := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    if status[0] == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert status == (child, 0)


LINUX = pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="needs Linux, which shows the process's memory"
)


@LINUX
def test_the_library_leaves_the_process_as_it_was_unless_asked():
    """Freed memory goes back to the system, until a program keeps it; helpers may run wherever the process may; and a
    thread that outlives the main one can still spread tiles."""
    script = """
import os, threading
import numpy as np
from minifcn import backend

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

def task(place):
    meet.wait(10)
    free.append(os.sched_getaffinity(0) == granted)

def late():
    threading.main_thread().join()
    done = []
    backend.run_tiles(np.zeros(1), done.append, [(number,) for number in range(9)])
    print(sorted(done) == list(range(9)), flush=True)

granted, meet, free = os.sched_getaffinity(0), threading.Barrier(3), []
backend.set_threads(3)
backend.run_tiles(np.zeros(1), task, [(0,), (1,), (2,)])
before = resident()
arrays = [np.ones(5 << 20) for _ in range(3)]
there = resident()
del arrays
print(*free, there - before > 100, resident() - before < 20)
before, kept = resident(), backend.keep_freed_memory()
arrays = [np.ones(5 << 20) for _ in range(3)]
del arrays
print(kept == (resident() - before > 100))
threading.Thread(target=late).start()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", ["True"] * 7)


@pytest.mark.parametrize(
    ("answers", "kept", "calls"),
    [
        ([1, 1], True, [(-3, 1 << 30), (-1, 1 << 30)]),
        ([0], False, [(-3, 1 << 30)]),
        ([1, 0, 1], False, [(-3, 1 << 30), (-1, 1 << 30), (-3, 128 << 10)]),
        (None, False, []),  # another C library
    ],
)
def test_where_glibc_refuses_to_keep_memory_nothing_is_left_half_done(answers, kept, calls, monkeypatch):
    asked, answering = [], iter(answers or ())
    functions = {} if answers is None else {"mallopt": lambda *call: asked.append(call) or next(answering)}
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: SimpleNamespace(**functions))
    assert backend.keep_freed_memory() == kept
    assert asked == calls


# BLAS


def blas():
    """How many threads each BLAS has."""
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture(params=[2, 3])
def blas_threads(request):
    """So many threads for BLAS, as a user may have set them."""
    with threadpool_limits(request.param, user_api="blas"):
        if not blas() or set(blas()) != {request.param}:
            pytest.skip("BLAS has no number of threads that could be set")
        yield request.param
        after = blas()
    assert set(after) == {request.param}


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize("tiles", [0, 1, 2, 9])
@pytest.mark.parametrize("threads", [1, 2])
def test_blas_has_one_thread_within_tiles_and_as_many_as_before_after_them(threads, tiles, blas_threads):
    """After tiles of tiles, too, and after errors."""
    backend.set_threads(threads)
    seen = []

    def task(_):
        run(lambda: seen.append(set(blas())), [(), ()])
        raise KeyError

    run(lambda _: seen.append(set(blas())), [(number,) for number in range(tiles)])
    assert seen == [{1}] * tiles
    assert set(blas()) == {blas_threads}
    with pytest.raises(KeyError) if tiles else nullcontext():
        run(task, [(number,) for number in range(tiles)])
    assert all(count == {1} for count in seen)
    assert set(blas()) == {blas_threads}


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_several_callers_at_once_all_get_their_results(threads, blas_threads):
    """And some of them an error."""
    backend.set_threads(threads)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 90, 80)), rng.standard_normal((6, 80, 70))

    def caller(number):
        for _ in range(20):
            out = np.zeros((90, 70))

            def task(rows, number=number, out=out):
                out[rows] += a[number, rows] @ b[number]
                if number == 5 and rows.stop == 90:
                    raise KeyError

            with pytest.raises(KeyError) if number == 5 else nullcontext():
                run(task, [(slice(row, row + 10),) for row in range(0, 90, 10)])
            if number != 5:
                np.testing.assert_allclose(out, a[number] @ b[number], atol=1e-12)
        return number

    def everybody():
        with ThreadPoolExecutor(6) as pool:
            return list(pool.map(caller, range(6)))

    assert within_patience(everybody) == list(range(6))
    assert set(blas()) == {blas_threads}


@pytest.mark.parametrize("begins", ["the other first", "this one first"])
@pytest.mark.parametrize("ends", ["the other first", "this one first"])
def test_blas_is_as_before_when_the_last_of_overlapping_callers_ends(begins, ends, guest, blas_threads):
    def ours():
        if begins == "this one first":
            guest.begin()
        if ends == "the other first":
            guest.end()
        assert set(blas()) == {1}

    if begins == "the other first":
        guest.begin()
    run(ours, [()])
    if ends == "this one first":
        assert set(blas()) == {1}
        guest.end()
    assert set(blas()) == {blas_threads}


def test_other_threads_may_set_the_threads_of_blas_afterwards():
    run(lambda: None, [()])
    if not blas():
        pytest.skip("BLAS has no number of threads that could be set")

    others = max(blas()) + 1

    def elsewhere():
        with threadpool_limits(others, user_api="blas"):
            return set(blas())

    assert within_patience(elsewhere) == {others}


# Products

PRODUCTS = [(1, 1, 1), (1, 7, 5), (7, 5, 1), (1, 1, 9), (4, 1, 4), (3, 4, 5), (130, 100, 110), (40, 300, 200)]
PRODUCTS += [(401, 20, 37), (37, 20, 401), (2, 50, 900), (900, 50, 2)]  # rows, depth, columns


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("worth", "block_bytes"), [(1 << 21, 1 << 20), (1, 1000), (1 << 60, 1000)])
def test_a_product_cut_into_pieces_is_the_product(worth, block_bytes, threads, device, rng, monkeypatch):
    monkeypatch.setattr(tuning, "WORTH_A_THREAD", worth)
    monkeypatch.setattr(tuning, "PIECE_BYTES", block_bytes)
    backend.set_threads(threads)
    for size in PRODUCTS:
        rows, depth, columns = size
        a, b, bias = (rng.standard_normal(shape) for shape in ((rows, depth), (depth, columns), columns))
        on_device = device.put(a), device.put(b)
        np.testing.assert_allclose(device.get(backend.matmul(*on_device)), a @ b, atol=1e-11, err_msg=str(size))
        result = backend.matmul(*on_device, bias=device.put(bias))
        np.testing.assert_allclose(device.get(result), a @ b + bias, atol=1e-11, err_msg=str(size))
        frame = device.put(np.full((rows + 2, columns + 3), 7.0), writable=True)
        out = frame[1:-1, 2:-1]
        assert backend.matmul(*on_device, out, device.put(bias)) is out
        expected = np.pad(a @ b + bias, ((1, 1), (2, 1)), constant_values=7)
        np.testing.assert_allclose(device.get(frame), expected, atol=1e-11, err_msg=str(size))


@pytest.mark.parametrize(("rows", "depth", "columns"), [(200, 1000, 50), (601, 1000, 100), (64, 40000, 64)])
def test_a_product_has_the_same_bits_for_any_number_of_threads(rows, depth, columns, compiled, rng):
    a, b = rng.standard_normal((rows, depth), np.float32), rng.standard_normal((depth, columns), np.float32)
    found = []
    for threads in (1, 2, 5, 12, 25, 64):
        backend.set_threads(threads)
        found.append(backend.matmul(a, b))
    assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(("rows", "depth", "columns"), [(0, 3, 4), (3, 4, 0), (0, 0, 0), (3, 0, 4)])
def test_a_product_of_nothing_is_empty_or_the_bias(rows, depth, columns):
    a, b, bias = np.ones((rows, depth)), np.ones((depth, columns)), np.arange(columns) + 1.0
    np.testing.assert_array_equal(backend.matmul(a, b, bias=bias), np.zeros((rows, columns)) + bias, strict=True)


@pytest.mark.parametrize("transposed", [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_of_views_keeps_its_dtype(dtype, transposed, rng):
    a, b = rng.standard_normal((210, 180)).astype(dtype), rng.standard_normal((180, 150)).astype(dtype)
    views = (np.ascontiguousarray(m.T).T if turn else m for m, turn in zip((a, b), transposed, strict=True))
    result = backend.matmul(*views)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, a.astype(float) @ b.astype(float), atol=1e-3 if dtype == np.float32 else 1e-11)
