"""Train one FCN on a folder of labelled images. Everything is kept in --out: settings, metrics, checkpoint, the best
weights, figures and report.html. Ctrl-C leaves a checkpoint; --resume goes on from it, bit by bit as if never
stopped."""

from .. import inference
from ..errors import InputError
from ..files import naming
from ..report import figures, page, tables
from ..training.run import Run, read_metrics
from . import devices, options
from .progress import INTERRUPTED, do, notice

HELP = "train one network"


def add_arguments(parser):
    devices.add_option(parser)
    options.add_training(parser, single=True)


def run(args):
    """Train one network, or go on with one; then write its figures and page."""
    if not args.resume and not args.data:
        raise InputError("train: expected --data FOLDER, or --resume FOLDER; got neither")
    run = Run.resume(args.resume) if args.resume else Run(options.config_of(args), args.out)
    title = f"FCN-{run.config.variant}"
    seconds, stopped = do(run, title, go_on=f"minifcn train --resume {run.folder}")
    if stopped:
        return INTERRUPTED
    folder, matrix = run.folder, run.matrix or run.evaluate()
    results = {title: (matrix, seconds)}
    write_report(folder, title, {title: run}, results)
    print(tables.scores_table(results))
    notice(f"report: {folder / 'report.html'}")
    return 0


def write_report(folder, title, runs, results):
    """Figures and page for one run or several stages, on the validation images of the last."""
    pictures = folder / "figures"
    with naming(pictures):
        pictures.mkdir(parents=True, exist_ok=True)
    last = list(runs.values())[-1]
    samples = [last.val_data[i] for i in range(min(5, len(last.val_data)))]
    rows = [
        (s.image, s.label, {name: inference.predict(run.model, s.image) for name, run in runs.items()}) for s in samples
    ]
    name = list(runs)[-1]
    figures.side_by_side(rows, last.classes, pictures / "side_by_side.png", last.model.card.palette)
    figures.curves({key: read_metrics(run.folder) for key, run in runs.items()}, pictures / "curves.png")
    figures.confusion(results[name][0], last.classes, pictures / "confusion.png")
    page.write_page(
        folder / "report.html",
        title,
        results,
        last.classes,
        [
            (pictures / "side_by_side.png", "Validation images, their labels, and what each network makes of them."),
            (pictures / "curves.png", "Loss on the training batches, and mean IU on the validation images."),
            (pictures / "confusion.png", f"Confusion of {name}, in percent of each true class."),
        ],
        last.config.as_dict(),
    )
