"""The library's own file format: a NumPy archive of named arrays plus one JSON text. Nothing in it is ever executed."""

import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

FORMAT = "minifcn 1"
_META = "meta.json"
# All that NumPy, zipfile and json were seen to raise for damaged archives.
_DAMAGE = (
    *(ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


def write_archive(path, arrays, meta):
    """Write arrays (by name) and meta (JSON-ready) to `path`, whole or not at all: a crash leaves the old file as it was."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = np.frombuffer(json.dumps({"format": FORMAT, **meta}).encode("utf-8"), np.uint8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **{_META: text}, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_archive(path):
    """(arrays by name, meta). Raises FileNotFoundError, or ValueError for a file that is damaged or of another kind."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected weights or a checkpoint of minifcn (.npz)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member that is no array")
        meta = json.loads(arrays.pop(_META).tobytes().decode("utf-8"))
        known = meta["format"]
    except _DAMAGE as error:
        raise ValueError(
            f"{path}: expected weights or a checkpoint of minifcn (.npz), got something else or a damaged file "
            f"({type(error).__name__})"
        ) from error
    if known != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT!r}, got {known!r}")
    return arrays, meta


def save(path, model, **meta):
    """Write a model's weights, with its `config` and preprocessing beside them where it has them, and `meta` (JSON-ready)."""
    write_archive(path, {f"weights/{name}": a for name, a in model.state_dict().items()}, {**describe(model), **meta})


def load(path, model):
    """Read weights into a model. Raises ValueError, naming the file, if they belong to another network; returns the meta data."""
    arrays, meta = read_archive(path)
    theirs, ours = meta.get("network"), getattr(model, "config", None)
    if theirs and ours:
        differ = [key for key in ours if key != "seed" and theirs.get(key) != ours[key]]
        if differ:
            told = ", ".join(f"{key} {theirs.get(key)!r} (expected {ours[key]!r})" for key in differ)
            raise ValueError(f"{path}: weights of another network: {told}")
    try:
        model.load_state_dict(section(arrays, "weights"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return meta


def section(arrays, name):
    """The arrays whose names begin with "name/", without that beginning."""
    return {key[len(name) + 1 :]: a for key, a in arrays.items() if key.startswith(name + "/")}


def describe(model):
    """What a file says about the model whose weights it holds."""
    meta = {}
    if hasattr(model, "config"):
        meta["network"] = model.config
    if hasattr(model, "preprocessing"):
        meta["preprocessing"] = model.preprocessing.as_dict()
    return meta
