"""Gaussian filtering in a space of a few dimensions, such as place and colour, by the permutohedral lattice.

    y_i ≈ c Σ_j exp(−|f_i − f_j|² / 2) x_j

The plane Σ = 0 of R^(d+1) is divided into simplices, with the vertices of a lattice as their corners. Each point gives its values
to the d + 1 corners of its simplex (splat). There they are blurred by ½ 1 ½ along d + 1 axes, and the point takes them back
(slice), with the same weights both times. Only the corners of some point's simplex exist, so time and memory grow
with the number of points, where the sum over pairs grows with its square. Adams, Baek and Davis, Eurographics 2010.

A vertex has d + 1 coordinates. They are kept as one integer, the vertex's code: coordinates times the place values of a mixed base. A
step along axis j adds 1 to each coordinate and takes d + 1 from the j-th, so it adds a constant to the code. The last
coordinate follows from the others and has no place.
"""

import math
from collections.abc import Callable

import numpy as np

from ..backend import Array, array_module, cut, has_kernels, run_tiles, to_device_of, tuning
from ..errors import InputError


class Lattice:
    """The lattice of points with these features, which are in units of the Gaussian's standard deviation.

    features: (N, d) float64. Raises InputError where they are so far apart that a code does not fit 64 bits.
    """

    def __init__(self, features: Array):
        xp, d = array_module(features), features.shape[1]
        # The d directions of the plane, orthogonal, as long as the blur's standard deviation asks; in units of d + 1.
        axis = np.arange(1, d + 1)
        plane = np.tri(d, d + 1) - np.eye(d, d + 1, 1) * axis[:, None]
        plane *= np.sqrt(2 / 3 / (axis * (axis + 1)))[:, None]
        at = features @ to_device_of(features, plane)
        # The nearest whole point, and the rank of each coordinate's distance from it, the largest first. Where the whole
        # coordinates' sum is not 0, those that were rounded furthest go back. Ties keep their order: the corner between them
        # has no weight, but it exists, and what exists is blurred.
        whole = xp.rint(at)
        spans = ((whole.max(axis=0) - whole.min(axis=0) + 6) * (d + 1)).tolist()[
            :d
        ]  # of a step beyond all corners, too
        if not math.prod(spans) < 1 << 62:
            raise InputError(
                f"lattice: the points are up to {max(spans):.3g} steps apart, too many in {d} dimensions; "
                "use larger standard deviations"
            )
        ranks = xp.argsort(xp.argsort(whole - at, axis=1, kind="stable"), axis=1)
        ranks += whole.sum(axis=1, keepdims=True).astype(int)
        whole -= ranks // (d + 1)
        ascending = xp.argsort(-(ranks % (d + 1)), axis=1)
        rest = xp.take_along_axis(at - whole, ascending, axis=1)
        first = 1 + rest[:, :1] - rest[:, -1:]
        self._weights = xp.concatenate([first, xp.diff(rest, axis=1)], axis=1).astype("float32")

        whole = (whole * (d + 1)).astype("int64")
        places = np.append(np.cumprod([1, *map(int, spans[:-1])]), 0)
        steps = places.sum() - (d + 1) * places
        nearest = (whole * to_device_of(features, places)).sum(axis=1, keepdims=True)
        walked = xp.cumsum(to_device_of(features, steps)[ascending], axis=1)[:, :-1]
        self._find_vertices(xp, xp.concatenate([nearest, nearest + walked], axis=1))
        self._find_neighbours(xp, steps)

    def _find_vertices(self, xp, codes):
        """Number the vertices, and list the corners of all simplices vertex by vertex."""
        order = xp.argsort(codes.reshape(-1))
        ordered = codes.reshape(-1)[order]
        is_first = xp.concatenate([xp.full(1, True), ordered[1:] != ordered[:-1]])
        self._codes = ordered[is_first]
        numbers = xp.empty(codes.size, "int64")
        numbers[order] = xp.cumsum(is_first) - 1
        self._corners = numbers.reshape(codes.shape)
        self._points = order // codes.shape[1]  # of the corners, vertex by vertex
        self._of_points = self._weights.reshape(-1)[order][:, None]
        self._starts = xp.concatenate([xp.nonzero(is_first)[0], xp.full(1, codes.size)])

    def _find_neighbours(self, xp, steps):
        """[(the next vertex along an axis, the one before)], for each vertex; the number of vertices where there is none."""
        self._neighbours, count = [], len(self._codes)
        for step in steps.tolist():
            target = self._codes + step
            after = xp.searchsorted(self._codes, target)
            after[self._codes[xp.minimum(after, count - 1)] != target] = count
            before = xp.full(count + 1, count)
            before[after] = xp.arange(count)
            self._neighbours.append((after, before[:count]))

    def scale(self, factors: Array) -> None:
        """From now on multiply each point's values by its factor, before and after they are filtered.   factors (N, 1) float32"""
        self._weights *= factors
        self._of_points *= factors[self._points]

    def filter(self, values: Array, reverse: bool = False) -> Array:
        """Splat, blur and slice.   values (N, K) -> (N, K)

        reverse: the adjoint, which blurs along the last axis first. The order matters because vertices are missing.
        """
        xp, count = array_module(values), len(self._codes)
        here = xp.zeros((count + 1, values.shape[1]), values.dtype)  # the last is the vertex that does not exist
        blurred = xp.zeros_like(here)

        def splat(part):
            starts = self._starts[part]
            corners = slice(int(starts[0]), int(self._starts[part.stop]))
            given = values.take(self._points[corners], axis=0) * self._of_points[corners]
            here[part] = xp.add.reduceat(given, starts - starts[0], axis=0)

        _in_parts(splat, count, values, gathered=self._corners.size / count)
        for after, before in reversed(self._neighbours) if reverse else self._neighbours:

            def blur(part, here=here, blurred=blurred, after=after, before=before):
                around = here.take(after[part], axis=0)
                around += here.take(before[part], axis=0)
                around *= 0.5
                xp.add(here[part], around, out=blurred[part])

            _in_parts(blur, count, values)
            here, blurred = blurred, here

        taken = xp.empty_like(values)

        def slice_(part):
            taken[part] = xp.einsum("nc,nck->nk", self._weights[part], here.take(self._corners[part], axis=0))

        _in_parts(slice_, len(values), values, gathered=self._corners.shape[1])
        return taken


def _in_parts(task: Callable, count: int, values: Array, gathered: float = 1) -> None:
    """Call task(part) for parts of range(count). Each part gathers as many rows of values as it is long, or `gathered` times as many."""
    room = tuning.WORKSPACE if has_kernels(values) else tuning.BLOCK_BYTES
    parts = -(-int(count * gathered * values.shape[1] * values.itemsize) // room)
    run_tiles(values, task, [(part,) for part in cut(count, parts)])
