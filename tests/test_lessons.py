"""Every lesson runs, draws what can be seen, says what it promises to say; every exercise knows right from wrong."""

import functools
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lesson_solutions import SOLUTIONS, worked
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "lessons"))

import answers  # noqa: E402

LESSONS = sorted(path.stem for path in (ROOT / "lessons").glob("[0-9][0-9]_*.py"))
TRAINING = ("02", "04", "07", "09", "10", "11", "12", "13", "18")  # too slow on the stand-in; make book runs them all
SLOW = ("01", "03", "05", "06", "08", "14", "15", "16")
IN_LESSON = ("02.3", "04.1", "04.3", "12.3", "14.3", "15.3")  # solutions that go on with what their lesson has computed
ON_STAND_IN = [
    pytest.param(name, marks=pytest.mark.slow if name[:2] in SLOW else ())
    for name in LESSONS
    if name[:2] not in TRAINING
]


def python(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def texts_and_code(name):
    """A lesson's cells in their order: (the texts, the pieces of code)."""
    _, *cells = (ROOT / "lessons" / f"{name}.py").read_text(encoding="utf-8").split("# %%")
    texts = [re.sub(r"^# ?", "", cell, flags=re.MULTILINE).strip() for cell in cells if cell.startswith(" [markdown]")]
    assert cells[0].startswith(" [markdown]")
    assert cells[-1].startswith(" [markdown]")
    return [text.removeprefix("[markdown]").strip() for text in texts], [c for c in cells if not c.startswith(" [mark")]


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_opens_and_closes_as_all_do(name):
    texts, code = texts_and_code(name)
    number = int(name[:2])
    assert texts[0].startswith(f"# {number}. ")
    for promise in ("**You will**", "**You will learn**", "**You need**", "**It takes**"):
        assert promise in texts[0]
    assert "## In practice" in texts[-1]
    assert "## Further reading" in texts[-1]
    exercises = next(text for text in texts if "## Exercises" in text)
    assert re.findall(r"^\*\*(\d)\.\*\*", exercises, re.MULTILINE) == ["1", "2", "3"]
    assert re.findall(r'answers\.check\("([\d.]+)", \.\.\.\)', "\n".join(code)) == [
        f"{number:02d}.{i}" for i in (1, 2, 3)
    ]


@pytest.mark.parametrize("name", LESSONS)
def test_no_line_opens_a_list_by_a_sum_and_every_address_is_a_link(name):
    for text in texts_and_code(name)[0]:
        assert not re.search(r"^\+ ", text, re.MULTILINE)
        assert re.findall(r"(?<![(<])https?://\S+", text) == []


@pytest.mark.parametrize("name", ON_STAND_IN)
def test_lesson_runs_and_its_figures_can_be_seen(name):
    """Those that take seconds on the stand-in, so that a lesson that leaks to NumPy fails, as it would on a GPU."""
    result = python("-m", "lessons", name, "--device", "strict")
    assert result.returncode == 0, result.stderr
    figures = re.findall(r"^\[figure: (.+)\]$", result.stdout, re.MULTILINE)
    assert figures
    for path in figures:
        figure = np.asarray(Image.open(path).convert("RGB"))
        colours = np.unique(figure.reshape(-1, 3), axis=0)
        ink = (figure != figure[0, 0]).any(axis=2).mean()
        assert len(colours) > 20, "a figure is blank"
        assert ink > 0.01, "a figure is nearly blank"


def test_no_number_is_given_twice_and_every_exercise_has_a_right_and_a_wrong_answer():
    numbers = [name[:2] for name in LESSONS]
    assert len(set(numbers)) == len(numbers) >= 12
    assert sorted(SOLUTIONS) == sorted(answers.CHECKERS) == [f"{n}.{i}" for n in numbers for i in (1, 2, 3)]


@pytest.fixture(autouse=True)
def tries(tmp_path, monkeypatch):
    """The tests' tries are not the reader's."""
    monkeypatch.setattr(answers, "TRIES", tmp_path / "output" / "tries.txt")


@pytest.mark.parametrize("name", SOLUTIONS)
def test_checker_accepts_a_right_answer_and_rejects_a_wrong_one_and_nonsense(name, capsys):
    right, *wrongs = SOLUTIONS[name]
    assert answers.check(name, right) is True
    assert capsys.readouterr().out == f"Exercise {name}: right.\n"
    assert answers.check(name, ...) is None
    assert "not yet" not in capsys.readouterr().out
    for answer in (*wrongs, None, "a cat", lambda *_: None, -1e9):
        assert answers.check(name, answer) is False
        assert capsys.readouterr().out.startswith(f"Exercise {name}: not yet: ")


WORKED = [
    pytest.param(name, marks=pytest.mark.slow if name in IN_LESSON else ())
    for name, checker in answers.CHECKERS.items()
    if checker.__doc__
]


@functools.cache
def computed(number):
    """What a lesson has computed when it ends."""
    return runpy.run_path(next((ROOT / "lessons").glob(f"{number}_*.py")))


@pytest.mark.parametrize("name", WORKED)
def test_worked_solution_is_right_and_opens_after_two_tries(name, capsys):
    for tries in range(2):
        answers.reveal(name)
        assert f"so far {tries}" in capsys.readouterr().out
        answers.check(name, None)
    capsys.readouterr()
    answers.reveal(name)
    assert "```py" in capsys.readouterr().out
    names = computed(name[:2]) if name in IN_LESSON else {}
    assert answers.check(name, worked(name, names)) is True


def test_a_right_answer_opens_the_solution(capsys):
    answers.check("01.2", 22.93)
    answers.reveal("01.2")
    assert "so far" not in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["99"], 2), (["nothing"], 2), (["1", "--device", "tpu"], 2)])
def test_the_command_lists_every_lesson_and_refuses_wrong_words(monkeypatch, capsys, arguments, code):
    monkeypatch.setattr(sys, "argv", ["lessons", *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "lessons" / "__main__.py"), run_name="__main__")
    assert stop.value.code == code
    said = capsys.readouterr()
    assert "lessons" in said.err.splitlines()[-1] if code else all(name in said.out for name in LESSONS)


def test_a_failing_lesson_fails_the_command(tmp_path):
    (tmp_path / "lessons").mkdir()
    for path in (ROOT / "lessons").glob("*.py"):
        if not path.stem[0].isdigit():
            (tmp_path / "lessons" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "lessons" / "01_fail.py").write_text("# %% [markdown]\n# # 1. Fail\n# %%\nassert 1 > 2\n")
    (tmp_path / "lessons" / "02_pass.py").write_text("# %% [markdown]\n# # 2. Pass\n# %%\nassert 1 < 2\n")
    result = subprocess.run([sys.executable, "-m", "lessons", "--all"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert [line.split()[-1] for line in result.stdout.splitlines()[-2:]] == ["FAILED", "passed"]
    assert "assert 1 > 2" in result.stderr
