"""A run can be stopped anywhere and goes on bit by bit; it ends cleanly on Ctrl-C and on divergence."""

import signal
import weakref

import numpy as np
import pytest
from PIL import Image
from small_datasets import SMALL, run

from minifcn import backend, data, inference, models, weights
from minifcn.data import images
from minifcn.errors import InputError
from minifcn.training import checkpoint, loop
from minifcn.training.config import Config
from minifcn.training.run import Evaluated, Run, Saved, read_metrics


def settings(toy, **more):
    values = {"data": str(toy), "width": 2, "crop": 32, "batch_size": 2, "iterations": 7, "save_every": 1}
    return Config.from_dict({**values, "colour": 0.2, "scale": (0.8, 1.2), "eval_every": 3, **more}, "test")


def finished(config, folder):
    made = Run(config, folder)
    list(made.events())
    return made


def require_same_state(one, other):
    """Weights, optimiser, data stream and generators of two runs, as their checkpoints have them, are bit-equal."""
    (want, meta), (have, other_meta) = (checkpoint.read(run.checkpoint) for run in (one, other))
    assert want.keys() == have.keys()
    assert all(np.array_equal(want[name], have[name]) for name in want)
    for key in ("stream", "generators", "best"):
        assert meta[key] == other_meta[key], key


@pytest.mark.parametrize(
    ("optimizer", "stop_after", "average"), [("sgd", 3, 0), ("adam", 1, 0), ("adam", 5, 0.9), ("adamw", 3, 0)]
)
def test_resume_is_exact_to_the_last_bit(toy, tmp_path, optimizer, stop_after, average):
    config = settings(toy, optimizer=optimizer, lr=1e-2, average=average)
    whole = finished(config, tmp_path / "whole")
    halted = Run(config, tmp_path / "halted")
    *_, last = halted.events(lambda: halted.done == stop_after)
    assert last.iteration == stop_after == read_metrics(halted.folder)[-1]["iteration"]
    resumed = Run.resume(tmp_path / "halted")
    list(resumed.events())
    require_same_state(whole, resumed)


@pytest.mark.parametrize("change", ["a shorter list", "other names"])
def test_a_run_whose_data_changed_does_not_go_on(change, tmp_path):
    root, folder = tmp_path / "toy", tmp_path / "a run"
    data.write_toyvoc(root, train=6, val=2, size=32)
    run = Run(settings(root), folder)
    list(run.events(lambda: run.done == 2))
    if change == "a shorter list":
        path = next(root.rglob("train.txt"))
        path.write_text("\n".join(path.read_text().split()[:4]))
        told = r"a run.checkpoint.npz: began with 6 images, .*; .*toy has 4, "
    else:
        path = next(root.rglob("classes.txt"))
        path.write_text("\n".join(reversed(path.read_text().split())))
        told = r"began with 6 images, classes background, .*; .* has 6, \w+, .*, background; put the data back, or begin anew with --start '.*a run.best.npz'$"
    with pytest.raises(InputError, match=told):
        Run.resume(folder)
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="if the data have moved: --resume '.*a run' --data FOLDER"):
        Run.resume(folder)


@pytest.mark.parametrize("class_weights", ["balanced", (0.1, 1.0, 1.0, 1.0, 1.0, 5.0)])
def test_a_run_with_class_weights_goes_on_exactly(class_weights, toy, tmp_path, monkeypatch):
    config = settings(toy, class_weights=class_weights)
    whole = finished(config, tmp_path / "whole")
    plain = finished(settings(toy), tmp_path / "plain")
    assert any((whole.model.state_dict()[name] != a).any() for name, a in plain.model.state_dict().items())
    halted = Run(config, tmp_path / "halted")
    list(halted.events(lambda: halted.done == 3))
    monkeypatch.setattr("minifcn.training.run.balanced_weights", lambda *_: pytest.fail("the data were read once more"))
    resumed = Run.resume(tmp_path / "halted")
    assert resumed.config == config and np.array_equal(resumed.task.class_weights, whole.task.class_weights)
    list(resumed.events())
    require_same_state(whole, resumed)


def test_a_run_on_shrunk_labels_goes_on_exactly(toy, tmp_path):
    config = settings(toy, shrink_labels=True, average=0.5)
    whole, plain = finished(config, tmp_path / "whole"), finished(settings(toy, average=0.5), tmp_path / "plain")
    assert whole.task.grid == (8, 4) and plain.task.grid is None
    losses = [[r["loss"] for r in read_metrics(one.folder) if r["event"] == "step"] for one in (whole, plain)]
    assert losses[0][1] != losses[1][1]
    halted = Run(config, tmp_path / "halted")
    list(halted.events(lambda: halted.done == 3))
    resumed = Run.resume(tmp_path / "halted")
    assert resumed.config == config
    list(resumed.events())
    require_same_state(whole, resumed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "unet"}, "shrink-labels: a network that scores every pixel itself has no smaller scores"),
        ({"network": "panoptic"}, "shrink-labels: it learns its objects from every pixel; leave it out"),
    ],
)
def test_shrunk_labels_are_refused_where_no_scores_are_smaller(options, message, toy, tmp_path):
    with pytest.raises(ValueError, match=f"^{message}"):
        Run(settings(toy, shrink_labels=True, width=None, **options), tmp_path)
    assert not any(tmp_path.iterdir())


def test_class_weights_of_other_classes_are_refused(toy, tmp_path, capsys):
    assert run("train", "--data", toy, "--out", tmp_path / "run", *SMALL, "--class-weights", "1,2") == 2
    assert "class-weights: expected one for each of background, " in capsys.readouterr().err
    for wrong in ([], [1, -1], [1, float("nan")], [0, 0], "median", [1, "x"], [1, None], [[1]], [True], [1, 10**400]):
        with pytest.raises(ValueError, match="class-weights: expected numbers"):
            settings(toy, class_weights=wrong)


@pytest.mark.parametrize("name", ["iterations", "crop", "batch_size", "seed"])
def test_counts_are_whole_numbers(name, toy):
    with pytest.raises(ValueError, match=f"{name.replace('_', '-')}: expected a whole number, got 2.5"):
        settings(toy, **{name: 2.5})


def test_a_start_of_other_classes_names_the_first(toy, tmp_path):
    first = finished(settings(toy, iterations=1), tmp_path / "first")
    first.model.card.classes = (*first.model.card.classes[:2], "tree", *first.model.card.classes[3:])
    weights.save(tmp_path / "other.npz", first.model)
    second = Run(settings(toy, start=str(tmp_path / "other.npz")), tmp_path / "second")
    assert f"; its class 2 is tree, here it is {second.model.card.classes[2]}" in second.started


def test_masks_of_void_alone_are_refused(tmp_path):
    data.write_toyvoc(tmp_path / "toy", train=2, val=2, size=32)
    for mask in (tmp_path / "toy").rglob("SegmentationClass/*.png"):
        images.write_mask(mask, np.full(np.asarray(Image.open(mask)).shape, 255, np.uint8))
    with pytest.raises(InputError, match="SegmentationClass: no pixel is labelled: all masks hold only 255"):
        Run(settings(tmp_path / "toy"), tmp_path / "run")


def test_going_on_with_another_number_of_threads_is_said(toy, tmp_path, caplog, tiling):
    tiling(threads=2)
    finished(settings(toy, iterations=1), tmp_path / "run")
    Run.resume(tmp_path / "run")
    assert "threads" not in caplog.text.lower()
    tiling(threads=1)
    Run.resume(tmp_path / "run")
    assert "trained with NumPy and 2 threads, goes on with NumPy and 1 threads: not the same bits" in caplog.text


def test_compiled_kernels_go_on_with_any_number_of_threads(toy, tmp_path, caplog, tiling, compiled):
    tiling(threads=2)
    finished(settings(toy, iterations=1), tmp_path / "run")
    caplog.clear()
    tiling(threads=1)
    Run.resume(tmp_path / "run")
    assert "not the same bits" not in caplog.text
    backend.use_native(False)
    Run.resume(tmp_path / "run")
    assert "trained with compiled kernels, goes on with NumPy and 1 threads: not the same bits" in caplog.text


def test_resume_writes_the_same_metrics_as_an_unbroken_run(toy, tmp_path):
    def happened(folder):
        times = ("seconds", "waited")
        return [{k: v for k, v in r.items() if k not in times} for r in read_metrics(folder) if r["event"] != "saved"]

    finished(settings(toy), tmp_path / "whole")
    halted = Run(settings(toy, save_every=4), tmp_path / "halted")
    for event in halted.events():  # a crash two steps after the checkpoint of iteration 4, in the middle of a line
        if isinstance(event, loop.Step) and event.iteration == 6:
            break
    with open(halted.metrics, "a") as file:
        file.write('{"event": "st')
    list(Run.resume(tmp_path / "halted").events())
    assert happened(tmp_path / "halted") == happened(tmp_path / "whole")
    assert [r["iteration"] for r in happened(tmp_path / "halted") if r["event"] == "evaluated"] == [3, 6, 7]
    assert {"event", "iteration", "loss", "rate", "seconds", "waited"} == read_metrics(tmp_path / "whole")[0].keys()


def test_the_average_of_the_weights_is_what_is_evaluated_and_kept(toy, tmp_path):
    """By hand from the weights after every update; training itself goes its way as without."""
    decay, by_hand, made = 0.3, None, Run(settings(toy, average=0.3), tmp_path / "averaged")
    by_hand = made.model.state_dict()
    for event in made.events():
        if isinstance(event, loop.Step):
            share = 1 - min(decay, (1 + event.iteration) / (10 + event.iteration))
            by_hand = {name: a + share * (made.model.state_dict()[name] - a) for name, a in by_hand.items()}
        if isinstance(event, Evaluated) and event.best:
            best = models.load(made.folder / "best.npz").state_dict()
            for name, array in by_hand.items():
                np.testing.assert_allclose(best[name], array, rtol=1e-5, atol=1e-7)
    plain = finished(settings(toy), tmp_path / "plain").model.state_dict()
    latest, kept = made.model.state_dict(), models.load(made.checkpoint).state_dict()
    for name, array in by_hand.items():
        np.testing.assert_array_equal(latest[name], plain[name])
        np.testing.assert_allclose(kept[name], array, rtol=1e-5, atol=1e-7)
    assert any((kept[name] != latest[name]).any() for name in kept)
    scores = inference.evaluate(models.load(made.checkpoint), made.val_data, 21).scores()
    last = [record for record in read_metrics(made.folder) if record["event"] == "evaluated"][-1]
    assert last["scores"]["mean_iou"] == scores["mean_iou"]


def test_done_and_best_move_with_the_events(toy, tmp_path):
    made, best = Run(settings(toy), tmp_path), None
    for event in made.events():
        assert made.done == event.iteration
        if isinstance(event, Evaluated):
            assert event.best == (best is None or event.scores["mean_iou"] > best)
            best = event.scores["mean_iou"] if event.best else best
        assert made.best == best
        if isinstance(event, Saved):
            meta = checkpoint.read(made.checkpoint)[1]
            assert (meta["iteration"], meta["best"]) == (made.done, best)
    assert made.done == 7 and best is not None


def test_a_run_of_an_older_version_goes_on(toy, tmp_path):
    """Its settings and its network's were flat."""
    whole = finished(settings(toy), tmp_path / "whole")
    halted = Run(settings(toy), tmp_path / "halted")
    list(halted.events(lambda: halted.done == 3))
    arrays, meta = checkpoint.read(halted.checkpoint)
    options = meta["config"].pop("network")["options"]
    meta["config"] |= options
    meta["network"] = meta["network"]["options"]
    checkpoint.npz.write_archive(halted.checkpoint, arrays, meta)
    resumed = Run.resume(tmp_path / "halted")
    assert resumed.config == whole.config
    list(resumed.events())
    require_same_state(whole, resumed)


def test_a_seed_trains_one_network_and_its_folder_is_not_overwritten(toy, tmp_path):
    seeds = {"a": 1, "b": 1, "c": 2}
    runs = [finished(settings(toy, seed=seed, iterations=2), tmp_path / name) for name, seed in seeds.items()]
    with pytest.raises(ValueError, match="holds a run already"):
        Run(settings(toy), tmp_path / "a")
    first, same, other = (run.model.state_dict()["vgg.conv3_1.weight"] for run in runs)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_divergence_stops_at_once_and_keeps_the_last_good_checkpoint(what, toy, tmp_path, monkeypatch):
    options = {"optimizer": "sgd", "lr": 1e20 if what == "loss" else 1e-3, "iterations": 20, "eval_every": 20}
    made = Run(settings(toy, **options), tmp_path / "run")
    if what == "weights":
        update = loop.update

        def spoil(model, *given):
            loss = update(model, *given)
            if made.done == 2:
                model.parameters()["score_fr.bias"].value[0] = np.inf
            return loss

        monkeypatch.setattr(loop, "update", spoil)
    with pytest.raises(loop.Diverged, match="try a smaller one"):
        list(made.events())
    arrays, meta = checkpoint.read(made.checkpoint)
    assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")
    assert meta["iteration"] == 2 if what == "weights" else meta["iteration"] < 20
    assert all(np.isfinite(r["loss"]) for r in read_metrics(made.folder) if r["event"] == "step")


def test_weights_that_are_none_are_not_the_best(toy, tmp_path, monkeypatch):
    made, update = Run(settings(toy, iterations=3, eval_every=1), tmp_path / "run"), loop.update

    def spoil(model, *given):
        loss = update(model, *given)
        if made.done == 1:  # in the second
            model.parameters()["score_fr.bias"].value[0] = np.nan
        return loss

    monkeypatch.setattr(loop, "update", spoil)
    with pytest.raises(loop.Diverged, match="iteration 2: weights are not finite"):
        list(made.events())
    models.load(made.folder / "best.npz")


def test_skips_that_one_scales_and_the_other_does_not_are_no_start(toy, tmp_path):
    first = Run(settings(toy, variant="8s", at_once=True, iterations=1), tmp_path / "first")
    list(first.events())
    start = {"variant": "8s", "start": str(first.checkpoint)}
    with pytest.raises(InputError, match="at-once: an FCN-8s that scales its skips; add --at-once"):
        Run(settings(toy, **start), tmp_path / "second")
    Run(settings(toy, **start, at_once=True), tmp_path / "second")


def test_best_weights_are_those_of_the_highest_score(toy, tmp_path):
    made = Run(settings(toy, iterations=9), tmp_path / "run")
    best = [e for e in made.events() if isinstance(e, Evaluated) and e.best][-1]
    model = models.load(made.folder / "best.npz")
    matrix = inference.evaluate(model, made.val_data, len(model.card.classes))
    assert matrix.mean_iou() == best.scores["mean_iou"] == made.best


def test_a_finer_stage_begins_where_the_coarser_one_ended(toy, tmp_path):
    coarse = finished(settings(toy, variant="32s", iterations=3), tmp_path / "32s")
    fine = Run(settings(toy, variant="16s", start=str(coarse.checkpoint)), tmp_path / "16s").model.state_dict()
    for name in ("vgg.conv1_1.weight", "vgg.bn7.running_mean", "score_fr.bias"):
        np.testing.assert_array_equal(fine[name], coarse.model.state_dict()[name])
    assert not fine["score_pool4.weight"].any()


def test_the_momentum_of_the_settings_is_the_optimizers(toy, tmp_path):
    run = Run(settings(toy, optimizer="sgd", momentum=0.25), tmp_path / "run")
    assert (run.optimizer.momentum, run.optimizer.weight_decay) == (0.25, run.config.weight_decay)


def test_a_network_of_other_classes_gives_all_but_its_scores(tmp_path):
    given, model = (models.fcn("8s", "mini", count, seed=count, width=2) for count in (6, 3))
    for name, parameter in given.parameters().items():
        if name.startswith("score"):
            parameter.value += 1
    weights.save(tmp_path / "six.npz", given)
    message = checkpoint.start_from(tmp_path / "six.npz", model)
    assert "it has 6 classes, this network 3" in message
    theirs = given.state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("score"):
            assert not value.any()
        else:
            np.testing.assert_array_equal(value, theirs[name])


def test_a_stage_lets_go_of_the_network_before_it(toy, tmp_path, monkeypatch):
    networks, make = [], Run.__init__

    def watched(made, *given, **more):
        assert not any(network() for network in networks), "the network of an earlier stage is still in memory"
        make(made, *given, **more)
        networks.append(weakref.ref(made.model))

    monkeypatch.setattr(Run, "__init__", watched)
    assert run("reproduce", "--data", toy, "--out", tmp_path / "stages", *SMALL) == 0
    assert len(networks) == 5  # the classifier's, three FCNs', and one to see whether they can be built


def test_the_backbone_has_its_own_rate_and_its_statistics_can_be_frozen(toy, tmp_path):
    made = Run(settings(toy, backbone_rate=0.0, frozen_statistics=True, iterations=2), tmp_path)
    before = made.model.state_dict()
    list(made.events())
    moved = {name for name, value in made.model.state_dict().items() if not np.array_equal(value, before[name])}
    assert moved and all(name.startswith("score_") for name in moved)


def test_scores_have_their_own_rate(toy, tmp_path):
    plain, fast = (Run(settings(toy, score_rate=rate), tmp_path / f"{rate}").model.parameters() for rate in (1.0, 10.0))
    assert {name for name in plain if fast[name].lr_mult == 10 * plain[name].lr_mult} == {
        *(f"score_{part}.{kind}" for part in ("fr", "pool3", "pool4") for kind in ("weight", "bias"))
    }
    others = plain.keys() - {name for name in plain if name.startswith("score_")}
    assert all(fast[name].lr_mult == plain[name].lr_mult for name in others)


@pytest.mark.parametrize(
    "values",
    [5, {"crop": 3}, {"data": "x", "unknown": 1}, {"data": "x", "network": {"builder": 3}}, {"data": "x", "limit": 0}],
)
def test_settings_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match="expected"):
        Config.from_dict(values, "config.json")


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(toy, tmp_path, capsys, monkeypatch):
    update, losses = loop.update, []

    def third_is_interrupted(*given):
        losses.append(update(*given))
        if len(losses) == 3:
            signal.raise_signal(signal.SIGINT)
        return losses[-1]

    monkeypatch.setattr(loop, "update", third_is_interrupted)
    out = tmp_path / "run"
    assert run("train", "--data", toy, "--out", out, *SMALL, "--iterations", "100000") == 130
    assert f"minifcn train --resume {out}" in capsys.readouterr().err.splitlines()[-1]
    assert Run.resume(out).done == len(losses) == 3
    assert [r["event"] for r in read_metrics(out)] == ["step"] * 3 + ["saved", "stopped"]
