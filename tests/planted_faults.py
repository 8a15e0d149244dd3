"""Faults to plant in a toy data set in VOC's layout, each in files of its own, and what the doctor must call them."""

import struct
import zlib

import numpy as np
from PIL import Image

from minifcn.data import images, labels

ORIENTATION = 0x0112


class Sick:
    """A data set in VOC's layout that is spoiled step by step. Each `_fault` method gives [(kind, name)] of what must be found."""

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

    # What is missing or too much.

    def fault_missing_image(self):
        self.image.unlink()
        return self.in_image("missing-image")

    def fault_image_of_another_ending(self):
        self.image.rename(self.image.with_suffix(".JPG"))
        return [("missing-image", f"JPEGImages/{self.id}.jpg")]

    def fault_missing_mask(self):
        self.mask.unlink()
        return self.in_mask("missing-mask")

    def fault_mask_without_image(self):
        self.mask.with_name("lonely.png").write_bytes(self.mask.read_bytes())
        return [("mask-without-image", "SegmentationClass/lonely.png")]

    def fault_image_without_mask(self):
        Image.effect_noise((9, 9), 50).convert("RGB").save(self.image.with_name("lonely_too.jpg"))
        return [("image-without-mask", "JPEGImages/lonely_too.jpg")]

    def fault_stray_file(self):
        (self.folder / "SegmentationClass" / "Thumbs.db").write_bytes(b"x")
        return [("stray-file", "SegmentationClass/Thumbs.db")]

    # Lists.

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
        other = self.image.with_name(f"{self.val[0]}.jpg")
        self.image.write_bytes(other.read_bytes())
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

    # Files that cannot be read.

    def fault_empty_file(self):
        self.image.write_bytes(b"")
        return self.in_image("empty-file")

    def fault_no_image(self):
        self.image.write_text("<html>404</html>")
        return self.in_image("unreadable")

    def fault_truncated_image(self):
        self.image.write_bytes(self.image.read_bytes()[:-300])
        return self.in_image("truncated")

    def fault_truncated_mask(self):
        Image.effect_noise((50, 50), 99).save(self.mask)
        self.mask.write_bytes(self.mask.read_bytes()[:-900])
        return self.in_mask("truncated")

    def fault_bomb(self):
        self.image.write_bytes(png(30000, 30000, 8, bytes(1000)))
        return self.in_image("bomb")

    def fault_large_but_allowed_by_pillow(self):
        self.image.write_bytes(png(10000, 10000, 8, bytes(1000)))
        return self.in_image("bomb")

    # Photographs that become something else.

    def fault_wrong_ending(self):
        self.photo().save(self.image, "PNG")
        return self.in_image("wrong-ending")

    def fault_exif(self):
        """Stored on its side; the mask fits the image as it should be seen."""
        self.store_turned()
        return self.in_image("exif-rotated")

    def fault_exif_with_a_mask_of_what_is_stored(self):
        self.store_turned()
        images.write_mask(self.mask, np.rot90(self.label()))
        return [*self.in_image("exif-rotated"), *self.in_mask("size-mismatch")]

    def store_turned(self):
        exif = Image.Exif()
        exif[ORIENTATION] = 6  # to be turned clockwise for viewing
        self.photo().transpose(Image.Transpose.ROTATE_90).save(self.image, "JPEG", exif=exif)

    def fault_cmyk(self):
        self.photo().convert("CMYK").save(self.image, "JPEG")
        return self.in_image("cmyk")

    def fault_sixteen_bit_grey(self):
        Image.fromarray(np.asarray(self.photo().convert("L")).astype(np.uint16) * 257).save(self.image, "PNG")
        return self.in_image("16-bit", "wrong-ending")

    def fault_sixteen_bit_colours(self):
        pixels = np.asarray(self.photo()).astype(">u2") * 257
        self.image.write_bytes(
            png(pixels.shape[1], pixels.shape[0], 16, b"".join(b"\0" + row.tobytes() for row in pixels))
        )
        return self.in_image("16-bit", "wrong-ending")

    def fault_link_to_nothing(self):
        self.image.unlink()
        self.image.symlink_to("nowhere.jpg")
        return self.in_image("unreadable")

    def fault_mask_with_alpha(self):
        Image.fromarray(labels.colourise(self.label())).convert("RGBA").save(self.mask)
        return self.in_mask("mask-mode")

    def fault_alpha(self):
        self.photo().convert("RGBA").save(self.image, "PNG")
        return self.in_image("alpha", "wrong-ending")

    def fault_animated(self):
        frames = [self.photo(), self.photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
        frames[0].save(self.image, "GIF", save_all=True, append_images=frames[1:])
        return self.in_image("animated", "wrong-ending")

    def fault_blank(self):
        Image.new("RGB", self.photo().size).save(self.image)
        return self.in_image("blank-image")

    # Masks.

    def fault_size(self):
        images.write_mask(self.mask, self.label()[:-1])
        return self.in_mask("size-mismatch")

    def fault_mask_in_colours(self):
        Image.fromarray(labels.colourise(self.label())).save(self.mask)
        return self.in_mask("mask-mode")

    def fault_mask_in_foreign_colours(self):
        Image.fromarray(labels.colourise(self.label()) // 2 + 40).save(self.mask)
        return self.in_mask("mask-mode")

    def fault_mask_of_two_values(self):
        Image.fromarray(self.label() > 0).save(self.mask)
        return self.in_mask("mask-mode")

    def fault_sixteen_bit_mask(self):
        Image.fromarray(self.label().astype(np.uint16)).save(self.mask)
        return self.in_mask("mask-mode")

    def fault_label_outside(self):
        changed = self.label().copy()
        changed[5:10, 5:15] = 77
        images.write_mask(self.mask, changed)
        return self.in_mask("label-outside")

    def fault_resized_smoothly(self):
        small = Image.fromarray(np.kron(self.label(), np.ones((2, 2), np.uint8)))
        images.write_mask(self.mask, np.asarray(small.resize(self.photo().size, Image.Resampling.BICUBIC)))
        return self.in_mask("in-between")

    def fault_renumbered(self):
        before = self.label()
        used = np.setdiff1d(np.union1d(before, [1, 2]), [0, labels.VOID])
        numbers = np.arange(256, dtype=np.uint8)  # class -> number; the palette goes along
        numbers[used] = np.roll(used, 1)
        self.renumbered = numbers
        palette = np.empty((256, 3), np.uint8)
        palette[numbers] = labels.voc_palette()
        images.write_mask(self.mask, numbers[before], palette)
        return self.in_mask("renumbered-palette")

    def fault_other_palette(self):
        images.write_mask(self.mask, self.label(), 255 - labels.voc_palette())
        return self.in_mask("other-palette")

    def fault_grey(self):
        Image.fromarray(self.label()).save(self.mask)
        return self.in_mask("looks-black")

    def fault_black_palette(self):
        images.write_mask(self.mask, self.label(), np.zeros((256, 3), np.uint8))
        return self.in_mask("looks-black")

    def fault_jpeg_mask(self):
        Image.fromarray(np.full(self.label().shape, 3, np.uint8)).save(self.mask, "JPEG")
        return self.in_mask("lossy-mask", "wrong-ending", "looks-black")

    def fault_void_only(self):
        images.write_mask(self.mask, np.full(self.label().shape, 255, np.uint8))
        return self.in_mask("void-only")

    def fault_unseen_class(self):
        with open(self.folder / "classes.txt", "a", encoding="utf-8") as file:
            file.write("unicorn\n")
        return [("unseen-class", "unicorn")]


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
