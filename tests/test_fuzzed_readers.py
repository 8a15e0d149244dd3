"""Files that are almost right: each either loads or is refused in one line that names it.

`python tests/fuzz.py READER` goes on from here for as long as one likes, guided by the code that it reaches.
"""

import zlib

import pytest
from attacked_readers import READERS, attack, encoded, photograph
from PIL import Image

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
st = hypothesis.strategies


@st.composite
def damaged(draw, seeds):
    """One of the honest files with a few places changed, left out, repeated or brought in from another."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(("set", "insert", "drop", "cut", "borrow")))
        if kind == "set" and at < len(content):
            content[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "drop":
            del content[at : at + draw(st.integers(1, 9))]
        elif kind == "cut":
            del content[at:]
        else:
            other = draw(st.sampled_from(seeds))
            start = draw(st.integers(0, len(other)))
            content[at : at + 9] = other[start : start + 9]
    return bytes(content)


@pytest.mark.parametrize("name", READERS)
def test_honest_files_load(name, tmp_path):
    reader = READERS[name]
    loaded = [attack(reader, tmp_path / f"honest{reader.suffix}", content) for content in reader.seeds(tmp_path)]
    assert any(loaded), "an attack that begins from nothing readable reaches nothing"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_load_or_are_refused_in_a_line(name, tmp_path):
    reader = READERS[name]
    path = tmp_path / f"damaged{reader.suffix}"

    @hypothesis.settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @hypothesis.given(damaged(reader.seeds(tmp_path)))
    def attacked(content):
        attack(reader, path, content)

    attacked()


def test_a_photograph_whose_header_is_cut_is_refused_in_a_line(tmp_path):
    """Pillow raises ValueError here while it looks for the format, before anything is decoded."""
    header = b"\x89PNG\r\n\x1a\n" + (5).to_bytes(4, "big") + b"IHDR" + bytes(5)
    header += zlib.crc32(b"IHDR" + bytes(5)).to_bytes(4, "big")
    for name in ("image", "mask"):
        assert not attack(READERS[name], tmp_path / "cut.png", header)


@pytest.mark.filterwarnings("ignore")
def test_a_hundred_bytes_that_claim_a_gigabyte_are_refused(tmp_path):
    """A small frame far from the corner makes a GIF's canvas grow to 12,000 x 12,000."""
    whole = encoded(Image.fromarray(photograph()).convert("P"), "GIF")
    frame = whole.index(b",")
    moved = whole[: frame + 1] + (11_995).to_bytes(2, "little") + (11_993).to_bytes(2, "little") + whole[frame + 5 :]
    path = tmp_path / "bomb.gif"
    path.write_bytes(moved)
    for name in ("image", "mask"):
        with pytest.raises(ValueError, match="pixels; at most"):
            READERS[name].read(path)


def test_an_undocumented_error_is_noticed(tmp_path):
    def fail(path):
        raise KeyError("surprise")

    with pytest.raises(KeyError):
        attack(READERS["npz"]._replace(read=fail), tmp_path / "file", b"")

    def hide(path):
        raise ValueError("something is wrong somewhere")

    with pytest.raises(AssertionError, match="not named"):
        attack(READERS["npz"]._replace(read=hide), tmp_path / "file", b"")
