"""A lesson as its cells: the percent format read, and its code run cell by cell with all it prints and draws."""

import ast
import contextlib
import io
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass
class Cell:
    """A text (Markdown) or a piece of code, the line it begins at, and what came of it."""

    kind: str  # "markdown" or "code"
    source: str
    line: int
    printed: str = ""
    figures: list = field(default_factory=list)  # paths


@dataclass
class Record:
    """A lesson that was run: its cells as far as it came, the seconds it took, and the traceback if it failed."""

    path: Path
    cells: list
    seconds: float = 0.0
    error: str = ""


def find(names=()):
    """The lessons' files in order; of those, the ones that `names` say: 3, 03 or 03_convolve_forward_and_back.

    Raises ValueError for a name that is none.
    """
    lessons = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
    found = []
    for name in names:
        stem = Path(name).stem
        number = f"{int(stem):02d}" if stem.isdecimal() else stem
        fitting = [path for path in lessons if number in (path.stem, path.stem[:2])]
        if not fitting:
            raise ValueError(
                f"lessons: expected a number of 1 to {len(lessons)} or a lesson's name, got {name!r}"
            )
        found += fitting
    return found if names else lessons


def read(path):
    """The cells of a file in the percent format: `# %% [markdown]` opens a text in comments, `# %%` a piece of code."""
    cells = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("# %%"):
            kind = "markdown" if line.endswith("[markdown]") else "code"
            cells.append(Cell(kind, "", number + 1))
        elif cells and cells[-1].kind == "markdown":
            cells[-1].source += line.removeprefix("#").removeprefix(" ") + "\n"
        elif cells:
            cells[-1].source += line + "\n"
    for cell in cells:
        cell.source = cell.source.rstrip()
    return cells


def title(path):
    """The heading that opens a lesson."""
    return read(path)[0].source.splitlines()[0].removeprefix("# ")


def run(path, device):
    """Run a lesson's code, cell after cell, as `python lesson.py --device DEVICE` would. -> Record

    What it prints appears at once, too. An error ends the lesson and is told in the record.
    """
    import lesson  # here, where its figures are counted

    record = Record(path, [])
    names = {"__name__": "__main__", "__file__": str(path)}
    sys.argv = [str(path), "--device", device]
    start = time.perf_counter()
    for cell in read(path):
        record.cells.append(cell)
        if cell.kind == "code":
            drawn = len(lesson.shown)
            printed = _Both(sys.stdout)
            try:
                with contextlib.redirect_stdout(printed):
                    exec(_compiled(cell, path), names)
            except (
                SystemExit
            ) as stop:  # a lesson that cannot run here says why in a line
                record.error = str(stop)
            except Exception:
                record.error = traceback.format_exc()
            cell.printed = printed.getvalue()
            cell.figures = lesson.shown[drawn:]
            if record.error:
                break
    record.seconds = time.perf_counter() - start
    return record


def _compiled(cell, path):
    """The code of a cell, which knows its place in the file, so that an error names the right line."""
    tree = ast.parse(cell.source, str(path))
    return compile(ast.increment_lineno(tree, cell.line - 1), str(path), "exec")


class _Both(io.StringIO):
    """Keeps what is printed and passes it on."""

    def __init__(self, onward):
        super().__init__()
        self.onward = onward

    def write(self, text):
        self.onward.write(text)
        self.onward.flush()
        return super().write(text)
