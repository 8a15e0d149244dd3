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
    *bugs("inference.sliding_window",
        ("tiles begin between cells", "_spans", "tile - 2 * margin", "tile - 2 * margin - 5",
         "sliding_window::test_tiles_cover_every_pixel_once_and_begin_on_cells[128-size3]"),
        ("a tile's edge counts", "_spans", "start + margin", "start + 2 * margin",
         "sliding_window::test_what_is_kept_lies_inside_its_tile_unless_the_image_ends[128-32-size0]"),
    ),
]
# fmt: on
