"""What the doctor can find, what it means, and whether it is an error or a remark.

An error is what the readers refuse, or what would teach or score something false. A remark works, and is worth knowing.
"""

from dataclasses import dataclass, field
from typing import NamedTuple


class Kind(NamedTuple):
    error: bool
    meaning: str
    unusable: bool = False  # whether an image that has it has to be left out


# --fix looks here for what it has to leave out; everything else it can write anew or keep.
KINDS = {
    # Lists and descriptions.
    "description": Kind(True, "wrong entries in dataset.toml"),
    "classes-file": Kind(True, "the list of class names cannot be used"),
    "no-list": Kind(True, "no lists of images for training"),
    "no-val-list": Kind(False, "there is no list to validate on"),
    "empty-list": Kind(True, "the list names no image"),
    "list-unreadable": Kind(True, "the list is not plain text with one id a line in UTF-8"),
    "repeated-id": Kind(True, "named more than once in a list, and so counted more than once"),
    "unlisted": Kind(False, "image and mask are there, but no list names them"),
    # What belongs together.
    "missing-image": Kind(True, "there is no image", unusable=True),
    "missing-mask": Kind(True, "there is no mask", unusable=True),
    "mask-without-image": Kind(True, "a mask without an image, which no list names"),
    "image-without-mask": Kind(False, "images without a mask, which no list names"),
    "two-files": Kind(True, "two files for one id", unusable=True),
    "stray-file": Kind(False, "files that are no images"),
    "size-mismatch": Kind(True, "the mask has another size than its image", unusable=True),
    "overlap-by-id": Kind(True, "in both lists, so that what is learned is also what is tested"),
    "overlap-by-content": Kind(True, "the same picture under two ids in two lists"),
    "duplicate-content": Kind(False, "the same picture under several ids in one list"),
    # Files.
    "empty-file": Kind(True, "a file of no bytes", unusable=True),
    "unreadable": Kind(True, "not an image that can be decoded", unusable=True),
    "truncated": Kind(True, "the file ends in the middle", unusable=True),
    "bomb": Kind(True, "of absurd size; not decoded", unusable=True),
    "wrong-ending": Kind(False, "the name's ending tells another format than the content"),
    # Images.
    "exif-rotated": Kind(
        False, "stored lying, with EXIF data that says how to turn it; masks must fit the turned image"
    ),
    "cmyk": Kind(False, "colours for printing (CMYK), which become RGB only roughly"),
    "16-bit": Kind(False, "more than 8 bits a channel, of which 8 are kept"),
    "alpha": Kind(False, "a transparent channel, which is dropped: what was hidden shows"),
    "animated": Kind(False, "several frames, of which the first is read"),
    "blank-image": Kind(False, "every pixel has the same colour"),
    # Masks.
    "mask-mode": Kind(True, "a mask of class numbers was expected, in a palette or grey image of 8 bits"),
    "lossy-mask": Kind(True, "a mask stored as JPEG, which changes values", unusable=True),
    "label-outside": Kind(True, "labels that are no class", unusable=True),
    "colour-outside": Kind(True, "colours that are no class's", unusable=True),
    "in-between": Kind(
        True,
        "rare values in between along the borders: from a resize that was not by nearest neighbour, or from JPEG",
        unusable=True,
    ),
    "renumbered-palette": Kind(
        True, "the colours are the classes', but the numbers behind them are not the classes' numbers"
    ),
    "other-palette": Kind(False, "palettes in other colours than the classes'; only the numbers count"),
    "looks-black": Kind(False, "masks that look black and are well: class numbers are small, and shown as dark greys"),
    "black-and-white": Kind(
        True,
        'masks of 0 and 255 only, and 255 is void: say mask_kind = "colours" with black and white, or write 1 for 255',
    ),
    "void-only": Kind(False, "no pixel of any class: nothing to learn or to score"),
    "unseen-class": Kind(False, "classes that the masks of a list never show"),
}


@dataclass
class Finding:
    """One kind of finding: entries are (name, detail), name usually a file relative to the data set's folder."""

    kind: str
    entries: list = field(default_factory=list)

    @property
    def error(self):
        return KINDS[self.kind].error

    @property
    def meaning(self):
        return KINDS[self.kind].meaning


class Findings:
    """Findings by kind, errors first, in the order of KINDS."""

    def __init__(self):
        self._found = {}

    def add(self, kind, name, detail=""):
        """Note a finding. Raises KeyError for a kind that is not in KINDS."""
        if kind not in KINDS:
            raise KeyError(kind)
        self._found.setdefault(kind, Finding(kind)).entries.append((str(name), detail))

    def __iter__(self):
        order = sorted(self._found, key=lambda kind: (not KINDS[kind].error, list(KINDS).index(kind)))
        return iter([self._found[kind] for kind in order])

    def names(self, kind):
        """The names that have this finding."""
        return [name for name, _ in self._found[kind].entries] if kind in self._found else []

    @property
    def errors(self):
        return [finding for finding in self if finding.error]

    @property
    def remarks(self):
        return [finding for finding in self if not finding.error]
