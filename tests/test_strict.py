"""The stand-in for a GPU must itself be strict, or the tests that run on it prove nothing."""

import dataclasses
import operator

import numpy as np
import pytest

from minifcn import backend, models, ops
from minifcn.testing import strict
from minifcn.testing.strict import StrictArray, xp
from minifcn.training import loop, optimizers

HOST = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def there():
    return xp.asarray(HOST)


@pytest.mark.parametrize(
    "mix",
    [
        lambda a: a + HOST,
        lambda a: HOST @ a.T,
        lambda a: a == HOST,
        lambda a: np.maximum(a, HOST),
        lambda a: np.add(a, a, out=np.empty((2, 3))),
        lambda a: np.add.reduce(a),
        lambda a: np.concatenate([a, HOST]),
        lambda a: np.where(HOST > 1, a, 0),
        lambda a: xp.where(HOST > 1, a, 0),
        lambda a: xp.matmul(a, HOST.T),
        lambda a: xp.maximum(a, a, out=np.empty((2, 3))),
        lambda a: xp.take_along_axis(a, np.zeros((2, 1), int), axis=1),
        lambda a: xp.stack([a, HOST]),
        lambda a: xp.zeros_like(HOST),
        lambda a: a.dot(HOST.T),
        lambda a: a.sum(axis=0, out=np.empty(3)),
        lambda a: a[HOST > 1],
        lambda a: a[:, np.array([0, 1])],
        lambda a: operator.iadd(a, HOST),
        lambda a: operator.iadd(HOST.copy(), a),
        lambda a: operator.setitem(a, ..., HOST),
        lambda a: operator.setitem(a, HOST > 1, 0),
        lambda a: operator.setitem(np.empty((2, 3)), ..., a),
        np.asarray,
        np.array,
        np.ascontiguousarray,
        lambda a: np.asarray(a, dtype="float32"),
        lambda a: np.array([a, a]),
        lambda a: np.asarray(a.sum()),
        lambda a: np.frombuffer(a),
        memoryview,
        lambda a: HOST[a.astype("int64")],
    ],
)
def test_refuses_to_meet_a_numpy_array_or_become_one(there, mix):
    with pytest.raises((TypeError, IndexError)):
        mix(there)
    np.testing.assert_array_equal(there.get(), HOST)


@pytest.mark.parametrize(
    "compute",
    [
        lambda m, a: a + 1,
        lambda m, a: a * np.float64(2) / np.array(3.0),
        lambda m, a: a @ a.T,
        lambda m, a: -(abs(a) ** 2),
        lambda m, a: (a > 1) & (a < 4) | ~(a != 2),
        lambda m, a: a[1, 2],
        lambda m, a: a[a > 1],
        lambda m, a: a[:, None, 1:],
        lambda m, a: a.sum(),
        lambda m, a: a.mean(axis=0, keepdims=True),
        lambda m, a: a.max(axis=1).astype("float32"),
        lambda m, a: a.reshape(3, -1).transpose(1, 0).T,
        lambda m, a: m.where(a > 1, a, 0),
        lambda m, a: m.maximum(a, 2),
        lambda m, a: m.full((2, 2), m.inf, "float32"),
        lambda m, a: m.take_along_axis(a, a[:, :1].astype("int64") * 0 + 1, axis=1),
        lambda m, a: m.concatenate([a, m.ones((1, 3), a.dtype)]),
        lambda m, a: m.einsum("ij,kj->ik", a, a),
    ],
)
def test_computes_what_numpy_computes_and_stays_on_the_device(there, compute):
    result, expected = compute(xp, there), compute(np, HOST)
    assert type(result) is StrictArray
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    np.testing.assert_array_equal(result.get(), expected)


def test_views_and_out_share_memory_and_transfers_do_not(there):
    host = HOST.copy()
    sent, out = xp.asarray(host), xp.zeros((2, 3))
    host[:] = -1
    np.testing.assert_array_equal(sent.get(), HOST)
    sent.get()[:] = -1
    np.testing.assert_array_equal(sent.get(), HOST)
    sent[0][1:] += 10
    sent[1, 1] *= 2
    np.testing.assert_array_equal(sent.get(), [[0, 11, 12], [3, 8, 5]])
    assert xp.maximum(there, 2, out=out) is out
    np.testing.assert_array_equal(out.get(), np.maximum(HOST, 2))
    total = there.sum()  # a single value stays an array
    assert (float(total), int(total), bool(total), total.item()) == (15.0, 15, True, 15.0)


def test_what_is_locked_is_not_written_to_and_what_is_empty_shows(there):
    locked = there.lock()
    with pytest.raises(ValueError, match="read-only"):
        locked += 1
    with pytest.raises(ValueError, match="read-only"):
        locked[:, 1:][...] = 0
    assert np.isnan(xp.empty((2, 2), "float32").get()).all()
    assert not hasattr(xp, "errstate") and not hasattr(xp, "vectorize")  # which CuPy lacks
    with pytest.raises((TypeError, AttributeError)):
        np.apply_over_axes(np.sum, there, 0)


def test_tiles_run_last_to_first():
    seen = []
    strict.run_tiles(seen.append, [(1,), (2,), (3,)])
    assert seen == [3, 2, 1]


def test_the_fixture_fails_on_arrays_of_another_device(device):
    stranger = HOST if device.name == "strict" else xp.asarray(HOST)
    with pytest.raises(AssertionError, match="expected an array on"):
        device.get(stranger)


@pytest.mark.parametrize(("variant", "upsampling"), [("32s", "frozen"), ("8s", "frozen"), ("8s", "learned")])
def test_a_training_step_brings_nothing_to_the_host_but_the_loss(variant, upsampling, choose):
    """Each array fetched is a moment in which a GPU waits. The loss, a number, comes by `float`."""
    fetched = []

    def fetch(array):
        fetched.append(array.shape)
        return array.get()

    choose(dataclasses.replace(strict.DEVICE, to_host=fetch))
    network = models.fcn(variant, "mini", 3, "paper", upsampling=upsampling, width=2)
    solver = optimizers.SGD(network.parameters())
    images, labels = np.ones((1, 3, 40, 40), np.float32), np.zeros((1, 40, 40), np.uint8)
    assert np.isclose(loop.update(network, images, labels, solver, 0.1), np.log(3), rtol=1e-6)
    assert fetched == []


@pytest.fixture
def traffic(choose, monkeypatch):
    """What goes over the bus: the shapes sent to the stand-in, and the ways in which something came back."""
    sent, back = [], []
    send = strict._array

    def counted(a, dtype=None):
        if not isinstance(a, StrictArray):
            sent.append(np.shape(a))
        return send(a, dtype)

    monkeypatch.setattr(strict, "_array", counted)
    for door in ("get", "item", "tolist", "__float__", "__int__", "__bool__", "__complex__"):
        passing = getattr(StrictArray, door)
        counting = lambda self, door=door, passing=passing: back.append(door) or passing(self)  # noqa: E731
        monkeypatch.setattr(StrictArray, door, counting)
    choose(strict.DEVICE)
    return sent, back


@pytest.mark.parametrize("algorithm", ["auto", "winograd", "im2col"])
@pytest.mark.parametrize("variant", models.VARIANTS)
def test_all_that_crosses_the_bus_in_a_step(variant, algorithm, traffic):
    """In: the batch, and the masks of dropout, drawn on the host. Out: whether a label is wrong, and the loss."""
    network = models.fcn(variant, "mini", 3, "same", width=2)
    solver = optimizers.Adam(network.parameters(), weight_decay=1e-4)
    images, labels = np.ones((2, 3, 64, 64), np.float32), np.zeros((2, 64, 64), np.uint8)
    sent, back = traffic
    with ops.conv_algorithm(algorithm):
        loop.update(network, images, labels, solver, 0.1)
        sent.clear()
        back.clear()
        loop.update(network, images, labels, solver, 0.1)
    masks = [shape for shape in sent if shape not in (images.shape, labels.shape)]
    assert sorted(sent) == sorted([images.shape, labels.shape, *masks])
    assert masks == [(2, 16, 2, 2)] * 2  # dropout after fc6 and fc7
    assert sorted(back) == ["__bool__", "__float__"]


def test_pooling_sends_what_never_changes_only_once(traffic):
    x = backend.to_device(np.ones((1, 2, 6, 7)))
    pools = (
        lambda: ops.avg_pool2d_forward(x, 3, stride=2, pad=1, count_include_pad=False),
        lambda: ops.adaptive_avg_pool2d_forward(x, (2, 3)),
    )
    for pool in pools:
        first, _ = pool()
        traffic[0].clear()
        again, _ = pool()
        assert traffic[0] == []
        np.testing.assert_array_equal(first.get(), again.get())


def test_constants_belong_to_their_device_and_cannot_be_written_to(device):
    made = []

    def make(size, dtype):
        made.append(size)
        return np.arange(size, dtype=dtype)

    like = device.put(np.zeros(2))
    first = backend.constant(like, make, 3, "float32")
    np.testing.assert_array_equal(device.get(first), np.arange(3, dtype="float32"))
    assert backend.constant(device.put(np.ones(5)), make, 3, "float32") is first
    assert backend.constant(like, make, 4, "float32") is not first
    assert made == [3, 4]
    if device.name == "numpy":
        with pytest.raises(ValueError, match="read-only"):
            first += 1
    else:
        assert type(backend.constant(np.zeros(2), make, 3, "float32")) is np.ndarray
