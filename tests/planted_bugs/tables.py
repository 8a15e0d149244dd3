"""All bugs."""

from . import backend, data, kernels, networks, ops, others, training, weights

BUGS = [
    *ops.OPS,
    *backend.BACKEND,
    *data.DATA,
    *networks.NETWORKS,
    *training.TRAINING,
    *others.OTHERS,
    *weights.WEIGHTS,
    *kernels.KERNELS,
]
