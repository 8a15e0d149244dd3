"""Convolutions in DeZero, on its own im2col."""

import numpy as np
from in_numpy import blas_threads

np.int = int  # DeZero 0.0.13 uses this name, which NumPy has dropped, when it is imported; convolutions do not need it

import dezero  # noqa: E402
import dezero.functions as F  # noqa: E402


def prepare(side, threads):
    """-> (a function that does the work once, what to record beside its times)"""
    work, rng = side.work, np.random.default_rng(0)

    def drawn(*shape):
        return dezero.Variable(rng.standard_normal(shape, np.float32))

    x = drawn(1, work.inputs, work.side, work.side)
    w, b = drawn(work.outputs, work.inputs, 3, 3), drawn(work.outputs)
    facts = {"threads": blas_threads(), "flops": work.flops}

    def forward():
        with dezero.no_grad():
            return F.conv2d(x, w, b, stride=1, pad=1)

    if work.task == "forward":
        return forward, facts
    y, dy = F.conv2d(x, w, b, stride=1, pad=1), drawn(1, work.outputs, work.side, work.side)

    def backward():
        for variable in (x, w, b):
            variable.cleargrad()
        y.grad = dy
        y.backward()

    return backward, facts
