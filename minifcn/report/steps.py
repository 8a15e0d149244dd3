"""A network's predictions during training: kept at every evaluation, shown step by step on the run's page."""

import html
import json

import numpy as np
from PIL import Image

from .. import inference, models
from ..data import VOID
from ..data.images import in_colours, write_mask
from ..files import atomic_write, make_folder
from ..training.run import read_metrics
from .figures import data_url

SHOWN = 3  # images of the validation split
GIVEN = ("images.jpg", "truth.png")  # what the predictions are compared with
MOST = 200  # evaluations on a page: of more, every n-th is shown, counted back from the last

_SCRUBBER = """<figure class="steps" id="{place}"><div class="wide"><img alt="Validation images" src="{images}"><img alt="Their labels" src="{truth}">
<img class="predicted" alt="What is predicted for them"></div>
<p><label>evaluation <input type="range" min="0" max="{last}" value="{last}"></label> <output></output></p></figure>
<script>{{
const root = document.getElementById("{place}"), steps = {steps};
const [slider, said, picture] = ["input", "output", ".predicted"].map((part) => root.querySelector(part));
const show = () => {{
  const step = steps[slider.value];
  picture.src = step.picture;
  said.textContent = `iteration ${{step.iteration}}: ${{step.score}}`;
}};
slider.addEventListener("input", show);
show();
}}</script>"""


def keep(run, iteration):
    """Write a network's current predictions for the first validation images: figures/steps/ITERATION.png in the run's folder.

    Networks that label no pixels are skipped.
    """
    card = run.model.card
    if card.builder not in models.SEGMENTERS:
        return
    place = make_folder(run.folder / "figures" / "steps")
    samples = [run.val_data[i] for i in range(min(SHOWN, len(run.val_data)))]
    images, truth = (place / name for name in GIVEN)
    if not (images.exists() and truth.exists()):
        with atomic_write(images) as file:
            Image.fromarray(beside([in_colours(sample.image) for sample in samples])).save(file, "JPEG", quality=90)
        with atomic_write(truth) as file:
            write_mask(file, beside([sample.label for sample in samples]), card.palette)
    if card.builder == "panoptic":
        labels = [inference.panoptic(run.network, sample.image).labels for sample in samples]
    else:
        labels = [inference.predict(run.network, sample.image) for sample in samples]
    with atomic_write(place / f"{iteration:07d}.png") as file:
        write_mask(file, beside(labels), card.palette)


def shown(folder):
    """The sliders for the predictions kept in the folder of one run or of several, as HTML."""
    places = [place for pattern in ("figures/steps", "*/figures/steps") for place in sorted(folder.glob(pattern))]
    found = [(place, _evaluations(place)) for place in places if all((place / name).exists() for name in GIVEN)]
    return [_of_run(place, kept, number) for number, (place, kept) in enumerate(found) if kept]


def _evaluations(place):
    """[(picture, the record of its evaluation)] for the evaluations shown, without those that were undone."""
    score = {record["iteration"]: record for record in read_metrics(place.parents[1]) if record["event"] == "evaluated"}
    kept = [(path, score[int(path.stem)]) for path in sorted(place.glob("[0-9]*.png")) if int(path.stem) in score]
    return kept[:: -max(1, -(-len(kept) // MOST))][::-1]


def _of_run(place, kept, number):
    steps = [(record["iteration"], _words(record), _inside(path)) for path, record in kept]
    heading = f"<h2>Training, step by step: {html.escape(place.parents[1].name)}</h2>\n"
    return heading + scrubber(f"steps-{number}", *(_inside(place / name) for name in GIVEN), steps)


def scrubber(place, images, truth, steps):
    """Images, their labels and, below them, the predictions at the step that a slider chooses, as HTML.

    place: its id on the page. images, truth: data URLs. steps: [(iteration, what is said of it, a data URL)]
    """
    given = [{"iteration": iteration, "score": said, "picture": picture} for iteration, said, picture in steps]
    return _SCRUBBER.format(place=place, images=images, truth=truth, last=len(steps) - 1, steps=json.dumps(given))


def _words(record):
    score = record["scores"]["mean_iou"]
    return "no labelled pixel to judge by" if score is None else f"mean IU {100 * score:.1f}"


def _inside(path):
    return data_url(path.read_bytes(), "jpeg" if path.suffix == ".jpg" else "png")


def beside(pictures):
    """Pictures (H, W) or (H, W, 3) side by side in one, aligned at the top, 4 pixels apart; void or white around them."""
    height = max(len(picture) for picture in pictures)
    around = [((0, height - len(p)), (0, 4), *[(0, 0)] * (p.ndim - 2)) for p in pictures]
    return np.hstack([np.pad(p, edge, constant_values=VOID) for p, edge in zip(pictures, around, strict=True)])
