"""Archives: every hostile or broken one is refused, for reading as for unpacking, before anything is written; good ones unpack."""

import os
import signal
import tarfile

import pytest
from hostile_tars import END, GOOD, HOSTILE, MORE, file, header

from minifcn import cli, data
from minifcn.data import tars


@pytest.fixture
def in_time():
    """Fails the test instead of letting it wait for ever, where the system has alarms."""
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, lambda *_: pytest.fail("took more than 10 s"))
        signal.alarm(10)
    yield
    if hasattr(signal, "alarm"):
        signal.alarm(0)


def tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()} | {
        p.relative_to(folder): None for p in folder.rglob("*") if not p.is_file()
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_archive_is_refused_in_one_line_and_nothing_is_written(tmp_path, in_time, name):
    content, told = HOSTILE[name]
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    before = tree(tmp_path)
    for refuse in (lambda: data.unpack(path, tmp_path / "out"), lambda: data.VOC(path, ids=["a", "evil"])):
        with pytest.raises(ValueError) as caught:
            refuse()
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and told in message and len(message) < 400
        assert not any(ord(c) < 32 for c in message)
    assert tree(tmp_path) == before


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.tar"
    path.write_bytes(header("./", tarfile.DIRTYPE) + header("VOCdevkit", tarfile.DIRTYPE) + GOOD
                     + file("./VOCdevkit/big", bytes(range(256)) * 10000) + MORE + file("two", b"") + END)  # fmt: skip
    return path


def test_a_good_archive_is_indexed_in_order_and_unpacks_whole(good, tmp_path):
    wanted = {"VOCdevkit/VOC2012/JPEGImages/a.jpg": b"content", "VOCdevkit/big": bytes(range(256)) * 10000}
    wanted |= {"VOCdevkit/VOC2012/JPEGImages/b.jpg": b"content", "two": b""}
    places, content = tars.index(good), good.read_bytes()
    assert list(places) == list(wanted)
    counted, out = [], tmp_path / "new" / "out"
    made = data.unpack(good, out, lambda *done: counted.append(done))
    assert made == [out / "VOCdevkit", out / "two"] and sorted(out.iterdir()) == made
    for name, (offset, size) in places.items():
        same = content[offset : offset + size] == (out / name).read_bytes() == wanted[name]
        assert same, name  # a difference of this size would take minutes to print
    assert counted == sorted(counted) and len(counted) == 5 and counted[-1] == (2_560_014, 2_560_014)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_every_plain_format_unpack(tmp_path, format):
    source = tmp_path / "source"
    names = ["a.txt", "deep/er/b.txt", "é/" + "long" * 20 + "/" + "n" * 90]
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name, encoding="utf-8")
    with tarfile.open(tmp_path / "a.tar", "w", format=format) as archive:
        archive.add(source, "top")
    data.unpack(tmp_path / "a.tar", tmp_path / "out")
    assert tree(tmp_path / "out/top") == tree(source)


@pytest.mark.parametrize("there", ["folder", "file", "link", "dangling link"])
def test_nothing_that_is_there_is_written_over_or_into(good, tmp_path, there):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    if there == "folder":
        (out / "VOCdevkit").mkdir()
    elif there == "file":
        (out / "VOCdevkit").write_text("mine")
    else:
        (out / "VOCdevkit").symlink_to(elsewhere if there == "link" else tmp_path / "absent")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=r"VOCdevkit: exists already; nothing was unpacked from .*good\.tar"):
        data.unpack(good, out)
    assert tree(tmp_path) == before and not (tmp_path / "absent").exists()


def test_permissions_and_owners_of_the_archive_are_not_taken_over(tmp_path):
    info = tarfile.TarInfo("evil")
    info.mode, info.uid, info.uname = 0o6777, 0, "root"
    (tmp_path / "a.tar").write_bytes(info.tobuf() + END)
    data.unpack(tmp_path / "a.tar", tmp_path / "out")
    assert (tmp_path / "out/evil").stat().st_mode & 0o7111 == 0
    assert (tmp_path / "out/evil").stat().st_uid == os.getuid()


def test_a_failure_halfway_leaves_nothing(tmp_path):
    name = "n" * 300  # longer than file systems allow
    (tmp_path / "a.tar").write_bytes(GOOD + file(f"VOCdevkit/{name}") + END)
    with pytest.raises(OSError):
        data.unpack(tmp_path / "a.tar", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_line_refuses_a_hostile_archive_in_one_line(tmp_path, capsys):
    path = tmp_path / "evil.tar"
    path.write_bytes(HOSTILE["parent"][0])
    assert cli.main(["train", "--data", str(path), "--out", str(tmp_path / "run")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("minifcn: ")]
    assert f"{path}: refused: the member '../evil' " in line
