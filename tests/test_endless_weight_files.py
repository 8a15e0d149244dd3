"""Small files that would keep a careless reader busy for days: each is refused at once."""

import json
import subprocess
import sys

import numpy as np
import pytest
import weight_writers as write

from minifcn import models, weights
from minifcn.training import checkpoint
from minifcn.weights import npz
from minifcn.weights.safetensors_file import read_safetensors
from minifcn.weights.torch_file import read_torch

SECONDS = 20  # each takes milliseconds, and a careless reader more than a lifetime


def doubled(times):
    """A tuple that holds one tuple twice, which holds one twice, and so on: a few bytes, 2**times leaves."""
    return write.text("x") + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(times))


def refused_in_time(path, read, reason):
    """The reader runs in a process of its own, which is stopped where it does not come to an end."""
    code = f"import sys; from minifcn.weights.{read.__module__.rpartition('.')[2]} import {read.__name__} as read; read(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=SECONDS)
    assert f"ValueError: {path}: expected " in done.stderr and reason in done.stderr.splitlines()[-1]


def test_a_function_named_by_an_endless_tuple(tmp_path):
    path = tmp_path / "net.pth"
    write.torch_zip(path, write.dict_of(("w", doubled(60) + write.text("x") + b"\x93")))
    refused_in_time(path, read_torch, "names a function by something that is no text")


def test_storage_keys_that_take_forever_to_compare(tmp_path):
    path = tmp_path / "net.pth"
    pickles = [write.number(write.MAGIC_NUMBER), write.number(1001), write.dict_of(("little_endian", b"\x88"))]
    pickles += [write.dict_of(("w", write.tensor())), write.list_of(doubled(60), doubled(60))]
    path.write_bytes(b"".join(map(write.program, pickles)))
    refused_in_time(path, read_torch, "a list of storages that is not the list of those in use")


def test_one_dictionary_under_many_names_is_looked_at_once(tmp_path):
    path, many = tmp_path / "net.pth", 20_000
    more = b"".join(write.text(f"t{i}") + b"h\x01" for i in range(many))
    inner = b"}(" + write.text("t") + write.tensor() + b"q\x01" + more + b"uq\x02"
    again = b"".join(write.text(f"k{i}") + b"h\x02" for i in range(many))
    outer = b"}(" + write.text("k") + inner + again + write.text("n") + b"Nu"
    write.torch_zip(path, outer, {"0": np.zeros(6, "<f4").tobytes()})
    refused_in_time(path, read_torch, "dictionaries of tensors among")


def test_many_names_one_of_them_twice(tmp_path):
    path = tmp_path / "net.safetensors"
    names = [*(f"n{i}" for i in range(150_000)), "n149999"]
    text = ",".join(f'"{name}":"x"' for name in names)
    tensor = '"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    path.write_bytes(write.safetensors(f'{{"__metadata__":{{{text}}},{tensor}}}'.encode(), bytes(4)))
    refused_in_time(path, read_safetensors, "'n149999' twice")


# --- Settings in a file that ask for more than the file has -----------------------------------------------------------


def saved(path, **changes):
    """A small network's file whose meta data is changed."""
    weights.save(path, models.fcn("32s", "mini", 2, width=1), classes=["a", "b"])
    arrays, meta = npz.read_archive(path)
    meta["network"] = (
        {**meta["network"], **changes.pop("network", {})} if "replace" not in changes else changes["replace"]
    )
    npz.write_archive(path, arrays, {**meta, **{k: v for k, v in changes.items() if k != "replace"}})
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network": {"num_classes": 10**12}}, "num_classes 1000000000000 but arrays for 2"),
        ({"network": {"width": 10**6}}, "width 1000000 but arrays for 1"),
        ({"replace": [1]}, "expected the settings of a network, got"),
        ({"replace": {"network": "vgg16"}}, "expected the settings of a network, got"),
        ({"replace": {"num_classes": 2}}, "expected a network out of vgg16"),
        ({"classes": 5}, "expected a list of class names, got '5'"),
        ({"classes": ["a"]}, "expected 2 class names, got 1"),
        (
            {"preprocessing": {"order": "RGB", "mean": [float("nan")] * 3, "scale": [1, 1, 1]}},
            "expected a preprocessing",
        ),
        ({"preprocessing": [1]}, "expected a preprocessing"),
    ],
)
def test_settings_that_do_not_fit_the_arrays(tmp_path, changes, reason):
    path = saved(tmp_path / "net.npz", **changes)
    with pytest.raises(ValueError, match="net.npz: ") as caught:
        checkpoint.load_segmenter(path)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_metadata_nested_without_end(tmp_path):
    path = tmp_path / "net.safetensors"
    nested = json.dumps("[" * 100_000)
    header = f'{{"__metadata__":{{"network":{nested}}},"w":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}'
    path.write_bytes(write.safetensors(header.encode(), bytes(4)))
    with pytest.raises(ValueError, match=r"net\.safetensors: expected metadata in JSON"):
        weights.load_safetensors(path, models.fcn("32s", "mini", 2, width=1))


def test_another_networks_settings_of_an_odd_kind(tmp_path):
    path = saved(tmp_path / "net.npz", replace=[1])
    with pytest.raises(ValueError, match=r"net\.npz: expected the settings of a network, got"):
        weights.load(path, models.fcn("32s", "mini", 2, width=1))


# --- Starting from whatever fits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_an_fcn_starts_from_a_file_of_this_library(tmp_path, ending):
    save = {".npz": weights.save, ".safetensors": weights.save_safetensors}[ending]
    coarse, classifier = models.fcn("32s", "efficientnet_lite0", 3, seed=1), models.efficientnet_lite0(5, seed=2)
    for source, told in ((coarse, "starts where FCN-32s ended"), (classifier, "gives its trunk; 7 arrays left over")):
        path = tmp_path / f"{told[:6]}{ending}"
        save(path, source)
        network = models.fcn("16s", "efficientnet_lite0", 3, seed=3)
        assert told in checkpoint.start_from(path, network)
        theirs, ours = source.state_dict(), network.state_dict()
        shared = [name for name in theirs if name in ours or f"lite0.{name}" in ours]
        assert len(shared) > 200
        assert all((theirs[name] == ours.get(name, ours.get(f"lite0.{name}"))).all() for name in shared)
