"""Mistakes put into the library as it runs, each in a process forked for it, and the tests that notice or do not.

pytest collects once; then every mistake gets a fork of that process, in which the live functions take the code of the
mistaken source, and the tests run as if it had always been so. Nothing is copied, nothing is imported again.
"""

import ast
import contextlib
import functools
import gc
import importlib
import os
import pickle
import re
import signal
import sys
import tempfile
import textwrap
import time
import types
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "minifcn"
NOT_A_FINDING = (ImportError, SyntaxError, NameError, AttributeError)  # a mistake in planting, not one that is noticed


class NotFound(LookupError):
    """An anchor is not in the source, or is there several times."""


def source_of(module):
    """The file of a module below the package: "ops.conv" -> minifcn/ops/conv.py; a path that ends in .cu is one already."""
    if module.endswith(".cu"):
        return Path(PACKAGE, module)
    path = Path(PACKAGE, *module.split(".")) if module else Path(PACKAGE)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


# --- Anchors ------------------------------------------------------------------------------------------------------


def functions(tree):
    """{qualified name: node} of all functions and classes, and "" for the module itself."""
    found = {"": tree}

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                found[prefix + child.name] = child
                visit(child, f"{prefix}{child.name}.")
            else:
                visit(child, prefix)

    visit(tree, "")
    return found


def plain(text):
    """An expression, statements, or the head of one ("if x:") as `ast.unparse` writes them, in its own kind of quotes."""
    text = textwrap.dedent(text).strip()
    return ast.unparse(ast.parse(f"{text} ..." if text.endswith(":") else text))


def head(node):
    """A compound statement with an ellipsis for a body."""
    empty = {"body": [ast.Expr(ast.Constant(...))], "orelse": []}
    fields = {key: empty.get(key, value) for key, value in ast.iter_fields(node)}
    return ast.copy_location(type(node)(**fields), node)


def places(function, text):
    """[(parent, field, index, count)] of what reads like `text` in a function: a node of a field, or of a list in it."""
    parsed = ast.parse(text).body
    found = []
    for parent in ast.walk(function):
        for field, value in ast.iter_fields(parent):
            for i, node in enumerate(value if isinstance(value, list) else [value]):
                index = i if isinstance(value, list) else None
                if not isinstance(node, ast.AST):
                    continue
                if isinstance(node, ast.stmt) and isinstance(value, list):
                    run = value[i : i + len(parsed)]
                    whole = "\n".join(map(ast.unparse, run)) == text
                    if whole or (len(parsed) == 1 and hasattr(node, "body") and ast.unparse(head(node)) == text):
                        found.append((parent, field, index, len(parsed)))
                elif isinstance(node, ast.expr) and not isinstance(parent, ast.Expr) and ast.unparse(node) == text:
                    found.append((parent, field, index, 1))
    return found


def planted(tree, function, old, new):
    """Replace the one place in a function (qualified name) that reads like `old` by `new`."""
    everything = functions(tree)
    if function not in everything:
        raise NotFound(f"no function {function!r}")
    node = everything[function]
    found = places(node, plain(old))
    if len(found) != 1:
        raise NotFound(f"{len(found)} places in {function or 'the module'} read {old!r}")
    (parent, field, index, count) = found[0]
    target = getattr(parent, field) if index is None else getattr(parent, field)[index]
    fresh = ast.parse(plain(new)).body if new else [ast.Pass()]
    if isinstance(target, ast.stmt):
        if old.rstrip().endswith(":"):  # the head alone: the body stays
            fresh[0].body, fresh[0].orelse = target.body, getattr(target, "orelse", [])
        for statement in fresh:
            move(statement, target)
        getattr(parent, field)[index : index + count] = fresh
    else:
        move(fresh[0].value, target)
        if hasattr(target, "ctx"):
            fresh[0].value.ctx = target.ctx  # assigned to, or read
        if index is None:
            setattr(parent, field, fresh[0].value)
        else:
            getattr(parent, field)[index] = fresh[0].value


def move(node, target):
    """Give new nodes the line of what they replace."""
    for child in ast.walk(node):
        if not hasattr(child, "lineno") and isinstance(child, (ast.stmt, ast.expr)):
            ast.copy_location(child, target)
        elif hasattr(child, "lineno"):
            child.lineno, child.end_lineno = target.lineno, target.end_lineno
            child.col_offset, child.end_col_offset = target.col_offset, target.end_col_offset


def planted_in_kernel(text, function, old, new):
    """The same in the text of CUDA kernels: `old` occurs once in the function's body, but for spaces."""
    opening = re.search(
        rf"^(?:KERNEL|DEVICE|LANES_DEVICE|template)[^;{{}}]*\b{function}\([^;{{}}]*\{{", text, re.MULTILINE
    )
    if not opening:
        raise NotFound(f"no function {function!r}")
    depth, end = 1, opening.end()
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    body = text[opening.start() : end]
    found = list(re.finditer(r"\s*".join(re.escape(part) for part in old.split()), body))
    if len(found) != 1:
        raise NotFound(f"{len(found)} places in {function} read {old!r}")
    (match,) = found
    return text[: opening.start()] + body[: match.start()] + new + body[match.end() :] + text[end:]


# --- The live library ---------------------------------------------------------------------------------------------


class Mistake(NamedTuple):
    """A module below the package (or a .cu file), a function in it, what it reads, and what it shall read."""

    module: str
    function: str
    old: str
    new: str

    def check(self):
        """Raise NotFound unless its place is there."""
        text = source_of(self.module).read_text(encoding="utf-8")
        if self.module.endswith(".cu"):
            return planted_in_kernel(text, self.function, self.old, self.new)
        tree = ast.parse(text)
        planted(tree, self.function, self.old, self.new)
        return tree

    def plant(self):
        """Make it, in this process."""
        made, path = self.check(), source_of(self.module).resolve()
        if self.module.endswith(".cu"):
            from minifcn.backend.source import Source

            Source.text = property(lambda s: made if s.path.resolve() == path else s.path.read_text(encoding="utf-8"))
        else:
            module = importlib.import_module(f"{PACKAGE}.{self.module}".rstrip("."))
            take_over(module, made, self.function)
        forget()


def take_over(module, tree, name):
    """Let the live functions of a module have the code of `tree`, in which the function or class `name` was changed."""
    path = module.__file__
    text = Path(path).read_text(encoding="utf-8")
    was, now = (functions(t)[name] for t in (ast.parse(text), tree))
    codes = dict(pairs(compile(text, path, "exec"), compile(ast.fix_missing_locations(tree), path, "exec")))
    for function in live(types.FunctionType):
        old = function.__code__
        if codes.get(old, old) != old:
            function.__code__ = codes[old]
        own = isinstance(now, ast.FunctionDef) and old.co_filename == path and old.co_name == now.name
        own = own and now.lineno >= old.co_firstlineno >= min(d.lineno for d in [*now.decorator_list, now])
        if own and ast.dump(was.args) != ast.dump(now.args):
            names, named = function.__globals__, zip(now.args.kwonlyargs, now.args.kw_defaults, strict=True)
            function.__defaults__ = tuple(eval(ast.unparse(value), names) for value in now.args.defaults) or None
            function.__kwdefaults__ = {a.arg: eval(ast.unparse(value), names) for a, value in named if value} or None
    if not isinstance(now, ast.FunctionDef):
        assign(module, name, was, now)


def live(kind):
    """All objects of a type: those that were there before the first fork, and later ones."""
    return [o for o in (*frozen, *gc.get_objects()) if isinstance(o, kind)]


frozen = []  # functions and caches of what the collector no longer walks through


def freeze():
    """Spare every fork the walk through all that pytest has collected, which would copy its memory too."""
    frozen[:] = [*live(types.FunctionType), *live(functools._lru_cache_wrapper)]
    gc.freeze()


def thaw():
    gc.unfreeze()
    frozen.clear()


def pairs(old, new):
    """Code objects that stand at the same place in two versions of a module."""
    yield old, new
    inside = [[c for c in code.co_consts if isinstance(c, types.CodeType)] for code in (old, new)]
    names = [[c.co_name for c in codes] for codes in inside]
    if names[0] == names[1]:
        for couple in zip(*inside, strict=True):
            yield from pairs(*couple)


def assign(module, name, was, now):
    """Carry out the changed assignments of a module or class, wherever their names have been imported to."""
    known = {ast.unparse(s) for s in was.body}
    kinds = ast.Assign, ast.AnnAssign, ast.AugAssign
    fresh = [s for s in now.body if isinstance(s, kinds) and ast.unparse(s) not in known]
    owner = functools.reduce(getattr, name.split(".") if name else [], module)
    values = dict(vars(owner))
    exec(compile(ast.Module(fresh, []), module.__file__, "exec"), vars(module) if name else values, values)
    for key, value in values.items():
        old = vars(owner).get(key)
        if value is old or key == "__builtins__":
            continue
        for other in list(sys.modules.values()) if not name else ():
            if isinstance(other, types.ModuleType) and vars(other).get(key) is old:
                setattr(other, key, value)
        setattr(owner, key, value)


def forget():
    """Empty all caches of functions' results."""
    for cached in live(functools._lru_cache_wrapper):
        if (getattr(cached, "__module__", None) or "").startswith(PACKAGE):
            cached.cache_clear()


# --- Forks --------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """verdict: "caught", "survived", "skipped", "error" (in planting), "crash" or "timeout"; what was said; seconds."""

    verdict: str
    said: str
    seconds: float


class Watch:
    """A plugin that notes the first failure, whether anything ran at all, and how long each test took."""

    def __init__(self):
        self.failure, self.ran, self.seconds, self.node = None, False, {}, None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        self.seconds[item.nodeid] = self.seconds.get(item.nodeid, 0) + report.duration
        self.ran = self.ran or (call.when == "call" and not report.skipped)
        if report.failed and self.failure is None:
            error = call.excinfo.value
            spoiled = isinstance(error, NOT_A_FINDING) or type(error).__name__ == "CompileError"
            self.failure = ("error" if spoiled else "caught", f"{item.nodeid}: {call.excinfo.exconly()[:300]}")
        return report


def run_items(items, watch, stop_at_failure=True, budget=None):
    """Run collected tests one after the other, as pytest does."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        watch.node = item.nodeid
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if (budget and time.process_time() > budget) or (watch.failure and stop_at_failure):
            return


class Forks:
    """A few forked processes at a time."""

    def __init__(self, workers, limit):
        self.workers, self.limit, self.running, self.count = workers, limit, {}, 0

    def start(self, key, work, again=True):
        """Call work() in a fork as soon as there is room. Yields (key, what it returned or an Outcome) of those that ended."""
        while len(self.running) >= self.workers:
            yield from self.ended()
        self.count += 1
        result = Path(self.scratch, f"{self.count}.result")
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            with contextlib.suppress(BaseException):
                os.setpgid(0, 0)  # so that what a test starts can be ended with it
                quiet = os.open(os.devnull, os.O_WRONLY)
                os.dup2(quiet, 1), os.dup2(quiet, 2)
                os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(prefix="planted-", dir=self.scratch)
                try:
                    value = work()
                except BaseException as error:
                    value = Outcome("error", f"{type(error).__name__}: {error}", 0)
                result.write_bytes(pickle.dumps(value))
            os._exit(0)
        self.running[pid] = key, work, again, result, time.monotonic() + self.limit

    def ended(self):
        time.sleep(0.01)
        for pid, (key, work, again, path, deadline) in list(self.running.items()):
            late = time.monotonic() > deadline
            if late:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            if late or os.waitpid(pid, os.WNOHANG)[0]:
                if late:
                    os.waitpid(pid, 0)
                del self.running[pid]
                if late and again:  # a machine that stalls is not a finding
                    yield from self.start(key, work, again=False)
                elif path.exists():
                    yield key, pickle.loads(path.read_bytes())
                else:
                    yield key, Outcome("timeout" if late else "crash", "", self.limit)

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="planted-", ignore_cleanup_errors=True)
        self.scratch = self.folder.name
        freeze()
        return self

    def __exit__(self, *_):
        thaw()
        for pid in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.folder.cleanup()

    def finish(self):
        while self.running:
            yield from self.ended()


def trial(mistake, items, config, budget=None):
    """Plant a mistake (None: none) and run tests until one fails, for at most so many seconds of work. -> Outcome"""
    watch, start = Watch(), time.monotonic()
    config.pluginmanager.register(watch)
    if mistake is not None:
        mistake.plant()
    run_items(items, watch, budget=budget and time.process_time() + budget)
    seconds = time.monotonic() - start
    if watch.failure:
        return Outcome(*watch.failure, seconds)
    return Outcome("survived" if watch.ran else "skipped", "", seconds)


def with_collected(arguments, work):
    """Let pytest collect, then call `work(session)` in place of running the tests. -> what it returned"""

    class Instead:
        result = None

        def pytest_runtestloop(self, session):
            self.result = work(session)
            return True

    instead = Instead()
    options = "-q --continue-on-collection-errors -p no:cacheprovider -p no:xdist --capture=sys --tb=short --no-header"
    pytest.main([*options.split(), "-o", "addopts=", *arguments], plugins=[instead])
    return instead.result
