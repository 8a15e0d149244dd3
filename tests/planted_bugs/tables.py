"""All bugs."""

from . import backend, data, kernels, networks, ops, training

BUGS = [
    *ops.OPS,
    *kernels.KERNELS,
    *networks.NETWORKS,
    *training.TRAINING,
    *data.DATA,
    *backend.BACKEND,
]
