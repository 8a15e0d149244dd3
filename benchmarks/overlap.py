"""What is gained when gradients travel while backward computes: two hosts and a wire, and layers that sleep as long as they would compute.

    python benchmarks/overlap.py --delay 0.1 --rate 1                # needs root and /dev/net/tun (wire.py), pip install "minifcn[mpi]"
    python benchmarks/overlap.py --network vgg16 --rounds 3
    python benchmarks/overlap.py --smoke                             # small, between two processes of this host

Each backward uses the real `Exchange`, alternately with buckets and with one reduction at the end. Layers sleep, so that neither other
work on this machine nor the processors that both hosts share affect the times: what a network takes from the processors is not measured.
"""

import argparse
import statistics
import subprocess
import sys
import time

NETWORKS = {  # name: (backbone, image side, seconds of backward)
    "lite0": ("efficientnet_lite0", 320, 0.65),  # two thirds of the step of 8 images in docs/processes.md
    "vgg16": ("vgg16", 500, 3.2),  # two thirds of the step of an image in records/networks.json
}
SIDES = {"buckets on their way": None, "one reduction at the end": 1 << 40}


def backward(exchange, layers, parameters):
    """Do one backward of layers that sleep. -> (seconds until the last layer, seconds until all sums are there)"""
    start = time.perf_counter()
    for p, gradient in parameters:
        p.grad = gradient
    for name, seconds in layers:
        time.sleep(seconds)
        exchange.passed(name)
    passed = time.perf_counter() - start
    exchange.finish()
    return passed, time.perf_counter() - start


def worker(args):
    import numpy as np

    from minifcn import models
    from minifcn.distributed import world
    from minifcn.training.exchange import BUCKET_BYTES, Exchange

    backbone, side, seconds = NETWORKS[args.network]
    seconds = 0.02 if args.smoke else seconds
    network, job = models.fcn("8s", backbone, 21, "same"), world()
    work = {row.name: row.multiply_adds for row in models.explain(network, side).rows}
    layers = [(name, seconds * work.get(name, 0) / sum(work.values())) for name in network.completed_by()]
    parameters = [(p, np.ones_like(p.value)) for p in network.parameters().values() if not p.frozen]
    sides = {label: Exchange(network, job, bucket_bytes=size or BUCKET_BYTES) for label, size in SIDES.items()}
    taken = {label: [] for label in sides}
    for turn in range(args.rounds + 1):
        for label in list(sides)[:: -1 if turn % 2 else 1]:
            job.sum(np.zeros(1))
            found = backward(sides[label], layers, parameters)
            if turn:  # the first opens connections
                taken[label].append(found)
    if job.rank == 0:
        size = sum(gradient.nbytes for _, gradient in parameters)
        print(f"{args.network}, {size:,} bytes of gradients, {args.rounds} rounds")
        for label, times in taken.items():
            passed, total = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
            print(f"  {label:26s} {total:8.1f} ms, of which {passed:8.1f} until backward has passed")
        ratios = [one[1] / other[1] for one, other in zip(*taken.values(), strict=True)]
        print(f"  median of the ratios: {statistics.median(ratios):.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=0.1, help="milliseconds from one host to the other")
    parser.add_argument("--rate", type=float, default=1, help="Gbit a second, each way")
    parser.add_argument("--network", choices=tuple(NETWORKS), default="lite0")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args)
    from scaling import ENVIRONMENT, mpirun
    from wire import on_wire0, over_wire, two_hosts

    own = [__file__, "--worker", "--network", args.network, "--rounds", str(args.rounds)]
    if args.smoke:
        return subprocess.run(mpirun(2, *own, "--smoke"), env=ENVIRONMENT, check=False).returncode
    with two_hosts() as hosts:
        job = over_wire(args.delay, args.rate) + on_wire0(mpirun(2, *own, hosts=hosts))
        return subprocess.run(job, env=ENVIRONMENT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
