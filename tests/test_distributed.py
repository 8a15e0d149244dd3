"""One batch in several processes gives what it gives in one: tried with processes that are threads, without MPI."""

import pickle
import shutil
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from networks import narrow_fcn, picture, without_chance
from PIL import Image
from small_datasets import write_nuclei
from together import together, world

from minifcn import backend, data, distributed, layers, models, ops
from minifcn.cli import launch
from minifcn.data.sets import base
from minifcn.data.shared import SharedSamples
from minifcn.errors import InputError
from minifcn.tasks import PanopticSegmentation, SemanticSegmentation
from minifcn.training import checkpoint, exchange, loop
from minifcn.training.config import Config
from minifcn.training.optimizers import SGD
from minifcn.training.run import Evaluated, Run, Stopped, read_metrics

SIZES = (2, 3)
BATCH = 5  # which neither divides


@pytest.fixture(autouse=True)
def several(monkeypatch):
    """The world of each thread is its own, and the arithmetic of each is done by one thread."""
    monkeypatch.setattr(distributed, "world", world)
    backend.set_threads(1)
    yield
    backend.set_threads()


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    data.write_toyvoc(root, train=7, val=3, size=40, seed=3)
    return root


NETWORKS = {
    "mini": lambda: models.fcn("8s", "mini", num_classes=6, alignment="same", width=2),  # with batch norm and dropout
    "lite0": lambda: models.fcn("8s", "efficientnet_lite0", num_classes=6, alignment="same"),
    "unet": lambda: models.unet(6, width=2, depth=2, padding="same", batch_norm=True),
}
TASKS = {
    "mean": lambda job: SemanticSegmentation(world=job),
    "weights and dice": lambda job: SemanticSegmentation(class_weights=range(1, 7), dice=0.5, world=job),
    "sum and dice": lambda job: SemanticSegmentation("sum", dice=0.5, world=job),
    "hardest": lambda job: SemanticSegmentation(hardest=0.3, world=job),
}


def losses(job, toy, network="mini", task="mean", steps=3, lr=1e-3, wire="float32", bucket_bytes=3000):
    """The losses of a short training in float64, and the weights after it."""
    model = NETWORKS[network]().astype(np.float64)
    samples = data.CachedDataset(data.open_dataset(toy, "train"))
    augment = data.Augment(scale=(0.7, 1.3), colour=0.2, rotate=10.0, shift=2.0)
    rng, part = np.random.default_rng(3), exchange.part_of(BATCH, job)
    stream = data.BatchStream(samples, BATCH, model.card.preprocessing, rng, crop=(32, 32), augment=augment, part=part)
    exchange.share(model, job, BATCH)
    sums = exchange.Exchange(model, job, wire, bucket_bytes) if job.size > 1 else None
    batches = ((images.astype(np.float64), labels) for images, labels in stream)
    done = loop.train(
        model, batches, SGD(model.parameters()), lambda i: lr, steps, task=TASKS[task](job), exchange=sums
    )
    return [step.loss for step in done], model.state_dict()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("network", "task"),
    [("mini", name) for name in TASKS] + [("unet", "mean"), pytest.param("lite0", "mean", marks=pytest.mark.slow)],
)
def test_losses_and_weights_are_those_of_one_process(network, task, size, toy):
    lr = 1e-6 if "sum" in task or network == "lite0" else 1e-3
    want, state = losses(distributed.World(), toy, network, task, lr=lr)
    for have, other in together(size, lambda job: losses(job, toy, network, task, lr=lr)):
        np.testing.assert_allclose(have, want, rtol=0, atol=1e-10 * max(want))
        for name, array in state.items():
            np.testing.assert_allclose(other[name], array, rtol=0, atol=1e-9, err_msg=name)


def test_all_processes_hold_the_same_bits(toy):
    (_, one), (_, other) = together(2, lambda job: losses(job, toy, wire="float16"))
    assert all(array.tobytes() == other[name].tobytes() for name, array in one.items())


def parts(array, size, rank):
    first, end = (len(array) * place // size for place in (rank, rank + 1))
    return array[first:end]


@pytest.mark.parametrize("activation", ["none", "relu6"])
def test_batch_norm_of_a_batch_in_parts_is_the_gradient_of_what_it_computes(activation):
    """Finite differences of Σ dy · y over all parts, for every value of x and for gamma and beta."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(2, 3, (3, 2, 2, 3)), rng.normal(size=(3, 2, 2, 3))
    gamma, beta = rng.normal(2, 1, 2), rng.normal(1, 1, 2)

    def passes(job, x, gamma, beta):
        own, upstream = (parts(array, job.size, job.rank) for array in (x, dy))
        y, cache = ops.batch_norm_forward(
            own, gamma, beta, np.zeros(2), np.ones(2), train=True, activation=activation, sums=job.sum
        )
        loss = float(job.sum(np.array((upstream * y).sum())))
        dx, *others = ops.batch_norm_backward(upstream, cache)
        return loss, dx, *(job.sum(array) for array in others), cache.running_mean, cache.running_var

    def run(size, *arrays):
        found = together(size, lambda job: passes(job, *arrays))
        return found[0][0], np.concatenate([one[1] for one in found]), *found[0][2:]

    loss, *gradients, mean, var = run(2, x, gamma, beta)
    for found, array in zip(gradients, (x, gamma, beta), strict=True):
        for at in np.ndindex(array.shape):
            moved = []
            for step in (1e-5, -1e-5):
                changed = [a.copy() for a in (x, gamma, beta)]
                changed[next(i for i, a in enumerate((x, gamma, beta)) if a is array)][at] += step
                moved.append(run(2, *changed)[0])
            assert abs((moved[0] - moved[1]) / 2e-5 - found[at]) < 1e-6 * max(1, abs(found[at])), (array.shape, at)
    whole = run(1, x, gamma, beta)
    for have, want in zip((loss, *gradients, mean, var), whole, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_in_parts_is_that_of_the_whole(device, dtype):
    rng = np.random.default_rng(1)
    x, dy = (rng.normal(5, 2, (5, 3, 6, 7)).astype(dtype) for _ in range(2))
    values = [rng.normal(1, 0.2, 3).astype(dtype) for _ in range(4)]
    values[3] = abs(values[3])

    def work(job, sums):
        own, upstream = (device.put(parts(array, job.size, job.rank)) for array in (x, dy))
        y, cache = ops.batch_norm_forward(own, *map(device.put, values), train=True, sums=sums)
        return device.get(y), device.get(ops.batch_norm_backward(upstream, cache)[0])

    y, dx = work(distributed.World(), None)
    found = together(2, lambda job: work(job, job.sum))
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(np.concatenate([one[0] for one in found]), y, rtol=0, atol=tolerance)
    np.testing.assert_allclose(np.concatenate([one[1] for one in found]), dx, rtol=0, atol=tolerance)


def test_dropout_drops_of_a_part_what_it_drops_of_the_whole():
    x = np.ones((BATCH, 2, 3, 3), np.float32)

    def work(job):
        layer = layers.Dropout(0.5, np.random.default_rng(1))
        exchange.share(SimpleNamespace(layers_of=lambda kind: [layer] if kind is layers.Dropout else []), job, BATCH)
        return layer.forward(parts(x, job.size, job.rank), train=True), layer.rng.random()

    ((whole, after),) = together(1, work)
    found = together(3, work)
    assert np.array_equal(np.concatenate([one for one, _ in found]), whole)
    assert {state for _, state in found} == {after}


def test_sums_are_under_way_before_backward_ends_and_go_to_their_gradients():
    network, order = without_chance(narrow_fcn("8s", "same").astype(np.float64)), []
    x = picture(32, 32, np.float64)
    dy = np.random.default_rng(0).normal(size=network.forward(x, train=True).shape)

    class Twice(distributed.World):
        size = 2

        def start_sum(self, array):
            order.append(array.size)
            return lambda: 2 * array

    network.backward(dy, inputs=False)
    want = {name: 2 * p.grad for name, p in network.parameters().items() if not p.frozen}
    network.zero_grad()
    network.forward(x, train=True)
    sums = exchange.Exchange(network, Twice(), bucket_bytes=400)
    network.backward(dy, inputs=False, passed=lambda name: (sums.passed(name), order.append(name)))
    sums.finish()
    have = {name: p.grad for name, p in network.parameters().items() if not p.frozen}
    assert want.keys() == have.keys()
    assert all(np.array_equal(have[name], want[name]) for name in want)
    sent = [i for i, one in enumerate(order) if isinstance(one, int)]
    assert len(sent) > 3
    assert sent[0] < len(order) // 2  # the first of them long before the last layer's turn
    assert sum(order[i] for i in sent) == sum(grad.size for grad in want.values())


def test_between_hosts_a_process_goes_on_while_its_sums_travel():
    def work(job):
        first = job.start_sum(np.ones(3))
        sums = [job.start_sum(np.ones(3))] if job.rank == 0 else []
        job.everyone("process 0 has gone on, and process 1 has not begun")
        sums = sums or [job.start_sum(np.ones(3))]
        return [arrived().tolist() for arrived in (first, *sums)]

    assert together(2, work) == [[[2.0] * 3] * 2] * 2


def test_a_shared_parameter_is_sent_when_its_last_reader_has_added_its_part():
    rng = np.random.default_rng(0)
    first = layers.Conv2d(2, 2, 1, rng)
    again = layers.Conv2d.of(first.weight, first.bias, **first.settings)
    graph = models.Graph({"one": (first, ["image"]), "two": (again, ["one"])})
    completed = graph.completed_by()
    assert list(completed) == ["two", "one"]
    assert completed["two"] == []
    assert completed["one"] == [first.weight, first.bias]


def test_a_shared_parameter_is_sent_where_its_last_reader_gets_no_gradient():
    rng, passed = np.random.default_rng(0), []
    first = layers.Conv2d(2, 2, 1, rng)
    again = layers.Conv2d.of(first.weight, first.bias, **first.settings)
    graph = models.Graph({"one": (first, ["image"]), "two": (again, ["image"])}, ["one", "two"])
    found = graph.forward(rng.normal(size=(1, 2, 3, 4)).astype(np.float32), train=True)
    graph.backward({"two": found["two"]}, inputs=False, passed=passed.append)
    assert passed == list(graph.completed_by()) == ["two", "one"]


@pytest.mark.parametrize("size", SIZES)
def test_half_precision_on_the_wire_neither_overflows_nor_loses_the_small(size):
    rng = np.random.default_rng(0)
    arrays = [(rng.normal(size=1001) * 10.0 ** rng.integers(-8, 1, 1001) * 6e4).astype(np.float32) for _ in range(size)]

    found = together(size, lambda job: job.start(partial(exchange.half_sum, arrays[job.rank]))())
    want = sum(array.astype(np.float64) for array in arrays)
    assert all(one.tobytes() == found[0].tobytes() for one in found)
    assert found[0].dtype == np.float32
    bound = sum(abs(array.astype(np.float64)) for array in arrays) + abs(want)
    assert (abs(found[0] - want) <= 2.0**-11 * bound).all()  # half a unit in the last place, on the way there and back
    assert not np.array_equal(found[0], want.astype(np.float32))


@pytest.mark.parametrize(
    "augment",
    [
        data.Augment(),
        data.Augment(scale=(0.5, 1.5), colour=0.3),
        data.Augment(turn=True, flip=False),
        data.Augment(rotate=10.0, elastic=2.0, scale=(0.9, 2.0)),
    ],
)
@pytest.mark.parametrize("crop", [(24, 24), (64, 64)])
def test_parts_of_a_stream_are_the_batches_of_a_whole_one(toy, augment, crop):
    def stream(part, context=2):
        samples = data.open_dataset(toy, "train")
        preprocessing = NETWORKS["unet"]().card.preprocessing
        rng = np.random.default_rng(5)
        return data.BatchStream(
            samples, BATCH, preprocessing, rng, crop=crop, augment=augment, context=context, part=part
        )

    streams = [stream(slice(0, 2)), stream(slice(2, 4)), stream(slice(4, 5))]
    whole = stream(None)
    for _ in range(3):
        images, labels = next(whole)
        made = [next(one) for one in streams]
        assert np.array_equal(np.concatenate([one for one, _ in made]), images)
        assert np.array_equal(np.concatenate([one for _, one in made]), labels)
        assert all(one.state()[1] == whole.state()[1] for one in streams)


def test_a_host_reads_a_sample_once_for_all_its_processes_and_keeps_no_more_than_it_may(toy):
    class Counted:
        reads = []

        def __init__(self):
            self.dataset = data.open_dataset(toy, "train")

        def __len__(self):
            return len(self.dataset)

        def __getitem__(self, index):
            self.reads.append(index)
            return self.dataset[index]

    def work(job, limit):
        samples = data.CachedDataset(Counted(), limit=limit, world=job)
        for index in range(7):
            job.everyone(None)
            if job.rank == index % 2:
                samples[index]
            job.everyone(None)
            found, want = samples[index], data.open_dataset(toy, "train")[index]
            assert found.id == want.id
            assert np.array_equal(found.image, want.image)
            assert np.array_equal(found.label, want.label)

    together(2, lambda job: work(job, 1 << 20))
    assert sorted(Counted.reads) == list(range(7))
    Counted.reads.clear()
    together(2, lambda job: work(job, 20_000))
    assert len(Counted.reads) > 7


def test_panoptic_losses_in_parts_are_those_of_the_whole(tmp_path):
    write_nuclei(tmp_path)
    samples = data.CachedDataset(data.open_dataset(tmp_path, "train", instances=True))
    network = models.panoptic("mini", num_classes=2, width=2).astype(np.float64)

    def work(job):
        part = exchange.part_of(3, job)
        stream = data.BatchStream(
            samples, 3, network.card.preprocessing, np.random.default_rng(0), crop=(32, 32), sigma=3.0, part=part
        )
        _, targets = next(stream)
        rng = np.random.default_rng(1)
        outputs = {
            name: rng.normal(size=(3, channels, 32, 32))[part]
            for name, channels in (("semantic", 2), ("centre", 1), ("offset", 2))
        }
        task = PanopticSegmentation(dice=0.5, world=job)
        total, weight, cache = task.loss(outputs, targets)
        total, weight = job.sum(np.array([total, weight]))
        return total / weight, task.loss_backward(1 / weight, cache)

    ((want, gradients),) = together(1, work)
    found = together(2, work)
    assert [loss for loss, _ in found] == pytest.approx([want] * 2, abs=1e-10)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(np.concatenate([one[name] for _, one in found]), gradient, rtol=0, atol=1e-12)


def settings(toy, **more):
    values = {"data": str(toy), "width": 2, "crop": 32, "batch_size": 3, "iterations": 6, "save_every": 2}
    return Config.from_dict({**values, "colour": 0.2, "scale": (0.8, 1.2), "eval_every": 3, "lr": 1e-3, **more}, "test")


def finished(config, folder, stop=lambda run: False):
    run = Run(config, folder)
    return list(run.events(lambda: stop(run))), run


def scores(events):
    return [event.scores for event in events if isinstance(event, Evaluated)]


def step_losses(events):
    return [event.loss for event in events if isinstance(event, loop.Step)]


def test_what_another_process_has_kept_takes_no_room_again():
    def work(job):
        room = len(pickle.dumps(bytes(100), protocol=5))
        samples = SharedSamples(job, 2, 2 * room)  # a piece holds one
        for rank in range(2):
            if job.rank == rank:
                samples.keep(0, bytes(100))
            job.everyone(None)
        if job.rank == 1:
            samples.keep(1, bytes(100))
        job.everyone(None)
        return samples.get(0), samples.get(1)

    assert together(2, work) == [(bytes(100), bytes(100))] * 2


def test_the_sum_of_the_hardest_pixels_is_not_multiplied():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((2, 3, 4, 4)), rng.integers(0, 3, (2, 4, 4)).astype(np.uint8)
    total, weight, _ = SemanticSegmentation("sum", hardest=0.5).loss(logits, labels)
    assert (total, weight) == (ops.hardest_cross_entropy_forward(logits, labels, hardest=0.5)[0], 0)


@pytest.mark.parametrize("average", [0, 0.9])
def test_a_run_in_processes_is_the_run_of_one(toy, tmp_path, average):
    config = settings(toy, average=average)
    want, alone = finished(config, tmp_path / "alone")
    for events, run in together(2, lambda job: finished(config, tmp_path / f"of {job.size}")):
        assert step_losses(events) == pytest.approx(step_losses(want), abs=1e-4)
        assert run.matrix.counts.sum() == alone.matrix.counts.sum()
    have, theirs = (checkpoint.read(tmp_path / name / "checkpoint.npz") for name in ("of 2", "alone"))
    assert have[1]["stream"] == theirs[1]["stream"]
    assert have[1]["generators"] == theirs[1]["generators"]
    told = [record["event"] for record in read_metrics(tmp_path / "of 2")]
    assert told == [record["event"] for record in read_metrics(tmp_path / "alone")]


def test_a_run_that_one_process_is_asked_to_stop_stops_in_all_and_goes_on_in_any_number(toy, tmp_path, caplog):
    config = settings(toy)
    want, _ = finished(config, tmp_path / "whole")

    def stopped(job):
        return finished(config, tmp_path / "run", lambda run: job.rank == 1 and run.done == 2)[0]

    for events in together(2, stopped):
        assert isinstance(events[-1], Stopped)
    (events,) = together(1, lambda job: list(Run.resume(tmp_path / "run").events(lambda: True)))
    assert events[-1].iteration == 3
    assert "in 2 processes, goes on with" in caplog.text  # other bits
    for events in together(3, lambda job: list(Run.resume(tmp_path / "run").events())):
        assert step_losses(events) == pytest.approx(step_losses(want)[3:], abs=1e-4)


@pytest.mark.parametrize("network", ["fcn", "panoptic"])
def test_a_process_reads_no_validation_image_but_its_own(network, tmp_path):
    data.write_toyvoc(tmp_path / "toy", train=2, val=3, size=40, seed=3, instances=True)

    class Noted(list):
        def __getitem__(self, index):
            self.read = [*getattr(self, "read", []), index]
            return super().__getitem__(index)

        def __iter__(self):
            return (self[i] for i in range(len(self)))

    def work(job):
        run = Run(settings(tmp_path / "toy", network=network, batch_size=2), tmp_path / "run")
        seeing = np.random.default_rng(0)
        for name, parameter in run.model.parameters().items():
            if name.split(".")[-2].startswith("score"):
                parameter.value = seeing.normal(0, 0.1, parameter.value.shape).astype(np.float32)
        run.val_data = Noted(run.val_data)
        return run.evaluate().scores(), run.val_data.read

    ((scores, read),) = together(1, work)
    assert read == [0, 1, 2]
    found = together(2, work)
    assert [own for _, own in found] == [[0, 2], [1]]
    for have, _ in found:
        np.testing.assert_equal(have, scores)


def test_one_process_writes_and_the_others_touch_nothing(toy, tmp_path):
    together(2, lambda job: finished(settings(toy), tmp_path / f"process {job.rank}"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["process 0"]


def test_what_differs_between_hosts_is_named_before_training(toy, tmp_path):
    other = tmp_path / "other"
    data.write_toyvoc(other, train=7, val=3, size=44, seed=4)

    def work(job):
        config = settings(toy)
        Run(config, tmp_path / "run") if job.rank == 0 else Run(settings(toy, lr=2e-3), tmp_path / "run")

    with pytest.raises(InputError, match=r"^settings: not the same in process 1 on \S+ as in process 0 on"):
        together(2, work)
    prints = [data.open_dataset(root, "train").fingerprint() for root in (toy, toy, other)]
    assert prints[0] == prints[1] != prints[2]
    assert not (tmp_path / "run").exists()


def test_a_mask_of_other_contents_and_the_same_size_is_noticed(toy, tmp_path):
    copy = shutil.copytree(toy, tmp_path / "toy")
    before = data.open_dataset(copy, "train")
    assert before.fingerprint() == data.open_dataset(toy, "train").fingerprint()
    mask = copy / "VOC2012" / before.mask_name(before.ids[-1])
    label = Image.open(mask)
    large = Image.fromarray(np.random.default_rng(0).integers(0, 6, (200, 200)).astype(np.uint8))
    prints = []
    for value in (0, 1):  # one pixel, in the middle of a file of which most is not read
        large.putpixel((100, 100), value)
        large.putpalette(label.getpalette())
        large.save(mask, compress_level=0)
        prints.append((mask.stat().st_size, data.open_dataset(copy, "train").fingerprint()))
    assert prints[0][0] == prints[1][0] > 4 * base.END
    assert prints[0][1] != prints[1][1]


def test_a_host_without_compiled_kernels_is_named_before_training(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "native_problem", lambda: "no C++ compiler" if world().rank else None)
    with pytest.raises(
        InputError,
        match=r"^compiled kernels: not the same in process 1 on \S+, not in use .* as in process 0 on \S+, in use;",
    ):
        together(2, lambda job: Run(settings(toy), tmp_path / "run"))


def test_an_mpi_of_one_thread_adds_up_at_once_and_says_so_once(caplog):
    def work(job):
        job.mpi.Query_thread = lambda: job.mpi.THREAD_MULTIPLE - 1
        return [job.start_sum(np.ones(3))().tolist() for _ in range(3)]

    assert together(2, work) == [[[2.0] * 3] * 3] * 2
    assert caplog.text.count("without MPI_THREAD_MULTIPLE") == 1


def test_blank_lines_are_not_handed_on_and_what_mpirun_says_itself_is_kept_for_the_end(capsys):
    said = [
        "minifcn: run/checkpoint.npz: cannot be written\n",
        " \n",
        "----\n",
        "prterun noticed\n",
        "----\n",
        "\n",
        "1/2\r",
        "done\n",
    ]
    assert launch._hand_on(said) == (True, "prterun noticed\n")
    assert capsys.readouterr().err == "minifcn: run/checkpoint.npz: cannot be written\n1/2\rdone\n"


def test_starting_weights_that_differ_are_named_before_training(toy, tmp_path, monkeypatch):
    build = models.build

    def with_a_bias_of_its_own(*given):
        network = build(*given)
        network["score_fr"].bias.value[0] = world().rank
        return network

    monkeypatch.setattr(models, "build", with_a_bias_of_its_own)
    with pytest.raises(InputError, match=r"^starting weights: not the same in process 1 on \S+, [0-9a-f]{8} as in"):
        together(2, lambda job: Run(settings(toy), tmp_path / "run"))


def test_a_process_without_a_sample_is_refused(toy, tmp_path):
    with pytest.raises(InputError, match="batch-size: expected at least one sample for each of 3 processes, got 2"):
        together(3, lambda job: Run(settings(toy, batch_size=2), tmp_path / "run"))


@pytest.mark.parametrize("environment", [{}, {"PMI_RANK": "0", "PMI_SIZE": "1"}])
def test_alone_mpi_is_not_asked_for(environment, monkeypatch):
    monkeypatch.undo()
    for name in (*distributed.LAUNCHED, *distributed.SIZES):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # its import fails
    distributed.world.cache_clear()
    job = distributed.world()
    assert (job.rank, job.size) == (0, 1)
    assert job.everyone(3) == [3]
    assert not job.any(False)
    assert job.any(True)
    distributed.world.cache_clear()


def test_without_mpi4py_a_line_says_what_to_install(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    distributed.world.cache_clear()
    with pytest.raises(InputError, match="started by a launcher of MPI, which mpi4py has to speak to: pip install"):
        distributed.world()
    distributed.world.cache_clear()
