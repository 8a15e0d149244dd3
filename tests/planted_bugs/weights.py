"""Bugs in weight files."""

from . import bugs

# fmt: off
WEIGHTS = [
    *bugs("weights.torch_pickle",
        ("a pickle may ask for any name", "_admitted", "name not in ADMITTED", "False",
         "hostile_weight_files::test_every_other_name_is_refused_by_name[torch.load]"),
    ),
    *bugs("weights.checks",
        ("weights may be NaN", "check_finite", "if bad:", "if False:",
         "weights::test_npz_knows_its_hash_and_refuses_weights_that_are_no_numbers"),
    ),
    *bugs("weights.npz",
        ("an archive's own hash not compared", "read_archive",
         "meta.pop('sha256', None) not in (None, _digest(arrays))", "meta.pop('sha256', None) is False",
         "weights::test_npz_knows_its_hash_and_refuses_weights_that_are_no_numbers"),
    ),
    *bugs("weights.adopt",
        ("old Caffe's leading ones kept", "_fitted", "len(given) > 1 and given[0] == 1 != shape[0]", "False",
         "foreign_weights::test_caffemodel_gives_the_same_logits[32s-4-D]"),
        ("transposed weights reshaped into place", "_fitted",
         "array.size != np.prod(shape) or flat != (shape[0], int(np.prod(shape[1:])))", "array.size != np.prod(shape)",
         "foreign_weights::test_transposed_fully_connected_weights_are_refused"),
        ("any kernel taken for the bilinear one", "_require_bilinear",
         "square and np.allclose(array, bilinear(len(array), k), atol=1e-06)", "square",
         "foreign_weights::test_a_kernel_that_is_not_bilinear_needs_learned_upsampling"),
    ),
    *bugs("weights.names",
        ("Lite0's normalisations exchanged", "",
         "{'bn0': 'bn_expand', 'bn1': 'bn_depthwise', 'bn2': 'bn_project'}",
         "{'bn0': 'bn_expand', 'bn1': 'bn_project', 'bn2': 'bn_project'}",
         "foreign_weights::test_every_name_of_lite0_is_known"),
    ),
]
# fmt: on
