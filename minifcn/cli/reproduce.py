"""Train FCN-32s, FCN-16s from it and FCN-8s from that, on any folder of labelled images: Table 2 and Figure 4 of the
paper at your scale. After Ctrl-C the same command goes on where it stopped."""

import json
from dataclasses import replace
from pathlib import Path

from .. import models
from ..errors import InputError
from ..files import clear_leftovers, written_whole
from ..report import tables
from ..training.run import Run, read_metrics
from . import devices, options
from .progress import INTERRUPTED, do, notice
from .train import write_report

HELP = "train FCN-32s, then FCN-16s from it, then FCN-8s from that, and compare them"


def add_arguments(parser):
    devices.add_option(parser)
    options.add_training(parser, single=False)


def run(args):
    """FCN-32s from nothing, FCN-16s from that, FCN-8s from that; then the comparison. Finished parts are not done again."""
    config, folder, runs, results = options.config_of(args), Path(args.out), {}, {}
    clear_leftovers(folder)
    for variant in models.VARIANTS:
        before = list(runs.values())[-1] if runs else None
        stage = replace(config, variant=variant, start=str(before.checkpoint) if before else config.start)
        title = f"FCN-{variant}"
        run, earlier = _stage(stage, folder / variant)
        seconds, stopped = do(run, title, go_on="the same command")
        if stopped:
            return INTERRUPTED
        seconds += earlier
        runs[title], results[title] = run, (run.matrix or run.evaluate(), seconds)
    write_report(folder, "FCN-32s, FCN-16s and FCN-8s", runs, results)
    table = {name: {**matrix.scores(), "seconds": seconds} for name, (matrix, seconds) in results.items()}
    with written_whole(folder / "scores.json") as file:
        file.write((json.dumps(table, indent=2) + "\n").encode("utf-8"))
    print(tables.scores_table(results))
    notice(f"report: {folder / 'report.html'}")
    return 0


def _stage(config, folder):
    """(the Run of one stage, seconds its earlier part took): where a stopped one stands, else from the start."""
    if not (folder / "checkpoint.npz").exists():
        return Run(config, folder), 0.0
    run = Run.resume(folder)
    if run.config != config:
        raise InputError(f"{folder}: holds a run with other settings; choose another --out")
    return run, sum(record.get("seconds", 0.0) for record in read_metrics(folder))
