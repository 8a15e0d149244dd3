"""Faults to plant in a toy data set in VOC's layout, each in files of its own, and what the doctor must call them."""

import struct
import zlib

import numpy as np
from PIL import Image

from minifcn.data import images, labels

ORIENTATION = 0x0112


class Sick:
    """A data set in VOC's layout that is spoiled step by step. Each `fault_` method gives [(kind, name)] of what must be found."""

    def __init__(self, folder):
        self.folder = folder
        self.expected = {}  # name of the fault -> [(kind, name)]
        self.free, self.val = (self.list(split).read_text(encoding="utf-8").split() for split in ("train", "val"))
        self.ids = {}

    def plant_all(self):
        for name in (name for name in dir(self) if name.startswith("fault_")):
            self.id = self.ids[name] = self.free.pop()
            self.expected[name.removeprefix("fault_")] = getattr(self, name)()
        return self

    @property
    def image(self):
        return self.folder / "JPEGImages" / f"{self.id}.jpg"

    @property
    def mask(self):
        return self.folder / "SegmentationClass" / f"{self.id}.png"

    def list(self, split="train"):
        return self.folder / "ImageSets" / "Segmentation" / f"{split}.txt"

    def in_image(self, *kinds):
        return [(kind, f"JPEGImages/{self.id}.jpg") for kind in kinds]

    def in_mask(self, *kinds):
        return [(kind, f"SegmentationClass/{self.id}.png") for kind in kinds]

    def label(self):
        return images.read_mask(self.mask)

    def photo(self):
        return Image.open(self.image).convert("RGB")

    def store_turned(self):
        exif = Image.Exif()
        exif[ORIENTATION] = 6  # to be turned clockwise for viewing
        self.photo().transpose(Image.Transpose.ROTATE_90).save(self.image, "JPEG", exif=exif)

    def store_deep(self):
        pixels = np.asarray(self.photo()).astype(">u2") * 257
        rows = b"".join(b"\0" + row.tobytes() for row in pixels)
        self.image.write_bytes(png(pixels.shape[1], pixels.shape[0], 16, rows))

    def write_mask(self, label, *palette):
        images.write_mask(self.mask, label, *palette)

    # What is missing or too much, and lists. (Faults of a single file are in the tables below.)

    def fault_image_of_another_ending(self):
        self.image.rename(self.image.with_suffix(".JPG"))
        return [("missing-image", f"JPEGImages/{self.id}.jpg")]

    def fault_mask_without_image(self):
        self.mask.with_name("lonely.png").write_bytes(self.mask.read_bytes())
        return [("mask-without-image", "SegmentationClass/lonely.png")]

    def fault_image_without_mask(self):
        Image.effect_noise((9, 9), 50).convert("RGB").save(self.image.with_name("lonely_too.jpg"))
        return [("image-without-mask", "JPEGImages/lonely_too.jpg")]

    def fault_stray_file(self):
        (self.folder / "SegmentationClass" / "Thumbs.db").write_bytes(b"x")
        return [("stray-file", "SegmentationClass/Thumbs.db")]

    def fault_unlisted(self):
        for split in ("train", "trainval"):
            self.list(split).write_text(self.list(split).read_text().replace(f"{self.id}\n", ""))
        return [("unlisted", self.id)]

    def fault_repeated_id(self):
        self.list().write_text(self.list().read_text() + f"{self.id}\n")
        return [("repeated-id", self.id)]

    def fault_overlap_by_id(self):
        self.list("val").write_text(self.list("val").read_text() + f"{self.id}\n")
        return [("overlap-by-id", self.id)]

    def fault_overlap_by_content(self):
        self.image.write_bytes(self.image.with_name(f"{self.val[0]}.jpg").read_bytes())
        self.mask.write_bytes(self.mask.with_name(f"{self.val[0]}.png").read_bytes())
        return self.in_image("overlap-by-content")

    def fault_duplicate_content(self):
        other = self.free.pop()
        self.image.with_name(f"{other}.jpg").write_bytes(self.image.read_bytes())
        self.mask.with_name(f"{other}.png").write_bytes(self.mask.read_bytes())
        return [("duplicate-content", f"JPEGImages/{other}.jpg")]

    def fault_list_in_another_coding(self):
        self.list("latin").write_bytes(f"{self.free[0]}\nkatze_\xfc\n".encode("latin-1"))
        return [("list-unreadable", "ImageSets/Segmentation/latin.txt")]

    def fault_empty_list(self):
        self.list("none").write_text("\n")
        return [("empty-list", "ImageSets/Segmentation/none.txt")]

    def fault_exif_with_a_mask_of_what_is_stored(self):
        self.store_turned()
        self.write_mask(np.rot90(self.label()))
        return [*self.in_image("exif-rotated"), *self.in_mask("size-mismatch")]

    def fault_link_to_nothing(self):
        self.image.unlink()
        self.image.symlink_to("nowhere.jpg")
        return self.in_image("unreadable")

    def fault_label_outside(self):
        changed = self.label().copy()
        changed[5:10, 5:15] = 77
        self.write_mask(changed)
        return self.in_mask("label-outside")

    def fault_resized_smoothly(self):
        small = Image.fromarray(np.kron(self.label(), np.ones((2, 2), np.uint8)))
        self.write_mask(np.asarray(small.resize(self.photo().size, Image.Resampling.BICUBIC)))
        return self.in_mask("in-between")

    def fault_renumbered(self):
        before = self.label()
        used = np.setdiff1d(np.union1d(before, [1, 2]), [0, labels.VOID])
        numbers = np.arange(256, dtype=np.uint8)  # class -> number; the palette goes along
        numbers[used] = np.roll(used, 1)
        self.renumbered = numbers
        palette = np.empty((256, 3), np.uint8)
        palette[numbers] = labels.voc_palette()
        self.write_mask(numbers[before], palette)
        return self.in_mask("renumbered-palette")

    def fault_unseen_class(self):
        with open(self.folder / "classes.txt", "a", encoding="utf-8") as file:
            file.write("unicorn\n")
        return [("unseen-class", "unicorn")]


# name of the fault -> (how the file is spoiled, what it is then called)
IMAGES = {
    "missing_image": (lambda s: s.image.unlink(), "missing-image"),
    "empty_file": (lambda s: s.image.write_bytes(b""), "empty-file"),
    "no_image": (lambda s: s.image.write_text("<html>404</html>"), "unreadable"),
    "truncated_image": (lambda s: s.image.write_bytes(s.image.read_bytes()[:-300]), "truncated"),
    "bomb": (lambda s: s.image.write_bytes(png(30000, 30000, 8, bytes(1000))), "bomb"),
    "large_but_allowed_by_pillow": (lambda s: s.image.write_bytes(png(10000, 10000, 8, bytes(1000))), "bomb"),
    "wrong_ending": (lambda s: s.photo().save(s.image, "PNG"), "wrong-ending"),
    "exif": (Sick.store_turned, "exif-rotated"),  # on its side; the mask fits the image as it should be seen
    "cmyk": (lambda s: s.photo().convert("CMYK").save(s.image, "JPEG"), "cmyk"),
    "sixteen_bit_grey": (
        lambda s: Image.fromarray(np.asarray(s.photo().convert("L")).astype(np.uint16) * 257).save(s.image, "PNG"),
        *("16-bit", "wrong-ending"),
    ),
    "sixteen_bit_colours": (Sick.store_deep, "16-bit", "wrong-ending"),
    "alpha": (lambda s: s.photo().convert("RGBA").save(s.image, "PNG"), "alpha", "wrong-ending"),
    "animated": (
        lambda s: s.photo().save(s.image, "GIF", save_all=True, append_images=[s.photo().rotate(180)]),
        *("animated", "wrong-ending"),
    ),
    "blank": (lambda s: Image.new("RGB", s.photo().size).save(s.image), "blank-image"),
}
MASKS = {
    "missing_mask": (lambda s: s.mask.unlink(), "missing-mask"),
    "truncated_mask": (
        lambda s: (
            Image.effect_noise((50, 50), 99).save(s.mask),
            s.mask.write_bytes(s.mask.read_bytes()[:-900]),
        ),
        "truncated",
    ),
    "mask_with_alpha": (lambda s: Image.fromarray(coloured(s)).convert("RGBA").save(s.mask), "mask-mode"),
    "size": (lambda s: s.write_mask(s.label()[:-1]), "size-mismatch"),
    "mask_in_colours": (lambda s: Image.fromarray(coloured(s)).save(s.mask), "mask-mode"),
    "mask_in_foreign_colours": (lambda s: Image.fromarray(coloured(s) // 2 + 40).save(s.mask), "mask-mode"),
    "mask_of_two_values": (lambda s: Image.fromarray(s.label() > 0).save(s.mask), "mask-mode"),
    "sixteen_bit_mask": (lambda s: Image.fromarray(s.label().astype(np.uint16)).save(s.mask), "mask-mode"),
    "other_palette": (lambda s: s.write_mask(s.label(), 255 - labels.voc_palette()), "other-palette"),
    "grey": (lambda s: Image.fromarray(s.label()).save(s.mask), "looks-black"),
    "black_palette": (lambda s: s.write_mask(s.label(), np.zeros((256, 3), np.uint8)), "looks-black"),
    "jpeg_mask": (
        lambda s: Image.fromarray(np.full(s.label().shape, 3, np.uint8)).save(s.mask, "JPEG"),
        *("lossy-mask", "wrong-ending", "looks-black"),
    ),
    "void_only": (lambda s: s.write_mask(np.full(s.label().shape, 255, np.uint8)), "void-only"),
}


def coloured(sick):
    return labels.colourise(sick.label())


def _of_one_file(spoil, kinds, place):
    def plant(self):
        spoil(self)
        return place(self, *kinds)

    return plant


for _faults, _place in ((IMAGES, Sick.in_image), (MASKS, Sick.in_mask)):
    for _name, (_spoil, *_kinds) in _faults.items():
        setattr(Sick, f"fault_{_name}", _of_one_file(_spoil, _kinds, _place))


def png(width, height, bits, rows):
    """A PNG in colours, of these rows of bytes; too few rows give the head of one that could fill any memory."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )
