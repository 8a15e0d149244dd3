"""The record of `gpu.py` as text."""

import gpu_works


def ratio(entry):
    """minifcn's time over PyTorch's; None where either is missing."""
    return entry["minifcn"] / entry["PyTorch"] if "minifcn" in entry and "PyTorch" in entry else None


def line(entry):
    """One piece of work, as it is printed while the benchmark runs."""
    times = ", ".join(f"{name} {1e3 * entry[name]:.3f} ms" for name in ("minifcn", "PyTorch") if name in entry)
    peaks = ", ".join(f"{name} {peak / 2**20:.0f} MiB" for name, peak in entry["peaks"].items() if peak)
    shown = f"; ratio {ratio(entry):.2f}" if ratio(entry) else ""
    return f"{entry['name']}: {times or 'not measured'}{shown}{f'; peak {peaks}' if peaks else ''}"


def markdown(record):
    """The tables of a record: all works, the roofline of the heaviest layers, and the paper's own figure."""
    about = ", ".join(f"{key} {record[key]}" for key in ("device", "driver", "cuda", "cupy", "torch") if record[key])
    first, then = gpu_works.RATIO_GOALS
    lines = [
        f"{about}. Products in {record['precision']} on both sides; goal: a ratio of {first}, then {then}.",
        "",
        "| work | minifcn, ms | PyTorch, ms | ratio | minifcn, peak MiB | PyTorch, peak MiB |",
        "|---|---|---|---|---|---|",
        *(_row(entry) for entry in record["entries"]),
        "",
        f"The {gpu_works.HEAVIEST} heaviest layers beside their roofline: a product by cuBLAS at "
        f"{record['rate'] / 1e12:.3g} TFLOP/s, a copy at {record['bandwidth'] / 1e9:.4g} GB/s.",
        "",
        "| layer | GFLOP | MB | least, ms | bound by | minifcn, ms | times the least | PyTorch, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    layers = [entry for entry in record["entries"] if entry["layer"] and "minifcn" in entry]
    for e in gpu_works.heaviest(layers):
        cells = [e["name"], f"{e['flops'] / 1e9:.2f}", f"{e['bytes'] / 1e6:.1f}", f"{1e3 * e['bound']:.3f}", e["limit"]]
        cells += [f"{1e3 * e['minifcn']:.3f}", f"{e['minifcn'] / e['bound']:.2f}", _ms(e, "PyTorch")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *_paper(record)]) + "\n"


def _row(entry):
    cells = [entry["name"], _ms(entry, "minifcn"), _ms(entry, "PyTorch"), f"{ratio(entry):.2f}" if ratio(entry) else ""]
    cells += [
        f"{entry['peaks'][name] / 2**20:.0f}" if entry["peaks"].get(name) else "" for name in ("minifcn", "PyTorch")
    ]
    return f"| {' | '.join(cells)} |"


def _ms(entry, name):
    return f"{1e3 * entry[name]:.3f}" if name in entry else "not measured"


def _paper(record):
    """How an image's time compares with the paper's, where it was measured."""
    goal = gpu_works.PAPER_SECONDS / gpu_works.PAPER_GOAL
    for entry in record["entries"]:
        if entry["name"].startswith("FCN-8s-VGG16 forward") and entry.get("batch") == 1 and "minifcn" in entry:
            seconds = entry["minifcn"]
            told = f"The paper's {1e3 * gpu_works.PAPER_SECONDS:.0f} ms an image is beaten"
            yield ""
            yield f"{told} {gpu_works.PAPER_SECONDS / seconds:.3g} times (goal: {gpu_works.PAPER_GOAL}, {1e3 * goal:.2f} ms)."
