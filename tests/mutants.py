"""Random mistakes in the library, and whether the tests notice: a sample of what the suite would let through.

    python -m tests.mutants --count 80 --seed 0 -- tests --ignore tests/test_lessons.py

First the tests run once, with a mark at each place that will be changed, so that it is known which of them pass by
there. Then each mutant runs these, quick ones of every file first, until one fails. What follows `--` is pytest's.
"""

import argparse
import ast
import builtins
import collections
import copy
import importlib
import itertools
import random
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import planting  # noqa: E402

ROOMS = "ops", "layers", "models", "training"
PAIRS = "FloorDiv Mult, Add Sub, Mult Div, Lt LtE, Gt GtE, Eq NotEq, Is IsNot, And Or, In NotIn"
PAIRS = [[getattr(ast, name) for name in pair.split()] for pair in PAIRS.split(", ")]
VERDICTS = {"error": "caught", "crash": "caught", "skipped": "survived"}
SWAPS = {a: b for one, other in PAIRS for a, b in ((other, one), (one, other))}


def variants(node):
    """(kind, the node that shall take its place) of each way to change this node."""
    other = copy.deepcopy(node)
    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in SWAPS:
        other.op = SWAPS[type(node.op)]()
        yield "operator", other
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        other.ops[0] = SWAPS[type(node.ops[0])]()
        yield "comparison", other
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        for step in (1, -1):
            yield "constant", ast.copy_location(ast.Constant(node.value + step), node)
    elif isinstance(node, ast.Call) and len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args):
        other.args[0], other.args[1] = other.args[1], other.args[0]
        yield "arguments", other
    if isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "statement removed", ast.copy_location(ast.Pass(), node)
    if isinstance(node, (ast.If, ast.IfExp)):
        negated = copy.deepcopy(node)
        negated.test = ast.copy_location(ast.UnaryOp(ast.Not(), negated.test), node.test)
        yield "condition", negated


class Site(NamedTuple):
    """A place in a module's source: its owner (a node's field, and index there), the statement's list and index."""

    module: str
    function: str
    kind: str
    old: ast.AST
    new: ast.AST
    owner: tuple
    statement: tuple


def sites(module):
    """(tree, [Site]) of a module; in the same order every time."""
    tree = ast.parse(planting.source_of(module).read_text(encoding="utf-8"))
    found, functions = [], planting.functions(tree)

    def visit(node, function, statement):
        for field, value in ast.iter_fields(node):
            if field in ("decorator_list", "returns", "annotation", "args") and isinstance(node, ast.FunctionDef):
                continue
            for i, child in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(child, ast.AST):
                    continue
                name, here = function, (value, i) if isinstance(child, ast.stmt) else statement
                if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                    name = f"{function}.{child.name}".lstrip(".")
                elif here and isinstance(functions[function], ast.FunctionDef):
                    owner = node, field, i if isinstance(value, list) else None
                    for kind, new in variants(child):
                        found.append(Site(module, function, kind, child, new, owner, here))
                visit(child, name, here)

    visit(tree, "", None)
    return tree, found


class Mutant:
    """The site of that number in a module."""

    def __init__(self, module, number):
        self.module, self.number = module, number
        site = sites(module)[1][number]
        old, new = (ast.unparse(n).split("\n")[0][:70] for n in (site.old, site.new))
        self.text = f"{module}:{site.old.lineno} {site.function}: {site.kind}: {old}  ->  {new}"

    def plant(self):
        tree, found = sites(self.module)
        site = found[self.number]
        node, field, index = site.owner
        if index is None:
            setattr(node, field, site.new)
        else:
            getattr(node, field)[index] = site.new
        planting.take_over(importlib.import_module(f"minifcn.{self.module}"), tree, site.function)
        planting.forget()


def draw(count, seed):
    """That many mutants, of all kinds alike."""
    by_kind = collections.defaultdict(list)
    for path in sorted(path for room in ROOMS for path in Path("minifcn", room).rglob("*.py")):
        module = ".".join(path.relative_to("minifcn").with_suffix("").parts).removesuffix(".__init__")
        for number, site in enumerate(sites(module)[1]):
            by_kind[site.kind].append((module, number))
    rng = random.Random(seed)
    kinds = itertools.islice(itertools.cycle(sorted(by_kind)), count)
    chosen = {key: by_kind[key] for key in by_kind}
    return [Mutant(*chosen[kind].pop(rng.randrange(len(chosen[kind])))) for kind in kinds]


def cover(mutants, items, config):
    """Run everything once. -> ({number of a mutant: [node ids of tests that pass by]}, {node id: seconds})"""
    watch, passed = planting.Watch(), collections.defaultdict(dict)
    config.pluginmanager.register(watch)
    builtins.mutant_passed = lambda number: passed[number].setdefault(watch.node)
    for module in {mutant.module for mutant in mutants}:
        tree, found = sites(module)
        marks = [(found[m.number].statement, number) for number, m in enumerate(mutants) if m.module == module]
        for (body, index), number in sorted(marks, key=lambda mark: -mark[0][1]):
            body.insert(index, ast.copy_location(ast.parse(f"mutant_passed({number})").body[0], body[index]))
        planting.take_over(
            importlib.import_module(f"minifcn.{module}"), tree, next(n for n in planting.functions(tree) if n)
        )
    planting.run_items(items, watch, stop_at_failure=False)
    return {number: list(nodes) for number, nodes in passed.items()}, watch.seconds


def quick_first(nodes, seconds):
    """Of each file the quickest, then of each the next, and so on."""
    files = collections.defaultdict(list)
    for node in sorted(nodes, key=lambda node: seconds.get(node, 0)):
        files[node.split("::")[0]].append(node)
    rows = itertools.zip_longest(*files.values())
    return [node for row in rows for node in row if node]


def run(session, args):
    mutants = draw(args.count, args.seed)
    items, counts = {item.nodeid: item for item in session.items}, collections.Counter()
    began = time.monotonic()
    with planting.Forks(1, 24 * 3600) as forks:
        ((_, found),) = [*forks.start("", lambda: cover(mutants, session.items, session.config)), *forks.finish()]
        passed, seconds = found
    print(
        f"{len(items)} tests, {time.monotonic() - began:.0f} s, pass by {len(passed)} of {len(mutants)} mutants",
        flush=True,
    )
    with planting.Forks(args.workers, 10 * args.limit + 60) as forks:

        def tried():
            for number, mutant in enumerate(mutants):
                mine = [items[node] for node in quick_first(passed.get(number, []), seconds) if node in items]
                if mine:
                    work = lambda mutant=mutant, mine=mine: planting.trial(mutant, mine, session.config, args.limit)  # noqa: E731
                    yield from forks.start(number, work)
                else:
                    yield number, planting.Outcome("uncovered", "", 0)
            yield from forks.finish()

        for number, outcome in tried():
            verdict = VERDICTS.get(outcome.verdict, outcome.verdict)
            counts[verdict] += 1
            print(
                f"{number:3d} {verdict:9s} {outcome.seconds:5.1f} s  {mutants[number].text}   {outcome.said[:150]!r}",
                flush=True,
            )
    print(
        ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common()),
        f"of {len(mutants)} (seed {args.seed})",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=60, help="seconds of work for a mutant")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("rest", nargs="*", default=["tests"], help="what pytest shall collect")
    arguments = parser.parse_args()
    planting.with_collected(arguments.rest, lambda session: run(session, arguments))
