"""Docstrings here are plain text, to be read in the source; this makes of them what Sphinx reads without a warning."""

import re

_MARKUP = re.compile(r"([\\*|_:`<>])")


def to_restructured(lines):
    """A plain docstring's lines as reStructuredText: `code` as such, indented blocks as they stand, lists, text."""
    out, block = [], "text"
    for line in lines:
        kind = _kind(line, block)
        if kind != block:
            out += ["", "::", ""] if kind == "literal" else [""]
            block = kind
        inside = kind == "list" and line.startswith("  ")
        out.append(line if kind == "literal" else "  " * inside + _text(line.strip()))
    return out


def _kind(line, block):
    """What a line belongs to: a "literal" block, a "list" or "text"."""
    if line.startswith("    ") and block != "list":
        return "literal"
    if line.startswith("- ") or (block == "list" and line.startswith("  ")):
        return "list"
    return block if not line.strip() else "text"


def _text(line):
    pieces = re.split(r"`([^`]+)`", line)
    for i, piece in enumerate(pieces):
        pieces[i] = f"``{piece}``" if i % 2 else _MARKUP.sub(r"\\\1", piece)
    return "".join(pieces)


def setup(app):
    """Have autodoc's docstrings pass through."""

    def convert(app, what, name, thing, options, lines):
        lines[:] = to_restructured(lines)

    app.connect("autodoc-process-docstring", convert)
    return {"parallel_read_safe": True}
