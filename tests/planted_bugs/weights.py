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
        ("any kernel taken for the bilinear one", "_require_bilinear",
         "square and np.allclose(array, bilinear(len(array), k), atol=1e-06)", "square",
         "foreign_weights::test_a_kernel_that_is_not_bilinear_needs_learned_upsampling"),
    ),
]
# fmt: on
