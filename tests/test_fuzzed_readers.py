"""Files that are almost right: each either loads or is refused in one line that names it.

`python tests/fuzz.py READER` goes on from here for as long as one likes, guided by the code that it reaches.
"""

import zlib

import numpy as np
import pytest
from attacked_readers import READERS, WEIGHTS, attack, encoded, photograph
from PIL import Image

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
st = hypothesis.strategies

every_reader = pytest.mark.parametrize("name", READERS)
every_weight_file = pytest.mark.parametrize(
    ("name", "seed"),
    [pytest.param(name, seed, marks=pytest.mark.slow if name == "onnx" else ()) for name in WEIGHTS for seed in (0, 1)],
)


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


@every_reader
def test_honest_files_load(name, tmp_path):
    reader = READERS[name]
    loaded = [attack(reader, tmp_path / f"honest{reader.suffix}", content) for content in reader.seeds(tmp_path)]
    assert any(loaded), "an attack that begins from nothing readable reaches nothing"


@pytest.mark.filterwarnings("ignore")
@every_reader
def test_damaged_files_load_or_are_refused_in_a_line(name, tmp_path):
    reader = READERS[name]
    path = tmp_path / f"damaged{reader.suffix}"

    @hypothesis.settings(max_examples=150, derandomize=True, database=None, deadline=None)
    @hypothesis.given(damaged(reader.seeds(tmp_path)))
    def attacked(content):
        attack(reader, path, content)

    attacked()


@every_weight_file
@pytest.mark.parametrize("value", [0x00, 0x81, 0xFF])
def test_a_weight_file_cut_off_anywhere_is_refused_and_with_one_wrong_byte_loads_or_is_refused(
    tmp_path, name, seed, value
):
    """This library's own files have a checksum: no wrong byte may lead to other weights."""
    reader, path = READERS[name], tmp_path / "wrong"
    whole = reader.seeds(tmp_path)[seed]
    for position in range(len(whole)):
        if value == 0:
            assert not attack(reader, path, whole[:position]), position
        loaded = attack(reader, path, whole[:position] + bytes([value]) + whole[position + 1 :])
        if loaded and name == "npz":
            (arrays, _), expected = loaded[0], np.arange(6, dtype=np.float32)
            assert arrays.keys() == {"weights/w"} and arrays["weights/w"].tobytes() == expected.tobytes(), position


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_file_that_is_missing_empty_or_a_folder(tmp_path, name):
    if name == "onnx":
        pytest.importorskip("onnx", reason="onnx is not installed")
    with pytest.raises(FileNotFoundError, match="absent: expected .*no such file"):
        READERS[name].read(tmp_path / "absent")
    with pytest.raises(ValueError, match="got a folder"):
        READERS[name].read(tmp_path)
    assert not attack(READERS[name], tmp_path / "empty", b"")


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
