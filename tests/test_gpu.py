"""Training, evaluation and checkpoints away from the host agree with the host's: on the stand-in, and on a GPU.

The same bodies run on both; `pytest -m gpu` runs them on CuPy. A GPU adds in another order, and training magnifies that.
How much, was measured on the CPU: by Winograd's way instead of im2col, and by weights that differ in their last bit.
"""

import functools

import numpy as np
import pytest
from conftest import NAMES
from gradcheck_cases import LAYERS, TOLERANCE, spread
from networks import stirred

from minifcn import backend, data, gradcheck, inference, models, ops, weights
from minifcn.backend import registry
from minifcn.inference import classify
from minifcn.training import loop, optimizers
from minifcn.training.config import Config
from minifcn.training.run import Evaluated, Run, read_metrics

away_from_the_host = pytest.mark.parametrize("device", NAMES[1:], indirect=True)
STEPS, CLASSES = 50, 4
RATES = {"sgd": 0.02, "adam": 4e-3, "adamw": 4e-3}
APART = {"float32": 6e-2, "float64": 1e-8}  # of losses, in 50 steps from 1.3 to 0.3; measured: 2e-2 and 2e-11
APART_AT_FIRST = {"float32": 1e-4, "float64": 1e-11}  # in the first three steps; measured: 5e-6 and 2e-14


def batches(dtype="float32", count=5):
    """Random batches in which there is something to learn: a class is a colour; a tenth of the labels does not count."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(count):
        labels = rng.integers(0, CLASSES, (4, 2, 2)).repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
        colours = np.eye(CLASSES)[labels][..., :3].transpose(0, 3, 1, 2)
        images = colours + rng.normal(0, 0.5, colours.shape)
        labels[rng.random(labels.shape) < 0.1] = data.VOID
        found.append((images.astype(dtype), labels))
    return found


def fresh(optimizer="adam", dtype="float32", variant="8s"):
    """(network, optimiser), where the chosen device is."""
    network = models.fcn(variant, "mini", CLASSES, "same", width=4, seed=3).astype(dtype)
    return network, optimizers.OPTIMIZERS[optimizer](network.parameters(), weight_decay=5e-4)


def curve(optimizer="adam", dtype="float32", steps=STEPS):
    """The losses of a training run on the chosen device, and the weights after it."""
    network, solver = fresh(optimizer, dtype)
    stream = batches(dtype)
    losses = [loop.update(network, *stream[i % len(stream)], solver, RATES[optimizer]) for i in range(steps)]
    return np.array(losses), network.state_dict()


@functools.cache
def curve_on_the_host(optimizer, dtype):
    return curve(optimizer, dtype)


@pytest.fixture
def on_the_host(device, monkeypatch):
    """on_the_host(function, *arguments): what it gives with NumPy as the backend."""

    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(registry, "_current", registry._devices["numpy"])
            with device.numpy_alone():
                return function(*arguments)

    return call


@away_from_the_host
@pytest.mark.parametrize(
    ("optimizer", "dtype"),
    [("sgd", "float32"), ("adam", "float64"), pytest.param("adamw", "float32", marks=pytest.mark.slow)],
)
def test_training_curves_agree_with_the_hosts(optimizer, dtype, device, on_the_host):
    expected, state = on_the_host(curve_on_the_host, optimizer, dtype)
    losses, found = curve(optimizer, dtype)
    assert expected[-5:].mean() < 0.6 * expected[:5].mean()  # it does learn
    np.testing.assert_allclose(losses, expected, rtol=0, atol=APART[dtype])
    np.testing.assert_allclose(losses[:3], expected[:3], rtol=0, atol=APART_AT_FIRST[dtype])
    assert {a.dtype for a in found.values()} == {np.dtype(dtype)}
    assert found.keys() == state.keys()


@away_from_the_host
@pytest.mark.parametrize(("label", "dtype"), [(CLASSES, "uint8"), (254, "uint8"), (254, "int64"), (-1, "int64")])
def test_a_label_outside_the_classes_is_refused_and_nothing_moves(label, dtype, device, on_the_host):
    """On a GPU an index beyond the end wraps around without a word."""
    images, labels = batches()[0]
    labels = labels.astype(dtype)
    labels[1, 5, 7] = label

    def told():
        network, solver = fresh()
        before = network.state_dict()
        with pytest.raises(ValueError) as caught:
            loop.update(network, images, labels, solver, 0.1)
        after = network.state_dict()
        assert all(np.array_equal(before[name], after[name]) for name in network.parameters())
        return str(caught.value)

    assert told() == on_the_host(told)
    assert f"got [{label}] at 1 pixels" in told()


@away_from_the_host
def test_pixels_that_do_not_count_change_nothing(device):
    """Whatever stands at a pixel labelled 255, the other pixels' gradient and the loss are the same; its own is zero."""
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((2, CLASSES, 5, 6)), rng.integers(0, CLASSES, (2, 5, 6)).astype(np.uint8)
    labels[0, 1:3] = 255
    found = []
    for noise in (0, 100):
        moved = logits + noise * (labels == 255)[:, None] * rng.standard_normal(logits.shape)
        loss, cache = ops.softmax_cross_entropy_forward(device.put(moved), device.put(labels))
        found.append((float(loss), device.get(ops.softmax_cross_entropy_backward(1.0, cache))))
    (loss, gradient), (same, as_before) = found
    assert loss == pytest.approx(same, rel=1e-12)
    np.testing.assert_allclose(gradient, as_before, rtol=1e-12, atol=1e-15)
    assert not gradient[0, :, 1:3].any()
    assert gradient[0, :, 3:].any()
    network, solver = fresh("sgd")
    assert loop.update(network, batches()[0][0], np.full((4, 32, 32), 255, np.uint8), solver, 0.1) == 0


# --- Checkpoints and runs -----------------------------------------------------------------------------------------


def settings(toy, **more):
    small = {"width": 2, "crop": 32, "batch_size": 2, "iterations": 6, "save_every": 1, "eval_every": 3}
    return Config.from_dict({"data": str(toy), **small, **more}, "test")


def halted(toy, folder):
    """A run stopped after its third step."""
    run, asked = Run(settings(toy), folder), iter([False, False, True])
    list(run.events(lambda: next(asked)))


def resumed(folder):
    run = Run.resume(folder)
    assert run.done == 3
    list(run.events())
    return run


def losses(folder):
    return [r["loss"] for r in read_metrics(folder) if r["event"] == "step"]


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The losses of the same run on the host, never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_current", registry._devices["numpy"])
        list(Run(settings(toy), folder).events())
    return losses(folder)


@away_from_the_host
@pytest.mark.parametrize("begins", ["on the host", "away from it"])
def test_a_run_goes_on_on_another_device(begins, toy, tmp_path, whole, device, on_the_host):
    folder = tmp_path / "run"
    if begins == "on the host":
        on_the_host(halted, toy, folder)
        run = resumed(folder)
        arrays = [p.value for p in run.model.parameters().values()] + list(run.optimizer.arrays.values())
        assert all(backend.array_module(a) is device.xp for a in arrays)
    else:
        halted(toy, folder)
        run = on_the_host(resumed, folder)
        assert all(type(p.value) is np.ndarray for p in run.model.parameters().values())
    np.testing.assert_allclose(losses(folder), whole, rtol=1e-3)
    assert run.matrix.counts.sum() > 0


@away_from_the_host
def test_a_whole_run_is_the_hosts(toy, tmp_path, whole, device):
    events = list(Run(settings(toy), tmp_path / "run").events())
    np.testing.assert_allclose(losses(tmp_path / "run"), whole, rtol=1e-3)
    assert [e.iteration for e in events if isinstance(e, Evaluated)] == [3, 6]
    card = models.load(tmp_path / "run" / "best.npz").card
    assert len(card.classes) == card.num_classes


@away_from_the_host
def test_a_file_has_the_same_bits_wherever_it_was_written(tmp_path, device, on_the_host):
    network, _ = fresh()
    weights.save(tmp_path / "away.npz", network)
    on_the_host(lambda: weights.save(tmp_path / "here.npz", fresh()[0]))
    assert all(type(array) is np.ndarray for array in network.state_dict().values())
    with np.load(tmp_path / "away.npz") as away, np.load(tmp_path / "here.npz") as here:
        assert away.files == here.files
        assert all(away[name].tobytes() == here[name].tobytes() for name in here.files)
    (first, state), (again, same) = curve(steps=8), curve(steps=8)  # nor does a seed give others the second time
    assert first.tolist() == again.tolist()
    assert all(np.array_equal(state[name], same[name]) for name in state)


@away_from_the_host
def test_predictions_and_scores_are_the_hosts(toy, device, on_the_host):
    samples = data.VOC(toy, "val")

    def network():
        return stirred(fresh(variant="16s")[0])

    def of_the_host():
        same = network()
        return [
            (inference.predict(same, s.image), same.forward(same.card.preprocessing.apply(s.image)[None])[0])
            for s in samples
        ]

    away = network()
    for sample, (labels, logits) in zip(samples, on_the_host(of_the_host), strict=True):
        found = inference.predict(away, sample.image)
        assert type(found) is np.ndarray and found.dtype == np.uint8
        second, first = np.sort(logits, axis=0)[-2:]
        certain = first - second > 1e-3 * abs(first).max()
        assert certain.mean() > 0.5
        assert (found == labels)[certain].all()
    assert inference.evaluate(away, samples, 6).counts.sum() == sum((s.label != 255).sum() for s in samples)


@away_from_the_host
def test_a_photograph_is_classified_as_on_the_host(device, on_the_host):
    photo = np.random.default_rng(0).integers(0, 255, (230, 250, 3), np.uint8)

    def of_it():
        network = models.efficientnet_lite0(num_classes=10, seed=1)
        return classify.top(network, photo, 3), classify.heat_map(network, photo, [2, 7])

    (likely, heat), (expected, same_heat) = of_it(), on_the_host(of_it)
    assert [number for number, _ in likely] == [number for number, _ in expected]
    assert type(heat) is np.ndarray
    np.testing.assert_allclose(heat, same_heat, rtol=1e-3, atol=1e-3 * abs(same_heat).max())


# --- Gradients ----------------------------------------------------------------------------------------------------


@away_from_the_host
@pytest.mark.parametrize(("build", "shape"), LAYERS.values(), ids=LAYERS)
def test_every_layers_gradient_is_right(build, shape, device):
    layer = build(np.random.default_rng(0))
    for owner, key in layer.buffers().values():
        setattr(owner, key, backend.to_device(backend.to_host(getattr(owner, key))))
    report = gradcheck.check_layer(layer, device.put(spread(shape)), np.random.default_rng(1), directions=1, elements=3)
    assert report.max_relative_error <= TOLERANCE, report
    assert report.checked >= 1 + min(3, int(np.prod(shape)))


@away_from_the_host
def test_a_whole_networks_gradient_is_right(device):
    rng = np.random.default_rng(0)
    network = models.fcn("8s", "mini", 2, "same", upsampling="learned", width=2)
    for name, p in network.parameters().items():
        if name.startswith("score"):  # from zero scores no gradient flows back
            p.value = device.put(rng.normal(0, 1, p.value.shape).astype(np.float32))
    report = gradcheck.check_layer(network, device.put(rng.normal(0, 1, (3, 3, 32, 64))), rng, directions=1, elements=0)
    assert report.max_relative_error <= TOLERANCE, report


@away_from_the_host
def test_tf32_rounds_products_of_matrices_and_of_batches_of_them(device, rng):
    """cuBLAS is told by its mode, and CuPy asks it in another way for each of the two."""
    a, b = rng.standard_normal((3, 64, 80)), rng.standard_normal((3, 80, 48))

    def errors():
        one = [device.put(m[0].astype("float32")) for m in (a, b)]
        several = [device.put(m.astype("float32")) for m in (a, b)]
        found = [(device.xp.matmul(*one), a[0] @ b[0]), (device.xp.matmul(*several), a @ b)]
        return [np.linalg.norm(device.get(m) - exact) / np.linalg.norm(exact) for m, exact in found]

    assert max(errors()) < 1e-6
    try:
        backend.use_tf32()
    except ValueError as error:
        pytest.skip(str(error))
    try:
        assert all(1e-5 < error < 1e-3 for error in errors()), errors()
    finally:
        backend.use_tf32(False)
    assert max(errors()) < 1e-6
