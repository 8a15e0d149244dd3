"""Downloads from hosts that cut, stall, lie, redirect, answer with pages or not at all: what arrives is the archive or nothing."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bad_hosts import Host, body, cut, never_answers, ranged, raw, reset, stall, status, whole
from hostile_tars import END, GOOD, file
from small_datasets import tar_of, write_voc

from minifcn import cli, data
from minifcn.data import download as room
from minifcn.data.download import ARCHIVES, Archive, DownloadError, download

CONTENT = np.random.default_rng(0).bytes(700_001)
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
SIZE = len(CONTENT)
NAME = "archive.tar"
TIMEOUT = 0.4


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


def archive(*urls, content=CONTENT):
    return Archive(NAME, len(content), hashlib.sha256(content).hexdigest(), urls)


def fetch(folder, *urls, progress=lambda *_: None):
    """-> why hosts failed"""
    reasons = []
    assert download(archive(*urls), folder, TIMEOUT, progress, reasons.append) == folder / NAME
    return reasons


def placed(folder):
    """Whether the archive is there, whole, and nothing else."""
    return [p.name for p in folder.iterdir()] == [NAME] and (folder / NAME).read_bytes() == CONTENT


def test_a_good_host_delivers_with_progress_and_the_name_comes_last(host, tmp_path):
    told, folder = {}, tmp_path / "new" / "folder"

    def progress(what, done, total):
        assert total == SIZE and [p.name for p in folder.iterdir()] == [NAME + ".part"]
        told.setdefault(what, []).append(done)

    fetch(folder, host.serve("/a", whole(CONTENT)), progress=progress)
    assert placed(folder) and host.asked == [("/a", None)]
    received, checked = told.values()
    assert list(told) == [host.url.removeprefix("http://"), "checking"]
    assert received == sorted(received) and received[-1] == checked[-1] == SIZE and len(checked) == 3


@pytest.mark.parametrize("break_off", [cut, reset])
def test_a_cut_is_resumed_at_the_byte_where_it_came(host, tmp_path, break_off):
    assert not fetch(tmp_path, host.serve("/a", *[break_off(CONTENT, 200_000)] * 2, whole(CONTENT)))
    assert placed(tmp_path)
    starts = [int((asked or "bytes=0-")[6:-1]) for _, asked in host.asked]
    assert len(starts) == 3 and starts == sorted(set(starts))
    if break_off is cut:
        assert starts == [0, 200_000, 400_000]


def test_a_stalled_host_is_left_after_the_timeout_and_the_next_goes_on(host, tmp_path):
    before = time.monotonic()
    urls = host.serve("/a", stall(CONTENT, 100_000), never_answers), host.serve("/b", whole(CONTENT))
    (reason,) = fetch(tmp_path, *urls)
    assert placed(tmp_path) and 2 * TIMEOUT < time.monotonic() - before < 4 and "timed out" in reason
    assert host.asked == [("/a", None), ("/a", "bytes=100000-"), ("/b", "bytes=100000-")]


@pytest.mark.parametrize("after", [None, 100_000])
def test_a_host_that_ignores_ranges_starts_anew_and_a_cut_of_it_loses_nothing(host, tmp_path, after):
    urls = [
        host.serve("/a", cut(CONTENT, 300_000), status(503)),
        host.serve("/b", body(CONTENT[:after], Content_Length=SIZE)),
    ]
    reasons = fetch(tmp_path, *urls, host.serve("/c", whole(CONTENT)))
    assert placed(tmp_path) and "HTTP Error 503: Service Unavailable" in reasons[0]
    assert host.asked[-1] == (("/c", "bytes=300000-") if after else ("/b", "bytes=300000-"))


def test_a_host_that_cuts_again_and_again_is_left(host, tmp_path):
    step = SIZE // (2 * room.TRIES)
    (reason,) = fetch(tmp_path, host.serve("/a", cut(CONTENT, step)), host.serve("/b", whole(CONTENT)))
    assert placed(tmp_path) and len(host.asked) == room.TRIES + 1
    assert f"cut after {room.TRIES * step:,} of {SIZE:,} bytes" in reason


def test_redirects_are_followed_with_the_range(host, tmp_path):
    there = host.serve("/there", cut(CONTENT, 400_000), whole(CONTENT))
    fetch(tmp_path, host.serve("/a", status(302, Location=there)))
    assert placed(tmp_path) and host.asked[-1] == ("/there", "bytes=400000-")


CHUNKS = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (CONTENT[:5], CONTENT[5:], b""))


@pytest.mark.parametrize(
    "behave", [raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS), body(CONTENT + b"more")]
)
def test_an_answer_without_a_length_is_read_as_far_as_the_archive_goes(host, tmp_path, behave):
    fetch(tmp_path, host.serve("/a", behave))
    assert placed(tmp_path)


LOGIN = b"\n<!DOCTYPE html><html>Please log in to this network</html>" + b" " * 100_000
PAGE, ELSE = "a web page, not the archive", "offers something else"
FAULTS = {
    "404": (status(404), "HTTP Error 404: Not Found"),
    "500": (status(500), "HTTP Error 500"),
    "no content": (status(204), "HTTP status 204"),
    "web page": (body(LOGIN, Content_Type="text/html"), PAGE),
    "web page as a tar": (body(LOGIN, Content_Type="application/x-tar"), PAGE),
    "other bytes": (whole(OTHER), "wrong checksum"),
    "another file": (whole(CONTENT[:5000]), ELSE),
    "length too great": (body(CONTENT, Content_Length=10**15), ELSE),
    "length of 5,000 digits": (body(CONTENT[:9], Content_Length="9" * 5000), ELSE),
    "length below zero": (body(CONTENT[:9], Content_Length="-9"), ELSE),
    "range not asked for": (body(CONTENT[9:], 206, Content_Range=f"bytes 9-{SIZE - 1}/{SIZE}"), ELSE),
    "range without saying which": (body(CONTENT, 206), ELSE),
    "range of another file": (body(CONTENT, 206, Content_Range="bytes 0-8/9"), ELSE),
    "redirect to itself": (status(302, Location="/a"), "redirect"),
    "redirect to nowhere": (status(302, Location="http://127.0.0.1:1/"), "refused"),
    "redirect to a local file": (status(302, Location="file:///etc/passwd"), "302"),
    "redirect to no address": (status(302, Location="http://[::1"), ""),
    "no HTTP": (raw(b"\0\1\2 what?\r\n\r\n"), ""),
    "nothing": (raw(b""), "without response"),
    "endless header": (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000), ""),
    "endless headers": (raw(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n"), ""),
    "broken chunks": (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "cut after 0 of"),
    "never answers": (never_answers, "timed out"),
    "stalls": (stall(CONTENT, 0), "timed out"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_the_archive_is_told_and_the_next_host_asked(host, tmp_path, fault):
    behave, told = FAULTS[fault]
    (reason,) = fetch(tmp_path, host.serve("/a", behave), host.serve("/b", whole(CONTENT)))
    assert told in reason and len(reason) < 250 and "\n" not in reason
    assert placed(tmp_path) and host.asked[-1][0] == "/b"
    if os.path.isdir("/proc/self/fd"):  # no file stays open
        assert not [fd for fd in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(fd)]


def test_a_host_that_goes_on_with_the_wrong_bytes_of_another_is_asked_again_from_the_start(host, tmp_path):
    urls = host.serve("/bad", cut(OTHER[::-1], 9), status(500)), host.serve("/good", whole(CONTENT))
    assert len(fetch(tmp_path, *urls)) == 1
    assert placed(tmp_path) and host.asked[-2:] == [("/good", "bytes=9-"), ("/good", None)]


def test_when_no_host_delivers_the_message_says_what_to_do_by_hand(host, tmp_path):
    urls = host.serve("/a", cut(CONTENT, 500_000), status(404)), host.serve("/b", status(403)), "http://127.0.0.1:1/c"
    with pytest.raises(DownloadError) as caught:
        fetch(tmp_path, *urls)
    message = str(caught.value)
    by_hand = (urls[0], str(tmp_path / NAME), f"{SIZE:,}", archive().sha256, "500,000 bytes")
    for told in ("404", "403", "refused", *by_hand):
        assert told in message
    assert [p.name for p in tmp_path.iterdir()] == [NAME + ".part"]
    host.serve("/b", whole(CONTENT))  # the same call, when a host has come back
    fetch(tmp_path, *urls)
    assert placed(tmp_path) and ("/b", "bytes=500000-") in host.asked


def test_a_file_that_is_there_is_checked_and_never_written_over(host, tmp_path):
    url = host.serve("/a", whole(CONTENT))
    (tmp_path / NAME).write_bytes(CONTENT)
    fetch(tmp_path, url)
    assert host.asked == [] and placed(tmp_path)
    for wrong in (OTHER, CONTENT[:-1], b""):
        (tmp_path / NAME).write_bytes(wrong)
        with pytest.raises(ValueError, match=rf"{NAME}: exists, but is not {SIZE:,} bytes"):
            fetch(tmp_path, url)
        assert (tmp_path / NAME).read_bytes() == wrong and host.asked == []


def test_a_file_that_comes_into_being_meanwhile_is_not_written_over(host, tmp_path):
    with pytest.raises(ValueError, match="was created by someone else during the download"):
        fetch(tmp_path, host.serve("/a", whole(CONTENT)), progress=lambda *_: (tmp_path / NAME).write_bytes(b"mine"))
    assert (tmp_path / NAME).read_bytes() == b"mine"


@pytest.mark.parametrize("content", [CONTENT, OTHER, CONTENT + b"more"], ids=["whole", "wrong", "too long"])
def test_a_part_that_was_stopped_before_its_check_is_checked(host, tmp_path, content):
    (tmp_path / f"{NAME}.part").write_bytes(content)
    fetch(tmp_path, host.serve("/a", whole(CONTENT)))
    assert placed(tmp_path) and host.asked == ([] if content is CONTENT else [("/a", None)])


def test_a_full_disk_is_not_blamed_on_the_host(host, tmp_path):
    resource = pytest.importorskip("resource", reason="this system has no limits on file sizes")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"{NAME}\.part: cannot be written .File too large"):
            fetch(tmp_path, host.serve("/a", whole(CONTENT)), host.serve("/b", whole(CONTENT)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(host.asked) == 1
    fetch(tmp_path, host.serve("/a", whole(CONTENT)))
    assert placed(tmp_path)


def test_too_little_room_is_told_before_anything_is_asked_for(host, tmp_path, monkeypatch):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1])
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=SIZE - 2))
    with pytest.raises(OSError, match=f"{SIZE - 1:,} bytes are still to come, but only {SIZE - 2:,} are free"):
        fetch(tmp_path, host.serve("/a", whole(CONTENT)))
    assert host.asked == []


def test_the_voc_archive_is_the_official_one():
    voc = ARCHIVES["voc2012"]
    assert voc.size == 1_999_639_040 and len(bytes.fromhex(voc.sha256)) == 32
    assert voc.urls[0].startswith("http://host.robots.ox.ac.uk/") and len(set(voc.urls)) == len(voc.urls) >= 3
    assert all(url.endswith("/" + voc.name) for url in voc.urls)


# --- The command ---------------------------------------------------------------------------------------------------


def offer(monkeypatch, content, *urls):
    monkeypatch.setitem(ARCHIVES, "voc2012", archive(*urls, content=content))


def command(*arguments):
    return cli.main(["data", "download", "voc2012", *map(str, arguments)])


@pytest.fixture(scope="module")
def voc_tar(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    write_voc(root / "VOC2012", ["a", "b"], train=["a"], val=["b"])
    return tar_of(root / "VOC2012", root / "voc.tar", "VOCdevkit/VOC2012").read_bytes()


def test_the_command_downloads_what_data_voc_then_reads(host, tmp_path, monkeypatch, capsys, voc_tar):
    offer(monkeypatch, voc_tar, host.serve("/a", status(404)), host.serve("/b", whole(voc_tar)))
    assert command(tmp_path) == 0
    told = capsys.readouterr().err
    assert "HTTP Error 404" in told and f"minifcn train --data {tmp_path / NAME}" in told
    assert data.VOC(tmp_path / NAME).ids == ["a"]
    assert command(tmp_path, "--unpack") == 0  # once more: it is there, and only unpacked
    assert len(host.asked) == 2 and data.VOC(tmp_path).ids == ["a"]
    assert f"unpacked: {tmp_path / 'VOCdevkit'}" in capsys.readouterr().err
    assert command(tmp_path, "--unpack") == 2
    assert "VOCdevkit: exists already; nothing was unpacked" in capsys.readouterr().err


def test_a_command_in_vain_ends_in_one_line_and_keeps_no_wrong_bytes(host, tmp_path, monkeypatch, capsys):
    offer(monkeypatch, CONTENT, "http://127.0.0.1:1/a", host.serve("/a", whole(OTHER)))
    assert command(tmp_path) == 2 and not list(tmp_path.iterdir())
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("minifcn: ")]) == 1 and "By hand: " in lines[-1]
    assert command(tmp_path, "--timeout", "0") == 2
    assert "timeout: expected" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert command(tmp_path / "file") == 2


def test_a_progress_bar_is_drawn_on_a_terminal(host, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    content = GOOD + file("big", CONTENT) + END
    offer(monkeypatch, content, host.serve("/a", cut(content, 9_000), whole(content)))
    assert command(tmp_path, "--unpack") == 0
    told = capsys.readouterr().err
    assert all(title in told for title in ("127.0.0.1", "checking: 100%", "unpacking: 100%"))


SCRIPT = """
import sys
from minifcn import cli
from minifcn.data.download import ARCHIVES, Archive
ARCHIVES["voc2012"] = Archive(*eval(sys.argv[1]))
sys.exit(cli.main(["data", "download", "voc2012", sys.argv[2]]))
"""


@pytest.mark.parametrize("ended_by", ["SIGKILL", "SIGINT"])
def test_a_command_that_was_ended_goes_on_where_it_stopped(host, tmp_path, ended_by):
    slow = ranged(CONTENT, lambda request, rest: (request.wfile.write(rest[:300_000]), request.over.wait(20)))
    wanted = archive(host.serve("/a", slow))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, repr(tuple(wanted)), tmp_path], stderr=subprocess.PIPE, text=True
    )
    part = tmp_path / f"{NAME}.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 100_000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(getattr(signal, ended_by))
    _, told = process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if ended_by == "SIGKILL" else 130) and "Traceback" not in told
    assert not (tmp_path / NAME).exists() and part.read_bytes() == CONTENT[: part.stat().st_size]
    kept = part.stat().st_size
    host.serve("/a", whole(CONTENT))
    download(wanted, tmp_path, TIMEOUT)
    assert placed(tmp_path) and host.asked[-1] == ("/a", f"bytes={kept}-")
