"""A run's page shows its training step by step: what was predicted at every evaluation."""

import errno
import json
import os
import re
import sys
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pytest
from browser import in_page, needs_browser
from PIL import Image

from minifcn import cli, data, inference, models
from minifcn.report import steps
from minifcn.training.run import read_metrics


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short run with three evaluations."""
    folder = tmp_path_factory.mktemp("steps")
    data.write_toyvoc(folder / "toy", train=4, val=2, size=40, seed=3)
    words = f"train --data {folder / 'toy'} --out {folder / 'run'} --iterations 6 --eval-every 2 --width 2 --crop 32"
    assert cli.main(words.split()) == 0
    return folder / "run"


def scores(run):
    found = [record for record in read_metrics(run) if record["event"] == "evaluated"]
    return {record["iteration"]: 100 * record["scores"]["mean_iou"] for record in found}


def test_a_run_keeps_its_predictions_at_every_evaluation(run):
    kept = sorted((run / "figures" / "steps").glob("[0-9]*.png"))
    assert [int(path.stem) for path in kept] == list(scores(run)) == [2, 4, 6]
    best = max(scores(run), key=scores(run).get)  # whose weights are best.npz
    network = models.load(run / "best.npz")
    strip = np.asarray(Image.open(run / "figures" / "steps" / f"{best:07d}.png"))
    left = 0
    for sample in data.VOC(run.parent / "toy", "val"):
        labels = inference.predict(network, sample.image)
        height, width = labels.shape
        np.testing.assert_array_equal(strip[:height, left : left + width], labels)
        left += width + 4


@needs_browser
def test_the_slider_shows_each_evaluation(run, tmp_path):
    script = """
        const slider = document.querySelector(".steps input"), found = [];
        for (let i = 0; i <= slider.max; i++) {
          slider.value = i; slider.dispatchEvent(new Event("input"));
          const picture = document.querySelector(".steps .predicted"), canvas = document.createElement("canvas");
          await picture.decode();
          [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
          canvas.getContext("2d").drawImage(picture, 0, 0);
          const shown = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          found.push([document.querySelector(".steps output").textContent, shown.reduce((a, b) => a + b, 0)]);
        }
        return found;
    """
    found = in_page(run / "report.html", script)
    assert len(found) == 3
    for (said, total), (iteration, score) in zip(found, scores(run).items(), strict=True):
        assert said == f"iteration {iteration}: mean IU {score:.1f}"
        kept = Image.open(run / "figures" / "steps" / f"{iteration:07d}.png").convert("RGBA")
        assert total == np.asarray(kept).sum(dtype=np.int64)


def test_what_is_kept_is_whole_or_not_there(run, tmp_path, monkeypatch):
    """A full disk, while each of the three pictures is written."""
    stopped = SimpleNamespace(
        folder=tmp_path, model=models.load(run / "best.npz"), val_data=data.VOC(run.parent / "toy", "val")
    )
    stopped.network, written = stopped.model, []

    def full(file, *picture, **more):
        file.write(b"half")
        written.append(file.name)
        raise OSError(errno.ENOSPC, "No space left on device")

    place = tmp_path / "figures" / "steps"
    for owner, name, kept in ((Image.Image, "save", []), (steps, "write_mask", ["images.jpg"])):
        with monkeypatch.context() as within, pytest.raises(OSError, match="cannot be written"):
            within.setattr(owner, name, full if owner is steps else lambda image, *given, **more: full(*given))
            steps.keep(stopped, 2)
        assert sorted(path.name for path in place.iterdir()) == kept
    steps.keep(stopped, 2)
    assert sorted(path.name for path in place.iterdir()) == ["0000002.png", "images.jpg", "truth.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_names_that_are_not_text_are_on_the_page(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    data.write_toyvoc(folder, train=2, val=1, size=32, seed=3)
    words = [
        "train",
        "--data",
        str(folder),
        "--out",
        str(tmp_path / "run"),
        *["--iterations", "1", "--width", "2", "--crop", "32"],
    ]
    assert cli.main(words) == 0
    assert "caf\\udce9" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_step_that_was_undone_is_not_shown(run, tmp_path):
    extra = run / "figures" / "steps" / "0000099.png"
    extra.write_bytes((run / "figures" / "steps" / "0000006.png").read_bytes())
    (text,) = steps.shown(run)
    extra.unlink()
    assert re.findall(r'"iteration": (\d+)', text) == ["2", "4", "6"]


def with_scores(run, folder, of_iteration):
    """A copy of a run with evaluations that score {iteration: mean IU}, each with a picture."""
    copytree(run, folder)
    place = folder / "figures" / "steps"
    for iteration in of_iteration:
        (place / f"{iteration:07d}.png").write_bytes((place / "0000006.png").read_bytes())
    lines = [{"event": "evaluated", "iteration": i, "scores": {"mean_iou": s}} for i, s in of_iteration.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_a_score_of_no_labelled_pixel_is_said(run, tmp_path):
    (text,) = steps.shown(with_scores(run, tmp_path / "run", {2: None, 4: 0.0}))
    assert '"iteration": 2, "score": "no labelled pixel to judge by"' in text
    assert '"iteration": 4, "score": "mean IU 0.0"' in text


@pytest.mark.parametrize(("count", "first"), [(200, 1), (201, 1), (1000, 5)])
def test_of_many_evaluations_one_of_every_few_is_shown(run, tmp_path, count, first):
    (text,) = steps.shown(with_scores(run, tmp_path / "run", dict.fromkeys(range(1, count + 1), 0.5)))
    shown = [int(found) for found in re.findall(r'"iteration": (\d+)', text)]
    assert shown == list(range(first, count + 1, -(-count // steps.MOST))) and f'max="{len(shown) - 1}"' in text


@pytest.mark.parametrize("name", ["images.jpg", "truth.png", "[0-9]*.png"])
def test_a_page_is_written_without_pictures_that_were_deleted(run, tmp_path, name):
    copytree(run, tmp_path / "run")
    for path in (tmp_path / "run" / "figures" / "steps").glob(name):
        path.unlink()
    assert steps.shown(tmp_path / "run") == []
