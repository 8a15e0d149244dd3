"""python -m lessons: list the lessons, run some or all of them, and put what they say, print and draw on one page."""

import argparse
import multiprocessing
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(
    0, str(FOLDER)
)  # as where a lesson itself is run: its neighbours are plain modules

import cells  # noqa: E402
import page  # noqa: E402


def main():
    """Read the arguments. -> exit code: 1 if a lesson failed, 2 for wrong arguments"""
    parser = argparse.ArgumentParser(
        prog="python -m lessons",
        description="Lists the lessons; runs those named, or all, and writes them with all they print and draw to one "
        "HTML page. To step through one, open its file in VS Code, Spyder or JupyterLab (with jupytext).",
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
    add(
        "--out",
        type=Path,
        default=FOLDER / "output" / "lessons.html",
        metavar="FILE",
        help="the page to write",
    )
    args = parser.parse_args()
    try:
        paths = cells.find(args.names)
    except ValueError as error:
        parser.error(str(error))
    if not (args.names or args.all):
        for path in paths:
            print(f"{path.stem:32s} {cells.title(path)}")
        print("\nRun one: python -m lessons 1      Run all: python -m lessons --all")
        return 0
    records = [_apart(path, args.device) for path in paths]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page.html(records), encoding="utf-8")
    for record in records:
        print(
            f"{record.path.stem:32s} {record.seconds:6.1f} s   {'FAILED' if record.error else 'passed'}"
        )
    print(f"{sum(record.seconds for record in records):39.1f} s   in all\n{args.out}")
    return 1 if any(record.error for record in records) else 0


def _device(name):
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|strict", name):
        raise argparse.ArgumentTypeError(
            f"expected auto, cpu, cuda, cuda:1 or strict; got {name!r}"
        )
    return name


def _apart(path, device):
    """Run a lesson in a process of its own, so that none finds what another has changed."""
    print(f"\n== {cells.title(path)}", flush=True)
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ) as process:
        record = process.submit(cells.run, path, device).result()
    if record.error:
        print(record.error, file=sys.stderr)
    return record


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")  # the page has the figures; no windows
    sys.exit(main())
