"""Bugs that the tests have to catch: where each is, what it makes of the code, and the test that fails by it.

Add one whenever a test is written for a mistake: a test that no bug can fail tests nothing. `make bugs` runs them.
"""

from typing import NamedTuple


class Bug(NamedTuple):
    """Names are noun phrases of what is wrong. `old`: an expression, a statement, or its head ("if x:"), once in the function."""

    name: str
    module: str  # below minifcn: "ops.conv", or "ops/pool.cu"
    function: str  # "Adam.step"; "" for what is outside of functions
    old: str
    new: str  # "" removes a statement
    test: str  # "transforms::test_jitter" in tests/test_transforms.py

    @property
    def node(self):
        file, _, test = self.test.partition("::")
        return f"tests/test_{file}.py::{test}"


def bugs(module, *rows):
    """The bugs of a module, from (name, function, old, new, test)."""
    return [Bug(name, module, *rest) for name, *rest in rows]
