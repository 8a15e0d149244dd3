"""A run: settings, data, network and loop put together, with everything that happens written to one folder.

The folder holds config.json, metrics.jsonl (one event a line), checkpoint.npz (where to go on) and best.npz (the
weights with the highest validation mean IoU).
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .. import data, layers, models, weights
from . import checkpoint, loop
from .config import Config
from .optim import OPTIMIZERS
from .schedule import SCHEDULES


class Run:
    """A training run in `folder`. Iterate over `events()` to do it.

    Raises ValueError or FileNotFoundError for settings, data or start weights that do not fit, before anything is written.
    """

    def __init__(self, config, folder, *, resume=False):
        self.config, self.folder = config, Path(folder)
        self.checkpoint = self.folder / "checkpoint.npz"
        if self.checkpoint.exists() and not resume:
            raise ValueError(f"{self.folder}: holds a run already; resume it with --resume, or choose another --out")
        train = data.open_dataset(config.data, config.split, config.year, limit=config.limit)
        val = data.open_dataset(config.data, config.val_split, config.year)
        if config.sbd:
            train = data.train_aug(train, val, config.sbd, limit=config.limit)
        self.train_data = data.Kept(train, longest=config.resize)
        self.val_data = data.Kept(val, longest=config.resize)
        self.classes = train.classes
        self.model = models.fcn(
            config.variant,
            config.backbone,
            len(self.classes),
            config.alignment,
            config.at_once,
            config.seed,
            upsampling=config.upsampling,
            width=config.width,
        )
        self.model.palette = train.palette
        # In words, what the network starts from; None for freshly drawn weights.
        self.started = checkpoint.start_from(config.start, self.model) if config.start and not resume else None
        for name, parameter in self.model.parameters().items():
            if name.startswith(self.model.backbone.family + "."):
                parameter.lr_mult *= config.backbone_rate
        if config.frozen_statistics:
            for layer in self.model.layers_of(layers.BatchNorm2d):
                layer.frozen = True
        momentum = {"momentum": config.momentum} if config.optimizer == "sgd" else {}
        self.optimizer = OPTIMIZERS[config.optimizer](
            self.model.parameters(), weight_decay=config.weight_decay, **momentum
        )
        self.stream = data.BatchStream(
            self.train_data,
            config.batch_size,
            self.model.preprocessing,
            np.random.default_rng([config.seed, 1]),
            crop=config.crop and (config.crop, config.crop),
            augment=data.Augment(config.flip, config.scale, config.colour),
        )
        self.done, self.best = 0, None
        self.matrix = None  # of the latest evaluation; at the end of a run, that of the finished network

    @classmethod
    def resume(cls, folder):
        """The run in `folder`, where its checkpoint left it; later metrics, which it will write again, are cut off."""
        path = Path(folder) / "checkpoint.npz"
        arrays, meta = checkpoint.read(path)
        run = cls(Config.from_dict(meta["config"], path), folder, resume=True)
        checkpoint.restore(path, arrays, meta, model=run.model, optimizer=run.optimizer, stream=run.stream)
        run.done, run.best = meta["iteration"], meta["best"]
        run._keep_metrics_up_to(run.done)
        return run

    @property
    def metrics(self):
        return self.folder / "metrics.jsonl"

    def evaluate(self):
        """The ConfusionMatrix on the validation split, as the network stands."""
        self.matrix = loop.evaluate(self.model, self.val_data, len(self.classes))
        return self.matrix

    def save(self, iteration, best):
        checkpoint.write(
            self.checkpoint,
            model=self.model,
            optimizer=self.optimizer,
            stream=self.stream,
            classes=self.classes,
            config=self.config,
            iteration=iteration,
            best=best,
        )

    def events(self, should_stop=lambda: False):
        """Do the run, yielding the loop's events. Raises Diverged; the last good checkpoint then stays as it was."""
        config = self.config
        self.folder.mkdir(parents=True, exist_ok=True)
        config.write(self.folder / "config.json")
        if self.done == 0:
            self.metrics.write_text("")
            self.save(0, None)
        factor = SCHEDULES[config.schedule]
        happening = loop.train(
            self.model,
            self.stream,
            self.optimizer,
            lambda i: config.lr * factor(i, config.iterations),
            config.iterations,
            done=self.done,
            best=self.best,
            reduction=config.reduction,
            evaluate=self.evaluate,
            eval_every=config.eval_every,
            save=self.save,
            save_every=config.save_every,
            should_stop=should_stop,
        )
        with open(self.metrics, "a", encoding="utf-8") as file:
            for event in happening:
                file.write(json.dumps({"event": type(event).__name__.lower(), **asdict(event)}) + "\n")
                file.flush()
                if isinstance(event, loop.Evaluated) and event.best:
                    weights.save(self.folder / "best.npz", self.model, classes=list(self.classes))
                yield event

    def _keep_metrics_up_to(self, iteration):
        if not self.metrics.exists():
            return
        kept = [json.dumps(record) for record in read_metrics(self.folder) if record["iteration"] <= iteration]
        temporary = self.metrics.with_suffix(".part")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self.metrics)


def read_metrics(folder):
    """The events of a run as dicts, in order; an unfinished last line is left out."""
    path = Path(folder) / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the metrics of a training run")
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
