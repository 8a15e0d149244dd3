"""From samples to batches: shuffling, augmentation, stacking, prefetching, and a state to resume from bit for bit."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any, Self

import numpy as np

from ..distributed import World
from ..errors import InputError
from ..preprocessing import Preprocessing
from . import shared, targets, transforms
from .centres import CentreTargets
from .sets.base import Sample
from .targets import Targets

AHEAD = 2  # batches made ahead: enough to even out fast and slow ones
_PATIENCE = 2.0  # seconds to wait for the batch in the making when the stream is closed


@dataclass(frozen=True)
class Augment:
    """Random augmentation in training: mirroring, scale (low, high), colour (strength); (1, 1) and 0 change nothing.

    rotate (degrees), shift and elastic (pixels): as for `transforms.warp`. turn: rotate by a multiple of 90 degrees and
    mirror, for images without a fixed up direction.
    """

    flip: bool = True
    scale: tuple = (1.0, 1.0)
    colour: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    turn: bool = False


class CachedDataset(Sequence):
    """A data set whose samples stay in memory once read, up to `limit` bytes.

    longest: images are shrunk to this longer side, if it is given. world: the processes of a job; those on one host share one cache.
    """

    def __init__(self, dataset: Sequence, longest: int | None = None, limit: int = 1 << 30, world: World | None = None):
        self.dataset: Any = dataset
        self.longest = longest
        several = shared.POSSIBLE and world is not None and world.size > 1
        self._kept: Any = shared.SharedSamples(world, len(dataset), limit) if several else _Kept(limit)

    def __len__(self) -> int:
        return len(self.dataset)

    def label_of(self, label: np.ndarray, instances: np.ndarray) -> np.ndarray:
        """The data set's (`targets.labels_of`)."""
        return targets.labels_of(self.dataset, label, instances)

    def __getitem__(self, index: int) -> Sample:
        if (kept := self._kept.get(index)) is not None:
            return kept
        sample = self.dataset[index]
        if self.longest:
            joined = targets.join(sample.label, sample.instances)
            image, joined = transforms.shrink(sample.image, joined, self.longest)
            label, instances = targets.part(joined)
            label = targets.labels_of(self.dataset, label, instances)
            sample = sample._replace(
                image=image, label=label, **({} if instances is None else {"instances": instances})
            )
        self._kept.keep(index, sample)
        return sample


class _Kept(dict):
    """Samples by index, up to so many bytes."""

    def __init__(self, limit: int):
        super().__init__()
        self._free = limit

    def keep(self, index, sample):
        self._free -= sum(array.nbytes for array in sample if isinstance(array, np.ndarray))
        if self._free >= 0:
            self[index] = sample


class BatchStream:
    """An endless stream of batches (images (N, C, H, W) float32, labels (N, H, W) uint8, or Targets, or CentreTargets).

    Every epoch shows each sample once, in a new order. crop: (height, width) to cut from each sample; without it images
    keep their sizes, and batch_size must be 1. rng: numpy.random.Generator for order and augmentation.
    context: pixels on each side that the network sees but does not label; before the crop, the image is padded by its
    mirror image there, and its labels by void. border_weight: w0 of `targets.border_weights`; unless it is 0, labels come
    as Targets, with weights that include class_weights (K,). sigma: that of `centres`; if given, labels come as
    CentreTargets. Both raise InputError for samples without instances.
    part: make only these samples of each batch. The random draws for the others, which other processes make, are done as well, so
    that all parts together are the batch of a stream without part.
    """

    def __init__(
        self,
        dataset: Sequence,
        batch_size: int,
        preprocessing: Preprocessing,
        rng: np.random.Generator,
        *,
        crop: tuple | None = None,
        augment: Augment | None = None,
        context: int = 0,
        border_weight: float = 0.0,
        class_weights: Sequence | None = None,
        sigma: float | None = None,
        part: slice | None = None,
    ):
        if crop is None and batch_size != 1:
            raise InputError(f"batches: without a crop size the batch size must be 1, got {batch_size}")
        if min(batch_size, *(crop or (1,))) < 1:
            raise InputError(f"batches: expected a size and a crop of at least 1, got {batch_size} and {crop}")
        if augment and augment.turn and crop and crop[0] != crop[1]:
            raise InputError(f"batches: pictures turned by 90 degrees take a square crop, got {crop}")
        if border_weight:
            first = targets.numbered(dataset[0], "border weights")
            targets.border_weights(first, w0=border_weight)  # raises now, not in the middle of training
        if sigma:
            targets.numbered(dataset[0], "centres")
        self.dataset: Any = dataset
        self.batch_size, self.preprocessing = batch_size, preprocessing
        self.crop, self.augment, self.rng = crop and tuple(crop), augment or Augment(flip=False), rng
        self.context, self.border_weight, self.class_weights = context, border_weight, class_weights
        self.sigma = sigma
        self._part, self._sizes = range(batch_size)[part or slice(None)], {}
        self._order, self._next = np.empty(0, np.int64), 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray | Targets | CentreTargets]:
        samples = []
        for place in range(self.batch_size):
            index = self._draw()
            if place in self._part:
                samples.append(self._augmented(self.dataset[index]))
            else:
                self._pass_over(index)
        images = np.stack([self.preprocessing.apply(image) for image, _, _ in samples])
        if self.sigma:
            _, maps, instances = zip(*samples, strict=True)
            return images, CentreTargets.of(maps, instances, self.sigma)
        labels = np.stack([label for _, label, _ in samples])
        if not self.border_weight:
            return images, labels
        w0, by_class = self.border_weight, self.class_weights
        weights = [targets.border_weights(i, w0=w0, class_weights=by_class, label=label) for _, label, i in samples]
        return images, Targets(labels, np.stack(weights))

    def _draw(self):
        if self._next == len(self._order):
            self._order, self._next = self.rng.permutation(len(self.dataset)), 0
        self._next += 1
        return int(self._order[self._next - 1])

    def _augmented(self, sample):
        image, augment = self.preprocessing.stretched(sample.image), self.augment
        label = targets.join(sample.label, sample.instances)
        if augment.scale != (1.0, 1.0):
            image, label = transforms.random_scale(image, label, self.rng, *augment.scale)
        image, label = transforms.warp(
            image,
            label,
            self.rng,
            rotate=augment.rotate,
            shift=augment.shift,
            elastic=augment.elastic,
            copies=not self.sigma,
        )
        if self.context:
            image, label = transforms.mirror(image, label, self.context)
        if self.crop:
            image, label = transforms.random_crop(image, label, self.rng, self.crop, self.preprocessing.fill())
        if augment.turn:
            image, label = transforms.random_turn(image, label, self.rng)
        elif augment.flip:
            image, label = transforms.random_flip(image, label, self.rng)
        if augment.colour:
            image, label = transforms.jitter_colour(image, label, self.rng, augment.colour)
        label, instances = targets.part(label)
        # Gaps and rims one pixel wide do not survive resizing.
        return image, targets.labels_of(self.dataset, label, instances), instances

    def _pass_over(self, index):
        """Make the random draws of `_augmented` without making the sample: they depend on its size alone."""
        if index not in self._sizes:
            self._sizes[index] = self.dataset[index].label.shape
        size, rng, augment = self._sizes[index], self.rng, self.augment
        if augment.scale != (1.0, 1.0):
            size = transforms.scaled(size, rng.uniform(*augment.scale))
        if augment.rotate or augment.shift or augment.elastic:
            transforms.draw_warp(rng, augment.rotate, augment.shift, augment.elastic)
        if self.crop:
            transforms.draw_crop([length + 2 * self.context for length in size], rng, self.crop)
        # Cheap transforms make their draws by running on an image of one pixel.
        pixel = np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8), rng
        if augment.turn:
            transforms.random_turn(*pixel)
        elif augment.flip:
            transforms.random_flip(*pixel)
        if augment.colour:
            transforms.draw_colour(rng, augment.colour, self.preprocessing.bands)

    def state(self) -> tuple[dict, dict]:
        """The stream's position: (arrays, rest), the latter JSON-ready."""
        return {"order": self._order}, {"next": self._next, "rng": self.rng.bit_generator.state}

    def restore(self, arrays: dict, rest: dict) -> None:
        """Resume from the state of a stream over the same data set."""
        self._order, self._next = arrays["order"], rest["next"]
        self.rng.bit_generator.state = rest["rng"]


class Prefetch:
    """The batches of a `BatchStream`, in order, prefetched by a thread: AHEAD of them wait while one more is made.

    Use it in a `with` statement; the thread ends with it. An error in the thread (a file that cannot be read) is
    raised by the `next` that asks for that batch, and by every later one.
    """

    def __init__(self, stream: BatchStream):
        self._stream, self._state = stream, stream.state()
        self._made, self._closed = Queue(AHEAD), threading.Event()
        # A daemon, so that a read that never returns does not keep the program from ending.
        self._thread = threading.Thread(target=self._work, name="minifcn prefetch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        with suppress(Empty):
            while True:  # make room, in case the thread waits for it
                self._made.get_nowait()
        self._thread.join(_PATIENCE)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray | Targets | CentreTargets]:
        batch, state, error = self._made.get()
        if error:
            self._made.put((None, None, error))  # for the next call, which would wait for ever
            raise error
        self._state = state
        return batch

    def state(self) -> tuple[dict, dict]:
        """The stream's state after the batch that `next` last returned; prefetched batches do not count."""
        return self._state

    def _work(self):
        while not self._closed.is_set():
            try:
                made = next(self._stream), self._stream.state(), None
            except BaseException as error:  # raised again where the batch is asked for
                self._made.put((None, None, error))
                return
            self._made.put(made)
