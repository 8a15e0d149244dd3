"""The model of a step over many hosts says what it should where that can be worked out by hand."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from minifcn import models

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import step_time  # noqa: E402
from step_time import Link, Work, fit, hiding_batch, work_of  # noqa: E402


def test_a_ring_sends_each_byte_almost_twice_and_a_tree_as_often_as_it_has_levels():
    assert Link(0, 1e-9).ring(4, 1e6) == pytest.approx(1.5e-3)
    assert Link(1e-3, 0).ring(4, 1e6) == pytest.approx(6e-3)
    assert Link(0, 1e-9).tree(5, 1e6) == pytest.approx(6e-3)
    assert Link(1e-3, 0).tree(1024, 1e6) == pytest.approx(20e-3)
    link = Link(1e-3, 1e-9)
    assert Link(0, 0, 1e-3).ring(2, 2 * step_time.EAGER - 2) == 0 and Link(0, 0, 1e-3).ring(2, 2e5) == pytest.approx(
        2e-3
    )
    assert link.best(64, 100) == link.tree(64, 100) and link.best(64, 1e9) == link.ring(64, 1e9)


def test_a_fit_finds_what_made_the_points():
    link, sizes = Link(2e-4, 3e-9, 1e-3), [1 << power for power in range(10, 27, 2)]
    found = fit([(size, link.ring(2, size)) for size in sizes])
    assert found == pytest.approx(link)
    rng = np.random.default_rng(0)
    found = fit([(size, link.ring(2, size) * (1 + 0.05 * rng.standard_normal())) for size in sizes])
    assert found == pytest.approx(link, rel=0.2)


def test_communication_hides_behind_backward_but_for_the_last_bucket(monkeypatch):
    monkeypatch.setattr(step_time, "JITTER", 0)
    work, link = Work(1.0, 2.0, [(0.5, 100), (1.0, 100), (2.0, 100)]), Link(0, 1e-3)
    assert work.step(1, link) == 3.0
    assert work.step(2, link, "ring") == pytest.approx(3.1)  # each bucket takes 0.1 s: two are hidden
    assert work.step(2, Link(0, 1e-2), "ring") == pytest.approx(1 + 0.5 + 3)  # each waits for the one before
    assert work.efficiency(2, link, "ring") == pytest.approx(3 / 3.1)


def test_of_many_hosts_the_slowest_counts():
    work = Work(1.0, 2.0, [])
    assert (
        work.step(2, Link(0, 0))
        < work.step(1024, Link(0, 0))
        == pytest.approx(3 * (1 + step_time.JITTER * math.sqrt(2 * math.log(1024))))
    )


def test_a_networks_buckets_hold_all_its_gradients_and_fill_from_its_end():
    network = models.fcn("8s", "mini", 21, "same")
    rows = models.explain(network, 64).rows
    work = work_of(rows, 3.0)
    assert (work.forward, work.backward) == (1.0, 2.0)
    ready, sizes = zip(*work.buckets, strict=True)
    assert sum(sizes) == 4 * sum(row.parameters for row in rows) and all(
        size >= step_time.BUCKET_BYTES for size in sizes[:-1]
    )
    assert sorted(ready) == list(ready) and ready[-1] == pytest.approx(2.0)


def test_a_larger_batch_hides_more():
    rows = models.explain(models.fcn("8s", "mini", 21, "same"), 64).rows
    slow, fast = (hiding_batch(rows, 0.01, 8, Link(1e-4, 8e-9 / gbit)) for gbit in (0.1, 10))
    assert fast < slow and hiding_batch(rows, 1e-9, 8, Link(1e-3, 1e-6)) is None
    assert hiding_batch(rows, 0.01, 8, Link(0, 0)) == 1
