"""Faults to plant in a toy data set in VOC's layout, each in files of its own, and what the doctor must call them."""

import shutil
import struct
import zlib

import numpy as np
from PIL import Image

from minifcn.data import images, labels

ORIENTATION = 0x0112


class Sick:
    """A data set in VOC's layout that is spoiled fault by fault. expected: {fault: [(kind, name)] that must be found}; ids: {fault: the
    id that has it}; id, image, mask: of the latest fault."""

    def __init__(self, folder):
        self.folder, self.expected, self.ids = folder, {}, {}
        self.free, self.val = (self.list(split).read_text(encoding="utf-8").split() for split in ("train", "val"))
        self.plant_in_lists()
        self.plant_in_contents()
        for name, (spoil, *kinds) in IMAGES.items():
            self.plant(name, image=kinds)
            spoil(self)
        for name, (spoil, *kinds) in MASKS.items():
            self.plant(name, mask=kinds)
            spoil(self)

    def plant(self, fault, *expected, image=(), mask=()):
        """Take an id for a fault that the caller plants. expected: (kind, name), {} for the id; image, mask: kinds of these files."""
        self.id = self.ids[fault] = self.free.pop()
        self.image = self.folder / "JPEGImages" / f"{self.id}.jpg"
        self.mask = self.folder / "SegmentationClass" / f"{self.id}.png"
        self.expected[fault] = [(kind, name.format(self.id)) for kind, name in expected]
        self.expected[fault] += [(kind, f"JPEGImages/{self.id}.jpg") for kind in image]
        self.expected[fault] += [(kind, f"SegmentationClass/{self.id}.png") for kind in mask]

    def list(self, split="train"):
        return self.folder / "ImageSets" / "Segmentation" / f"{split}.txt"

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

    def plant_in_lists(self):
        """What is missing or too much. (Faults of a single file are in the tables below.)"""
        self.plant("image_of_another_ending", image=["missing-image"])
        self.image.rename(self.image.with_suffix(".bmp"))
        self.plant("mask_without_image", ("mask-without-image", "SegmentationClass/lonely.png"))
        shutil.copy(self.mask, self.mask.with_name("lonely.png"))
        self.plant("image_without_mask", ("image-without-mask", "JPEGImages/lonely_too.jpg"))
        Image.effect_noise((9, 9), 50).convert("RGB").save(self.image.with_name("lonely_too.jpg"))
        self.plant("stray_file", ("stray-file", "SegmentationClass/Thumbs.db"))
        self.mask.with_name("Thumbs.db").write_bytes(b"x")
        self.plant("unlisted", ("unlisted", "{}"))
        for split in ("train", "trainval"):
            self.list(split).write_text(self.list(split).read_text().replace(f"{self.id}\n", ""))
        for fault, split in (("repeated_id", "train"), ("overlap_by_id", "val")):
            self.plant(fault, (fault.replace("_", "-"), "{}"))
            self.list(split).write_text(self.list(split).read_text() + f"{self.id}\n")
        self.plant("list_in_another_coding", ("list-unreadable", "ImageSets/Segmentation/latin.txt"))
        self.list("latin").write_bytes(f"{self.id}\nkatze_\xfc\n".encode("latin-1"))
        self.plant("empty_list", ("empty-list", "ImageSets/Segmentation/none.txt"))
        self.list("none").write_text("\n")
        self.plant("unseen_class", ("unseen-class", "unicorn"))
        with open(self.folder / "classes.txt", "a", encoding="utf-8") as file:
            file.write("unicorn\n")

    def plant_in_contents(self):
        """What shows only when files are compared."""
        self.plant("overlap_by_content", ("overlap-by-content", "JPEGImages/{}.jpg"))
        shutil.copy(self.image.with_stem(self.val[0]), self.image)
        shutil.copy(self.mask.with_stem(self.val[0]), self.mask)
        self.plant("duplicate_content", ("duplicate-content", f"JPEGImages/{self.free[-2]}.jpg"))
        other = self.free.pop()
        shutil.copy(self.image, self.image.with_stem(other))
        shutil.copy(self.mask, self.mask.with_stem(other))
        self.plant("exif_with_a_mask_of_what_is_stored", image=["exif-rotated"], mask=["size-mismatch"])
        self.store_turned()
        self.write_mask(np.rot90(self.label()))
        self.plant("renumbered", mask=["renumbered-palette"])
        before = self.label()
        used = np.setdiff1d(np.union1d(before, [1, 2]), [0, labels.VOID])
        self.renumbered = np.arange(256, dtype=np.uint8)  # class -> number; the palette goes along
        self.renumbered[used] = np.roll(used, 1)
        palette = np.empty((256, 3), np.uint8)
        palette[self.renumbered] = labels.voc_palette()
        self.write_mask(self.renumbered[before], palette)


def store_transparent(sick):
    photo = sick.photo().convert("RGBA")
    photo.putpixel((0, 0), (0, 0, 0, 254))
    photo.save(sick.image, "PNG")


def store_mask_turned(sick):
    exif, picture = Image.Exif(), Image.fromarray(np.rot90(sick.label()))
    exif[ORIENTATION] = 6
    picture.putpalette(labels.voc_palette().tobytes())
    picture.save(sick.mask, exif=exif)


def store_as_bmp(sick):
    picture = Image.fromarray((sick.label() > 0).astype(np.uint8))
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(sick.mask, "BMP")


def five_bands(bits=32, kind=3):
    """A TIFF of five bands, 4×4 pixels. kind: 1 unsigned, 2 signed, 3 floating-point."""
    entries = [
        (256, 1, 4),
        (257, 1, 4),
        (258, 1, bits),
        (262, 1, 1),
        (273, 1, 8),
        (277, 1, 5),
        (278, 1, 4),
        (279, 1, 10 * bits),
        (339, 1, kind),
    ]
    rows = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + bytes(4 + 10 * bits)


def link_to_nothing(sick):
    sick.image.unlink()
    sick.image.symlink_to("nowhere.jpg")


def resize_smoothly(sick):
    small = Image.fromarray(np.kron(sick.label(), np.ones((2, 2), np.uint8)))
    sick.write_mask(np.asarray(small.resize(sick.photo().size, Image.Resampling.BICUBIC)))


def label_outside(sick):
    label = sick.label()
    label[5:10, 5:15] = 77
    sick.write_mask(label)


# name of the fault -> (how the file is spoiled, what it is then called)
IMAGES = {
    "missing_image": (lambda s: s.image.unlink(), "missing-image"),
    "empty_file": (lambda s: s.image.write_bytes(b""), "empty-file"),
    "no_image": (lambda s: s.image.write_bytes(bytes(range(256))), "unreadable"),
    "web_page": (lambda s: s.image.write_text("<html>404</html>"), "not-fetched"),
    "git_lfs_pointer": (lambda s: s.image.write_text("version https://git-lfs.github.com/spec/v1\n"), "not-fetched"),
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
    "alpha": (store_transparent, "alpha", "wrong-ending"),
    "opaque_alpha": (lambda s: s.photo().convert("RGBA").save(s.image, "PNG"), "wrong-ending"),
    "animated": (
        lambda s: s.photo().save(s.image, "GIF", save_all=True, append_images=[s.photo().rotate(180)]),
        *("animated", "wrong-ending"),
    ),
    "link_to_nothing": (link_to_nothing, "unreadable"),
    "floating_point": (
        lambda s: Image.fromarray(np.asarray(s.photo().convert("L")) / np.float32(255)).save(s.image, "TIFF"),
        *("unreadable", "wrong-ending", "16-bit"),
    ),
    "five_bands": (lambda s: s.image.write_bytes(five_bands()), "unreadable"),
    "too_much_text": (lambda s: s.photo().save(s.image, "PNG", icc_profile=bytes(2 << 20)), "unreadable"),
    "blank": (lambda s: Image.new("RGB", s.photo().size).save(s.image), "blank-image"),
}
MASKS = {
    "error_message": (lambda s: s.mask.write_text('{"message": "Not Found"}'), "not-fetched"),
    "missing_mask": (lambda s: s.mask.unlink(), "missing-mask"),
    "truncated_mask": (
        lambda s: (
            Image.effect_noise((50, 50), 99).save(s.mask),
            s.mask.write_bytes(s.mask.read_bytes()[:-900]),
        ),
        "truncated",
    ),
    "mask_with_exif": (store_mask_turned, "exif-rotated"),  # and fits its image once it is turned
    "mask_that_pillow_misreads": (store_as_bmp, "unreadable", "wrong-ending"),
    "mask_with_alpha": (lambda s: Image.fromarray(coloured(s)).convert("RGBA").save(s.mask), "mask-mode"),
    "size": (lambda s: s.write_mask(s.label()[:-1]), "size-mismatch"),
    "mask_in_colours": (lambda s: Image.fromarray(coloured(s)).save(s.mask), "mask-mode"),
    "mask_in_foreign_colours": (lambda s: Image.fromarray(coloured(s) // 2 + 40).save(s.mask), "mask-mode"),
    "mask_of_floating_point": (
        lambda s: Image.fromarray(s.label() / np.float32(2)).save(s.mask, "TIFF"),
        *("unreadable", "wrong-ending"),
    ),
    "sixteen_bit_mask": (lambda s: Image.fromarray(s.label() + np.uint16(300)).save(s.mask), "mask-mode"),
    "other_palette": (lambda s: s.write_mask(s.label(), 255 - labels.voc_palette()), "other-palette"),
    "grey": (lambda s: Image.fromarray(s.label()).save(s.mask), "looks-black"),
    "black_palette": (lambda s: s.write_mask(s.label(), np.zeros((256, 3), np.uint8)), "looks-black"),
    "jpeg_mask": (
        lambda s: Image.fromarray(np.full(s.label().shape, 3, np.uint8)).save(s.mask, "JPEG"),
        *("lossy-mask", "wrong-ending", "looks-black"),
    ),
    "label_outside": (label_outside, "label-outside"),
    "resized_smoothly": (resize_smoothly, "in-between"),
    "void_only": (lambda s: s.write_mask(np.full(s.label().shape, 255, np.uint8)), "void-only"),
}

# name of the fault -> (how the folder of an id in `write_nuclei` is spoiled, what the doctor then calls it, and says)
NUCLEI_FAULTS = {
    "no_folder_of_images": (lambda f: shutil.rmtree(f / "images"), "mask-without-image", ""),
    "no_folder_of_masks": (lambda f: shutil.rmtree(f / "masks"), "missing-mask", "listed in train, trainval"),
    "no_masks": (
        lambda f: [mask.unlink() for mask in (f / "masks").iterdir()],
        "empty-object",
        "no mask in the folder",
    ),
    "overlap": (
        lambda f: draw(f / "masks/2.png", np.s_[:4, 15:22]),
        "overlapping-objects",
        "3.png and 2.png: 16 pixels",
    ),
    "twice": (
        lambda f: shutil.copy(f / "masks/1.png", f / "masks/4.png"),
        "overlapping-objects",
        "4.png and 1.png: 96 pixels",
    ),
    "empty_mask": (lambda f: draw(f / "masks/2.png", np.s_[:], 0), "empty-object", "2.png"),
    "two_objects_in_a_mask": (
        lambda f: draw(f / "masks/1.png", np.s_[20:, :5], 100),
        "several-values",
        "1.png: 2 values",
    ),
    "mask_of_another_size": (
        lambda f: store_small(f / "masks/3.png"),
        *("size-mismatch", "3.png: 9x9, others 24x24"),
    ),
    "only_mask_of_another_size": (
        lambda f: [(f / "masks" / name).unlink() for name in ("2.png", "3.png")] and store_small(f / "masks/1.png"),
        *("size-mismatch", "image 24x24, mask 9x9"),
    ),
    "broken_mask": (
        lambda f: (f / "masks/1.png").write_bytes(bytes(range(256))),
        "unreadable",
        "1.png: of no known format",
    ),
    "mask_of_zero_bytes": (lambda f: (f / "masks/1.png").write_bytes(b""), "empty-file", "1.png"),
}


# name of the fault -> (what becomes of the annotation of the runs in `write_coco`, what the doctor calls it, and says)
COCO_FAULTS = {
    "two_corners": ({"segmentation": [[1, 2, 3, 4]]}, "open-polygon", ""),
    "an_x_without_y": ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "open-polygon", ""),
    "box_only": ({"segmentation": [], "bbox": [1, 1, 5, 5]}, "box-only", ""),
    "runs_of_another_size": ({"segmentation": {"size": [30, 24], "counts": [720]}}, "wrong-object", "expected runs of"),
    "no_category": ({"category_id": 77}, "wrong-object", "expected the id of a category, got 77"),
    "box_outside": ({"bbox": [20, 10, 12, 5]}, "outside-image", "x 32, y 15 in an image of 30x24"),
    "polygon_outside": (
        {"segmentation": [[3, 2, 9, 2, 9, -5, 3, -5]]},
        *("outside-image", "x 9, y -5 in an image of 30x24"),
    ),
    "no_pixel": ({"segmentation": [[3, 3, 3, 3, 3, 3]]}, "empty-object", ""),
    "over_another": ({"segmentation": [[20, 2, 24, 2, 24, 7, 20, 7]]}, "object-over-another", "12 pixels"),
    "of_another_image": ({"image_id": 1234}, "stray-annotation", ""),
}

# name of the fault -> (what becomes of the boxes in `write_voc_with_boxes`, what the doctor calls it, and says)
BOX_FAULTS = {
    "outside": ([["cow", [2, 2, 12, 14], 0, 0]], "outside-image", "box 1, cow: x 2, y 2, 12x14"),
    "elsewhere": ([["cow", [2, 2, 6, 6], 0, 0], ["cow", [13, 1, 2, 2], 0, 0]], "empty-object", "box 2, cow"),
    "of_another_class": (
        [["yak", [2, 2, 6, 6], 0, 0]],
        "objects-differ",
        "boxes.json: expected a box of one of the classes",
    ),
    "no_box": ([["cow", [2, 2, 6], 0, 0]], "objects-differ", "boxes.json: expected a box [x, y, width, height]"),
}


def store_small(path):
    Image.new("L", (9, 9), 255).save(path)


def draw(path, part, value=255):
    pixels = np.array(Image.open(path))
    pixels[part] = value
    Image.fromarray(pixels).save(path)


def coloured(sick):
    return labels.colourise(sick.label())


def png(width, height, bits, rows, kind=2):
    """A PNG in colours (kind 2) or grey (0), of these rows of bytes; too few rows give the head of one that could fill any memory."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )
