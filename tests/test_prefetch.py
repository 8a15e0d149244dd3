"""Batches made ahead are those of the stream, in its order; few wait; errors arrive; and nothing hangs."""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from minifcn import data
from minifcn.data.batches import AHEAD


class Scenes(Sequence):
    """Twelve random scenes of 20 × 20 pixels; counts how many were read, and fails for one of them if asked to."""

    def __init__(self, broken=None):
        self.read, self.broken = 0, broken

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == self.broken:
            raise ValueError("scene7.jpg: not a readable image")
        self.read += 1
        rng = np.random.default_rng(index)
        return data.Sample(
            rng.integers(0, 255, (20, 20, 3), np.uint8), rng.integers(0, 3, (20, 20), np.uint8), str(index)
        )


def stream(scenes=None):
    augment = data.Augment(True, (0.8, 1.2), 0.2)
    rng = np.random.default_rng(0)
    return data.BatchStream(scenes or Scenes(), 5, data.Preprocessing(), rng, crop=(16, 16), augment=augment)


def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "minifcn prefetch"]


def test_the_batches_and_states_are_those_of_the_stream_itself_and_few_wait():
    scenes = Scenes()
    plain, ahead = stream(), stream(scenes)
    with data.Prefetch(ahead) as batches:
        for taken in range(10):
            until(lambda taken=taken: scenes.read == 5 * (AHEAD + 1 + taken))  # the stream itself stands further on
            for have, want in zip(next(batches), next(plain), strict=True):
                np.testing.assert_array_equal(have, want)
            (order, rest), (wanted_order, wanted_rest) = batches.state(), plain.state()
            assert np.array_equal(order["order"], wanted_order["order"]) and rest == wanted_rest
        time.sleep(0.05)
        assert scenes.read == 5 * (AHEAD + 11)
        state, expected = batches.state(), next(batches)
    again = stream()
    again.restore(*state)
    for have, want in zip(next(again), expected, strict=True):
        np.testing.assert_array_equal(have, want)


def test_an_error_comes_where_its_batch_is_asked_for_and_again_after_that():
    order = np.random.default_rng(0).permutation(12)
    with data.Prefetch(stream(Scenes(broken=order[7]))) as batches:
        next(batches)
        for _ in range(3):
            with pytest.raises(ValueError, match=r"scene7\.jpg: not a readable image"):
                next(batches)
    assert not threads()


def test_the_thread_ends_with_the_body_however_that_ends():
    scenes = Scenes()
    with data.Prefetch(stream(scenes)):
        assert all(thread.daemon for thread in threads())
        until(lambda: scenes.read == 5 * (AHEAD + 1))  # one batch more than there is room for
    assert not threads()
    with pytest.raises(KeyboardInterrupt), data.Prefetch(stream()):
        raise KeyboardInterrupt
    assert not threads()


def test_a_file_that_never_answers_does_not_keep_the_program_from_ending():
    program = """
import threading
import numpy as np
from minifcn import data
class Stuck:
    def __len__(self): return 1
    def __getitem__(self, index): threading.Event().wait()
stream = data.BatchStream(Stuck(), 1, data.Preprocessing(), np.random.default_rng(0))
with data.Prefetch(stream):
    print("body done")
print("ended")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout.split("\n")[:2], done.stderr) == (0, ["body done", "ended"], "")
