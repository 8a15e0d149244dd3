"""What every lesson needs around it: the device it runs on, and figures that are saved and shown."""

import argparse
import atexit
import base64
import html
import itertools
import json
import logging
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minifcn import backend
from minifcn.cli.predict import overlay
from minifcn.data.labels import colourise
from minifcn.inference.explore import explore
from minifcn.report.explorer import write_explorer
from minifcn.report.figures import add_legend
from minifcn.report.page import embedded
from minifcn.testing import strict

OUTPUT = Path(__file__).parent / "output"
_places = itertools.count(1)  # each widget of a notebook has its own
MAPS = 200_000  # bytes for the maps that an explorer shows
_FRAMED = """header, footer, #looks, #right h2:last-of-type { display: none; } #stage { max-width: 20rem; }
#left { position: static; max-height: none; } body { padding-bottom: .5rem; }"""  # an explorer inside a lesson
# The frame's height is that of its page; its colours follow a switch of the page around it, whose letters are bright in the dark.
_FIT = """const f = this, page = f.contentDocument, fit = () => { f.style.height = `${page.body.scrollHeight + 4}px`; };
new ResizeObserver(() => requestAnimationFrame(fit)).observe(page.body);
const dark = [...page.styleSheets].flatMap((sheet) => [...sheet.cssRules]).find((rule) => rule.media?.mediaText.includes(`dark`));
const paint = () => {
  const [red, green, blue] = getComputedStyle(f).color.match(/[0-9.]+/g).map(Number);
  dark.media.mediaText = red + green + blue > 384 ? `all` : `not all`;
};
for (const root of [document.documentElement, document.body]) new MutationObserver(paint).observe(root, { attributes: true });
matchMedia(`(prefers-color-scheme: dark)`).addEventListener(`change`, paint);
paint();"""
WIDTH = 7  # inches of every figure: with letters of 11 points and more still legible on a phone

plt.rcParams.update(
    {
        "figure.figsize": (WIDTH, 3.4),
        "figure.constrained_layout.use": True,
        "savefig.dpi": 150,
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.labelsize": 11,
        "legend.fontsize": 11,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def begin():
    """Choose where arrays live, by --device where the lesson is run as a script, and print it.

    --device auto (a GPU if one works), cpu, cuda, cuda:1 (the GPU of that number), or strict: a stand-in for a GPU that
    runs anywhere, slowly (lesson 17).
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--device", default="auto")
    args, _ = parser.parse_known_args(sys.argv[1:])  # a notebook has others
    backend.register(strict.DEVICE)
    # The line about the device is printed here; once is enough.
    backend.log.addHandler(logging.NullHandler())
    try:
        line = backend.use(args.device)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: --device {args.device}: {error}")
    print(line.partition(" (")[0] if "ipykernel" in sys.modules else line)


def show(figure, name, caption=""):
    """Save a figure as output/NAME.png, and show it where there is a notebook or a screen.

    caption: what is to be seen on it; stands below the figure, and in its place for those who cannot see it.
    Raises ValueError if a text runs over its edge.
    """
    figure.canvas.draw()
    used, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    if min(used.x0, used.y0, width - used.x1, height - used.y1) < -0.02:
        raise ValueError(
            f"figure {name}: something runs over the edge: {used} of {width:.2f} x {height:.2f} inches"
        )
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / f"{name}.png"
    figure.savefig(path, metadata={"Description": caption})
    if "ipykernel" in sys.modules:
        said = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        display(f"<figure>{embedded(path, caption or _words(figure))}{said}</figure>")
        plt.close(figure)
        return
    print(f"[figure: {path}]")
    if plt.get_backend().lower() == "agg":  # no screen
        plt.close(figure)
    else:
        figure.show()
        atexit.register(plt.show)  # keeps the windows open at the end, until closed


def widget(name, numbers, instead):
    """Show something to touch: widgets/NAME.js with its numbers, where there is a notebook; elsewhere say `instead`.

    numbers: what JSON can hold, and arrays of uint8, which the script gets as {shape, bytes in base64}; or a function
    that works them out where they are needed.
    """
    if in_notebook(instead):
        display(widget_html(name, numbers() if callable(numbers) else numbers))


def in_notebook(instead):
    """Whether there is a notebook to show something in; elsewhere say what would be there."""
    there = "ipykernel" in sys.modules
    if not there:
        print(f"[to touch, in the book or a notebook: {instead}]")
    return there


def explorer(name, title, network, image):
    """Show the page of `minifcn explore` for a small image (H, W, 3) uint8: in a notebook here, elsewhere as output/NAME.html."""
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / f"{name}.html"
    write_explorer(path, title, explore(network, image, MAPS), network, {}, [])
    if "ipykernel" in sys.modules:
        display(framed(path.read_text(encoding="utf-8"), title))
    else:
        print(f"[to touch, in a browser: {path}]")


def framed(page, title):
    """A page inside another: as high as it is, dark where the other is, without what only a page of its own needs."""
    page = html.escape(page.replace("</head>", f"<style>{_FRAMED}</style></head>", 1))
    look = "width: 100%; height: 60rem; border: 1px solid #8886; border-radius: .4rem; box-sizing: border-box"
    return f'<iframe title="{html.escape(title)}" style="{look}" onload="{_FIT}" srcdoc="{page}"></iframe>'


def widget_html(name, numbers):
    """The markup of a widget, with its script, style and numbers inside."""

    def packed(array):
        data = base64.b64encode(np.ascontiguousarray(array, np.uint8)).decode("ascii")
        return {"shape": array.shape, "bytes": data}

    folder = Path(__file__).parent / "widgets"
    shared, script, style = (
        (folder / file).read_text(encoding="utf-8")
        for file in ("widget.js", f"{name}.js", "widget.css")
    )
    given = json.dumps(numbers, default=packed).replace("<", "\\u003c")
    place = f"{name}-{next(_places)}"
    return (
        f'<div class="widget {name}" id="{place}"></div><style>{style}</style><script>{{{shared}{script}\n'
        f"widget(document.getElementById('{place}'), {given});}}</script>"
    )


def _words(figure):
    """What stands written on a figure, for those who cannot see it."""
    labels = [
        text
        for axes in figure.axes
        for text in (axes.get_title(), axes.get_xlabel(), axes.get_ylabel())
    ]
    return "Figure: " + ", ".join(dict.fromkeys(filter(None, labels)))


def display(markup):
    """Show HTML in a notebook."""
    from IPython import display

    display.display({"text/html": markup}, raw=True)  # display.HTML warns of frames


def over(image, labels):
    """An image under the colours of its labels.   (H, W, 3), (H, W), both uint8 -> (H, W, 3)"""
    return overlay(image, colourise(labels))


def by_colour(numbers):
    """Each object in a colour of its own, the background and 255 black.   (H, W) -> (H, W, 3)"""
    colours = plt.get_cmap("tab20")(np.arange(20))[:, :3]
    there = ((numbers > 0) & (numbers < 255))[..., None]
    return np.where(there, colours[numbers % 20], 0)


def running(losses):
    """The mean of each loss and up to 14 before it: single batches differ too much to read a curve."""
    return [np.mean(losses[max(0, i - 14) : i + 1]) for i in range(len(losses))]


def pictures(name, rows, *, caption="", legend=(), classes=(), **drawing):
    """Show pictures beside each other.   rows: [{title: image (H, W) or (H, W, 3)}], one dict a row

    Rows with the first one's titles do not repeat them. legend: the labels whose colours are explained below, by their
    names in `classes`. caption as in `show`. drawing: what Matplotlib's imshow takes besides, such as vmin and vmax.
    """
    drawing = {"cmap": "gray", "interpolation": "nearest"} | drawing
    columns = max(map(len, rows))
    sizes = [
        max(image.shape[0] / image.shape[1] for image in row.values()) for row in rows
    ]
    height = 0.97 * WIDTH / columns * sum(sizes) + 0.05 * len(rows) + 0.3
    height += 0.5 if len(legend) else 0
    figure, grid = plt.subplots(
        len(rows), columns, figsize=(WIDTH, height), squeeze=False, height_ratios=sizes
    )
    for row, axes in zip(rows, grid, strict=True):
        for panel in axes:
            panel.set_axis_off()
        for (title, image), panel in zip(row.items(), axes, strict=False):
            panel.imshow(image, **drawing)
            if row is rows[0] or list(row) != list(rows[0]):
                panel.set_title(title)
    if len(legend):
        add_legend(figure, legend, classes)
    show(figure, name, caption)
