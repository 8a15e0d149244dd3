"""Bugs of devices and of the way to a GPU."""

from .bug import CUPY_NAMES, DEVICES, GPU, STRICT, Bug

# fmt: off
DEVICES_AND_MEMORY = [
    Bug("every GPU is the first", "backend/__init__.py", 'return "cupy", int(number)', 'return "cupy", 0',
        DEVICES + "test_a_gpu_is_chosen_by_its_number"),
    Bug("the last GPU refused", "backend/cupy_kernels.py", "if number >= count:", "if number >= count - 1:",
        DEVICES + "test_a_gpu_is_chosen_by_its_number"),
    Bug("a GPU that is not there chosen", "backend/cupy_kernels.py", "if number >= count:", "if False:",
        DEVICES + "test_a_number_without_a_gpu_is_refused_in_one_line"),
    Bug("CuPy for a newer driver advised", "backend/diagnosis.py", "if version <= major)", "if version)",
        DEVICES + "test_what_to_do_is_told_exactly[CuPy newer than the driver]"),
    Bug("missing libraries overlooked", "backend/diagnosis.py", "missing = list(found.packages), None in found.libraries.values()",
        "missing = list(found.packages), False", DEVICES + "test_what_to_do_is_told_exactly[libraries missing]"),
    Bug("out of memory without the size", "backend/memory.py", "{_size(asked[1])} asked for", "too much asked for",
        DEVICES + "test_running_out_of_memory_is_told_with_the_size[CuPy]"),
    Bug("kibibytes taken for thousands", "backend/memory.py", "size /= 1024", "size /= 1000",
        DEVICES + "test_running_out_of_memory_is_told_with_the_size[CuPy]"),
    Bug("every error is out of memory", "backend/memory.py", "if code else None", "if True else None",
        DEVICES + "test_other_errors_are_not_taken_for_it"),
    Bug("a command without --device", "cli.py", '"classify", "gradcheck")', '"classify")',
        DEVICES + "test_every_command_that_computes_has_the_option"),
]
AWAY_FROM_THE_HOST = [
    Bug("the sizes of a pool's windows sent in every call", "ops/pool.py", "area = constant(x, _areas, where, count_include_pad, str(x.dtype))",
        "area = xp.asarray(_areas(where, count_include_pad, str(x.dtype)))", STRICT + "test_pooling_sends_what_never_changes_only_once"),
    Bug("one device's constants given to another", "backend/__init__.py", "_sent(_device_of(like).to_device, str(getattr(like, \"device\", \"\")), make, arguments)",
        "_sent(_current.to_device, None, make, arguments)", STRICT + "test_constants_belong_to_their_device_and_cannot_be_written_to[strict]"),
    Bug("an optimiser's state restored on the host", "training/optim.py", "kept[name] = to_device(arrays[f\"{slot}/{name}\"].copy())",
        "kept[name] = arrays[f\"{slot}/{name}\"].copy()", GPU + "test_a_run_goes_on_on_another_device[on the host-strict]"),
    Bug("weights loaded on the host", "layers/base.py", "values[name] = to_device(to_host(state[name]).astype(array.dtype, copy=True))",
        "values[name] = to_host(state[name]).astype(array.dtype, copy=True)", GPU + "test_predictions_and_scores_are_the_hosts[strict]"),
    Bug("predictions left on the device", "training/loop.py", "to_host(logits[0].argmax(axis=0))[kept]", "logits[0].argmax(axis=0)[kept]",
        GPU + "test_predictions_and_scores_are_the_hosts[strict]"),
    Bug("a heat-map left on the device", "inference/classify.py", "return to_host(scores[list(classes)].sum(axis=0))",
        "return scores[list(classes)].sum(axis=0)", GPU + "test_a_photograph_is_classified_as_on_the_host[strict]"),
    Bug("labels not looked at before they index", "ops/loss.py", "    if outside.any():", "    if False:",
        GPU + "test_a_label_outside_the_classes_is_refused_and_nothing_moves[254-uint8-strict]"),
    Bug("ignored pixels pull their logits to class 0", "ops/loss.py", "share = xp.where(counted, ones, xp.zeros_like(ones))", "share = ones.copy()",
        GPU + "test_pixels_that_do_not_count_change_nothing[strict]"),
]
NAMES_OF_CUPY = [
    Bug("an argument that CuPy's einsum lacks", "backend/__init__.py", "out[...] = xp.einsum(subscripts, *operands)",
        "xp.einsum(subscripts, *operands, out=out)",
        CUPY_NAMES + "test_every_name_in_the_source_is_cupys_too[backend/__init__.py]"),
    Bug("an argument that CuPy's sums lack", "ops/pointwise.py", "dy.sum(axis=0) if", "dy.sum(axis=0, initial=0) if",
        CUPY_NAMES + "test_every_name_in_the_source_is_cupys_too[ops/pointwise.py]"),
    Bug("a function that CuPy lacks", "ops/loss.py", "xp.log(total", "xp.emath.log(total",
        CUPY_NAMES + "test_every_name_in_the_source_is_cupys_too[ops/loss.py]"),
    Bug("the stand-in takes what CuPy does not", "backend/strict.py", '"einsum": "casting order out"', '"einsum": "casting order"',
        CUPY_NAMES + "test_the_stand_in_refuses_every_argument_that_cupy_lacks[einsum]"),
]
# fmt: on
