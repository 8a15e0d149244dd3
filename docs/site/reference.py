"""Writes docs/api: a page of reference for each package, with its public names and then its modules."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import minifcn

MEMBERS = ["   :members:", "   :ignore-module-all:"]  # what a module defines, not what it passes on


def setup(app):
    """Write the pages before Sphinx looks which there are."""
    app.connect("config-inited", write)
    return {"parallel_read_safe": True}


def write(app, config):
    """One page for each package or module directly inside minifcn; a page that is right already is left alone."""
    folder = Path(app.srcdir) / "docs" / "api"
    folder.mkdir(exist_ok=True)
    for found in pkgutil.iter_modules(minifcn.__path__, "minifcn."):
        if found.name != "minifcn.__main__":
            path, text = folder / f"{found.name}.rst", "\n".join(_page(importlib.import_module(found.name)))
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")


def _page(package):
    """The lines of a package's page."""
    lines = [package.__name__, "=" * 60, "", f".. automodule:: {package.__name__}", *MEMBERS]
    if not hasattr(package, "__path__"):
        return lines
    if names := [name for name in map(_home, _public(package)) if name]:
        lines += ["", ".. currentmodule:: None", "", ".. autosummary::", "   :nosignatures:", ""]
        lines += [f"   ~{name}" for name in names]
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        name = found.name.removeprefix(package.__name__ + ".")
        lines += ["", name, "-" * 60, "", f".. automodule:: {found.name}"]
        lines += MEMBERS
    return lines


def _public(package):
    return [getattr(package, name) for name in getattr(package, "__all__", ())]


def _home(thing):
    """The name under which a function or class of the library is documented, where it is defined; None for others."""
    if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__.startswith("minifcn."):
        return f"{thing.__module__}.{thing.__qualname__}"
    return None
