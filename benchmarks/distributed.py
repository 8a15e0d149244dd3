"""A training step in two processes, compared with two threads and with PyTorch's DistributedDataParallel over gloo.

Also how many bytes travel, and whether several processes learn what one learns.

    python benchmarks/distributed.py                    # needs pip install "minifcn[mpi]", torch for the last side
    python benchmarks/distributed.py --traffic          # bytes of a step, counted by the network card of a namespace (root)
    python benchmarks/distributed.py --precision        # what float16 on the wire costs
    python benchmarks/distributed.py --equality         # losses and weights of 1, 2 and 4 processes in float64, after 200 updates

Sides take turns, so that disturbances hit all alike; each is a job that stays, and sleeps between its turns.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import works

HERE = Path(__file__)
NETWORKS = {"mini": works.MINI, "lite0": works.LITE0_STEP}
SIDES = ("two processes", "one process, two threads", "PyTorch DDP")
STEPS = {"mini": 8, "lite0": 2}  # of a turn
RATES = {"mini": 0.01, "unet": 0.01, "lite0": 3e-4}  # of the networks whose processes are compared
BATCH, CROP, UPDATES = 5, 64, 200  # the batch is one that neither 2 nor 4 processes divide
# All through TCP over the loopback device, which counts it.
COUNTED = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "tcp,self", "OMPI_MCA_btl_tcp_if_include": "lo"}


# --- In the processes ---------------------------------------------------------------------------------------------


def in_minifcn(work, wire="float32"):
    """(a function that does one update, the bytes of the gradients, barrier, rank) of this process of a job."""
    import in_minifcn as minifcn_side
    import numpy as np

    from minifcn import backend, distributed
    from minifcn.tasks import SemanticSegmentation
    from minifcn.training import exchange, loop
    from minifcn.training.optimizers import OPTIMIZERS

    backend.keep_freed_memory()
    job, network = distributed.world(), minifcn_side.build(work)
    part = exchange.part_of(work.batch, job)
    images, labels = (array[part] for array in minifcn_side.batch(work))
    exchange.share(network, job, work.batch)
    optimizer = OPTIMIZERS[work.solver.name](network.parameters(), weight_decay=work.solver.weight_decay)
    sums = exchange.Exchange(network, job, wire) if job.size > 1 else None
    size = sum(p.value.nbytes for p in network.parameters().values() if not p.frozen)
    task = SemanticSegmentation(world=job)

    def step():
        loop.update(network, images, labels, optimizer, work.solver.lr, task, sums)

    return step, size, lambda: job.sum(np.zeros(1)), job.rank


def in_pytorch(work, rank, folder):
    import in_pytorch as torch_side
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    network = torch_side.build(work).to(memory_format=torch.channels_last)
    prefix = network.prefix
    network = torch.nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)
    network.prefix = f"module.{prefix}"
    half = work.batch // 2
    images = torch.randn(half, 3, work.height, work.width).to(memory_format=torch.channels_last)
    labels = torch.randint(work.classes, (half, *work.label_size))
    labels[:, :2] = torch_side.VOID
    step = torch_side.training_step(network, work, images, labels)
    return step, sum(4 * p.numel() for p in network.parameters()), torch.distributed.barrier, rank


def bytes_sent():
    """What the loopback device of this namespace has sent."""
    (line,) = (line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split()[9])


def worker(args):
    """Do `steps` updates whenever the file of the next turn appears, and write how long one took."""
    folder = Path(args.folder)
    work = works.tiny(NETWORKS[args.network]) if args.smoke else NETWORKS[args.network]
    made = in_pytorch(work, args.rank, folder) if args.rank is not None else in_minifcn(work, args.wire)
    step, size, barrier, rank = made
    step()
    turn = 0
    while True:
        while not (folder / f"go{turn}").exists():
            if (folder / "end").exists():
                return
            time.sleep(0.002)
        barrier()
        sent, start = bytes_sent() if args.traffic else 0, time.perf_counter()
        for _ in range(args.steps):
            step()
        barrier()
        taken = (time.perf_counter() - start) / args.steps
        sent = (bytes_sent() if args.traffic else 0) - sent
        if rank == 0:
            answer = {"seconds": taken, "sent": sent / args.steps, "gradients": size}
            (folder / "part").write_text(json.dumps(answer))
            (folder / "part").rename(folder / f"done{turn}")
        turn += 1


def learn(args):
    """Train a network in float64 with batch normalisation of the whole batch, and write the losses and the weights after it to --folder."""
    import numpy as np

    from minifcn import data, distributed, models, weights
    from minifcn.tasks import SemanticSegmentation
    from minifcn.training import exchange, loop
    from minifcn.training.optimizers import SGD

    job, folder = distributed.world(), Path(args.folder)
    build = {
        "mini": lambda: models.fcn("8s", "mini", 6, "same"),
        "unet": lambda: models.unet(6, width=8, depth=3, padding="same", batch_norm=True),
        "lite0": lambda: models.fcn("8s", "efficientnet_lite0", 6, "same"),
    }
    model = build[args.network]()
    if args.network == "lite0":
        weights.load_pretrained(model)
    model = model.astype(np.float64)
    samples = data.CachedDataset(data.open_dataset(folder / "toy", "train"))
    augment = data.Augment(scale=(0.7, 1.3), colour=0.2, rotate=10.0)
    rng, part = np.random.default_rng(0), exchange.part_of(BATCH, job)
    stream = data.BatchStream(
        samples, BATCH, model.card.preprocessing, rng, crop=(CROP, CROP), augment=augment, part=part
    )
    exchange.share(model, job, BATCH)
    sums = exchange.Exchange(model, job) if job.size > 1 else None
    batches = ((images.astype(np.float64), labels) for images, labels in stream)
    solver, rate = SGD(model.parameters()), RATES[args.network]
    task = SemanticSegmentation(world=job)
    losses = [
        step.loss for step in loop.train(model, batches, solver, lambda i: rate, args.steps, task=task, exchange=sums)
    ]
    if job.rank == 0:
        np.savez(folder / f"{args.network}{job.size}.npz", losses=losses, **model.state_dict())


# --- Around them --------------------------------------------------------------------------------------------------


class Side:
    """A job: its processes, and the folder by which they are told to take a turn."""

    def __init__(self, label, network, steps, smoke, processes=2, **more):
        self.label, self.folder, self.turns = label, Path(tempfile.mkdtemp()), 0
        command = [sys.executable, str(HERE), "--worker", "--network", network, "--steps", str(steps)]
        command += ["--folder", str(self.folder)] + ["--smoke"] * smoke
        command += [f"--{name}" if value is True else f"--{name}={value}" for name, value in more.items()]
        alone = label == "one process, two threads"
        threads = "2" if alone else "1"
        settings = {"MINIFCN_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        self.commands = [command]
        if label == "PyTorch DDP":
            self.commands = [[*command, "--rank", str(rank)] for rank in range(2)]
        elif not alone:
            from minifcn.cli.launch import OPEN_MPI

            self.commands = [[mpirun(), "-n", str(processes), *command]]
            settings |= OPEN_MPI | (COUNTED if "traffic" in more else {})
        environment = {**os.environ, **settings}
        self.processes = [subprocess.Popen(c, env=environment, stdin=subprocess.DEVNULL) for c in self.commands]

    def turn(self):
        (self.folder / f"go{self.turns}").touch()
        done = self.folder / f"done{self.turns}"
        while not done.exists():
            if any(process.poll() is not None for process in self.processes):
                raise SystemExit(f"{self.label}: a process ended")
            time.sleep(0.005)
        self.turns += 1
        return json.loads(done.read_text())

    def end(self):
        (self.folder / "end").touch()
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.folder)


def mpirun():
    from minifcn.cli.launch import find_mpirun  # not above: PyTorch's processes are without minifcn

    return find_mpirun() or sys.exit('mpirun is missing: pip install "minifcn[mpi]"')


def compare(network, rounds, smoke):
    """Print the medians of a step on each side, and their ratios."""
    labels = SIDES if importlib.util.find_spec("torch") else SIDES[:2]
    sides = [Side(label, network, 1 if smoke else STEPS[network], smoke) for label in labels]
    taken = {label: [] for label in labels}
    for number in range(rounds + 1):
        for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
            seconds = side.turn()["seconds"]
            if number:  # the first warms up
                taken[side.label].append(seconds)
    for side in sides:
        side.end()
    medians = {label: statistics.median(times) for label, times in taken.items()}
    first = medians[SIDES[0]]
    print(f"{works.tiny(NETWORKS[network]).title if smoke else NETWORKS[network].title}, step, {rounds} rounds")
    for label, median in medians.items():
        print(f"  {label:26s} {1000 * median:8.1f} ms   two processes take {first / median:.2f} of that")
    return medians


def traffic(network, processes, wire, smoke):
    """Print what a step sends over the loopback device, per process, and for comparison 2 (n − 1) / n of the gradients' bytes."""
    side = Side("two processes", network, 2 if smoke else 10, smoke, processes, traffic=True, wire=wire)
    side.turn()
    found = side.turn()
    side.end()
    each, least = found["sent"] / processes, 2 * (processes - 1) / processes * found["gradients"]
    print(
        f"{network}, {processes} processes, {wire}: {each:,.0f} bytes a step and process, {each / least:.4f} of 2(n-1)/n of {found['gradients']:,}"
    )


def equality(network, updates):
    """Print how far the losses and the final weights of two and four processes are from those of one."""
    import numpy as np

    from minifcn import data
    from minifcn.cli.launch import OPEN_MPI

    with tempfile.TemporaryDirectory() as folder:
        data.write_toyvoc(Path(folder, "toy"), train=40, val=1, size=CROP + 16, seed=0)
        found = {}
        for processes in (1, 2, 4):
            command = [mpirun(), "-n", str(processes), sys.executable, str(HERE), "--learn", "--network", network]
            command += ["--steps", str(updates), "--folder", folder]
            environment = {**os.environ, **OPEN_MPI, "MINIFCN_THREADS": "1"}
            subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True)
            with np.load(Path(folder, f"{network}{processes}.npz")) as file:
                found[processes] = dict(file)
    alone = found.pop(1)
    weights = [name for name in alone if name != "losses"]
    print(
        f"{network}, {updates} updates in float64, batches of {BATCH} crops of {CROP}, loss {alone['losses'][0]:.3f} … {alone['losses'][-1]:.3f}"
    )
    for processes, other in found.items():
        losses = abs(other["losses"] / alone["losses"] - 1).max()
        final = max(abs(other[name] - alone[name]).max() / (abs(alone[name]).max() or 1) for name in weights)
        print(
            f"  {processes} processes: losses differ by {losses:.1e} of themselves at most, weights by {final:.1e} of the largest of their array"
        )


def precision():
    """Print how far sums of real gradients that travel in float16 are from those in float32."""
    sys.path.insert(0, str(HERE.parents[1] / "tests"))
    import in_minifcn as minifcn_side
    import numpy as np
    from together import together

    from minifcn.training import exchange, loop
    from minifcn.training.optimizers import SGD

    for network, work in NETWORKS.items():
        model = minifcn_side.build(work)
        images, labels = minifcn_side.batch(work)
        halves = []
        for part in (slice(0, 4), slice(4, 8)):
            loop.update(model, images[part], labels[part], SGD(model.parameters()), 0.0)
            halves.append(np.concatenate([p.grad.reshape(-1) for p in model.parameters().values() if not p.frozen]))
        found = together(2, lambda job, halves=halves: exchange.half_sum(halves[job.rank], job))[0]
        want = halves[0].astype(np.float64) + halves[1]
        error = found - want
        print(
            f"{network}: relative error of the gradient {np.linalg.norm(error) / np.linalg.norm(want):.1e}, "
            f"of its largest number {abs(error).max() / abs(want).max():.1e}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--network", choices=tuple(RATES), help="only this one")
    parser.add_argument("--smoke", action="store_true", help="sizes that take no time")
    parser.add_argument("--traffic", action="store_true")
    parser.add_argument("--precision", action="store_true")
    parser.add_argument("--equality", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--learn", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help="updates of --equality, 200 unless given")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--wire", default="float32", help=argparse.SUPPRESS)
    args = parser.parse_args()
    every = RATES if args.equality or args.learn else NETWORKS
    if args.network and args.network not in every:
        parser.error(f"network: {args.network} is for --equality")
    networks = [args.network] if args.network else list(every)
    if args.worker:
        worker(args)
    elif args.learn:
        learn(args)
    elif args.equality:
        for network in networks:
            equality(network, 3 if args.smoke else args.steps or UPDATES)
    elif args.precision:
        precision()
    elif args.traffic:
        if not os.environ.get("IN_NAMESPACE"):  # where nobody else's bytes are counted
            again = f"ip link set lo up && exec {sys.executable} {' '.join(sys.argv)}"
            os.execvpe("unshare", ["unshare", "-n", "sh", "-c", again], {**os.environ, "IN_NAMESPACE": "1"})
        for network in networks:
            for processes in (2, 4):
                for wire in ("float32", "float16"):
                    traffic(network, processes, wire, args.smoke)
    else:
        for network in networks:
            with suppress(KeyboardInterrupt):
                compare(network, 1 if args.smoke else args.rounds, args.smoke)


if __name__ == "__main__":
    main()
