"""What the doctor can find, what it means, and whether it is an error or a warning.

An error is what the readers refuse, or what would teach or score something false. A warning does no harm by itself.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    error: bool
    meaning: str
    unusable: bool = False  # whether `write_fixed` has to leave out an image that has it


KINDS = {
    # Lists and descriptions.
    "description": Kind(True, "wrong entries in dataset.toml"),
    "classes-file": Kind(True, "the list of class names cannot be used"),
    "no-list": Kind(True, "there is no list of training images"),
    "no-val-list": Kind(False, "there is no list of validation images"),
    "empty-list": Kind(True, "the list names no image"),
    "list-unreadable": Kind(True, "the list is not plain text with one id a line in UTF-8"),
    "repeated-id": Kind(True, "named more than once in a list, and so counted more than once"),
    "unlisted": Kind(False, "image and mask are there, but no list names them"),
    # Images and their masks.
    "missing-image": Kind(True, "there is no image", unusable=True),
    "missing-mask": Kind(True, "there is no mask", unusable=True),
    "mask-without-image": Kind(True, "masks without an image, which no list names"),
    "image-without-mask": Kind(False, "images without a mask, which no list names"),
    "two-files": Kind(True, "two files for one id", unusable=True),
    "stray-file": Kind(False, "files that are not images"),
    "size-mismatch": Kind(True, "the mask has another size than its image", unusable=True),
    "overlap-by-id": Kind(True, "in two lists, so that training images are also tested on"),
    "overlap-by-content": Kind(True, "the same picture under two ids in two lists"),
    "duplicate-content": Kind(False, "the same picture under several ids in one list"),
    # Files.
    "empty-file": Kind(True, "a file of zero bytes", unusable=True),
    "unreadable": Kind(True, "not an image that can be decoded", unusable=True),
    "truncated": Kind(True, "the file is cut off", unusable=True),
    "bomb": Kind(True, "too many pixels; not decoded", unusable=True),
    "wrong-ending": Kind(False, "the name's ending belongs to another format than the content"),
    # Images.
    "exif-rotated": Kind(False, "EXIF data say that the stored image is to be turned; masks must fit the turned image"),
    "cmyk": Kind(False, "colours for printing (CMYK), which become RGB only approximately"),
    "16-bit": Kind(False, "more than 8 bits a channel, of which 8 are used"),
    "alpha": Kind(False, "an alpha channel, which is dropped: what was transparent becomes visible"),
    "animated": Kind(False, "several frames, of which the first is read"),
    "blank-image": Kind(False, "every pixel has the same colour"),
    # Masks.
    "mask-mode": Kind(True, "a mask of class numbers was expected, in a palette or grey image of 8 bits"),
    "lossy-mask": Kind(True, "a mask stored as JPEG, which changes values", unusable=True),
    "label-outside": Kind(True, "labels that are no class", unusable=True),
    "colour-outside": Kind(True, "colours that are no class's", unusable=True),
    "in-between": Kind(
        True,
        "rare intermediate values along the borders: from a resize other than nearest neighbour, or from JPEG",
        True,
    ),
    "renumbered-palette": Kind(True, "the palette has the classes' colours, but under other numbers than the classes'"),
    "other-palette": Kind(False, "palettes in other colours than the classes'; only the numbers count"),
    "looks-black": Kind(False, "valid masks that look black, because small class numbers are shown as dark greys"),
    "black-and-white": Kind(
        True,
        'masks of 0 and 255 only, and 255 is void: set mask_kind = "colours" with black and white, or write 1 for 255',
    ),
    "void-only": Kind(False, "no pixel of any class: nothing to learn or to score"),
    "unseen-class": Kind(False, "classes that no mask of a list shows"),
}


class Finding(NamedTuple):
    """All entries of one kind: (name, detail) each, the name usually of a file relative to the data set's folder."""

    kind: str
    error: bool
    meaning: str
    entries: list


class Findings:
    """Findings by kind, errors first, in the order of KINDS."""

    def __init__(self):
        self._entries = {kind: [] for kind in KINDS}

    def add(self, kind, name, detail=""):
        self._entries[kind].append((str(name), detail))

    def names(self, kind):
        """The names that have this finding."""
        return [name for name, _ in self._entries[kind]]

    def __iter__(self):
        return iter(self.errors + self.warnings)

    @property
    def errors(self):
        return self._found(True)

    @property
    def warnings(self):
        return self._found(False)

    def _found(self, error):
        found = {name: kind for name, kind in KINDS.items() if kind.error == error and self._entries[name]}
        return [Finding(name, error, kind.meaning, self._entries[name]) for name, kind in found.items()]
