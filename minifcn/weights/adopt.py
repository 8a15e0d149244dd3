"""Arrays from another library put into a network: which names match, which keys are missing, which are unexpected."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..card import Network
from ..errors import InputError
from ..layers.init import bilinear
from ..preprocessing import Preprocessing


@dataclass
class Loaded:
    """What was loaded. matched: their name -> ours; missing_keys: our names that were not in the file and keep their
    values; unexpected_keys: their names that the network lacks; notes: what else to know of the weights."""

    source: str
    matched: dict = field(default_factory=dict)
    missing_keys: list = field(default_factory=list)
    unexpected_keys: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.source}: {len(self.matched)} arrays loaded"
        for what, keys in (("missing", self.missing_keys), ("unexpected", self.unexpected_keys)):
            if keys:
                text += f"; {len(keys)} {what} keys: {', '.join(keys[:8])}{', …' if len(keys) > 8 else ''}"
        return "; ".join([text, *self.notes])


def adopt(
    path: str | Path,
    network: Network,
    arrays: dict,
    rename: Callable,
    preprocessing: Preprocessing,
    absent: tuple = (),
) -> Loaded:
    """Put arrays (by their name) into a network, and their preprocessing into its card. -> Loaded

    rename: their name -> ours, None for an array that is not needed. The names of a classifier match those of a
    backbone. absent: prefixes of backbone names that may be missing. Raises InputError, and changes nothing, if a shape
    does not fit, if no name matches, or if a name is missing other than these and those of an FCN's own layers.
    """
    own, loaded = network.state_dict(), Loaded(str(path))
    prefix = f"{network.backbone_prefix}." if network.backbone_prefix else ""
    sources = {}
    for theirs, array in arrays.items():
        ours = rename(theirs)
        if ours is None:
            continue
        kernel_1d = ours.removesuffix("weight") + "kernel_1d"
        score = re.sub("^fc8(_voc12)?", "score", ours)  # as the released DeepLabs call it
        target = next((name for name in (prefix + ours, ours, kernel_1d) if name in own), None)
        if target is None and score in own and own[score].size == array.size:  # else it is a classifier's fc8
            target = score
        if target is None:
            loaded.unexpected_keys.append(theirs)
        elif target in sources:
            raise InputError(f"{path}: {theirs} and {sources[target]} are both {target}")
        else:
            sources[target] = theirs
            if target == kernel_1d:
                _require_bilinear(path, theirs, array, len(own[target]))
            else:
                own[target] = _fitted(path, theirs, array, target, own[target].shape)
    loaded.matched = {theirs: target for target, theirs in sources.items()}
    loaded.missing_keys = [name for name in own if name not in sources and not name.endswith(".kernel_1d")]
    needed = [name for name in loaded.missing_keys if name.startswith(prefix)]
    needed = [name for name in needed if not name.removeprefix(prefix).startswith(absent)]
    if needed or not sources:
        raise InputError(
            f"{path}: weights of another network: {len(needed)} missing keys (such as {', '.join(needed[:3])}); "
            f"got {', '.join(list(arrays)[:3])}, … ({len(arrays)} in all)"
        )
    network.load_state_dict(own)
    network.card.preprocessing = preprocessing
    return loaded


def _fitted(path, theirs, array, ours, shape):
    """An array in this shape, if it has the same numbers in the same order.

    Old Caffe files write every blob with four axes, and a fully connected layer is a convolution's kernels laid flat.
    """
    given = array.shape
    while len(given) > 1 and given[0] == 1 != shape[0]:
        given = given[1:]
    if array.size != np.prod(shape) or given[:1] != shape[:1]:
        raise InputError(f"{path}: {theirs}: expected shape {shape} for {ours}, got {array.shape}")
    if array.dtype.kind != "f":
        raise InputError(f"{path}: {theirs}: expected floating-point numbers, got {array.dtype}")
    return array.reshape(shape)


def _require_bilinear(path, theirs, array, k):
    """Raise InputError unless a transposed convolution's kernel is the bilinear one that a frozen upsampling has."""
    square = array.ndim == 4 and array.shape[0] == array.shape[1] and array.shape[2:] == (k, k)
    if not (square and np.allclose(array, bilinear(len(array), k), atol=1e-6)):
        raise InputError(
            f"{path}: {theirs}: expected the bilinear {k}x{k} kernel that this network upsamples with, got another of "
            f"shape {array.shape}; use upsampling='learned'"
        )
