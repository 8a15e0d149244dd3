"""Train FCN-32s, FCN-16s from it and FCN-8s from that, on any folder of labelled images: Table 2 and Figure 4 of the
paper at your scale. After Ctrl-C the same command goes on where it stopped."""

from dataclasses import replace
from pathlib import Path

from .. import models
from ..errors import InputError
from ..files import clear_leftovers, json_text, write_text
from ..training.run import Run, read_metrics
from . import options
from .progress import INTERRUPTED
from .train import finish, write_report

HELP = "train FCN-32s, then FCN-16s from it, then FCN-8s from that, and compare them"


def add_arguments(parser):
    options.add_device(parser)
    options.add_training(parser, single=False)


def run(args):
    """FCN-32s from nothing, FCN-16s from that, FCN-8s from that; then the comparison. Finished stages are not done again."""
    config, folder, results = options.config_of(args), Path(args.out), {}
    start = config.start
    clear_leftovers(folder)
    for variant in models.VARIANTS:
        run, earlier = _stage(replace(config.with_options(variant=variant), start=start), folder / variant)
        title, start = f"FCN-{variant}", str(run.checkpoint)
        result = finish(run, title, go_on="the same command")
        if result is None:
            return INTERRUPTED
        results[title] = result._replace(seconds=result.seconds + earlier)
        del run  # or the next stage would train beside it
    table = {name: {**result.matrix.scores(), "seconds": result.seconds} for name, result in results.items()}
    write_text(folder / "scores.json", json_text(table, indent=2) + "\n")
    write_report(folder, "FCN-32s, FCN-16s and FCN-8s", results)
    return 0


def _stage(config, folder):
    """(the Run of one stage, seconds its earlier part took): where a stopped one stands, else from the start."""
    if not (folder / "checkpoint.npz").exists():
        return Run(config, folder), 0.0
    run = Run.resume(folder)
    if run.config != config:
        raise InputError(f"{folder}: holds a run with other settings; choose another --out")
    return run, sum(record.get("seconds", 0.0) for record in read_metrics(folder))
