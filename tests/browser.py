"""Chromium without a window, for the tests of pages: a script acts in the page as a reader would, and says what it sees."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed, in which pages are tested")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
READY = """
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const until = async (there) => { while (!there()) await sleep(5); };
addEventListener("error", (event) => report({ error: event.message }));
addEventListener("unhandledrejection", (event) => report({ error: String(event.reason.stack) }));
function report(found) {
  const text = document.createElement("pre");
  text.id = "result";
  text.textContent = JSON.stringify(found);
  document.documentElement.replaceChildren(text);
}
"""


def in_page(page, folder, script, width=1280, height=900):
    """Run the body of an async function in a copy of a page, in a window of this size. -> what it returned

    It may use sleep(ms) and until(condition). A fault of the page's own scripts is an error here.
    """
    text = page.read_text(encoding="utf-8")
    start = f"<script>{READY}</script>"
    end = f"<script>(async () => {{ report({{ value: await (async () => {{ {script} }})() }}); }})();</script>"
    copy = folder / "in_browser.html"
    copy.write_text(text.replace("<head>", "<head>" + start, 1).replace("</body>", end + "</body>"), encoding="utf-8")
    where = (f"--user-data-dir={folder / 'chromium'}", f"--window-size={width},{height}", "--virtual-time-budget=60000")
    command = [CHROMIUM, *FLAGS, *where, "--dump-dom", copy.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=180, encoding="utf-8").stdout
    (found,) = re.findall(r'<pre id="result">(.*?)</pre>', shown, re.DOTALL) or [None]
    assert found is not None, f"the page did not come to an end: {shown[-300:]}"
    found = json.loads(unescape(found))
    assert "error" not in found, found["error"]
    return found.get("value")
