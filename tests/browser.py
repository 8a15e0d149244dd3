"""Chromium without a window, for the tests of pages: a script acts in the page as a reader would, and says what it sees."""

import atexit
import shutil
from functools import cache

import pytest

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def is_missing():
    return CHROMIUM is None or sync_playwright is None


needs_browser = pytest.mark.skipif(
    is_missing(),
    reason="pages are tested in chromium by playwright: one of them is not installed",
)
HELPERS = """
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
async function until(condition) {
  for (const end = Date.now() + 60000; !condition(); await sleep(5)) {
    if (Date.now() > end) throw new Error("not reached within a minute: " + condition);
  }
}
"""


@cache
def browser():
    """One for all tests of a process: a start costs a second."""
    playwright = sync_playwright().start()
    started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
    atexit.register(playwright.stop)
    atexit.register(started.close)
    return started


def in_page(page, script, width=1280, height=900):
    """Run the body of an async function in a page (a path), in a window of this size. -> what it returned

    It may use sleep(ms) and until(condition). A fault of the page's own scripts is an error here.
    """
    with browser().new_page(viewport={"width": width, "height": height}) as tab:
        faults = []
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(page.as_uri())
        value = tab.evaluate(f"async () => {{ {HELPERS} {script} }}")
    assert not faults, faults[0]
    return value
