"""The report of a run: one HTML page with everything inside it."""

import html
from pathlib import Path

import numpy as np

from ..files import write_text
from . import steps
from .figures import data_url
from .tables import OBJECT_SCORES, SCORES, panoptic_rows, score_rows

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
h1, h2 {{ font-weight: 600; line-height: 1.2; }} h2 {{ margin-top: 2.2rem; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; }} th, td {{ padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }} thead th {{ border-bottom: 2px solid #888; }}
figure {{ margin: 1rem 0; overflow-x: auto; }} img {{ max-width: 100%; height: auto; }} figcaption {{ color: #555; }}
.steps img {{ display: block; margin-bottom: .4rem; width: 40rem; max-width: none; image-rendering: pixelated; }} .steps input {{ width: 16rem; max-width: 60vw; vertical-align: middle; }}
.settings {{ columns: 3 14rem; font-size: .9rem; padding: 0; list-style: none; }} .settings b {{ font-weight: 600; }}
@media (max-width: 32rem) {{ figure img {{ max-width: 44rem; }} th, td {{ padding: .3rem; font-size: .8rem; }} }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def write_page(path, title, results, classes, figures, settings):
    """One HTML page with everything inside it.

    results: {name: (ConfusionMatrix, seconds)}. figures: {PNG path: caption}. settings: {name: value}. The page also shows
    the training steps kept by runs inside its folder.
    """
    body = [
        "<h2>Scores on the validation images</h2>",
        _table(["network", *SCORES.values(), "seconds"], score_rows(results)),
    ]
    if judged := {name: matrix for name, (matrix, _) in results.items() if "pq" in matrix.scores()}:
        body.append(_table(["objects by", *OBJECT_SCORES.values()], panoptic_rows(judged)))
    for picture, caption in figures.items():
        body.append(f"<figure>{embedded(picture, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>")
    body += steps.shown(Path(path).parent)
    body += ["<h2>IU by class</h2>", _table(["class", *results], _iou_rows(results, classes))]
    items = "".join(f"<li><b>{html.escape(k)}</b> {html.escape(str(v))}</li>" for k, v in settings.items())
    body += ["<h2>Settings</h2>", f'<ul class="settings">{items}</ul>']
    write_text(path, _PAGE.format(title=html.escape(title), body="\n".join(body)))


def embedded(picture, alt):
    """A PNG file as an <img> that holds it, for pages of one file."""
    return f'<img alt="{html.escape(alt)}" src="{data_url(Path(picture).read_bytes(), "png")}">'


def _table(header, rows):
    def row(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(row(r, "td") for r in rows)
    return f'<div class="wide"><table><thead>{row(header, "th")}</thead><tbody>{body}</tbody></table></div>'


def _iou_rows(results, classes):
    columns = [matrix.per_class_iou() for matrix, _ in results.values()]
    return [
        [name, *("–" if np.isnan(column[i]) else f"{100 * column[i]:.1f}" for column in columns)]
        for i, name in enumerate(classes)
        if not all(np.isnan(column[i]) for column in columns)
    ]
