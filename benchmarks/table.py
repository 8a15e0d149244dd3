"""A record as text: a line for each comparison while it is measured, and Markdown tables at the end."""

TITLES = {
    "layers": "The 3×3 convolutions of VGG16, image of 500 × 500",
    "atrous": "Dilated 3×3 convolutions of 512 channels, 64 × 64",
    "vgg": "FCN-8s-VGG16, pad 100, 21 classes, one image of 500 × 500",
    "mini": "FCN-8s-mini, 8 images of 128 × 128",
    "lite0": "FCN-8s-EfficientNet-Lite0, 21 classes: forward of one image of 500 × 375, step of 8 of 320 × 320",
    "scaling": "Twice the sides, four times the pixels: 1000 × 1000 against 500 × 500, both minifcn",
    "dezero": "Against DeZero",
}
LEGEND = """\
Milliseconds are medians of {rounds} rounds; the ratio is minifcn's median over the other's, so below 1 minifcn is faster.
Every side runs in its own process with {threads} threads, in turn with the others. PyTorch is measured with its arrays as
NCHW and with channels last, and the faster one counts. A backward is dx, dw and db together (no dx for conv1_1, whose input
is the image); a training step is forward, loss, backward and the optimiser's update. GFLOP/s counts the multiplications
and additions of the direct convolution, in a network's backward twice as many as in its forward; Winograd does fewer, so that it
may exceed the rate of the machine's plain matrix product (sgemm of 2048³, {sgemm:.0f} GFLOP/s in the same run). Peak is the most
memory that the process ever held, the interpreter and the library included, and its ratio that to the same other side.
"""
HEADER = """\
| work | minifcn, ms | other, ms | ratio | goal | GFLOP/s | of sgemm | peak, MB | peak ratio |
|---|---|---|---|---|---|---|---|---|
"""


def line(entry):
    """One comparison in one line of plain text."""
    sides = "   ".join(f"{side['label']} {_ms(side['median'])} ms, {side['peak_mb']:.0f} MB" for side in entry["sides"])
    ratio = f"   ratio {_ratio(entry['ratio'])}, of memory {entry['memory_ratio']:.2f}" if "ratio" in entry else ""
    return f"{entry['group']:8} {entry['name']:40} {sides}{ratio}   {entry['sides'][0]['gflops']:.0f} GFLOP/s"


def average_line(average):
    """The mean of a group's ratios in one line of plain text."""
    return f"{average['group']:8} mean ratio of {average['task']}s {_ratio(average['ratio'])}, goal {_goal(average)}"


def markdown(record):
    """The whole record as Markdown."""
    versions = record["versions"]
    names = {"NumPy": "numpy", "PyTorch": "torch", "DeZero": "dezero"}
    installed = ", ".join(f"{name} {versions[key]}" for name, key in names.items() if versions[key])
    text = f"Measured on {record['date']} on {record['cpu']}, {record['threads']} threads; {installed}; {record['blas']}.\n\n"
    text += LEGEND.format(
        rounds=record["rounds"], threads=record["threads"], sgemm=record["sgemm"]["sides"][0]["gflops"]
    )
    text += f"\n{summary(record)}"
    for group, title in TITLES.items():
        entries = [entry for entry in record["comparisons"] if entry["group"] == group]
        if entries:
            averages = [average for average in record["averages"] if average["group"] == group]
            text += f"\n**{title}**\n\n{HEADER}{''.join(map(_row, entries))}{''.join(map(_average_row, averages))}"
    return text


def summary(record):
    """A short table: the mean and the greatest ratio of each group of convolutions, and the ratio of each network."""
    text = "| work | ratio | goal |\n|---|---|---|\n"
    for average in record["averages"]:
        group, task = average["group"], average["task"]
        worst = max(e["ratio"] for e in record["comparisons"] if (e["group"], e["task"]) == (group, task))
        title = f"{TITLES[group]}, {task}, mean (greatest: {_ratio(worst)})"
        text += _cells([title, f"**{_ratio(average['ratio'])}**", _goal(average)])
    for entry in record["comparisons"]:
        if entry["group"] not in ("layers", "dezero") and "ratio" in entry:
            text += _cells([entry["name"], f"**{_ratio(entry['ratio'])}**", _goal(entry)])
            if "memory_goal" in entry:
                memory = f"**{entry['memory_ratio']:.2f}**"
                text += _cells([f"{entry['name']}, peak memory", memory, _goal(entry, "memory_")])
    return text


def _row(entry):
    first, *others = entry["sides"]
    cells = [entry["name"], _ms(first["median"])]
    if "ratio" in entry:
        best = next(side for side in others if side["label"] == entry["against"])
        cells += [f"{_ms(best['median'])} ({best['label']})", f"**{_ratio(entry['ratio'])}**", _goal(entry)]
    else:
        cells += ["", "", ""]
    cells += [f"{first['gflops']:.0f}", f"{100 * first['of_sgemm']:.0f} %", f"{first['peak_mb']:.0f}"]
    cells += [f"{entry['memory_ratio']:.2f} {_goal(entry, 'memory_')}".strip() if "ratio" in entry else ""]
    return _cells(cells)


def _average_row(average):
    title = f"mean of the {average['task']}s"
    return _cells([title, "", "", f"**{_ratio(average['ratio'])}**", _goal(average), "", "", "", ""])


def _cells(cells):
    return f"| {' | '.join(cells)} |\n"


def _goal(found, kind=""):
    """Such as "≤ 1, met"."""
    if f"{kind}goal" not in found:
        return ""
    return f"≤ {found[f'{kind}goal']:g}, {'met' if found[f'{kind}met'] else 'missed'}"


def _ms(seconds):
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.1f}"


def _ratio(ratio):
    """Two decimals; for what is many times as fast, how many times."""
    return f"{ratio:.2f}" if ratio >= 0.2 else f"{ratio:.3f} ({1 / ratio:.0f} times as fast)"
