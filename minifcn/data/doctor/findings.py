"""What the doctor can find, what it means, and how bad it is."""

from ..labels import BLACK_AND_WHITE

WARNING = 0  # it does no harm by itself
ERROR = 1  # the readers refuse it, or it would teach or score something false
UNUSABLE = 2  # an error for which `write_fixed` has to leave the image out

KINDS = {  # kind: (how bad, what it means)
    # Lists and descriptions.
    "description": (ERROR, "wrong entries in dataset.toml"),
    "classes-file": (ERROR, "the list of class names cannot be used"),
    "no-list": (ERROR, "there is no list of training images"),
    "no-val-list": (WARNING, "there is no list of validation images"),
    "empty-list": (ERROR, "the list names no image"),
    "list-unreadable": (ERROR, "the list is not plain text with one id a line in UTF-8"),
    "repeated-id": (ERROR, "named more than once in a list, and so counted more than once"),
    "name-coding": (WARNING, "names that no list can hold: no UTF-8, or a space at either end; --fix renames them"),
    "unlisted": (WARNING, "image and mask are there, but no list names them"),
    # Images and their masks.
    "missing-image": (UNUSABLE, "there is no image"),
    "missing-mask": (UNUSABLE, "there is no mask"),
    "mask-without-image": (ERROR, "masks without an image, which no list names"),
    "image-without-mask": (WARNING, "images without a mask, which no list names"),
    "two-files": (UNUSABLE, "two files for one id"),
    "stray-file": (WARNING, "files that are not images"),
    "size-mismatch": (UNUSABLE, "the mask has another size than its image"),
    "overlap-by-id": (ERROR, "in two lists, so that training images are also tested on"),
    "overlap-by-content": (ERROR, "the same picture under two ids in two lists"),
    "duplicate-content": (WARNING, "the same picture under several ids in one list"),
    # Files.
    "empty-file": (UNUSABLE, "a file of zero bytes"),
    "not-fetched": (UNUSABLE, "a Git LFS pointer, a web page or an error message in place of the file"),
    "unreadable": (UNUSABLE, "not an image that can be decoded"),
    "truncated": (UNUSABLE, "the file is cut off"),
    "bomb": (UNUSABLE, "too many pixels; not decoded"),
    "wrong-ending": (WARNING, "the name's ending belongs to another format than the content"),
    # Images.
    "exif-rotated": (
        WARNING,
        "EXIF data say that the stored picture is to be turned; mask and image must fit once turned, or else --no-exif",
    ),
    "cmyk": (WARNING, "colours for printing (CMYK), which become RGB only approximately"),
    "16-bit": (WARNING, "more than 8 bits a channel, of which 8 are used"),
    "alpha": (WARNING, "an alpha channel, which is dropped: what was transparent becomes visible"),
    "animated": (WARNING, "several frames, of which the first is read"),
    "other-bands": (UNUSABLE, "another number of bands than most images have; a network reads images of one kind"),
    "blank-image": (WARNING, "every pixel has the same colour"),
    # Masks.
    "mask-mode": (ERROR, "a mask of class numbers was expected, in a palette or grey image of 8 bits"),
    "lossy-mask": (UNUSABLE, "a mask stored as JPEG, which changes values"),
    "label-outside": (UNUSABLE, "labels that are no class"),
    "colour-outside": (UNUSABLE, "colours that are no class's"),
    "in-between": (
        UNUSABLE,
        "rare intermediate values along the borders: from a resize other than nearest neighbour, or from JPEG",
    ),
    "renumbered-palette": (ERROR, "the palette has the classes' colours, but under other numbers than the classes'"),
    "other-palette": (WARNING, "palettes in other colours than the classes'; only the numbers count"),
    "looks-black": (WARNING, "valid masks that look black, because small class numbers are shown as dark greys"),
    "black-and-white": (ERROR, BLACK_AND_WHITE),
    "several-values": (
        UNUSABLE,
        "a mask of one object in more than one value: of several objects, or resized smoothly",
    ),
    "overlapping-objects": (UNUSABLE, "masks of two objects that overlap in more than a hundredth of the smaller"),
    "empty-object": (WARNING, "no pixel of an object in its mask, or of its class in its box"),
    "open-polygon": (UNUSABLE, "a polygon that does not close: fewer than three corners, or an x without its y"),
    "box-only": (UNUSABLE, "an object with a box, but neither polygons nor runs"),
    "wrong-object": (UNUSABLE, "an object whose category, polygons or runs cannot be used"),
    "outside-image": (ERROR, "a box or a polygon that leaves its image: of another size, or in other units?"),
    "object-over-another": (
        WARNING,
        "objects that overlap in more than a hundredth of the smaller, which is what is seen there",
    ),
    "stray-annotation": (WARNING, "objects of an image that the file does not list"),
    "objects-differ": (ERROR, "objects that do not fit the mask of classes, which training on objects would refuse"),
    "void-only": (WARNING, "no pixel of any class: nothing to learn or to score"),
    "unseen-class": (WARNING, "classes that no mask of a list shows"),
}


class Findings(dict):
    """{kind: [(name, detail)]}, the name usually of a file relative to the data set's folder."""

    def add(self, kind, name, detail=""):
        self.setdefault(kind, []).append((name, str(detail)))

    def names(self, kind):
        """The names that have this finding."""
        return [name for name, _ in self.get(kind, [])]

    @property
    def errors(self):
        """The kinds of errors that were found, in the order of KINDS."""
        return [kind for kind, (level, _) in KINDS.items() if kind in self and level != WARNING]

    @property
    def warnings(self):
        """The kinds of warnings that were found, in the order of KINDS."""
        return [kind for kind, (level, _) in KINDS.items() if kind in self and level == WARNING]
