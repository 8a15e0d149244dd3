"""The lessons run before Sphinx reads them, one on each core; it then finds what they gave in the cache."""

import logging
import os
import shutil
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from sphinx.errors import ExtensionError


def setup(app):
    """Run the lessons at the start of a build; offer each as a notebook, and put these beside the pages at its end."""
    app.connect("builder-inited", execute, priority=900)  # after myst-nb has said where its cache is
    app.connect("html-page-context", offer)
    app.connect("build-finished", copy_notebooks)
    return {"parallel_read_safe": True}


def execute(app):
    """Run those that the cache does not have. Raises ExtensionError with the traceback of one that fails."""
    if app.config.nb_execution_mode != "cache":
        return
    cache = get_cache(app.config.nb_execution_cache_path)
    for path in sorted(Path(app.srcdir).glob("lessons/[0-9][0-9]_*.py")):
        cache.add_nb_to_project(str(path), read_data={"name": "jupytext", "type": "plugin"})
    os.environ["MINIFCN_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    logger = logging.getLogger("lessons")
    logger.setLevel(logging.INFO)  # says which lesson runs
    result = load_executor("local-parallel", cache, logger=logger).run_and_cache(
        timeout=app.config.nb_execution_timeout
    )
    if failed := [*result.excepted, *result.errored]:
        raise ExtensionError("\n".join(f"{uri}\n{cache.get_project_record(uri).traceback}" for uri in failed))


def offer(app, page, template, context, doctree):
    """Say at the top of a lesson where its notebook is."""
    folder, _, name = page.partition("/")
    if folder == "lessons" and name[:2].isdigit():
        link = f'<a href="{name}.ipynb" download>{name}.ipynb</a>'
        context["body"] = (
            f'<p class="notebook">As a notebook, to run in a clone\'s folder lessons: {link}</p>{context["body"]}'
        )


def copy_notebooks(app, error):
    """Put the executed notebooks beside the lessons' pages."""
    if not error:
        for path in Path(app.outdir).parent.glob("jupyter_execute/lessons/*.ipynb"):
            shutil.copy(path, Path(app.outdir) / "lessons")
