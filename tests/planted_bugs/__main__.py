"""Plant every bug, one at a time, and run its test, which has to fail; without a bug all of them have to pass.

python -m tests.planted_bugs [PART OF A NAME ...] [--check]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import browser  # noqa: E402
import planting  # noqa: E402

from planted_bugs import backend, data, distributed, explore, kernels, names, networks, ops, panoptic, scoring, training  # noqa: E402

BUGS = [
    bug
    for room in (ops, kernels, networks, panoptic, training, distributed, data, names, backend, scoring, explore)
    for bug in room.BUGS
]
LIMIT = 120  # seconds for a bug; one that takes longer gets a second chance


def mistake(bug):
    return planting.Mistake(bug.module, bug.function, bug.old, bug.new)


def check(chosen):
    """Say which bugs have lost their place. -> how many"""
    lost = 0
    for bug in chosen:
        try:
            mistake(bug).check()
        except (planting.NotFound, FileNotFoundError) as error:
            lost += 1
            print(f"{bug.name}: {bug.module}: {error}")
    return lost


def matching(node, items):
    """The collected tests that a node names: one, or all parameters of one."""
    return [item for name, item in items.items() if name == node or name.startswith(f"{node}[")]


def is_skipped(node, tests, collected, session):
    """Whether a node's tests cannot run here: its whole file is skipped, or there is no browser to open a page in."""
    if not tests:
        return file_of(node) not in collected and not session.testsfailed
    return browser.is_missing() and all(browser.needs_browser.mark in item.iter_markers() for item in tests)


def file_of(node):
    return node.split("::")[0]


def run(session, chosen):
    """Try all bugs, two at a time. -> (what is wrong: [line], the names of those whose tests are skipped here)"""
    items = {item.nodeid: item for item in session.items}
    tests = {bug.node: matching(bug.node, items) for bug in chosen}
    collected = {file_of(node) for node in items}
    untried = [bug for bug in chosen if is_skipped(bug.node, tests[bug.node], collected, session)]
    wrong = [f"{bug.node}: no such test" for bug in chosen if not tests[bug.node] and bug not in untried]
    chosen = [bug for bug in chosen if bug not in untried]
    tests, names = {bug.node: tests[bug.node] for bug in chosen}, {bug.name: bug for bug in chosen}
    with planting.Forks(2, LIMIT) as forks:

        def tried():
            for half in (0, 1):
                control = [item for node in sorted(tests)[half::2] for item in tests[node]]
                if control:  # one test fills only one of them
                    yield from forks.start("without a bug", lambda c=control: planting.trial(None, c, session.config))
            for bug in chosen:
                work = lambda bug=bug: planting.trial(mistake(bug), tests[bug.node], session.config)  # noqa: E731
                yield from forks.start(bug.name, work) if tests[bug.node] else ()
            yield from forks.finish()

        for name, outcome in tried():
            expected = "survived" if name == "without a bug" else "caught"
            print(f"{outcome.verdict:8s} {outcome.seconds:5.1f} s  {name}", flush=True)
            if outcome.verdict == "skipped" and name in names:
                untried.append(names[name])
            elif outcome.verdict != expected and (name in names or outcome.verdict != "skipped"):
                wrong.append(f"{name}: {outcome.verdict} {outcome.said}")
    return wrong, [bug.name for bug in untried]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only bugs whose names contain one of these")
    parser.add_argument("--check", action="store_true", help="only look whether all places are there")
    args = parser.parse_args()
    chosen = [bug for bug in BUGS if not args.names or any(name in bug.name for name in args.names)]
    assert len({bug.name for bug in BUGS}) == len(BUGS), "a name occurs twice"
    if args.check:
        return 1 if check(chosen) else 0
    began = time.monotonic()
    files = sorted({file_of(bug.node) for bug in chosen})
    found = planting.with_collected([f for f in files if Path(f).exists()], lambda session: run(session, chosen))
    if found is None:
        return 1  # pytest has said why
    wrong, untried = found
    tried = len(chosen) - len(untried)
    print(f"{tried} bugs, {len(wrong)} not caught as they should, {time.monotonic() - began:.0f} s")
    if untried:
        print(f"{len(untried)} not tried, as their tests are skipped here: {', '.join(untried)}")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
