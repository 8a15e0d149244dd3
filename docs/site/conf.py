"""The book's settings: Sphinx reads the repository, `make book` builds build/book."""

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import minifcn  # noqa: E402

project = "minifcn"
author = "the minifcn authors"
release = minifcn.__version__
html_title = "minifcn"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "plain_docstrings",
    "reference",
    "source_links",
    "lessons_of_the_book",
]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/api/*.rst", "lessons/[0-9][0-9]_*.py", "lessons/README.md", "README.md"]
include_patterns += [
    "CONTRIBUTING.md",
    "RELIABILITY.md",
    "CHANGELOG.md",
    "benchmarks/**.md",
    "minifcn/models/trained/*.md",
]
nitpicky = True
suppress_warnings = ["toc.not_included"]  # the benchmarks' records are reached from their page

# The lessons: text in the percent format, executed once and kept until they or the library change.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_timeout = 600  # seconds a cell
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "warn"  # ends the build: what a reader should see is printed
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and dtypes, which types do not have, stand in the text
autosummary_generate = False
autodoc_docstring_signature = False  # argparse has one that is none

smartquotes_action = "qe"  # quotes and dots: --data stays an option of the command line
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_extra_path = ["top"]
html_show_sphinx = html_show_copyright = False
copybutton_exclude = ".linenos, .gp, .go"


def _library():
    """A name for the state of everything that a lesson computes with."""
    digest = hashlib.sha256()
    for path in sorted([*ROOT.glob("minifcn/**/*.*"), *ROOT.glob("lessons/[a-z]*.*")]):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


nb_execution_cache_path = str(ROOT / "build" / "lessons" / _library())
