"""The commands do what they say, and wrong input ends in one line and exit code 2."""

import argparse
import contextlib
import errno
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_datasets import SMALL

from minifcn import backend, cli, data, gradcheck, layers, metrics, models, ops, weights
from minifcn.cli import explain, options, predict
from minifcn.cli.options import named_images
from minifcn.cli.train import seconds_of
from minifcn.report import tables
from minifcn.training.run import Run, read_metrics


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    data.write_toyvoc(root, train=4, val=2, size=40, seed=1)
    return root


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "demo"
    with contextlib.redirect_stderr(io.StringIO()) as err:
        assert cli.main(["reproduce", "--data", str(toy), "--out", str(out), *SMALL]) == 0
    assert "it/s" not in err.getvalue()  # no progress bar where there is no terminal
    return out


def fails(capsys, *arguments):
    """Run a command that must be refused; -> its one line."""
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as ended:  # by the parser of the arguments
        code = ended.code
    assert code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("minifcn")]
    return line


def test_images_are_shrunk_as_in_training_unless_told_otherwise(toy, tmp_path, capsys):
    assert cli.main(list(map(str, train(toy, tmp_path / "run", "--resize", 24)))) == 0
    best, image = tmp_path / "run/best.npz", next((toy / "VOC2012/JPEGImages").iterdir())
    network, rng = models.load(best), np.random.default_rng(0)
    assert network.card.longest == 24
    for name, parameter in network.parameters().items():  # so that it finds several classes
        if name.startswith("score"):
            parameter.value = rng.normal(size=parameter.value.shape).astype(np.float32)
    weights.save(best, network)

    def mask(*more, image=image):
        assert cli.main(["predict", "--weights", str(best), "--out", str(tmp_path / "masks"), *more, str(image)]) == 0
        return np.array(Image.open(tmp_path / "masks" / f"{image.stem}.png"))

    def score(*more):
        capsys.readouterr()
        assert cli.main(["evaluate", "--weights", str(best), "--data", str(toy), *more]) == 0
        first, _, rest = capsys.readouterr().out.partition("\n\n")
        return f"{first.rpartition(' ')[0]}\n{rest}"  # without the seconds

    def searched():
        capsys.readouterr()
        assert (
            cli.main(
                ["crf-search", "--weights", str(best), "--data", str(toy), "--weight", "1", "--xy", "9", "--rgb", "9"]
            )
            == 0
        )
        return next(line for line in capsys.readouterr().out.splitlines() if "without a CRF" in line)

    np.testing.assert_array_equal(mask(), mask("--resize", "24"))
    assert (mask("--resize", "40") != mask()).any()
    np.testing.assert_array_equal(mask("--tile", "128"), mask("--resize", "100"))
    assert score() == score("--resize", "24") != score("--resize", "40")
    samples = data.open_dataset(toy, "val")
    matrix = metrics.ConfusionMatrix(len(samples.classes))  # of the masks that predict writes, at full size
    for sample in samples:
        matrix.update(sample.label, mask(image=toy / f"VOC2012/JPEGImages/{sample.id}.jpg"))
    assert tables.class_table(matrix, samples.classes) in score() + "\n"
    assert f"{100 * matrix.mean_iou():.2f}" in searched()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_standard_output_is_told_in_one_line(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "minifcn", "info"], stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert (done.returncode, done.stderr) == (2, f"minifcn: standard output: {os.strerror(errno.ENOSPC)}\n")


def test_what_fcn_32s_refuses_is_refused_before_a_classifier_is_trained(toy, tmp_path, capsys):
    for more, told in (
        (["--upsampling", "bilinear"], "upsampling: expected one of frozen"),
        (["--crop", 0], "batch size must be 1"),
    ):
        assert told in fails(capsys, "reproduce", "--data", toy, "--out", tmp_path / "run", *SMALL, *more)
        assert not (tmp_path / "run/classifier").exists()


def test_a_run_that_goes_on_counts_the_seconds_before(toy, tmp_path):
    assert cli.main(list(map(str, train(toy, tmp_path / "run")))) == 0
    before = sum(record.get("seconds", 0) for record in read_metrics(tmp_path / "run"))
    assert seconds_of(Run.resume(tmp_path / "run"), "again", "") >= before > 0


def config_of(*arguments):
    """The Config of a run that arguments describe."""
    parser = argparse.ArgumentParser()
    options.add_training(parser, single=True)
    return options.config_of(parser.parse_args(["--data", "mydata", *arguments]))


def test_a_run_from_imagenet_has_defaults_of_its_own_and_what_is_given_counts():
    plain, fine = (
        config_of("--backbone", "efficientnet_lite0"),
        config_of("--network", "deeplab", "--start", "imagenet"),
    )
    assert (plain.optimizer, plain.backbone_rate, plain.frozen_statistics) == ("adam", 1, False)
    assert (fine.optimizer, fine.backbone_rate, fine.frozen_statistics) == ("adamw", 0.04, True)
    assert fine.options["backbone"] == "efficientnet_lite0_head" and fine.options["variant"] == "v3plus"
    own = ["--start", "imagenet", "--backbone", "efficientnet_lite0", "--no-frozen-statistics", "--crop", "0"]
    given = config_of(*own)
    assert (given.options["backbone"], given.frozen_statistics, given.crop) == ("efficientnet_lite0", False, None)
    assert given.lr == fine.lr != plain.lr


def train(root, out, *more):
    return ["train", "--data", root, "--out", out, *SMALL, *more]


def test_reproduce_leaves_a_complete_folder_and_a_page_that_needs_nothing_else(trained):
    for stage in ("classifier", "32s", "16s", "8s"):
        names = {path.name for path in (trained / stage).iterdir()}
        steps = {"figures"} if stage != "classifier" else set()  # what was predicted at each evaluation
        assert names == {"config.json", "metrics.jsonl", "checkpoint.npz", "best.npz", ".lock"} | steps
    for figure in ("curves", "side_by_side", "confusion", "heat_maps"):
        assert Image.open(trained / "figures" / f"{figure}.png").size[0] > 300
    scores = json.loads((trained / "scores.json").read_text())
    assert list(scores) == ["classifier", "FCN-32s", "FCN-16s", "FCN-8s"]
    for stage, start in (("32s", "classifier"), ("16s", "32s"), ("8s", "16s")):
        assert json.loads((trained / stage / "config.json").read_text())["start"].endswith(f"{start}/checkpoint.npz")
    page = (trained / "report.html").read_text()
    kept = list(trained.glob("*/figures/steps/*.png"))
    assert len(kept) >= 6
    assert page.count("data:image/png;base64,") == 4 + len(kept)
    assert "http" not in page and "<script " not in page and 'src="/' not in page
    for text in ("FCN-32s", "FCN-8s", "mean IU", "pixel acc.", "background", "weight_decay"):
        assert text in page


def test_reproduce_again_goes_on_from_what_is_there(trained, toy, capsys):
    before = (trained / "8s/checkpoint.npz").read_bytes()
    scores = json.loads((trained / "scores.json").read_text())
    (trained / ".report.html.1.part").write_bytes(b"what a killed process left")
    command = ["reproduce", "--data", str(toy), *SMALL]
    assert cli.main([*command, "--out", str(trained)]) == 0
    again = json.loads((trained / "scores.json").read_text())
    assert (trained / "8s/checkpoint.npz").read_bytes() == before
    assert not list(trained.glob(".*.part"))
    for name, values in scores.items():
        assert again[name]["mean_iou"] == values["mean_iou"]
        assert again[name]["seconds"] > 0
    assert "holds a run with other settings" in fails(capsys, *command, "--out", trained, "--lr", "0.5")


def test_reproduce_from_scratch_and_with_a_control(toy, tmp_path, capsys):
    """The control is FCN-32s with as many updates as 16s and 8s have had, each time from where it stood."""
    command = ["reproduce", "--data", str(toy), "--out", str(tmp_path), *SMALL, "--from-scratch", "--control"]
    assert cli.main(command) == 0
    assert {path.name for path in tmp_path.iterdir() if (path / "checkpoint.npz").exists()} == {
        *("32s", "32s-2x", "32s-3x", "16s", "8s")
    }
    configs = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/config.json")}
    starts = {name: config["start"] and Path(config["start"]).parent.name for name, config in configs.items()}
    assert starts == {"32s": None, "32s-2x": "32s", "32s-3x": "32s-2x", "16s": "32s", "8s": "16s"}
    assert {configs[name]["network"]["options"]["variant"] for name in ("32s", "32s-2x", "32s-3x")} == {"32s"}
    assert list(json.loads((tmp_path / "scores.json").read_text())) == [
        *("FCN-32s", "FCN-32s 2x", "FCN-32s 3x", "FCN-16s", "FCN-8s")
    ]


def test_a_classifiers_stage_is_not_for_train(trained, capsys):
    line = fails(capsys, "train", "--resume", trained / "classifier")
    assert "holds the first stage of minifcn reproduce; go on with that command" in line


def test_the_first_line_says_what_computes(trained, toy, monkeypatch, capsys):
    """Without an NVIDIA driver nothing is said of GPUs; with one that cannot be used, where to look."""
    command = ["evaluate", "--weights", str(trained / "8s/best.npz"), "--data", str(toy)]
    monkeypatch.setattr(
        "minifcn.backend.cuda.probe", lambda *number: (None, "CuPy is installed but has no working GPU")
    )
    for driver, expected in ((None, "CPU, 2 threads"), ((12, 4), "CPU, 2 threads; why no GPU: minifcn info")):
        monkeypatch.setattr("minifcn.backend.diagnosis.driver_cuda", lambda driver=driver: driver)
        monkeypatch.setattr("minifcn.backend.threads", lambda: 2)
        assert cli.main(command) == 0
        assert capsys.readouterr().err.splitlines()[0] == expected


def test_evaluate_prints_four_scores_and_a_line_for_each_class(trained, toy, capsys):
    command = ["evaluate", "--weights", str(trained / "8s/best.npz"), "--data", str(toy), "--classes", "0,disc"]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert all(title in out for title in ("pixel acc.", "mean acc.", "mean IU", "f.w. IU", "background"))
    assert "mean IU over 2 classes (background, disc)" in out


def test_weights_without_class_names_are_scored_under_those_of_the_data(toy, tmp_path, capsys):
    network = models.fcn("8s", "mini", 6, width=2)
    weights.save(tmp_path / "w.npz", network)
    assert cli.main(["evaluate", "--weights", str(tmp_path / "w.npz"), "--data", str(toy)]) == 0
    assert "background" in capsys.readouterr().out
    network.card.classes = ("background", *"abcde")
    weights.save(tmp_path / "named.npz", network)
    line = fails(capsys, "evaluate", "--weights", tmp_path / "named.npz", "--data", toy)
    assert "the first difference is class 1: a in the network, disc in the data" in line


def test_predict_writes_masks_and_overlays_of_the_images_own_sizes(trained, tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = tmp_path / "in"
    images.mkdir()
    sizes = {"one": (1, 1), "wide": (70, 33), "tall": (20, 97)}
    for name, size in sizes.items():
        Image.fromarray(rng.integers(0, 255, size[::-1] + (3,), np.uint8)).save(images / f"{name}.png")
    shutil.copy(images / "wide.png", images / "wide.bmp")
    out = tmp_path / "out"
    assert cli.main(["predict", "--weights", str(trained / "8s/checkpoint.npz"), "--out", str(out), str(images)]) == 0
    for name in ("one.png", "tall.png", "wide.png.png", "wide.bmp.png"):
        mask = Image.open(out / name)
        assert (mask.mode, mask.size) == ("P", sizes[name.split(".")[0]])
    assert Image.open(out / "one_overlay.jpg").size == (1, 1)
    printed = capsys.readouterr()
    for name in ("one.png", "tall.png", "wide.png", "wide.bmp"):
        assert f"{images / name}: " in printed.out
    assert "4 images: " in printed.out and "4 masks and overlays written" in printed.err


def test_shares_of_classes_are_those_of_the_mask():
    labels = np.uint8([[2, 2, 2, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    found = predict.shares_of(np.bincount(labels.reshape(-1)), ("ground", "leaf", "root", "stem"))
    assert list(found.items()) == [("ground", 8 / 12), ("root", 3 / 12), ("leaf", 1 / 12)]


def test_predict_skips_what_it_cannot_read_and_writes_over_no_image(trained, tmp_path, capsys):
    for name in ("a.jpg", "b.png", "c_overlay.jpg", "c.jpg"):
        Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    command = ["predict", "--weights", str(trained / "8s/best.npz"), "--tile", "128", "--resize", "32"]
    assert "would be written over" in fails(capsys, *command, "--out", tmp_path, tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert cli.main([*command, "--out", str(tmp_path / "out"), str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "3 masks and overlays written" in err and f"skipped: {tmp_path / 'b.png'}: not a readable image" in err
    assert {Image.open(path).size for path in (tmp_path / "out").iterdir()} == {(50, 40)}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_that_lacks_a_character_gets_a_question_mark(encoding, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", console)
    monkeypatch.setattr(explain, "HELP", "背景")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    console.flush()
    assert b"??" in console.buffer.getvalue()


def test_commands_run_with_the_backend_of_a_notebook_that_is_not_installed():
    environment = {**os.environ, "MPLBACKEND": "module://nobody.has.it"}
    run = subprocess.run([sys.executable, "-m", "minifcn", "explain", "--help"], env=environment, capture_output=True)
    assert (run.returncode, run.stderr) == (0, b"")
    environment["MPLBACKEND"] = "Qt4Agg"
    assert (
        subprocess.run([sys.executable, "-m", "minifcn", "--help"], env=environment, capture_output=True).returncode
        == 0
    )


def test_explain_takes_what_a_network_is_built_with(capsys):
    def explained(*options):
        assert cli.main(["explain", "efficientnet_lite0", "--variant", "v3", "--size", "64", *options]) == 0
        return capsys.readouterr().out

    assert explained() != explained("--no-image-pooling") != explained("--no-image-pooling", "--rates", "2")
    assert cli.main(["explain", "efficientnet_lite0_head", "--variant", "v3", "--size", "64"]) == 0
    assert "--variant 8s" in fails(capsys, "explain", "efficientnet_lite0_head")


def test_settings_beside_resume_are_not_ignored(trained, capsys):
    line = fails(capsys, "train", "--resume", trained / "8s", "--iterations", "6", "--backbone-rate", "1")
    assert "got another --iterations;" in line and f"--start {trained / '8s/best.npz'}" in line
    assert cli.main(["train", "--resume", str(trained / "8s"), "--iterations", "2", "--crop", "32"]) == 0


def test_a_run_may_be_started_from_any_thread(toy, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.main, [str(a) for a in train(toy, tmp_path / "run")]).result() == 0


@pytest.fixture
def quick_gradcheck(monkeypatch):
    whole = gradcheck.check_layer
    quick = lambda model, x, rng, **_: whole(model, x[:2], rng, directions=1, elements=0)  # noqa: E731
    monkeypatch.setattr(gradcheck, "check_layer", quick)


def test_gradcheck_command_reports_and_fails_on_a_wrong_backward(quick_gradcheck, monkeypatch, capsys):
    assert cli.main(["gradcheck", "--variant", "32s"]) == 0
    assert "FCN-32s: worst relative error" in capsys.readouterr().out
    monkeypatch.setitem(ops.activation.PASSED, "relu", lambda y: y == y)
    assert "above 1e-06" in fails(capsys, "gradcheck", "--variant", "32s")


def test_a_bug_shows_its_traceback_and_is_no_wrong_input(toy, tmp_path, monkeypatch):
    def wrong(*_, **options):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(layers.Conv2d, "run", wrong)
    with pytest.raises(ValueError, match="broadcast") as bug:
        cli.main([str(a) for a in train(toy, tmp_path / "run")])
    assert type(bug.value) is ValueError


def test_debug_shows_the_traceback_of_wrong_input_above_its_line(capsys):
    assert cli.main(["--debug", "predict", "--weights", "nowhere.npz", "image.png"]) == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert (
        first.startswith("CPU, ") and lines[0].startswith("Traceback") and lines[-1].startswith("minifcn: nowhere.npz")
    )


@pytest.mark.parametrize("command", [[], ["data", "toy"], ["data", "download"]])  # test_devices has the others
def test_help_exists(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out) > 300


def test_a_file_of_the_data_that_cannot_be_used_is_named_before_anything_is_written(toy, tmp_path, capsys):
    broken = tmp_path / "data"
    shutil.copytree(toy, broken)
    id = (broken / "VOC2012/ImageSets/Segmentation/train.txt").read_text().split()[0]
    path = broken / "VOC2012/SegmentationClass" / f"{id}.png"
    path.write_bytes(path.read_bytes()[:200])
    line = fails(capsys, *train(broken, tmp_path / "run", "--iterations", "4"))
    assert f"{path}: not a readable image" in line
    path.unlink()
    line = fails(capsys, *train(broken, tmp_path / "other"))
    assert f"{path}: no mask for id '{id}'" in line and not (tmp_path / "other").exists()


def test_checkpoint_of_another_network(trained, tmp_path, toy, capsys):
    fine = trained / "8s/checkpoint.npz"
    line = fails(capsys, *train(toy, tmp_path / "run", "--variant", "16s", "--start", fine))
    assert "FCN-16s cannot start from the finer FCN-8s" in line and str(fine) in line
    wide = fails(
        capsys,
        *train(toy, tmp_path / "run", "--variant", "16s", "--start", trained / "32s/checkpoint.npz", "--width", "3"),
    )
    assert "vgg.conv1_1.weight" in wide and "32s/checkpoint.npz" in wide


def test_network_for_other_classes(trained, tmp_path, capsys):
    data.write_toyvoc(tmp_path, train=1, val=1, size=16)
    (tmp_path / "VOC2012/classes.txt").write_text("background\nthing\n")
    line = fails(capsys, "evaluate", "--weights", trained / "8s/best.npz", "--data", tmp_path)
    assert "a network for 6 classes" in line and "has 2" in line


def test_a_wrong_number_of_threads_is_refused_by_its_variable(monkeypatch, capsys):
    backend.set_threads()
    monkeypatch.setenv("MINIFCN_THREADS", "x")
    assert fails(capsys, "gradcheck").startswith("minifcn: MINIFCN_THREADS: expected a whole number")


def test_diverging_learning_rate_keeps_the_last_good_checkpoint(toy, tmp_path, capsys):
    out = tmp_path / "run"
    line = fails(capsys, *train(toy, out, "--optimizer", "sgd", "--lr", "1e20", "--iterations", "20"))
    assert "try a smaller one" in line and f"the last good checkpoint, iteration 0, is {out / 'checkpoint.npz'}" in line
    assert cli.main(["evaluate", "--weights", str(out / "checkpoint.npz"), "--data", str(toy)]) == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --data TOY --out run --batch-size 2 --iterations 0", "iterations: expected at least 1"),
        ("train --data TOY --out run --batch-size 2 --iterations many", "invalid int value: 'many'"),
        ("train --data TOY --out run --batch-size 2 --split nosuch", "train, trainval, val"),
        ("train --data TOY --out run --batch-size 2 --lr -1", "lr: expected a positive"),
        ("train --data TOY --out run --batch-size 2 --crop 0", "batch size must be 1"),
        ("train --data TOY --out run --batch-size 2 --scale 2 1", "scale: expected two factors"),
        ("train --data TOY --out run --batch-size 2 --scale 1 1e9", "scale: expected two factors"),
        ("train --data TOY --out run --batch-size 2 --seed -1", "seed: expected at least 0"),
        ("train --data TOY --out run --batch-size 2 --weight-decay nan", "weight-decay: expected at least 0"),
        ("train --data TOY --out run --batch-size 2 --momentum 2", "momentum: expected a number from 0 to 1"),
        ("train --data TOY --out run --batch-size 2 --colour -1", "colour: expected a number from 0 to 1"),
        ("train --data TOY --out run --batch-size 2 --backbone vgg16 --width 4", "only the mini backbone"),
        ("train", "expected --data FOLDER, or --resume FOLDER"),
        ("train --data nowhere", "nowhere: no such folder"),
        ("train --resume nowhere", "nowhere/checkpoint.npz"),
        ("evaluate --weights text.txt --data TOY", "text.txt"),
        ("evaluate --weights WEIGHTS --data TOY --limit 0", "limit: expected at least 1, got 0"),
        ("evaluate --weights WEIGHTS --data TOY --resize -4", "resize: expected at least 1, got -4"),
        ("evaluate --weights WEIGHTS --data TOY --tile 33", "tile: expected a multiple of 32"),
        ("evaluate --weights WEIGHTS --data TOY --classes unicorn", "got 'unicorn'"),
        ("predict --weights WEIGHTS", "see minifcn predict --help"),
        ("predict --weights WEIGHTS nowhere.jpg", "nowhere.jpg: no such file"),
        ("predict --weights WEIGHTS text.txt", "text.txt: not a readable image"),
        ("predict --weights WEIGHTS TOY", "expected images"),
        ("predict --weights WEIGHTS IMAGE --out text.txt", "text.txt: cannot be written"),
        ("gradcheck --seed -1", "seed: expected at least 0, got -1"),
        ("data toy TOY", "expected an empty or absent folder"),
        ("explain mini --depth 2", "depth: mini has no such option"),
        ("explain mini --variant 8s --rates 2", "rates: fcn has no such option; it has variant, width"),
        ("explain vgg16 --variant 8s --channels 1", "channels: fcn has no such option"),
        ("explain vgg16 --variant 8s --backbone mini", "backbone: fcn has no such option"),
        ("explain unet --at-once", "at-once: unet has no such option; it has backbone"),
        ("explain efficientnet_lite0 --variant v3 --alignment same", "alignment: deeplab has no such option"),
        (
            "convert imagenet x.npz --network vgg16 --variant aspp --upsampling learned",
            "upsampling: deeplab has no such",
        ),
        ("convert WEIGHTS x.npz --variant 8s", "which say of what network they are; leave out --variant"),
        ("convert WEIGHTS x.npz --network vgg16", "leave out --network"),
        ("train --data TOY --variant v3 --backbone mini", "deeplab: backbone: expected one of vgg16, "),
        ("train --data TOY --network fcn --variant v3", "fcn: variant: expected one of"),
        ("train --data TOY --out run --sigma 8", "sigma: counts in a panoptic network only; leave it out"),
        ("train --data TOY --out run --offset-weight 1", "offset-weight: counts in a panoptic network only"),
        ("train --data TOY --out run --momentum 0.5", "momentum: counts for sgd only"),
        ("train --data TOY --out run --network unet --backbone-rate 1", "backbone-rate: counts over a backbone only"),
        ("train --data TOY --out run --backbone vgg16 --frozen-statistics", "frozen-statistics: there are none"),
        (
            "train --data TOY --out run --network panoptic --start x --frozen-semantic --reduction mean",
            "reduction: counts where classes are learned only",
        ),
        ("train --resume WEIGHTS --out run", "out: --resume goes on in the folder of the run"),
        (
            "train --data TOY --out run --network deeplab --variant largefov --score-rate 10",
            "score-rate: counts outside largefov and aspp only",
        ),
        ("train --data TOY --out run --turn --no-flip", "flip: counts without turn only"),
        ("reproduce --data TOY --out run --sigma 4", "sigma: counts in a panoptic network only"),
        ("explain unet --backbone efficientnet_lite0 --depth 5", "depth: counts without a backbone only"),
        ("explain mini --variant 32s --at-once", "at-once: counts in FCN-16s and 8s"),
        ("explain vgg16 --variant aspp --no-image-pooling", "image-pooling: counts in v3 and v3plus only"),
        ("explain panoptic --backbone efficientnet_lite0 --width 4", "width: counts over mini only"),
        ("export unet.npz x.onnx --fold", "unet.npz: has no normalisation to fold"),
        ("data toy text.txt", "text.txt"),
        ("data doctor nowhere", "nowhere: no such folder"),
    ],
)
def test_wrong_input_ends_in_one_line(command, message, trained, toy, tmp_path, monkeypatch, capsys, blank):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("no image")
    weights.save("unet.npz", models.unet(width=1, depth=1))
    image = next((toy / "VOC2012/JPEGImages").iterdir())
    known = {"WEIGHTS": trained / "8s/best.npz", "TOY": toy, "IMAGE": image}
    assert message in fails(capsys, *(known.get(word, word) for word in command.split()))


def test_no_picture_of_others_is_overwritten(trained, toy, tmp_path, capsys):
    folder = shutil.copytree(toy, tmp_path / "copy") / "VOC2012"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    mask = min((folder / "SegmentationClass").iterdir())
    words = ["predict", "--weights", trained / "8s/best.npz", folder / "JPEGImages", "--out", mask.parent]
    assert f"{mask}: is there already, and no mask of minifcn's" in fails(capsys, *words)
    words = ["data", "doctor", tmp_path / "copy", "--picture"]
    assert "inside the data set, in which nothing is changed" in fails(capsys, *words, mask)
    assert "expected a place in a folder that is there" in fails(capsys, *words, tmp_path / "absent/p.png")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_picture_that_cannot_be_reached_is_skipped(trained, toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("loop.jpg").symlink_to("loop.jpg")
    image = next((toy / "VOC2012/JPEGImages").iterdir())
    words = ["predict", "--weights", trained / "8s/best.npz", "loop.jpg", "x" * 300 + ".jpg", image]
    assert cli.main([str(word) for word in words]) == 1
    printed = capsys.readouterr()
    assert str(image) in printed.out and printed.err.count("skipped: ") == 2


def test_without_a_terminal_a_command_works(trained, toy, tmp_path):
    image = next((toy / "VOC2012/JPEGImages").iterdir())
    words = [sys.executable, "-m", "minifcn", "predict", "--weights", trained / "8s/best.npz", image, "--out", tmp_path]
    shell = f"{shlex.join(map(str, words))} 2>&- >&-"
    assert subprocess.run(shell, shell=True).returncode == 0 and (tmp_path / f"{image.stem}.png").is_file()


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.jpg", "a/y.jpg"], ["x", "y"]),
        (["a/x.jpg", "a/x.png"], ["x.jpg", "x.png"]),
        (["a/x.jpg", "b/x.jpg"], ["a_x.jpg", "b_x.jpg"]),
        (["c/a/x.jpg", "d/a/x.jpg", "x.jpg"], None),
        (["x.jpg", "x.png", "x.jpg.jpg"], ["x.jpg", "x.png", "x.jpg.jpg"]),  # a longer name is another's stem
    ],
)
def test_results_of_two_images_never_have_one_name(files, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in map(Path, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    found = [name for _, name in named_images([*files, files[0]])]  # one that is named twice is done once
    assert found == names if names else len(set(found)) == len(files)
