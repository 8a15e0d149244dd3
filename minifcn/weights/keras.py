"""Keras' HDF5 (.weights.h5): the variables of a model's layers, read by h5py.

HDF5 is read by a library in C, which should not be given unknown bytes. So this reader is for files whose SHA-256 is
known (`pretrained`), and no command opens others.
"""

import io

import numpy as np

from ..errors import InputError, MissingFileError
from .checks import check_arrays, parsed


def read_keras(path, sha256=None):
    """{"layer.weight": kernel (K, C, height, width), "layer.bias": (K,)} of the convolutions in a file, by their layers' names.

    sha256, and what is raised: see `checks.parsed`; MissingFileError, too, where h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingFileError(f"{path}: expected h5py to read it, got none; run pip install h5py") from None

    def parse(content):
        arrays = {}

        def visit(_, group):
            # A layer's variables are the data sets 0 and 1 of its group "vars", which says the layer's name.
            if "name" in group.attrs and {"0", "1"} <= group.keys():
                kernel, bias = (np.array(group[key]) for key in "01")
                name = group.attrs["name"]
                if kernel.ndim != 4 or f"{name}.weight" in arrays:
                    raise InputError(f"{name}: expected one convolution, got a kernel of shape {kernel.shape}, or two")
                # Keras has (height, width, C, K).
                arrays[f"{name}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
                arrays[f"{name}.bias"] = bias

        with h5py.File(io.BytesIO(content), "r") as file:
            file.visititems(visit)
        check_arrays(arrays)
        return arrays

    return parsed(path, "weights of a Keras model", parse, sha256)
