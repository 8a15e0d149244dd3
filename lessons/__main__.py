"""python -m lessons: list the lessons, or run some or all of them. `make book` makes the pages to read of them."""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent


def main():
    """Read the arguments. -> exit code: 1 if a lesson failed, 2 for wrong arguments"""
    parser = argparse.ArgumentParser(
        prog="python -m lessons",
        description="Lists the lessons; runs those named, or all, and prints what they print; their figures go to "
        "lessons/output. To step through one, open its file in VS Code, Spyder or JupyterLab (with jupytext). "
        "To read them all with their figures: make book.",
    )
    add = parser.add_argument
    add(
        "names",
        nargs="*",
        metavar="LESSON",
        help="number or name: 3, or 03_convolve_forward_and_back",
    )
    add("--all", action="store_true", help="run all of them, in order")
    add(
        "--device",
        default="auto",
        type=_device,
        help="where arrays live: auto, cpu, cuda, cuda:1, or strict, a stand-in for a GPU",
    )
    args = parser.parse_args()
    try:
        paths = find(args.names)
    except ValueError as error:
        parser.error(str(error))
    if not (args.names or args.all):
        for path in paths:
            print(f"{path.stem:32s} {title(path)}")
        print("\nRun one: python -m lessons 1      Run all: python -m lessons --all")
        return 0
    lines, failed = [], False
    for path in paths:
        print(f"\n== {title(path)}", flush=True)
        start = time.perf_counter()
        code = subprocess.run(
            [sys.executable, path, "--device", args.device]
        ).returncode
        seconds = time.perf_counter() - start
        lines.append(
            f"{path.stem:32s} {seconds:6.1f} s   {'FAILED' if code else 'passed'}"
        )
        failed = failed or code != 0
    print("", *lines, sep="\n")
    return int(failed)


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
            numbers = ", ".join(str(int(path.stem[:2])) for path in lessons)
            raise ValueError(
                f"lessons: expected a lesson's number ({numbers}) or name, got {name!r}"
            )
        found += fitting
    return found if names else lessons


def title(path):
    """The heading that opens a lesson."""
    text = path.read_text(encoding="utf-8")
    return re.search(r"^# # (.+)", text, re.MULTILINE).group(1)


def _device(name):
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|strict", name):
        raise argparse.ArgumentTypeError(
            f"expected auto, cpu, cuda, cuda:1 or strict; got {name!r}"
        )
    return name


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")  # figures go to files; no windows
    sys.exit(main())
