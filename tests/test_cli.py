"""The commands do what they say, and wrong input ends in one line and exit code 2."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from voc_trees import SMALL

from minifcn import cli, data
from minifcn.cli.options import named_images


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    data.write_toyvoc(root, train=4, val=2, size=40, seed=1)
    return root


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "demo"
    assert cli.main(["reproduce", "--data", str(toy), "--out", str(out), *SMALL]) == 0
    return out


@pytest.fixture
def broken(toy, tmp_path):
    """A copy of the toy data that a test may spoil."""
    shutil.copytree(toy, tmp_path / "data")
    return tmp_path / "data"


def fails(capsys, *arguments):
    """Run a command that must fail; -> its one line."""
    assert cli.main([str(a) for a in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("minifcn: ")]
    assert len(lines) == 1
    return lines[0]


def train(root, out, *more):
    return ["train", "--data", root, "--out", out, *SMALL, *more]


def folder(root):
    return root / "VOC2012"


def first_id(root):
    return (folder(root) / "ImageSets/Segmentation/train.txt").read_text().split()[0]


def test_reproduce_leaves_a_complete_folder(trained, capsys):
    for stage in ("32s", "16s", "8s"):
        names = {path.name for path in (trained / stage).iterdir()}
        assert names == {"config.json", "metrics.jsonl", "checkpoint.npz", "best.npz", ".lock"}
    for figure in ("curves", "side_by_side", "confusion"):
        assert Image.open(trained / "figures" / f"{figure}.png").size[0] > 300
    scores = json.loads((trained / "scores.json").read_text())
    assert list(scores) == ["FCN-32s", "FCN-16s", "FCN-8s"]
    assert json.loads((trained / "16s/config.json").read_text())["start"].endswith("32s/checkpoint.npz")


def test_the_report_is_self_contained(trained):
    page = (trained / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page and "<script" not in page and 'src="/' not in page
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


def test_evaluate_prints_four_scores_and_a_line_for_each_class(trained, toy, capsys):
    command = ["evaluate", "--weights", str(trained / "8s/best.npz"), "--data", str(toy), "--classes", "0,disc"]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert all(title in out for title in ("pixel acc.", "mean acc.", "mean IU", "f.w. IU", "background"))
    assert "mean IU over 2 classes (background, disc)" in out


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


def test_progress_is_silent_when_not_on_a_terminal(toy, tmp_path, capsys):
    assert cli.main([str(a) for a in train(toy, tmp_path / "run")]) == 0
    assert "it/s" not in capsys.readouterr().err


def test_gradcheck_command_passes_and_reports(capsys):
    assert cli.main(["gradcheck", "--variant", "32s"]) == 0
    assert "FCN-32s: worst relative error" in capsys.readouterr().out


def test_gradcheck_command_fails_on_a_wrong_backward(monkeypatch, capsys):
    from minifcn import ops

    monkeypatch.setattr(ops, "relu_backward", lambda dy, cache, *, out=None: dy)
    assert "above 1e-06" in fails(capsys, "gradcheck", "--variant", "32s")


@pytest.mark.parametrize(
    "command",
    [[], ["train"], ["reproduce"], ["evaluate"], ["predict"], ["gradcheck"], ["data", "toy"], ["data", "download"]],
)
def test_help_exists(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out) > 300


def test_missing_split_file(toy, tmp_path, capsys):
    line = fails(capsys, *train(toy, tmp_path / "run", "--split", "nosuch"))
    assert "nosuch.txt" in line and "train, trainval, val" in line
    assert not (tmp_path / "run").exists()


def test_missing_data_folder(tmp_path, capsys):
    assert "nowhere: no such folder" in fails(capsys, *train(tmp_path / "nowhere", tmp_path / "run"))


@pytest.mark.parametrize(("kind", "place"), [("image", "JPEGImages/{}.jpg"), ("mask", "SegmentationClass/{}.png")])
def test_id_without_its_file(broken, tmp_path, capsys, kind, place):
    gone = folder(broken) / place.format(first_id(broken))
    gone.unlink()
    line = fails(capsys, *train(broken, tmp_path / "run"))
    assert str(gone) in line and f"no {kind} for id '{first_id(broken)}'" in line


def spoil_mask(broken, change):
    path = folder(broken) / "SegmentationClass" / f"{first_id(broken)}.png"
    with Image.open(path) as mask:
        changed = change(mask.copy())
    changed.save(path)
    return path


def test_mask_of_another_size(broken, tmp_path, capsys):
    path = spoil_mask(broken, lambda mask: mask.resize((17, 19)))
    line = fails(capsys, *train(broken, tmp_path / "run", "--iterations", "4"))
    assert str(path) in line and "got 17x19" in line


def test_rgb_mask(broken, tmp_path, capsys):
    path = spoil_mask(broken, lambda mask: mask.convert("RGB"))
    line = fails(capsys, *train(broken, tmp_path / "run"))
    assert str(path) in line and "expected a palette PNG" in line and "got a RGB image" in line


def test_label_outside_the_classes(broken, tmp_path, capsys):
    def change(mask):
        for x in range(3):
            mask.putpixel((x, 0), 77)
        return mask

    path = spoil_mask(broken, change)
    line = fails(capsys, *train(broken, tmp_path / "run"))
    assert str(path) in line and "77 (3 pixels)" in line and "0..5 or 255" in line


def test_unreadable_jpeg(broken, tmp_path, capsys):
    path = folder(broken) / "JPEGImages" / f"{first_id(broken)}.jpg"
    path.write_bytes(path.read_bytes()[:200])
    line = fails(capsys, *train(broken, tmp_path / "run"))
    assert str(path) in line and "not a readable image" in line


def test_checkpoint_of_another_network(trained, tmp_path, toy, capsys):
    fine = trained / "8s/checkpoint.npz"
    line = fails(capsys, *train(toy, tmp_path / "run", "--variant", "16s", "--start", fine))
    assert "FCN-16s cannot start from the finer FCN-8s" in line and str(fine) in line
    wide = fails(
        capsys,
        *train(toy, tmp_path / "run", "--variant", "16s", "--start", trained / "32s/checkpoint.npz", "--width", "3"),
    )
    assert "vgg.conv1_1.weight" in wide and "32s/checkpoint.npz" in wide


def test_network_for_other_classes(trained, broken, capsys):
    (folder(broken) / "classes.txt").write_text("background\nthing\n")
    line = fails(capsys, "evaluate", "--weights", trained / "8s/best.npz", "--data", broken)
    assert "a network for 6 classes" in line and "has 2" in line


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 broken"])
def test_weights_that_are_none(tmp_path, toy, capsys, content):
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    assert str(path) in fails(capsys, "evaluate", "--weights", path, "--data", toy)


def test_diverging_learning_rate_keeps_the_last_good_checkpoint(toy, tmp_path, capsys):
    out = tmp_path / "run"
    line = fails(capsys, *train(toy, out, "--optimizer", "sgd", "--lr", "1e20", "--iterations", "20"))
    assert "try a smaller one" in line and f"the last good checkpoint, iteration 0, is {out / 'checkpoint.npz'}" in line
    assert cli.main(["evaluate", "--weights", str(out / "checkpoint.npz"), "--data", str(toy)]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--iterations", "0"], "iterations: expected at least 1"),
        (["--lr", "-1"], "lr: expected a positive"),
        (["--crop", "0"], "batch size must be 1"),
        (["--scale", "2", "1"], "scale: expected two factors"),
        (["--backbone", "vgg16", "--width", "4"], "only the mini backbone"),
    ],
)
def test_settings_out_of_range(toy, tmp_path, capsys, options, message):
    assert message in fails(capsys, *train(toy, tmp_path / "run", *options))


def test_data_toy_refuses_to_overwrite(toy, capsys):
    assert "expected an empty or absent folder" in fails(capsys, "data", "toy", toy)


def test_predict_names_the_image_that_cannot_be_read(trained, tmp_path, capsys):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no image")
    line = fails(capsys, "predict", "--weights", trained / "8s/best.npz", "--out", tmp_path, path)
    assert str(path) in line


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.jpg", "a/y.jpg"], ["x", "y"]),
        (["a/x.jpg", "a/x.png"], ["x.jpg", "x.png"]),
        (["a/x.jpg", "b/x.jpg"], ["a_x.jpg", "b_x.jpg"]),
        (["c/a/x.jpg", "d/a/x.jpg", "x.jpg"], None),
    ],
)
def test_results_of_two_images_never_have_one_name(files, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in map(Path, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    found = [name for _, name in named_images(files)]
    assert found == names if names else len(set(found)) == len(files)
