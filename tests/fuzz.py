"""python tests/fuzz.py READER [--runs N]: what a coverage-guided fuzzer makes of a few honest files, read.

Needs `pip install atheris`. It ends at the first input that does not load and is not refused as documented, that takes
more than 10 seconds, or more than a gigabyte, and writes it to a file.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

SECONDS, MEGABYTES = 10, 1024

with atheris.instrument_imports(include=["minifcn", "PIL", "tomllib", "zipfile"]):
    from attacked_readers import READERS, attack


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=tuple(READERS))
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    reader = READERS[args.reader]
    loaded = runs = 0
    with tempfile.TemporaryDirectory() as folder:
        corpus, work = Path(folder, "corpus"), Path(folder, "work")
        corpus.mkdir()
        work.mkdir()
        for number, content in enumerate(reader.seeds(work)):
            (corpus / f"seed{number}").write_bytes(content)

        def once(content):
            nonlocal loaded, runs
            runs += 1
            loaded += bool(attack(reader, work / f"attacked{reader.suffix}", content))

        limits = [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", "-max_len=4096", "-len_control=0"]
        atheris.Setup([sys.argv[0], f"-atheris_runs={args.runs}", f"-seed={args.seed}", *limits, str(corpus)], once)
        try:
            atheris.Fuzz()
        finally:
            print(f"{args.reader}: {runs} runs, {loaded} loaded, {runs - loaded} refused as documented")


if __name__ == "__main__":
    main()
