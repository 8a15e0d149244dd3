"""What goes wrong around a run: kills, full and read-only disks, a second process, Ctrl-C. Nothing that was saved is lost."""

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import kills
import pytest

from minifcn import cli, data, files
from minifcn.errors import InputError
from minifcn.files import atomic_write, clear_leftovers, write_text
from minifcn.training import checkpoint, lock
from minifcn.training.config import Config
from minifcn.training.lock import locked
from minifcn.training.run import Run, read_metrics
from minifcn.weights import npz

LINUX = sys.platform == "linux"


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    kills.run_to_end(toy, folder)
    return folder


def small(toy, **more):
    values = {"data": str(toy), "width": 2, "crop": 32, "batch_size": 2, "iterations": 4, "save_every": 2}
    return Config.from_dict({**values, "eval_every": 1, **more}, "test")


def steps(folder):
    return [r for r in read_metrics(folder) if r["event"] == "step"] if (folder / "metrics.jsonl").exists() else []


def wait_for_steps(process, folder, count):
    deadline = time.monotonic() + 60
    while len(steps(folder)) < count:
        assert process.is_alive() and time.monotonic() < deadline, kills.finish(process)[1]
        time.sleep(0.005)


def only_line(said):
    """The one line that a failed command ends with."""
    lines = [line for line in said.splitlines() if line.startswith("minifcn: ")]
    assert len(lines) == 1 and "Traceback" not in said and "Exception ignored" not in said, said
    return lines[0]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_runs_that_are_killed_come_out_as_if_nobody_had_touched_them(tmp_path):
    counts = kills.kill_runs(tmp_path, kills=8, seed=1)
    assert counts["kills"] == 8 and counts["inside"].get("checkpoint.npz"), f"no kill met a checkpoint: {counts}"


# --- Files that are written whole ---------------------------------------------------------------------------------


@pytest.fixture
def journal(monkeypatch):
    """What reaches the disk, in order: ("sync", name) and ("replace", name)."""
    entries = []

    def fsync(descriptor):
        entries.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))

    def replace(source, target, replace=os.replace):
        entries.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    return entries


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_anything_else(tmp_path, journal):
    with atomic_write(tmp_path / "file") as file:
        file.write(b"new")
    temporary = f".file.{os.getpid()}.part"
    assert journal == [("sync", temporary), ("replace", "file"), ("sync", tmp_path.name)]


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_what_a_checkpoint_tells_is_on_the_disk_before_it(toy, tmp_path, journal):
    best = 0
    for event in Run(small(toy), tmp_path / "run").events():
        kind = type(event).__name__
        if kind == "Evaluated" and event.best:
            assert ("replace", "best.npz") in journal
            best += 1
        elif kind == "Saved":
            order = [name for what, name in journal if what == "replace" or name == "metrics.jsonl"]
            assert order[-2:] == ["metrics.jsonl", "checkpoint.npz"]
            journal.clear()
    assert best


def test_a_full_disk_leaves_the_old_file_and_is_told_by_the_files_name(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match=r"file: cannot be written \(No space left on device\)"),
        atomic_write(path) as file,
    ):
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("lost", [b'"sav', b"\x00\xff\x00\x00"])
def test_metrics_that_end_in_rubbish_go_on_where_the_checkpoint_stands(toy, tmp_path, lost):
    run = Run(small(toy), tmp_path)
    list(run.events())
    expected = [(r["event"], r["iteration"]) for r in read_metrics(tmp_path)]
    content = run.metrics.read_bytes()
    run.metrics.write_bytes(content[: content.rindex(b'"saved"')] + lost)  # as if it had been killed there
    for name in ("checkpoint.npz", "best.npz", "metrics.jsonl"):
        (tmp_path / f".{name}.1.part").write_bytes(b"half")
    resumed = Run.resume(tmp_path)
    assert resumed.done == 4
    list(resumed.events())
    assert [(r["event"], r["iteration"]) for r in read_metrics(tmp_path)] == expected
    assert not kills.unfinished(tmp_path)


def test_a_line_of_metrics_that_cannot_be_read_is_named_and_nothing_is_lost(toy, tmp_path):
    list(Run(small(toy), tmp_path).events())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("\n".join([lines[0], "garbage", *lines[2:]]) + "\n")
    with pytest.raises(
        InputError, match=r"metrics\.jsonl: expected one event with its iteration a line, got 'garbage'"
    ):
        read_metrics(tmp_path)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == len(lines)


def test_only_what_killed_processes_left_is_removed(tmp_path):
    for name in (".best.npz.12.part", ".film.mkv.part"):  # the second is somebody's download
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".folder.7.part").mkdir()
    clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".film.mkv.part", ".folder.7.part"]


def test_the_file_behind_a_link_is_written(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "far/file").read_text() == "new"


def test_a_run_without_its_metrics_and_with_data_elsewhere_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data.write_toyvoc("toy", train=2, val=2, size=32)
    words = [
        "--data",
        "toy",
        "--width",
        "2",
        "--crop",
        "32",
        "--batch-size",
        "2",
        "--iterations",
        "2",
        "--save-every",
        "1",
    ]
    assert cli.main(["train", *words, "--out", "run"]) == 0
    Path("toy").rename("moved")
    assert cli.main(["train", "--resume", "run"]) == 2
    assert (
        "toy: no such folder or tar file" in (line := capsys.readouterr().err) and "--resume run --data FOLDER" in line
    )
    Path("run/metrics.jsonl").unlink()
    assert cli.main(["train", "--resume", "run", "--data", "moved"]) == 0
    with pytest.raises(InputError, match="other data|images"):  # not just any data
        data.write_toyvoc("others", train=3, val=2, size=32)
        Run.resume("run", data="others")


@pytest.mark.parametrize(
    ("key", "value"),
    [("iteration", "x"), ("optimizer", 5), ("stream", {}), ("generators", []), ("config", {"data": "a", "lr": "x"})],
)
def test_a_checkpoint_edited_by_hand_is_refused_by_its_name(toy, tmp_path, capsys, key, value):
    run = Run(small(toy), tmp_path)
    next(run.events())
    arrays, meta = npz.read_archive(run.checkpoint)
    npz.write_archive(run.checkpoint, arrays, {**meta, key: value})
    assert f"{run.checkpoint}: " in refused(capsys, "train", "--resume", tmp_path)


@pytest.mark.parametrize("line", ["5", "[]", '{"event": "step"}', '{"event": "step", "iteration": "a"}'])
def test_metrics_edited_by_hand_are_refused_by_their_name(toy, tmp_path, capsys, line):
    run = Run(small(toy), tmp_path)
    next(run.events())
    run.metrics.write_text(f"{line}\n{run.metrics.read_text()}")
    assert f"{run.metrics}: " in refused(capsys, "train", "--resume", tmp_path)


# --- Full and read-only disks -------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A file system of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        not LINUX
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system needs Linux and its administrator")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("wait", [1, 15])
def test_a_disk_that_fills_up_ends_the_run_and_costs_nothing(toy, whole, disk, wait):
    folder, ballast = disk / "run", disk / "ballast"
    process = kills.start(toy, folder)
    wait_for_steps(process, folder, wait)
    with open(ballast, "wb", buffering=0) as file:
        while process.is_alive():
            try:
                file.write(bytes(1024))
            except OSError:
                time.sleep(0.001)
    code, said = kills.finish(process)
    assert code == 2
    line = only_line(said)
    assert f"{folder}/" in line and "No space left on device" in line
    assert wait - 1 <= checkpoint.read(folder / "checkpoint.npz")[1]["iteration"] < kills.ITERATIONS

    ballast.unlink()
    kills.run_to_end(toy, folder)
    kills.require_same(folder, whole)


@pytest.mark.skipif(os.name == "nt", reason="Windows limits no file sizes")
def test_a_checkpoint_that_cannot_grow_to_its_size_leaves_the_one_before(toy, tmp_path):
    import resource  # which Windows lacks

    run = Run(small(toy), tmp_path)
    size = next(run.events()) and run.checkpoint.stat().st_size
    before, limits = run.checkpoint.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"(best|checkpoint)\.npz: cannot be written \(File too large\)"):
            list(Run.resume(tmp_path).events())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.checkpoint.read_bytes() == before and not kills.unfinished(tmp_path)


def refused(capsys, *arguments):
    assert cli.main([str(a) for a in arguments]) == 2
    return only_line(capsys.readouterr().err)


def training(toy, out):
    return ["train", "--data", toy, "--out", out, "--width", "2", "--crop", "32", "--iterations", "2"]


def test_a_read_only_folder_is_refused_before_anything_is_trained(toy, disk, capsys, monkeypatch):
    list(Run(small(toy), disk / "run").events())
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    monkeypatch.setattr("minifcn.training.loop.update", lambda *_: pytest.fail("trained"))
    for folder, command in {
        disk / "new": training(toy, disk / "new"),
        disk / "run": ["train", "--resume", disk / "run"],
    }.items():
        assert f"{folder}: cannot be written (Read-only file system)" in refused(capsys, *command)


@pytest.mark.parametrize("below", ["run", "file/run", "closed/run"])
def test_a_folder_that_cannot_be_made_is_refused(toy, tmp_path, capsys, below):
    if below.startswith("closed"):
        if os.name == "nt" or os.geteuid() == 0:
            pytest.skip("nothing is forbidden to the administrator")
        (tmp_path / "closed").mkdir(0o500)
    else:
        (tmp_path / below.split("/")[0]).write_text("a file")
    assert f"{tmp_path / below}: cannot be written" in refused(capsys, *training(toy, tmp_path / below))


# --- Two processes ------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_a_killed_one_locks_nothing(toy, tmp_path, capsys):
    out = tmp_path / "run"
    first = kills.Process(*training(toy, out), "--iterations", "100000", "--save-every", "1")
    try:
        wait_for_steps(first, out, 3)
        for arguments in (training(toy, out), ["train", "--resume", out]):
            line = refused(capsys, *arguments)
            assert f"{out}: another process is training here (process id {first.pid})" in line
    finally:
        first.kill()
        kills.finish(first)
    assert (out / ".lock").read_text() == str(first.pid)
    events = Run.resume(out).events()
    assert next(events).iteration > 1
    with pytest.raises(ValueError, match="another process"), locked(out):
        pass
    events.close()
    with locked(out):  # it is free again after a run
        pass


def test_a_run_that_somebody_else_has_gone_on_with_meanwhile_is_refused(toy, tmp_path):
    stale = Run(small(toy), tmp_path)
    for event in Run(small(toy), tmp_path).events():
        if event.iteration == 3:
            break
    with pytest.raises(ValueError, match="another process has gone on with this run"):
        next(stale.events())
    late = Run.resume(tmp_path)
    list(Run.resume(tmp_path).events())
    with pytest.raises(ValueError, match="another process has gone on with this run"):
        next(late.events())


# --- Ctrl-C -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to another process")
@pytest.mark.parametrize("presses", [1, 5])
def test_ctrl_c_once_saves_and_more_often_stops_at_once(toy, whole, tmp_path, presses):
    """At random moments, again and again, until a run is through: it is the same as if nobody had pressed anything."""
    folder, rng, codes, said = tmp_path / "run", random.Random(presses), [], []
    for _ in range(4):
        process = kills.start(toy, folder)
        before = len(steps(folder))
        wait_for_steps(process, folder, 1 if not before else min(before + rng.randrange(1, 5), kills.ITERATIONS - 1))
        for _ in range(presses):
            with suppress(ProcessLookupError):  # it has ended at the press before
                os.kill(process.pid, signal.SIGINT)
            time.sleep(rng.uniform(0, 0.004))
        code, words = kills.finish(process)
        codes.append(code)
        said.append(words)
        assert "Traceback" not in words and "Exception ignored" not in words, words
        kills.require_sound(folder)
    assert codes == [130] * 4, said
    saved = f"stopped and saved; go on with: minifcn train --resume {folder}"
    for words in said:  # of several presses the system may deliver but one
        assert saved in words or (presses > 1 and "minifcn: interrupted" in words), words
    kills.run_to_end(toy, folder)
    kills.require_same(folder, whole)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("ending", ["SIGTERM", "SIGHUP", "nohup", "unsaid"])
def test_a_request_to_end_and_a_closed_terminal_save(ending, toy, tmp_path):
    """A terminal is closed while the run writes to it; under nohup, or where no signal says so, the run goes on."""
    folder, (terminal, end) = tmp_path / "run", os.openpty()
    updates = "12" if ending == "unsaid" else "60"
    words = [str(word) for word in [*training(toy, folder), "--iterations", updates, "--eval-every", "2"]]
    command = [*(["nohup"] if ending == "nohup" else []), sys.executable, "-m", "minifcn", *words]
    shown = subprocess.DEVNULL if ending == "unsaid" else end
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=shown, stderr=end, start_new_session=True, cwd=tmp_path
    )
    os.close(end)
    deadline = time.monotonic() + 60
    while len(steps(folder)) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    if ending == "unsaid":
        os.close(terminal)
        assert process.wait(60) == 0
        assert read_metrics(folder)[-1]["iteration"] == 12
        return
    process.send_signal(signal.SIGTERM if ending == "SIGTERM" else signal.SIGHUP)
    if ending == "SIGHUP":
        process.send_signal(signal.SIGHUP)
        os.close(terminal)
    if ending == "nohup":
        before = len(steps(folder))
        while len(steps(folder)) == before:
            assert process.poll() is None and time.monotonic() < deadline
        process.kill()
        process.wait()
        return
    assert process.wait(60) == 130
    assert read_metrics(folder)[-1]["event"] == "stopped"
    done = read_metrics(folder)[-1]["iteration"]
    assert checkpoint.read(folder / "checkpoint.npz")[1]["iteration"] == done < 60


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to a process")
def test_ctrl_c_twice_ends_a_run_whose_data_never_come(toy, tmp_path, capsys, monkeypatch):
    out, plain, made, over = tmp_path / "run", data.BatchStream.__next__, [], threading.Event()

    def third_never_comes(stream):
        """In the thread that makes batches: wait for two steps, press Ctrl-C twice, and never give the third."""
        made.append(stream)
        if len(made) == 3:
            while not (out / "checkpoint.npz").exists() or checkpoint.read(out / "checkpoint.npz")[1]["iteration"] < 2:
                time.sleep(0.01)
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            over.wait(20)
        return plain(stream)

    monkeypatch.setattr(data.BatchStream, "__next__", third_never_comes)
    try:
        code = cli.main([str(a) for a in [*training(toy, out), "--iterations", "9", "--save-every", "1"]])
    finally:
        over.set()
    assert code == 130 and "minifcn: interrupted" in capsys.readouterr().err
    assert checkpoint.read(out / "checkpoint.npz")[1]["iteration"] == 2


# --- Slow data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [True, False])
def test_train_says_when_it_waits_for_data(toy, tmp_path, capsys, monkeypatch, slow):
    plain = data.BatchStream.__next__

    def late(stream):
        time.sleep(0.5 if slow else 0)
        return plain(stream)

    monkeypatch.setattr(data.BatchStream, "__next__", late)
    assert cli.main([str(a) for a in [*training(toy, tmp_path / "run"), "--iterations", "5"]]) == 0
    assert ("% of the training time was waiting for data" in capsys.readouterr().err) == slow
    assert all(0 <= step["waited"] <= step["seconds"] for step in steps(tmp_path / "run"))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_trained_on_with_a_warning(number, tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path):
        assert "has no locks" in caplog.text


def test_a_folder_that_cannot_be_flushed_is_written_to_all_the_same(tmp_path, monkeypatch):
    flush = os.fsync

    def refuse_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(descriptor)

    monkeypatch.setattr("os.fsync", refuse_folders)
    with atomic_write(tmp_path / "file") as file:
        file.write(b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_what_differs_on_windows(tmp_path, monkeypatch):
    """By stand-ins: locks by msvcrt, which a second taker is denied; files flushed through writable descriptors, folders not at all."""
    taken, flushed = set(), []

    def locking(file, mode, count):
        place = os.fstat(file).st_ino, os.lseek(file, 0, os.SEEK_CUR)
        if place in taken:
            raise PermissionError(13, "Permission denied")
        taken.add(place)

    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2), raising=False)
    told = rf"another process .* \(process id {os.getpid()}\)"
    with lock.locked(tmp_path / "run"), pytest.raises(ValueError, match=told), lock.locked(tmp_path / "run"):
        pass
    assert {place for _, place in taken} == {1 << 30}  # far behind the number, which others read
    opened = os.open
    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(files.os, "open", lambda path, flags: flushed.append((path, flags)) or opened(path, flags))
    files.write_text(tmp_path / "a.txt", "x")
    files.sync(tmp_path / "a.txt")
    assert flushed == [(tmp_path / "a.txt", os.O_RDWR)]
