"""What networks predict while they are trained, to be scrubbed through in a lesson as on a run's page."""

import io

import numpy as np
from PIL import Image

import lesson
from minifcn import inference
from minifcn.data.labels import colourise
from minifcn.metrics import ConfusionMatrix
from minifcn.report.figures import data_url
from minifcn.report.steps import beside, scrubber

GAP = 4  # pixels between rows


class Film:
    """Predictions for some samples at every so many steps.   ways: the names of what is compared, a row each"""

    def __init__(self, samples, ways, every):
        self.samples, self.ways, self.every = samples, ways, every
        self.frames = {way: {} for way in ways}

    def of(self, way, after=0):
        """A function (step, network) that keeps what the network predicts, where it is time; `after`: the steps before."""

        def keep(step, network):
            if step % self.every == 0:
                found = [inference.predict(network, s.image) for s in self.samples]
                self.frames[way][after + step] = found

        return keep

    def show(self):
        """Show the slider where there is a notebook."""
        if lesson.in_notebook("what each network predicts, step by step"):
            lesson.display(self.html())

    def html(self):
        """The slider, below the samples and their labels a row for each way."""
        steps = []
        for step in sorted(set.intersection(*map(set, self.frames.values()))):
            rows = {way: self.frames[way][step] for way in self.ways}
            scores = [f"{way} {self._score(found):.1f}" for way, found in rows.items()]
            gaps = [(0, GAP), (0, 0)]
            strips = [
                np.pad(beside(found), gaps, constant_values=255)
                for found in rows.values()
            ]
            said = "mean IoU of these images: " + "; ".join(scores)
            steps.append((step, said, _png(colourise(np.vstack(strips)))))
        images = beside([sample.image for sample in self.samples])
        truth = colourise(beside([sample.label for sample in self.samples]))
        page = scrubber("film", _png(images), _png(truth), steps)
        rows = "; ".join(("the images", "their labels", *self.ways))
        return f"{page}<p>From above: {rows}.</p>"

    def _score(self, found):
        matrix = ConfusionMatrix(255)
        for sample, labels in zip(self.samples, found, strict=True):
            matrix.update(sample.label, labels)
        return 100 * matrix.mean_iou()


def _png(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return data_url(file.getvalue(), "png")
