"""Bugs in the backend, threads and memory."""

from . import bugs

# fmt: off
BACKEND = [
    *bugs("backend.cpu",
        ("BLAS keeps its threads within tiles", "_OneBlasThread.__enter__", "_set_blas_threads([1] * len(_blas()))",
         "pass", "threads::test_blas_has_one_thread_within_tiles_and_as_many_as_before_after_them[2-2-2]"),
        ("BLAS restored by the first of two callers", "_OneBlasThread.__exit__", "self._users == 0", "True",
         "threads::test_blas_is_as_before_when_the_last_of_overlapping_callers_ends[2-True]"),
    ),
    *bugs("backend.parallel",
        ("a product's last columns dropped", "matmul", "cut(columns, count)", "cut(columns - 1, count)",
         "threads::test_a_product_cut_into_pieces_is_the_product[numpy-37-20-401-1-1000-3]"),
        ("blocks leave out the last values", "run_blocks", "arrays[0].shape[axis]", "arrays[0].shape[axis] - 1",
         "ops_other::test_blocks_cover_corresponding_arrays_exactly_once[shape3-channels last, channels last-50]"),
    ),
    *bugs("backend.cuda",
        ("the last GPU refused", "probe", "number >= count", "number >= count - 1",
         "devices::test_a_gpu_is_chosen_by_its_number"),
    ),
    *bugs("backend.diagnosis",
        ("CuPy for a newer driver advised", "_pip", "version <= major", "version",
         "devices::test_what_to_do_is_told_exactly[CuPy newer than the driver]"),
    ),
    *bugs("backend.memory",
        ("kibibytes taken for thousands", "_size", "size /= 1024", "size /= 1000",
         "devices::test_running_out_of_memory_is_told_with_the_size[CuPy]"),
    ),
    *bugs("backend.source",
        ("arrays of two dtypes are taken for one", "checked", "len(dtypes) != 1", "not dtypes",
         "kernels::test_arrays_of_two_floating_types_are_refused"),
    ),
]
# fmt: on
