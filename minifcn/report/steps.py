"""What a network predicts while it is trained: kept at every evaluation, shown step by step on the run's page."""

import base64
import html
import json

import numpy as np
from PIL import Image

from .. import inference, models
from ..data import VOID
from ..data.images import write_mask
from ..files import make_folder
from ..training.run import read_metrics

SHOWN = 3  # images of the validation split

_PAGE = """<h2>Training, step by step{of}</h2>
<figure class="steps" id="{place}"><div class="wide"><img alt="Validation images" src="{images}"><br><img alt="Their labels" src="{truth}"><br>
<img class="predicted" alt="What the network predicts for them"></div>
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
    """Write what a run's network predicts now for the first validation images: figures/steps/ITERATION.png in its folder.

    Networks that label no pixels are passed over.
    """
    card = run.model.card
    if card.builder not in models.SEGMENTERS:
        return
    place = make_folder(run.folder / "figures" / "steps")
    samples = [run.val_data[i] for i in range(min(SHOWN, len(run.val_data)))]
    if not (place / "truth.png").exists():
        Image.fromarray(_beside([sample.image for sample in samples])).save(place / "images.jpg", quality=90)
        write_mask(place / "truth.png", _beside([sample.label for sample in samples]), card.palette)
    if card.builder == "panoptic":
        labels = [inference.panoptic(run.network, sample.image).labels for sample in samples]
    else:
        labels = [inference.predict(run.network, sample.image) for sample in samples]
    write_mask(place / f"{iteration:07d}.png", _beside(labels), card.palette)


def shown(folder):
    """The sliders for what was kept in the folder of a run, or of several, as HTML."""
    places = [place for pattern in ("figures/steps", "*/figures/steps") for place in sorted(folder.glob(pattern))]
    return [_scrubber(place, place.parents[1], number) for number, place in enumerate(places)]


def _scrubber(place, run, number):
    score = {record["iteration"]: record for record in read_metrics(run) if record["event"] == "evaluated"}
    steps = [
        {"iteration": int(path.stem), "score": _words(score[int(path.stem)]), "picture": _inside(path)}
        for path in sorted(place.glob("[0-9]*.png"))
        if int(path.stem) in score
    ]
    return _PAGE.format(
        of=html.escape(f": {run.name}"),
        place=f"steps-{number}",
        images=_inside(place / "images.jpg"),
        truth=_inside(place / "truth.png"),
        last=len(steps) - 1,
        steps=json.dumps(steps),
    )


def _words(record):
    return f"mean IU {100 * record['scores']['mean_iou']:.1f}"


def _inside(path):
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _beside(pictures):
    """Pictures (H, W) or (H, W, 3) in one, side by side from their upper edge on, 4 pixels apart; void or white around them."""
    height = max(len(picture) for picture in pictures)
    around = [((0, height - len(p)), (0, 4), *[(0, 0)] * (p.ndim - 2)) for p in pictures]
    return np.hstack([np.pad(p, edge, constant_values=VOID) for p, edge in zip(pictures, around, strict=True)])
