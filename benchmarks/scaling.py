"""How training scales over hosts: a model of a step's time, fitted to measured all-reduces, and what it predicts.

    python benchmarks/scaling.py            # fits the record, and prints what the model says of held-out points and of 2 to 1,024 hosts
    python benchmarks/scaling.py --measure  # measures once more, over wires of wire.py: two hosts; needs root and /dev/net/tun
    python benchmarks/scaling.py --smoke    # a few sizes between two processes of this host instead of the record

A step takes the time of its computation on the slowest host, plus the communication that backward does not hide. Gradients travel in
buckets, each once backward has filled it and those before it have arrived. The model is in step_time.py. Figures that are not measured
are here in ASSUMED, with their sources.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from distributed import mpirun as launcher
from record import machine
from step_time import BACKWARD, Link, fit, hiding_batch, work_of
from wire import on_wire0, over_wire, two_hosts

from minifcn import models
from minifcn.cli.launch import OPEN_MPI

ENVIRONMENT = {**os.environ, **OPEN_MPI}
RECORDS = Path(__file__).parent / "records"
RECORD = RECORDS / "scaling.json"
SIZES = tuple(1 << power for power in range(10, 27))  # bytes, 1 kB … 64 MB
HELD_OUT = SIZES[2::2]  # which the model is not fitted to
SHORT = 8192  # bytes: up to here Open MPI uses one or two messages, as it chooses; these sizes are not fitted to either
FEW = (1 << 15, 1 << 19, 1 << 21, 1 << 22)  # of which the last is held out
WIRES = ((0.1, 1), (2, 1), (0.1, 10), (2, 10))  # milliseconds, Gbit/s
HOSTS = tuple(1 << power for power in range(1, 11))
BLOCK = 0.05  # seconds of all-reduces that are timed together
BLOCKS = 9

ASSUMED = {
    # Of NVIDIA's A100 in float32 without TF32: 19.5 TFLOP/s at most (its data sheet), half of which is assumed to be reached.
    "gpu_flops": 0.5 * 19.5e12,
    # Bytes a second of NCCL's all-reduce between the eight A100 of a host, in its own measure (bus bandwidth): about 200 GB/s as reported in
    # https://github.com/NVIDIA/nccl-tests/issues/149; the latency is assumed.
    "nvlink": (20e-6, 200e9),
    # Between hosts with a GPU each: a card of 100 Gbit/s, reached in full; rate and latency are assumed.
    "fabric": (10e-6, 12.5e9),
    # FCN-8s-VGG16 forward, 500 × 500, on a K40c: 0.21 s (Long et al., CVPR 2015, table 1); three times that for a step is assumed.
    "k40_step": 3 * 0.21,
    # DeepLab-LargeFOV, images a second in training on the authors' GPU (Chen et al., ICLR 2015, table of fields of view).
    "largefov": 4.84,
}
NETWORKS = {  # name: (network, image side, its step in records/networks.json, images in that step)
    "FCN-8s-VGG16": (lambda: models.fcn("8s", "vgg16", 21), 500, "FCN-8s-VGG16 training step", 1),
    "FCN-8s-Lite0": (
        lambda: models.fcn("8s", "efficientnet_lite0", 21, "same"),
        320,
        "FCN-8s-EfficientNet-Lite0 training step",
        8,
    ),
    "FCN-8s-mini": (lambda: models.fcn("8s", "mini", 21, "same"), 128, "FCN-8s-mini training step", 8),
}
SCHEDULES = {  # name: (updates, images in each, seconds an image, where those are from); by Long et al. and Chen et al.
    "FCN-32s, 16s and 8s in stages": (300_000, 1, ASSUMED["k40_step"], "a K40c"),
    "FCN-8s at once": (300_000, 1, ASSUMED["k40_step"], "a K40c"),
    "DeepLab-LargeFOV, batch 30": (6_000, 30, 1 / ASSUMED["largefov"], "its authors' GPU"),
    "DeepLab-LargeFOV, poly, batch 10": (20_000, 10, 1 / ASSUMED["largefov"], "its authors' GPU"),
}


# What is measured.


def measure_here(sizes, blocks):
    """The seconds of an all-reduce of float32 between the processes of this job, {bytes: [of each block, in the slowest process]}, in process 0."""
    from mpi4py import MPI

    everybody, found = MPI.COMM_WORLD, {}
    for size in sizes:
        sent = np.ones(size // 4, np.float32)
        summed, times, count = np.empty_like(sent), [], 1
        while len(times) < blocks + 2:  # the first two open connections, and tell how many make a block
            everybody.Barrier()
            start = time.perf_counter()
            for _ in range(count):
                everybody.Allreduce(sent, summed)
            times.append(everybody.allreduce((time.perf_counter() - start) / count, op=MPI.MAX))
            if len(times) == 2:
                count = max(1, round(BLOCK / times[-1]))
        found[size] = times[2:]
    return found if everybody.rank == 0 else None


def answer(port=5001):
    """The far end of `ask`: sends back single bytes, and takes many."""
    with socket.create_server(("", port)) as server:
        print("listening", flush=True)
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (got := connection.recv(1 << 20)) != b"-":
            if len(got) == 1:
                connection.sendall(got)
            elif got.endswith(b"!"):
                connection.sendall(b"!")


def ask(host, amount, port=5001):
    """What plain TCP reaches over a wire: {"latency": seconds one way, the median of 50, "rate": bytes a second}."""
    with socket.create_connection((host, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        trips = []
        for _ in range(50):
            start = time.perf_counter()
            connection.sendall(b"?")
            connection.recv(1)
            trips.append(time.perf_counter() - start)
        start = time.perf_counter()
        connection.sendall(bytes(amount) + b"!")
        connection.recv(1)
        rate = amount / (time.perf_counter() - start)
        connection.sendall(b"-")
    return {"latency": float(np.median(trips)) / 2, "rate": rate}


def mpirun(count, *command, hosts=None):
    """The command line of a Python program in `count` processes, on this host or on wire0 and wire1, to be run in ENVIRONMENT.

    hosts: the agent that `two_hosts` gives.
    """
    words = [launcher(), "-n", str(count), "--mca", "pml", "ob1"]
    if hosts:
        words += ["--mca", "mpi_yield_when_idle", "0"]  # each process waits on its own processor, and keeps it
        words += ["--map-by", "ppr:1:node"]  # with oversubscription allowed, one host would take both
        words += ["--prtemca", "plm_ssh_agent", hosts, "--host", "10.77.0.1:1,10.77.0.2:1"]
        words += ["--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "wire"]
    return [*words, sys.executable, *command]


def measure():
    """Measure all wires. -> the record"""
    record = {**machine(2), "load": [os.getloadavg()[0]], "wires": []}
    with tempfile.TemporaryDirectory() as folder, two_hosts() as hosts:
        out = Path(folder, "out.json")
        for delay, rate in WIRES:
            wire = over_wire(delay, rate, "--mtu", "9000" if rate < 10 else "65000")
            wire += ["nice", "-n", "-15"]  # other work runs here
            subprocess.run([*wire, sys.executable, __file__, "--ask", str(out)], check=True)
            found = {"delay_ms": delay, "gbit": rate, "tcp": [json.loads(out.read_text())]}
            job = mpirun(2, __file__, "--here", str(out), hosts=hosts)
            subprocess.run([*wire, *on_wire0(job)], env=ENVIRONMENT, check=True)
            record["wires"].append({**found, "seconds": json.loads(out.read_text())})
    record["load"].append(os.getloadavg()[0])
    return record


def added(record, run):
    """The record with the times of one more run of the same wires."""
    for wire, again in zip(record["wires"], run["wires"], strict=True):
        wire["tcp"] += again["tcp"]
        for size, times in wire["seconds"].items():
            times += again["seconds"][size]
    return {**record, "load": record["load"] + run["load"]}


# What is printed.


def quickest(wire):
    """The shortest time of each size: other work on the machine only adds to it."""
    return {int(size): min(times) for size, times in wire["seconds"].items()}


def show_fit(name, wire):
    """Print how well the model fits what it has seen, and what it has not. -> the Link"""
    points = quickest(wire)
    link = fit([(size, seconds) for size, seconds in points.items() if size not in HELD_OUT and size > SHORT])
    print(
        f"{name}: {1e3 * link.latency:.3f} ms a message, {1e3 * link.handshake:.3f} ms a handshake, {8e-9 / link.byte:.2f} Gbit/s"
    )
    for size, seconds in points.items():
        predicted, seen = link.ring(2, size), "held out" if size in HELD_OUT else "short" if size <= SHORT else ""
        error = 100 * (predicted / seconds - 1)
        median = 1e3 * np.median(wire["seconds"][str(size)])
        print(
            f"  {size:>9} bytes: measured {1e3 * seconds:9.3f} ms (in the median {median:.3f}), predicted {1e3 * predicted:9.3f}, {error:+5.0f} % {seen}"
        )
    return link


def show_networks(links):
    """Print the efficiencies of 2 to 1,024 hosts, and the batches that hide communication."""
    steps = {c["name"]: c for c in json.loads((RECORDS / "networks.json").read_text())["comparisons"]}
    for name, (build, side, step, images) in NETWORKS.items():
        rows = models.explain(build(), side).rows
        macs = sum(row.multiply_adds for row in rows)
        cpu = steps[step]["sides"][0]["median"] / images
        gpu = 2 * (1 + BACKWARD) * macs / ASSUMED["gpu_flops"]
        size = 4 * sum(row.parameters for row in rows)
        print(
            f"\n{name}, {side} × {side}, {size / 1e6:.0f} MB of gradients; {cpu:.3f} s an image on the record's CPU, {gpu:.5f} s assumed on a GPU"
        )
        print(
            f"  {'efficiency in % with ' + str(images) + ' images a host':58}"
            + "".join(f"{n:>6}" for n in HOSTS)
            + "   hides from a batch of: 2 hosts, most"
        )
        for link_name, (link, on_gpu, most) in links.items():
            seconds = gpu if on_gpu else cpu
            work = work_of(rows, images * seconds)
            for kind in ("ring", "tree"):
                shown = "".join(
                    f"{100 * work.efficiency(n, link, kind):6.0f}" if n <= most else "     -" for n in HOSTS
                )
                batches = (
                    [hiding_batch(rows, seconds, n, link) or "more than 4096" for n in (2, most)]
                    if kind == "ring"
                    else []
                )
                print(f"  {link_name + ', ' + kind:58}{shown}   {', '.join(map(str, batches))}")


def show_schedules():
    """Print what published schedules take on 1 and 8 GPUs."""
    link = Link(ASSUMED["nvlink"][0], 1 / ASSUMED["nvlink"][1])
    print("\nPublished schedules, as their GPUs computed; eight of these, joined as eight A100 are:")
    vgg, _, _, _ = NETWORKS["FCN-8s-VGG16"]
    networks = {"FCN": (vgg(), 500), "DeepLab": (models.deeplab("largefov", "vgg16", 21), 321)}
    for name, (updates, batch, seconds, source) in SCHEDULES.items():
        network, side = next(found for start, found in networks.items() if name.startswith(start))
        one = updates * batch * seconds / 3600
        if batch == 1:
            eight = "one image an update cannot be divided: the same on eight"
        else:
            largest = -(-batch // 8)  # images on the GPU that has the most
            eight = f"{updates * work_of(models.explain(network, side).rows, largest * seconds).step(8, link) / 3600:.1f} h on eight"
        print(f"  {name}: {updates:,} updates of {batch}: {one:.1f} h on {source}; {eight}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help=f"measure once more, and add that to {RECORD.name}")
    parser.add_argument("--smoke", action="store_true", help="measure a few sizes on this host only, for a quick check")
    for name in ("--here", "--ask"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        found = measure_here(FEW, 3) if args.smoke else measure_here(SIZES, BLOCKS)
        if found:
            Path(args.here).write_text(json.dumps(found))
    elif args.answer:
        answer()
    elif args.ask:
        far = ["ip", "netns", "exec", "wire1", sys.executable, __file__, "--answer"]
        with subprocess.Popen(far, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            Path(args.ask).write_text(json.dumps(ask("10.77.0.2", 50_000_000)))
    elif args.smoke:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out.json")
            subprocess.run(mpirun(2, __file__, "--smoke", "--here", str(out)), env=ENVIRONMENT, check=True)
            link = show_fit("two processes of this host", {"seconds": json.loads(out.read_text())})
        show_networks({"this host's memory": (link, False, HOSTS[-1])})
        show_schedules()
    else:
        if args.measure:
            run = measure()
            record = added(json.loads(RECORD.read_text()), run) if RECORD.is_file() else run
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
        record, links = json.loads(RECORD.read_text()), {}
        print(
            f"{record['cpu']}, {record['cores']} cores, {record['date']}; load {min(record['load']):.1f} … {max(record['load']):.1f}"
        )
        for wire in record["wires"]:
            name = f"{wire['delay_ms']} ms and {wire['gbit']} Gbit/s"
            latency, rate = min(run["latency"] for run in wire["tcp"]), max(run["rate"] for run in wire["tcp"])
            print(f"wire of {name}; plain TCP: {1e3 * latency:.2f} ms, {8e-9 * rate:.2f} Gbit/s")
            links[f"CPUs, measured wire of {name}"] = (show_fit("  all-reduce", wire), False, HOSTS[-1])
        for name, most in (("nvlink", 8), ("fabric", HOSTS[-1])):
            latency, rate = ASSUMED[name]
            links[f"GPUs, assumed {name} of {rate / 1e9:g} GB/s"] = (Link(latency, 1 / rate), True, most)
        show_networks(links)
        show_schedules()


if __name__ == "__main__":
    main()
