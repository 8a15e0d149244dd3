"""A run: settings, data, network and loop put together, with everything that happens written to one folder.

The folder holds config.json, metrics.jsonl (one event a line), checkpoint.npz (where to go on) and best.npz (the
weights with the highest validation score). Whatever a checkpoint says is on the disk before it: the lines of
metrics.jsonl up to its iteration, and best.npz with its best score.
"""

import json
import logging
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import numpy as np

from .. import __version__, backend, data, distributed, inference, layers, models, weights
from ..data.labels import balanced_weights
from ..errors import InputError, MissingFileError
from ..files import clear_leftovers, json_text, sync, write_text, writing
from ..inference import shared_work
from ..tasks import Classification, PanopticScores, PanopticSegmentation, SemanticSegmentation, grid_of
from . import checkpoint, loop
from .config import BALANCED, Config
from .exchange import Exchange, part_of, share
from .lock import locked
from .optimizers import OPTIMIZERS
from .schedule import SCHEDULES

log = logging.getLogger("minifcn.training")
MOVABLE = ("data", "sbd")  # the settings that say where data lie, which may have moved when a run is resumed


class Evaluated(NamedTuple):
    """The validation scores after an iteration; best: whether they are the best so far."""

    iteration: int
    scores: dict
    best: bool


class Saved(NamedTuple):
    """A checkpoint was written after this iteration."""

    iteration: int


class Stopped(NamedTuple):
    """The run was asked to stop, after this iteration and its checkpoint."""

    iteration: int


class Run:
    """A training run in `folder`. Iterate over `events()` to do it.

    model: the network that is trained; network: the one that is evaluated and kept, the same or the average of its weights.
    done: updates so far. best: the highest validation score so far, None before the first. Both move with the events.
    In a job of several processes (`distributed.world`) each makes a Run and does its part of every batch; all have the same events, and
    process 0 alone writes to the folder.
    Raises InputError or FileNotFoundError for settings, data or start weights that do not fit, before anything is written.
    """

    def __init__(self, config, folder, *, resume=False):
        self.config, self.folder = config, Path(folder)
        self.checkpoint, self.metrics = self.folder / "checkpoint.npz", self.folder / "metrics.jsonl"
        self.world = distributed.world()
        self.writes = self.world.rank == 0
        self._found = self.writes and _stamp(self.checkpoint)  # to notice if another process has gone on since
        if self._found and not resume:
            with locked(self.folder):  # raises where another process is at work there, which is the better message
                raise InputError(f"{self.folder}: holds a run already; use --resume, or choose another --out")
        builder, panoptic = config.network["builder"], config.network["builder"] == "panoptic"
        where = {"year": config.year, "exif": config.exif, "instances": panoptic}
        train = data.open_dataset(config.data, config.split, limit=config.limit, **where)
        val = data.open_dataset(config.data, config.val_split, **where)
        if config.sbd:
            train = data.train_aug(train, val, config.sbd, limit=config.limit)
        self.world.agree("versions", f"minifcn {__version__} with NumPy {np.__version__}")
        # Compiled updates round differently from NumPy's (fused multiply-add): weights would drift apart unnoticed.
        compiled = backend.has_kernels(backend.to_device(np.empty(0))) or not backend.native_problem()
        self.world.agree("compiled kernels", "in use" if compiled else "not in use (minifcn info says why)")
        self.world.agree("settings", config)
        self.world.agree(f"data {config.data}", lambda: [train.fingerprint(), val.fingerprint()])
        train.check_for_training()
        if config.border_class:
            train, val = map(data.with_border_class, (train, val))
            train[0], val[0]  # raises if the data have no instances
        self.train_data = data.CachedDataset(train, longest=config.resize, world=self.world)
        self.val_data = data.CachedDataset(val, longest=config.resize, world=self.world)
        self._task, self._evaluate = SemanticSegmentation, inference.evaluate
        if builder in models.CLASSIFIERS:
            self._task, self._evaluate = Classification, inference.evaluate_windows
        if panoptic:
            self._task, self._evaluate = PanopticSegmentation, inference.evaluate_panoptic
        options = {**config.options, "num_classes": len(train.classes), "seed": config.seed}
        if panoptic:
            options["things"] = list(train.things)
        channels = train.channels
        if builder in ("unet", "panoptic") and not config.options["backbone"]:
            options["channels"] = channels
            kinds = {1: "grey images: the network has one channel", 3: "colour images: the network has three channels"}
            of_bands = f"images of {channels} bands: the network has {channels} channels"
            log.info("%s: %s", config.data, kinds.get(channels, of_bands))
        elif channels not in (1, 3):
            raise InputError(
                f"{config.data}: images of {channels} bands, and this network reads 3 channels; a U-Net reads any number: --network unet, "
                "or --network panoptic --decoder unet, without --backbone"
            )
        self.model = models.build(builder, options)
        self._check_crop(options.get("channels", 3))
        card = self.model.card
        card.preprocessing.check_bands(val.bands, f"{config.data}, {config.val_split}")
        card.classes, card.palette, card.longest = train.classes, train.palette, config.resize
        # What the network starts from, as a message; None for freshly drawn weights.
        begins = config.start and not resume
        self.started = checkpoint.start_from(config.start, self.model, config.frozen_semantic) if begins else None
        if config.stretch is not None:
            self.model.card.preprocessing = replace(self.model.card.preprocessing, stretch=config.stretch)
        self.network = self.model
        if config.average:
            self.network = models.build(builder, options)
            self.network.card = self.model.card
            self.network.load_state_dict(self.model.state_dict())
        if config.frozen_semantic:
            self.model.freeze(
                name for name in self.model.nodes if not name.startswith((*models.HEADS[1:], models.INSTANCE))
            )
        for name, parameter in self.model.parameters().items():
            if self.model.backbone_prefix and name.startswith(self.model.backbone_prefix + "."):
                parameter.lr_mult *= config.backbone_rate
            if name.startswith("score"):
                parameter.lr_mult *= config.score_rate
        if config.frozen_statistics:
            norms, body = self.model.walk(), self.model.backbone_prefix or ""
            norms = [one for name, one in norms if isinstance(one, layers.BatchNorm2d) and name.startswith(body)]
            if not (norms and (body or config.start or resume)):
                raise InputError("frozen-statistics: there are none yet without a backbone that has some; leave it out")
            if not (config.start or resume):
                log.warning(
                    "frozen-statistics: without --start the backbone's are those of no images: mean 0, variance 1"
                )
            for norm in norms:
                norm.frozen = True
        solver = {"weight_decay": config.weight_decay}
        solver |= {"momentum": config.momentum} if config.optimizer == "sgd" else {}
        self.optimizer = OPTIMIZERS[config.optimizer](self.model.parameters(), **solver)
        rng, crop = np.random.default_rng([config.seed, 1]), config.crop and (config.crop, config.crop)
        changes = {field.name: getattr(config, field.name) for field in fields(data.Augment)}
        unpadded = self.model.layers_of(layers.ExactSize)
        self.stream = data.BatchStream(
            self.train_data,
            config.batch_size,
            self.model.card.preprocessing,
            rng,
            crop=crop,
            augment=data.Augment(**changes),
            context=unpadded[0].context if unpadded else 0,
            border_weight=config.border_weight,
            sigma=config.sigma if panoptic else None,
            part=part_of(config.batch_size, self.world),
        )
        share(self.model, self.world, config.batch_size)
        self._exchange = Exchange(self.model, self.world, config.wire) if self.world.size > 1 else None
        self.world.agree("starting weights", partial(shared_work.fingerprint, self.model))
        self.weigh(None if resume else self._class_weights(train.classes))
        self.done, self.best = 0, None
        self.matrix = None  # of the latest evaluation; at the end of a run, that of the finished network

    @classmethod
    def resume(cls, folder, **moved):
        """The run in `folder`, where its checkpoint left it. moved: where the data now lie, by the names in MOVABLE, if they have moved."""
        path, world = Path(folder) / "checkpoint.npz", distributed.world()
        found = _stamp(path)
        arrays, meta = world.share(checkpoint.read(path) if world.rank == 0 else None)
        config = Config.from_dict({**meta["config"], **moved}, path)
        try:
            run = cls(config, folder, resume=True)
        except MissingFileError as error:
            if moved:
                raise
            raise MissingFileError(
                f"{error}; if the data have moved: --resume {quote(str(folder))} --data FOLDER"
            ) from error
        checkpoint.restore(run, arrays, meta)
        run._found = run.writes and found
        return run

    def _check_crop(self, channels):
        """Raise InputError, before anything is written, for crops that the network does not take."""
        unpadded, crop = self.model.layers_of(layers.ExactSize), self.config.crop
        if unpadded and not crop:
            raise InputError(
                f"crop: padding valid takes crops of a size, such as --crop {unpadded[0].fitting(250)}; got whole images"
            )
        if crop:
            self.model.output_shape((1, channels, crop, crop))

    def weigh(self, class_weights):
        """Use these class weights, None for ones: in U-Net's weight map if there is one, else in the loss."""
        self.class_weights = class_weights
        of_map, of_loss = (class_weights, None) if self.config.border_weight else (None, class_weights)
        self.stream.class_weights = of_map
        more: dict = {"grid": grid_of(self.model)} if self.config.shrink_labels else {}
        if self._task is PanopticSegmentation:
            more = {"offset_weight": self.config.offset_weight, "frozen": self.config.frozen_semantic}
        self.task = self._task(
            self.config.reduction, of_loss, self.config.dice, self.config.hardest, world=self.world, **more
        )

    def _class_weights(self, classes):
        """The weight of each class in the loss, as the settings have it; None for ones."""
        weights = self.config.class_weights
        if weights == BALANCED:
            weights = balanced_weights((sample.label for sample in self.train_data), len(classes))
            log.info("class weights: %s", ", ".join(f"{c} {w:.3g}" for c, w in zip(classes, weights, strict=True)))
        if weights is not None and len(weights) != len(classes):
            raise InputError(f"class-weights: expected one for each of {', '.join(classes)}; got {len(weights)}")
        return weights

    def evaluate(self):
        """The ConfusionMatrix of the network, as it is now, on the validation split; each of several processes takes its own images."""
        own, count = range(self.world.rank, len(self.val_data), self.world.size), self.model.card.num_classes
        samples = map(self.val_data.__getitem__, own)
        if self._task is not PanopticSegmentation:
            self.matrix = self._evaluate(self.network, samples, count)
            self.world.sum(self.matrix.counts)
            return self.matrix
        # Object scores are more than counts that add up: every process gets the scores of each image and merges them in image order.
        network = self.network.prepare()
        found = self.world.everyone([self._evaluate(network, [sample], count) for sample in samples])
        self.matrix = PanopticScores(count, inference.things_of(network))
        for i in range(len(self.val_data)):
            self.matrix.merge(found[i % self.world.size][i // self.world.size])
        return self.matrix

    def events(self, should_stop=lambda: False):
        """Do the run: yield a Step after each update, and what comes after it: Evaluated, Saved, Stopped.

        Raises Diverged; OSError, naming the file, where one cannot be written; and InputError while another process is
        at work in the folder, or if one was since this Run was made. The last good checkpoint then stays as it was.
        """
        with locked(self.folder) if self.writes else nullcontext():
            if self.writes:
                self._prepare_folder()
            if self.done < self.config.iterations:
                with data.Prefetch(self.stream) as batches:
                    yield from self._train(batches, should_stop)

    def _prepare_folder(self):
        if _stamp(self.checkpoint) != self._found:
            raise InputError(f"{self.folder}: another process has gone on with this run; read it again")
        clear_leftovers(self.folder)
        write_text(self.folder / "config.json", json.dumps(asdict(self.config), indent=2) + "\n")
        self._keep_metrics_up_to(self.done)
        if not self._found:
            self._save(self.stream)

    def _train(self, batches, should_stop):
        config, solver = self.config, (self.model, batches, self.optimizer, self._rate)
        more = {"task": self.task, "exchange": self._exchange}
        for step in loop.train(*solver, config.iterations, done=self.done, **more):
            self.done = step.iteration
            if config.average:
                # Early updates count more; otherwise the average would long remember where it began.
                decay = min(config.average, (1 + self.done) / (10 + self.done))
                self.network.move_towards(self.model, 1 - decay)
            yield self._recorded(step)
            last = self.done == config.iterations
            judged = last or self.done % config.eval_every == 0
            if judged:
                self._require_finite(step.rate)
                yield self._evaluated()
            stop = self.world.any(should_stop())
            if last or stop or self.done % config.save_every == 0:
                if not judged:
                    self._require_finite(step.rate)
                self._save(batches)
                yield self._recorded(Saved(self.done))
            if stop and not last:
                yield self._recorded(Stopped(self.done))
                return

    def _require_finite(self, rate):
        """Raise Diverged before weights that are not finite are kept."""
        if not all(np.isfinite(a).all() for a in self.model.state_dict().values()):
            at = f"iteration {self.done}: weights are not finite at learning rate {rate:.3g}"
            raise loop.Diverged(f"{at}; try a smaller one")

    def _rate(self, i):
        return self.config.lr * SCHEDULES[self.config.schedule](i, self.config.iterations)

    def _evaluated(self):
        scores = self.evaluate().scores()
        score = scores[self.task.score_name]
        event = self._recorded(Evaluated(self.done, scores, self.best is None or score > self.best))
        if event.best:
            self.best = None if np.isnan(score) else score  # without a labelled pixel the last weights are the best
            if self.writes:
                weights.save(self.folder / "best.npz", self.network)
        return event

    def _save(self, stream):
        if self.writes:
            sync(self.metrics)
            checkpoint.write(self, stream)

    def _recorded(self, event):
        if not self.writes:
            return event
        line = json_text({"event": type(event).__name__.lower(), **event._asdict()}) + "\n"
        with writing(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
            file.write(line)
        return event

    def _keep_metrics_up_to(self, iteration):
        """Cut off what came after a checkpoint, because it will happen again; a file that is not there becomes empty."""
        records = read_metrics(self.folder) if self.metrics.exists() else []
        kept = [record for record in records if 0 < record["iteration"] <= iteration]
        saved = {"event": "saved", "iteration": iteration}
        if iteration and saved not in kept:  # the process was killed before it could write this event
            kept.append(saved)
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))


def _stamp(path):
    """A stamp that changes whenever a file is replaced; None without a file."""
    found = path.stat() if path.exists() else None
    return found and (found.st_mtime_ns, found.st_ino)


def read_metrics(folder):
    """The events of a run as dicts, in order; an unfinished last line is left out. Raises InputError for any other line that holds none."""
    path = Path(folder) / "metrics.jsonl"
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; expected the metrics of a training run")
    records, lines = [], path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            if number == len(lines) - 1:
                break
            record = None
        if not (isinstance(record, dict) and "event" in record and isinstance(record.get("iteration"), int)):
            raise InputError(f"{path}: expected one event with its iteration a line, got {line[:60]!r}")
        records.append(record)
    return records
