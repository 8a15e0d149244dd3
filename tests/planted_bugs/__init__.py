"""Bugs to plant, one at a time, in a copy of the package: each must make the named tests fail.

Add one here whenever a test is written for a mistake: a test that no bug can fail tests nothing.
"""

from importlib.util import find_spec

from minifcn.testing.bounds_checked import COMPILER

from . import convolutions, data_sets, devices, kernels, networks, operations, training
from .bug import Bug as Bug

BUGS = [
    *convolutions.CONVOLUTION,
    *convolutions.ALGORITHMS,
    *convolutions.WINOGRADS,
    *convolutions.SHARED_OUT,
    *operations.POOLING,
    *operations.POINTWISE,
    *operations.NORMALISATION,
    *operations.LOSS,
    *operations.SHAPES,
    *networks.LAYERS,
    *networks.NETWORKS,
    *networks.OTHER_TRUNKS,
    *networks.CUTS,
    *networks.ACCOUNTS,
    *networks.CHECKER_ITSELF,
    *training.TRAINING,
    *training.METRICS_AND_DATA,
    *training.WEIGHTS,
    *training.NOTHING_LOST,
    *data_sets.DATA_SETS,
    *data_sets.ARCHIVES,
    *data_sets.DOWNLOADS,
    *devices.DEVICES_AND_MEMORY,
    *devices.AWAY_FROM_THE_HOST,
]
if COMPILER:
    BUGS += kernels.KERNELS
if find_spec("scipy"):  # which SBD's tests need
    BUGS += data_sets.SBD_AND_VOC
if find_spec("cupy"):
    BUGS += devices.NAMES_OF_CUPY
