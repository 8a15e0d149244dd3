"""What the README and the pages beside it show can be run."""

import re
from pathlib import Path

import numpy as np

from minifcn import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LESSONS = (ROOT / "lessons/README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]


def test_the_python_example_fills_every_gradient_and_keeps_the_size():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["logits"].shape == (1, 21, 37, 51)
    assert np.isclose(float(names["loss"]), np.log(21))  # zero score layers: every class equally likely
    assert np.any(names["model"].parameters()["score_fr.bias"].grad)


def test_every_command_shown_is_one_that_exists():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(cli.COMMANDS) == set(re.findall(r"\bminifcn ([\w-]+)", text)) & set(cli.COMMANDS)
    for line in re.findall(r"^minifcn (.*?)(?:\s+#.*)?$", text, re.MULTILINE):
        cli.build_parser().parse_args(line.split())


def test_pictures_and_pages_linked_to_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_map_from_article_to_lessons_names_what_is_in_the_linked_files():
    links = re.findall(r"\[`([\w.]+)`\]\(([^)]+)\)", LESSONS)
    assert len(links) >= 24
    for name, path in links:
        wanted = re.compile(rf"^\s*(def|class) {name.split('.')[-1]}\b", re.MULTILINE)
        text = (ROOT / "lessons" / path).read_text(encoding="utf-8")
        assert wanted.search(text), f"lessons/README: {name} is not defined in {path}"


def test_the_map_has_every_lesson_once():
    mapped = re.findall(r"\]\((\d\d_\w+)\.py\)", LESSONS)
    assert mapped == sorted(path.stem for path in (ROOT / "lessons").glob("[0-9]*.py"))
