"""Bugs in commands, metrics and inference."""

from . import bugs

# fmt: off
OTHERS = [
    *bugs("metrics",
        ("absent classes count as zero", "_mean", "values[~np.isnan(values)]", "np.nan_to_num(values)",
         "rooms::test_the_four_figures_by_hand"),
    ),
    *bugs("preprocessing",
        ("BGR networks fed with RGB", "Preprocessing.apply", "-1", "1", "rooms::test_preprocessing"),
    ),
    *bugs("files",
        ("a file gets its name before it is on the disk", "written_whole",
         "with open(temporary, 'wb') as file:\n    yield file\n    file.flush()\n    os.fsync(file.fileno())",
         "with open(temporary, 'wb') as file:\n    yield file\n    file.flush()",
         "faults::test_a_file_is_on_the_disk_before_its_name_and_its_name_before_anything_else"),
        ("a name is not on the disk", "written_whole",
         "try:\n    with open(temporary, 'wb') as file:\n        yield file\n        file.flush()\n        os.fsync(file.fileno())\n    os.replace(temporary, path)\n    sync(path.parent)\nfinally:\n    temporary.unlink(missing_ok=True)",
         "try:\n    with open(temporary, 'wb') as file:\n        yield file\n        file.flush()\n        os.fsync(file.fileno())\n    os.replace(temporary, path)\nfinally:\n    temporary.unlink(missing_ok=True)",
         "faults::test_a_file_is_on_the_disk_before_its_name_and_its_name_before_anything_else"),
    ),
    *bugs("inference.sliding_window",
        ("tiles begin between cells", "_spans", "tile - 2 * margin", "tile - 2 * margin - 5",
         "tiles::test_tiles_cover_every_pixel_once_and_begin_on_cells[128-size3]"),
        ("a tile's edge counts", "_spans", "start + margin", "start + 2 * margin",
         "tiles::test_what_is_kept_lies_inside_its_tile_unless_the_image_ends[128-32-size0]"),
    ),
    *bugs("inference.segment",
        ("predictions left on the device", "predict", "to_host(logits[0].argmax(axis=0))", "logits[0].argmax(axis=0)",
         "gpu::test_predictions_and_scores_are_the_hosts[strict]"),
    ),
]
# fmt: on
