"""One HTML page of lessons that were run: text, code, what it printed and the figures, in their order."""

from html import escape
from string import Template

from markdown_it import MarkdownIt
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from cells import title
from minifcn.report.page import embedded

FORMAT = HtmlFormatter(style="friendly", cssclass="code")
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")

PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>minifcn: lessons</title>
<style>
body { font: 17px/1.6 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; padding: 0 1rem 4rem; max-width: 46rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 3.5rem 0 1rem; padding-top: 1.5rem; border-top: 3px solid #222; }
h2 { font-size: 1.35rem; line-height: 1.3; margin-top: 2.5rem; } h3 { font-size: 1.1rem; margin-top: 2rem; }
header h1 { border: 0; padding: 0; margin-top: 2rem; }
code { font-size: .9em; background: #f2f2f2; padding: .1em .3em; border-radius: 3px; overflow-wrap: break-word; }
pre { font-size: .84rem; line-height: 1.45; overflow-x: auto; padding: .8rem 1rem; margin: .8rem 0; border-radius: 6px; }
pre code { font-size: 1em; background: none; padding: 0; }
.code pre, .text pre { background: #f6f6f4; } .printed { background: #fff; border: 1px solid #ddd; border-left: 4px solid #1f618d; }
.failed { border: 1px solid #c0392b; border-left-width: 4px; color: #8e2a1e; }
figure { margin: 1.2rem 0; overflow-x: auto; } figure img { display: block; width: 100%; min-width: 30rem; height: auto; }
table { border-collapse: collapse; display: block; overflow-x: auto; } th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
nav ol { padding-left: 0; list-style: none; } nav li { display: flex; justify-content: space-between; gap: 1rem; border-bottom: 1px solid #eee; padding: .25rem 0; }
nav span { color: #666; white-space: nowrap; } a { color: #1f618d; }
$colours
</style></head><body>
<header><h1>From a pixel to a segmentation network</h1>
<p>Fully convolutional networks in NumPy, every forward and every backward pass by hand. Each lesson is a script in
<code>lessons/</code>; this page shows what it says, does, prints and draws.</p>
<nav><ol>$contents</ol></nav></header>
$lessons
</body></html>
""")


def html(records):
    """The page, with all figures inside it.   records: those of `cells.run`"""
    contents = "".join(
        f'<li><a href="#{escape(r.path.stem)}">{escape(title(r.path))}</a><span>{"failed" if r.error else f"{r.seconds:.0f} s"}</span></li>'
        for r in records
    )
    lessons = "".join(
        f'<article id="{escape(r.path.stem)}">{"".join(map(_cell, r.cells))}{_failure(r)}</article>'
        for r in records
    )
    return PAGE.substitute(
        contents=contents, lessons=lessons, colours=FORMAT.get_style_defs(".code")
    )


def _cell(cell):
    if cell.kind == "markdown":
        return f'<div class="text">{MARKDOWN.render(cell.source)}</div>'
    parts = [highlight(cell.source, PythonLexer(), FORMAT)]
    if cell.printed.strip():
        parts.append(f'<pre class="printed">{escape(cell.printed.rstrip())}</pre>')
    return "".join([*parts, *map(_figure, cell.figures)])


def _figure(path):
    with Image.open(path) as picture:
        caption = picture.text.get("Description")
    said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{embedded(path, caption or path.stem)}{said}</figure>"


def _failure(record):
    return f'<pre class="failed">{escape(record.error)}</pre>' if record.error else ""
