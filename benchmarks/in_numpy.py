"""The bare matrix product, in NumPy and its BLAS."""

import numpy as np
from threadpoolctl import threadpool_info


def prepare(side, threads):
    """-> (a function that does the work once, what to record beside its times)"""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((side.work.size, side.work.size), np.float32) for _ in range(2))
    return lambda: a @ b, {"threads": blas_threads(), "flops": side.work.flops}


def blas_threads():
    """How many threads NumPy's BLAS may use."""
    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)
