"""What the book's own parts do: the check of links, and docstrings made ready for Sphinx. `make book` itself is CI's."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "site"))

from check import faults  # noqa: E402
from plain_docstrings import to_restructured  # noqa: E402

GOOD = """<html><head><link rel="stylesheet" href="style.css"><link rel="canonical" href="https://example.org/a.html"></head>
<body><h1 id="top">A</h1><a href="#top">up</a> <a href="b/c.html#part%20two">c</a> <a href="https://example.org">away</a>
<img src="data:image/png;base64,AAAA"></body></html>"""


@pytest.fixture
def site(tmp_path):
    """A folder with a page that has no fault, and what it needs."""
    (tmp_path / "b").mkdir()
    (tmp_path / "style.css").write_text("body { background: url(data:image/png;base64,AAAA); }")
    (tmp_path / "b" / "c.html").write_text('<h2 id="part two">C</h2><a href="../a.html">back</a>')
    (tmp_path / "a.html").write_text(GOOD)
    return tmp_path


def test_a_site_without_faults_has_none(site):
    assert faults(site) == ([], 2, 4)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("b/c.html#", "b/d.html#", "a.html: b/d.html#part%20two is not there"),
        ("part%20two", "part", "a.html: b/c.html#part: no such anchor"),
        ("#top", "#bottom", "a.html: #bottom: no such anchor"),
        ('"style.css"', '"styles.css"', "a.html: styles.css is not there"),
        ("data:image/png;base64,AAAA", "picture.png", "a.html: picture.png is not there"),
        ('"style.css"', '"https://example.org/style.css"', "a.html: loads https://example.org/style.css"),
        ("data:image/png;base64,AAAA", "//example.org/picture.png", "a.html: loads //example.org/picture.png"),
    ],
)
def test_each_fault_is_found(site, old, new, fault):
    (site / "a.html").write_text(GOOD.replace(old, new))
    assert faults(site)[0] == [fault]


def test_a_style_that_loads_from_the_network_is_found(site):
    (site / "style.css").write_text("@font-face { src: url(https://example.org/font.woff2); }")
    assert faults(site)[0] == ["style.css: loads from the network"]


def test_a_docstring_is_text_code_and_lists():
    plain = """Where a pixel lies: a·u + b*c, in `code*`.

    convolution:   a = 1/stride
    crop:          a = 1

Raises InputError.
- one |thing|
  goes on
- another
The end."""
    assert "\n".join(to_restructured(plain.splitlines())) == "\n".join(
        [
            r"Where a pixel lies\: a·u + b\*c, in ``code*``.",
            *["", "", "::", ""],
            "    convolution:   a = 1/stride",
            "    crop:          a = 1",
            *["", ""],
            "Raises InputError.",
            *["", r"- one \|thing\|", "  goes on", "- another", ""],
            "The end.",
        ]
    )
