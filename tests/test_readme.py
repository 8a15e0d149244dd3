"""What the README shows can be run."""

import re
from pathlib import Path

import numpy as np

from minifcn import cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_example_fills_every_gradient_and_keeps_the_size():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["logits"].shape == (1, 21, 37, 51)
    assert np.isclose(float(names["loss"]), np.log(21))  # zero score layers: every class equally likely
    assert np.any(names["model"].parameters()["score_fr.bias"].grad)


def test_every_command_shown_is_one_that_exists():
    shown = set(re.findall(r"^minifcn (\w+)", README, re.MULTILINE))
    assert shown == {"train", "evaluate", "predict", "classify", "explain", "convert", "gradcheck", "data", "reproduce"}
    for line in re.findall(r"^minifcn (.*?)(?:\s+#.*)?$", README, re.MULTILINE):
        cli.build_parser().parse_args(line.split())


def test_pictures_shown_are_there():
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / picture).is_file(), picture


def test_the_map_from_article_to_lessons_points_at_the_lines_it_names():
    root = Path(__file__).parents[1]
    links = re.findall(r"\[`([\w.]+)`\]\(([^)#]+)#L(\d+)\)", README)
    assert len(links) >= 24
    for name, path, number in links:
        wanted = re.compile(rf"\s*(def|class) {name.split('.')[-1]}\b")
        lines = (root / path).read_text(encoding="utf-8").splitlines()
        here = [i for i, line in enumerate(lines, 1) if wanted.match(line)]
        assert int(number) in here, f"README: {name} is at line {' or '.join(map(str, here))} of {path}, not {number}"


def test_the_map_has_every_lesson_once():
    mapped = re.findall(r"\]\(lessons/(\d\d_\w+)\.py\)", README)
    assert mapped == sorted(path.stem for path in (Path(__file__).parents[1] / "lessons").glob("[0-9]*.py"))
