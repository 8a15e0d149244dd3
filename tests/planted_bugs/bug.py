"""What a planted bug is, and the tests that are named most."""

from typing import NamedTuple


class Bug(NamedTuple):
    name: str
    file: str  # under minifcn/
    old: str  # occurs there exactly once
    new: str
    test: str  # the pytest node that must fail


OPS = "tests/test_gradcheck_ops.py::"
NETS = "tests/test_gradcheck_fcn.py::"
VALUES = "tests/test_values_by_hand.py::"
ROOMS = "tests/test_rooms.py::"
OTHER = "tests/test_ops_other.py::"
CONVS = "tests/test_ops_conv.py::"
CHOICE = "tests/test_conv_choice.py::"
WINOGRAD = "tests/test_winograd.py::"
THREADS = "tests/test_threads.py::"
BACKEND = "tests/test_backend.py::"
THEN = "tests/test_then.py::"
CHECKER = "tests/test_gradcheck.py::"
MODELS = "tests/test_models.py::"
SURGERY = "tests/test_surgery.py::"
EXPLAIN = "tests/test_explain.py::"
SOURCES = "tests/test_sources.py::"
SBD = "tests/test_sbd.py::"
TARS = "tests/test_tars.py::"
GPU = "tests/test_gpu.py::"
LOSSES = "tests/test_ops_loss.py::"
STRICT = "tests/test_strict.py::"
DEVICES = "tests/test_devices.py::"
CUPY_NAMES = "tests/test_cupy_names.py::"
DOWNLOAD = "tests/test_download.py::"
HOSTILE = TARS + "test_a_hostile_or_broken_archive_is_refused_in_one_line_and_nothing_is_written[{}]"
CONV = OPS + "test_convolution"
AGREE = VALUES + "test_convolution_agrees_with_the_definition"
EIGHT = NETS + "test_plain_trunk_same[8s-frozen]"
SIXTEEN = NETS + "test_plain_trunk_same[16s-frozen]"
