"""One batch on several processes: each has a part of it, and summing the parts' gradients gives the whole batch's.

    share(model, world, 8)                     # once: normalisation and dropout by the whole batch of 8
    exchange = Exchange(model, world)
    model.backward(dy, passed=exchange.passed) # sums set out while the layers below still compute
    exchange.finish()                          # every p.grad is the whole batch's

Every process holds the whole network and, after each update, the same bits of it. (Li et al., PyTorch Distributed, VLDB 2020,
https://arxiv.org/abs/2006.15704, describes the same with buckets of 25 MiB.)
"""

from functools import partial

import numpy as np

from ..backend import Array, array_module, to_device, to_host
from ..distributed import World
from ..errors import InputError
from ..layers import BatchNorm2d, Dropout
from ..models import Graph

BUCKET_BYTES = 1 << 20  # of gradients that travel together: docs/processes.md, "Gradients on their way"
WIRES = "float32", "float16"


def part_of(batch_size: int, world: World) -> slice:
    """Which samples of a batch are this process's. Raises InputError where a process would have none."""
    if batch_size < world.size:
        raise InputError(
            f"batch-size: expected at least one sample for each of {world.size} processes, got {batch_size}; start fewer, or take larger batches"
        )
    first, end = (batch_size * rank // world.size for rank in (world.rank, world.rank + 1))
    return slice(first, end)


def share(model: Graph, world: World, batch_size: int) -> None:
    """Make a network's normalisations and dropouts see the whole batch, of which `part_of` is this process's part."""
    if world.size > 1:
        for norm in model.layers_of(BatchNorm2d):
            norm.sums = world.sum
        for dropout in model.layers_of(Dropout):
            dropout.part = part_of(batch_size, world).start, batch_size


class Exchange:
    """The sums of a network's gradients over all processes, in buckets, each begun as soon as backward has filled it.

    wire: the type of what is sent, float32 (the gradients' own) or float16, as `half_sum` does.
    """

    def __init__(self, model: Graph, world: World, wire: str = "float32", bucket_bytes: int = BUCKET_BYTES):
        self.world, self.half, self.bucket_bytes = world, wire == "float16", bucket_bytes
        self._completed = model.completed_by()
        self._bucket, self._under_way = [], []
        world.join_gpus()

    def whole_loss(self, total: Array, weight: float) -> tuple[float, float]:
        """The whole batch's loss and weight, summed from the parts': each pixel counts as it would in one process."""
        total, weight = self.world.sum(np.array([float(total), weight], np.float64)).tolist()
        return total, weight

    def passed(self, name: str) -> None:
        """Backward has passed this step."""
        self._bucket += self._completed[name]
        if sum(p.value.nbytes for p in self._bucket) >= self.bucket_bytes:
            self._send()

    def finish(self) -> None:
        """Wait for all sums, and put them in the gradients' place."""
        self._send()
        for parameters, arrived in self._under_way:
            whole, first = to_device(arrived()), 0
            for p in parameters:
                p.grad = whole[first : first + p.value.size].reshape(p.value.shape)
                first += p.value.size
        self._under_way = []

    def _send(self):
        if not self._bucket:
            return
        flat = [p.grad.reshape(-1) for p in self._bucket]
        array = array_module(flat[0]).concatenate(flat) if len(flat) > 1 else flat[0]
        arrived = self.world.start(partial(half_sum, to_host(array))) if self.half else self.world.start_sum(array)
        self._under_way.append((self._bucket, arrived))
        self._bucket = []


def half_sum(array: np.ndarray, world: World) -> np.ndarray:
    """A sum that travels in float16, and is added up in float32: half the bytes.

    Each process adds up one piece of the array and sends its sum to all. What is sent is scaled so that its largest value is
    2¹⁵: nothing overflows, however many processes add to it, and values 2²⁹ times smaller still have all of float16's eleven
    bits. Every process uses the sums as they were sent, so all have the same bits.
    """
    pieces = np.zeros((world.size, -(-array.size // world.size)), array.dtype)
    pieces.reshape(-1)[: array.size] = array
    own = unpacked(world.exchange(packed(pieces)), array.dtype).sum(axis=0, keepdims=True)
    everywhere = world.exchange(packed(own).repeat(world.size, axis=0))
    return unpacked(everywhere, array.dtype).reshape(-1)[: array.size]


def packed(pieces: np.ndarray) -> np.ndarray:
    """Rows of floats as rows of bytes: the factor of each as a float32, then its values over that factor as float16."""
    scale = abs(pieces).max(axis=1, keepdims=True).astype(np.float32) / 2**15
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    values = (pieces / scale).astype(np.float16)
    return np.concatenate([scale.view(np.uint8), values.view(np.uint8)], axis=1)


def unpacked(rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """What `packed` was given, rounded, in this dtype."""
    scale, values = np.ascontiguousarray(rows[:, :4]).view(np.float32), np.ascontiguousarray(rows[:, 4:])
    return values.view(np.float16).astype(dtype) * scale.astype(dtype)
