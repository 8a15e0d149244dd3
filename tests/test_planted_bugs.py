"""The suite catches what it is there to catch: each planted bug makes its test fail, and without the bug it passes."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from planted_bugs import BUGS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
NOT_A_FINDING = (
    "ImportError",
    "ModuleNotFoundError",
    "SyntaxError",
    "NameError",
    "UnboundLocalError",
    "AttributeError",
    "CompileError",
)


def copy(source, target):
    for name in ("minifcn", "tests"):
        shutil.copytree(source / name, target / name)
    shutil.copy(source / "pyproject.toml", target)
    return target


def python(folder, *arguments):
    """Run Python on a copy, and on nothing but the copy."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
    environment.pop("CI", None)  # where it is set, pytest works out whole differences, of large arrays for minutes
    environment |= {"PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment |= {"COLUMNS": "500", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def run_tests(folder, *nodes):
    options = ["-q", "-x", "-rfE", "--tb=no", "--no-header", "-p", "no:cacheprovider"]
    return python(folder, "-m", "pytest", *options, *nodes)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A copy without a bug, on which the tests of all bugs pass."""
    folder = copy(ROOT, tmp_path_factory.mktemp("pristine"))
    where = python(folder, "-c", "import minifcn; print(minifcn.__file__)").stdout.strip()
    assert Path(where).is_relative_to(folder), f"the tests would run on {where}"
    result = run_tests(folder, *sorted({bug.test for bug in BUGS}))
    return folder, result


@pytest.fixture(scope="module")
def outcomes(request, pristine, tmp_path_factory):
    """bug name -> the future result of its test; two at a time, in the list's order, of those that this run asks for."""
    pool = ThreadPoolExecutor(2)
    workplace = tmp_path_factory.mktemp("planted")
    asked = [item.callspec.params.get("bug") for item in request.session.items if hasattr(item, "callspec")]
    bugs = [bug for bug in BUGS if bug in asked]
    yield {bug.name: pool.submit(plant_and_run, bug, pristine[0], workplace / str(i)) for i, bug in enumerate(bugs)}
    pool.shutdown(cancel_futures=True)


def plant_and_run(bug, pristine, folder):
    copy(pristine, folder)
    path = folder / "minifcn" / bug.file
    text = path.read_text(encoding="utf-8")
    if text.count(bug.old) != 1:
        raise ValueError(f"{bug.file}: expected exactly one {bug.old!r}, found {text.count(bug.old)}")
    path.write_text(text.replace(bug.old, bug.new), encoding="utf-8")
    Path(cache_from_source(path)).unlink(missing_ok=True)
    result = run_tests(folder, bug.test)
    shutil.rmtree(folder)
    return result


def test_without_a_bug_the_tests_pass(pristine):
    _, result = pristine
    assert result.returncode == 0, result.stdout + result.stderr
    assert "skipped" not in result.stdout


def test_bugs_are_many_and_named_once():
    assert len(BUGS) >= 32
    assert len({bug.name for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_planted_bug_is_caught(bug, outcomes):
    result = outcomes[bug.name].result()
    failures = [line for line in result.stdout.splitlines() if line.startswith("FAILED ")]
    assert result.returncode == 1, result.stdout + result.stderr
    assert len(failures) == 1, result.stdout  # a failed test, not an error before it
    assert not any(error in failures[0] for error in NOT_A_FINDING), failures[0]
