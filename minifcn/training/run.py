"""A run: settings, data, network and loop put together, with everything that happens written to one folder.

The folder holds config.json, metrics.jsonl (one event a line), checkpoint.npz (where to go on) and best.npz (the
weights with the highest validation mean IoU). Whatever a checkpoint tells is on the disk before it: the lines of
metrics.jsonl up to its iteration, and best.npz with its best score.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .. import data, inference, layers, models, weights
from ..errors import InputError, MissingFileError
from ..files import atomic_write, clear_leftovers, sync, writing
from . import checkpoint, loop
from .config import Config
from .lock import locked
from .optim import OPTIMIZERS
from .schedule import SCHEDULES


class Run:
    """A training run in `folder`. Iterate over `events()` to do it.

    Raises InputError or FileNotFoundError for settings, data or start weights that do not fit, before anything is written.
    """

    def __init__(self, config, folder, *, resume=False):
        self.config, self.folder = config, Path(folder)
        self.checkpoint = self.folder / "checkpoint.npz"
        self._found = _stamp(self.checkpoint)  # to notice whether somebody else has gone on since
        if self._found and not resume:
            with locked(self.folder):  # if another process is at work there, that is what to tell
                raise InputError(
                    f"{self.folder}: holds a run already; resume it with --resume, or choose another --out"
                )
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
        self.model.card.classes, self.model.card.palette = train.classes, train.palette
        # In words, what the network starts from; None for freshly drawn weights.
        self.started = checkpoint.start_from(config.start, self.model) if config.start and not resume else None
        for name, parameter in self.model.parameters().items():
            if name.startswith(self.model.backbone_prefix + "."):
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
            self.model.card.preprocessing,
            np.random.default_rng([config.seed, 1]),
            crop=config.crop and (config.crop, config.crop),
            augment=data.Augment(config.flip, config.scale, config.colour),
        )
        self.done, self.best = 0, None
        self.matrix = None  # of the latest evaluation; at the end of a run, that of the finished network

    @classmethod
    def resume(cls, folder):
        """The run in `folder`, where its checkpoint left it."""
        path = Path(folder) / "checkpoint.npz"
        found = _stamp(path)
        arrays, meta = checkpoint.read(path)
        run = cls(Config.from_dict(meta["config"], path), folder, resume=True)
        checkpoint.restore(path, arrays, meta, model=run.model, optimizer=run.optimizer, stream=run.stream)
        run.done, run.best, run._found = meta["iteration"], meta["best"], found
        return run

    @property
    def metrics(self):
        return self.folder / "metrics.jsonl"

    def evaluate(self):
        """The ConfusionMatrix on the validation split, as the network stands."""
        self.matrix = inference.evaluate(self.model, self.val_data, len(self.classes))
        return self.matrix

    def save(self, iteration, best, stream):
        sync(self.metrics)
        checkpoint.write(
            self.checkpoint,
            model=self.model,
            optimizer=self.optimizer,
            stream=stream,
            config=self.config,
            iteration=iteration,
            best=best,
        )

    def events(self, should_stop=lambda: False):
        """Do the run, yielding the loop's events.

        Raises Diverged; OSError, naming the file, where one cannot be written; and ValueError while another process is
        at work in the folder, or if one was since this Run was made. The last good checkpoint then stays as it was.
        """
        with locked(self.folder):
            if _stamp(self.checkpoint) != self._found:
                raise InputError(
                    f"{self.folder}: another process has gone on with this run; expected the run as it was read"
                )
            clear_leftovers(self.folder)
            self.config.write(self.folder / "config.json")
            self._keep_metrics_up_to(self.done)
            if not self._found:
                self.save(0, None, self.stream)
            if self.done < self.config.iterations:
                with data.Prefetch(self.stream) as batches:
                    for event in self._train(batches, should_stop):
                        self._record(event)
                        if isinstance(event, loop.Evaluated) and event.best:
                            weights.save(self.folder / "best.npz", self.model)
                        yield event

    def _train(self, batches, should_stop):
        config = self.config
        factor = SCHEDULES[config.schedule]
        return loop.train(
            self.model,
            batches,
            self.optimizer,
            lambda i: config.lr * factor(i, config.iterations),
            config.iterations,
            done=self.done,
            best=self.best,
            reduction=config.reduction,
            evaluate=self.evaluate,
            eval_every=config.eval_every,
            save=lambda iteration, best: self.save(iteration, best, batches),
            save_every=config.save_every,
            should_stop=should_stop,
        )

    def _record(self, event):
        line = json.dumps({"event": type(event).__name__.lower(), **asdict(event)}) + "\n"
        with writing(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
            file.write(line)

    def _keep_metrics_up_to(self, iteration):
        """Cut off what came after a checkpoint, because it will happen again; a file that is not there becomes empty."""
        records = read_metrics(self.folder) if self.metrics.exists() else []
        kept = [record for record in records if 0 < record["iteration"] <= iteration]
        saved = {"event": "saved", "iteration": iteration}
        if iteration and saved not in kept:  # the process was killed before it could say so
            kept.append(saved)
        with atomic_write(self.metrics) as file:
            file.write("".join(json.dumps(record) + "\n" for record in kept).encode("utf-8"))


def _stamp(path):
    """What changes whenever a file is replaced; None if there is none."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_mtime_ns, found.st_ino


def read_metrics(folder):
    """The events of a run as dicts, in order; an unfinished last line is left out."""
    path = Path(folder) / "metrics.jsonl"
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; expected the metrics of a training run")
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
