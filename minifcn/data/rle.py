"""COCO's run-length encoding of masks: alternating runs of 0 and 1, down the columns, beginning with 0; as numbers or as text.

Source: rleEncode, rleToString and rleFrString in `maskApi.c` of pycocotools, https://github.com/cocodataset/cocoapi
"""

import numpy as np

from ..errors import InputError

_BITS, _MORE, _FIRST = 5, 0x20, 48  # of a character: its payload bits, the flag that another follows, the lowest code


def counts_of(mask: np.ndarray) -> list[int]:
    """The lengths of the runs in a mask (H, W) bool."""
    flat = mask.T.reshape(-1)
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    counts = np.diff(ends, prepend=0).tolist()
    return [0, *counts] if flat.size and flat[0] else counts


def mask_from(counts: list[int], size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) bool of these runs. Raises InputError unless they are whole numbers that add up to size (height, width)."""
    if not all(type(count) is int and count >= 0 for count in counts):
        raise InputError("expected runs of whole numbers from 0 on")
    if sum(counts) != size[0] * size[1]:
        raise InputError(f"expected runs of {size[0] * size[1]} pixels in all, got {str(sum(counts))[:30]}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[1], size[0]).T


def text_of(counts: list[int]) -> str:
    """Runs as text, five bits a character, lowest bits first. From the fourth run on: the difference from the run two before."""
    letters = []
    for i, count in enumerate(counts):
        rest, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            bits, rest = rest & 0x1F, rest >> _BITS
            more = rest != (-1 if bits & 0x10 else 0)  # the highest bit written is the sign
            letters.append(chr(_FIRST + bits + (_MORE if more else 0)))
    return "".join(letters)


def counts_in(text: str) -> list[int]:
    """The runs in a text. Raises InputError for characters that text_of does not write and for numbers cut off or too large."""
    counts, value, shift = [], 0, 0
    for letter in text:
        code = ord(letter) - _FIRST
        if not 0 <= code < 2 * _MORE or shift > 60:
            raise InputError(f"expected compressed runs, got the character {letter!r}")
        value |= (code & 0x1F) << shift
        shift += _BITS
        if not code & _MORE:
            value -= (1 << shift) if code & 0x10 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise InputError("expected compressed runs, got text that is cut off")
    return counts
