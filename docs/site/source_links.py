"""Links to a module's file, and names in `code`, lead to the reference and to the page of the source."""

import importlib
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

FILE = re.compile(r"(?:minifcn/)?(\w+(?:/\w+)*)\.py")
NAME = re.compile(r"(?:minifcn\.)?([a-z_]+(?:\.\w+)+)(?:\(.*\))?")


def setup(app):
    """Mark what can be linked when a page is read, and link it when all pages are known."""
    app.connect("doctree-read", mark, priority=100)  # before files to download are collected
    app.connect("missing-reference", link)
    return {"parallel_read_safe": True}


def mark(app, doctree):
    """Put a reference in place of a link to a module's file, and around a file or name of the library in `code`."""
    here = Path(app.env.doc2path(app.env.docname)).parent
    for node in list(doctree.findall(addnodes.pending_xref)):
        parts = node["reftarget"].split("/")
        if node["reftype"] == "myst" and (folder := here / node["reftarget"]).is_dir():
            node.replace_self(_folder(app, node, folder.resolve()))
            continue
        if node["refdomain"] == "doc" and parts[0] == "minifcn" and (module := _module(parts[1:])):
            target = {"reftype": "source", "reftarget": module.__name__, "refdoc": node["refdoc"], "refwarn": True}
            node.replace_self(addnodes.pending_xref("", *node.children, **target))
    for node in list(doctree.findall(nodes.literal)):
        around = node.parent
        while around and not isinstance(around, nodes.title | nodes.reference | addnodes.pending_xref | addnodes.desc):
            around = around.parent
        if not around and (target := _target(node.astext())):
            node.replace_self(addnodes.pending_xref("", node.deepcopy(), **target))


def link(app, env, node, contents):
    """The source page of a module, where there is one."""
    if node["reftype"] != "source":
        return None
    if node["reftarget"] not in getattr(env, "_viewcode_modules", {}):
        return nodes.inline("", "", *node.children)
    page = "_modules/" + node["reftarget"].replace(".", "/")
    return nodes.reference(
        "", "", *node.children, internal=True, refuri=app.builder.get_relative_uri(node["refdoc"], page)
    )


def _folder(app, node, folder):
    """A link to a folder leads to a package's reference; a site has no other folders."""
    name = ".".join(folder.relative_to(app.srcdir).parts)
    if not (Path(app.srcdir) / "docs" / "api" / f"{name}.rst").exists():
        return nodes.inline("", "", *node.children)
    target = {"refdomain": "std", "reftype": "doc", "reftarget": f"/docs/api/{name}", "refdoc": node["refdoc"]}
    return addnodes.pending_xref("", nodes.inline("", node.astext()), refexplicit=True, refwarn=True, **target)


def _target(text):
    """The attributes of a reference to what stands in `code`, or None."""
    if found := FILE.fullmatch(text):
        if module := _module(found[1].split("/")):
            return {"reftype": "source", "reftarget": module.__name__}
    elif found := NAME.fullmatch(text):
        *parts, name = found[1].split(".")
        thing = getattr(_module(parts), name, None)
        if getattr(thing, "__module__", "").startswith("minifcn.") and hasattr(thing, "__qualname__"):
            target = f"{thing.__module__}.{thing.__qualname__}"
            return {"refdomain": "py", "reftype": "obj", "reftarget": target, "refwarn": False}
    return None


def _module(parts):
    try:
        return importlib.import_module(".".join(["minifcn", *parts]))
    except ImportError:
        return None
