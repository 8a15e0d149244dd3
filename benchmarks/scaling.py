"""How training scales over hosts: a model of a step's time, fitted to measured all-reduces, and what it predicts.

    python benchmarks/scaling.py            # fits the record, and prints what the model says of held-out points and of 2 to 1,024 hosts
    python benchmarks/scaling.py --measure  # measures anew, over wires of wire.py: two hosts; needs root and /dev/net/tun
    python benchmarks/scaling.py --smoke    # a few sizes between two processes of this host, and the model of them

Whatever is no measurement stands in ASSUMED, with its source.
"""

import argparse
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record import machine

RECORDS = Path(__file__).parent / "records"
RECORD = RECORDS / "scaling.json"
SIZES = tuple(1 << power for power in range(10, 27, 2))  # bytes, 1 kB … 64 MB
WIRES = ((0.1, 1), (2, 1), (0.1, 10), (2, 10))  # milliseconds, Gbit/s
HOSTS = tuple(1 << power for power in range(1, 11))


# What is measured.


def measure_here(sizes, seconds):
    """The times of all-reduces of float32 between the processes of this job, {bytes: [seconds of the slowest process]}, in process 0."""
    from mpi4py import MPI

    everybody, found = MPI.COMM_WORLD, {}
    for size in sizes:
        sent = np.ones(size // 4, np.float32)
        summed, times, until = np.empty_like(sent), [], time.perf_counter() + seconds
        while everybody.bcast(time.perf_counter() < until or len(times) < 4):
            everybody.Barrier()
            start = time.perf_counter()
            everybody.Allreduce(sent, summed)
            times.append(everybody.allreduce(time.perf_counter() - start, op=MPI.MAX))
        found[size] = times[1:]  # the first opens connections
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
    """What plain TCP makes of a wire: {"latency": seconds one way, the median of 50, "rate": bytes a second}."""
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
    """The command line of a program in so many processes, of this host or of wire0 and wire1."""
    words = [shutil.which("mpirun") or "mpirun", "--allow-run-as-root", "--bind-to", "none", "-n", str(count)]
    words += ["--mca", "mpi_yield_when_idle", "0", "--mca", "pml", "ob1"]
    if hosts:
        words += ["--prtemca", "plm_ssh_agent", hosts, "--host", "10.77.0.1:1,10.77.0.2:1"]
        words += ["--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "wire"]
    else:
        words += ["--map-by", ":oversubscribe"]
    return [*words, sys.executable, __file__, *command]


AGENT = """#!/bin/sh
case $1 in 10.77.0.1) name=wire0;; *) name=wire1;; esac
shift
exec ip netns exec $name unshare -u sh -c "hostname $name; $*"
"""


def measure():
    """Measure all wires. -> the record"""
    record = {**machine(2), "load": os.getloadavg()[0], "wires": []}
    with tempfile.TemporaryDirectory() as folder:
        agent, out = Path(folder, "agent"), Path(folder, "out.json")
        agent.write_text(AGENT)
        agent.chmod(0o755)
        for delay, rate in WIRES:
            wire = [sys.executable, str(Path(__file__).with_name("wire.py")), "--delay", str(delay), "--rate", str(rate)]
            wire += ["--mtu", "9000" if rate < 10 else "65000", "--", "nice", "-n", "-15"]
            found = {"delay_ms": delay, "gbit": rate}
            subprocess.run([*wire, sys.executable, __file__, "--ask", str(out)], check=True)
            found["tcp"] = json.loads(out.read_text())
            job = " ".join(mpirun(2, "--here", str(out), hosts=str(agent)))
            subprocess.run([*wire, "unshare", "-u", "sh", "-c", f"hostname wire0; {job}"], check=True)
            found["seconds"] = json.loads(out.read_text())
            print(found["delay_ms"], found["gbit"], found["tcp"], {k: np.median(v) for k, v in found["seconds"].items()})
            record["wires"].append(found)
    record["load_after"] = os.getloadavg()[0]
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help=f"measure, and write {RECORD}")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        found = measure_here(SIZES, 1.0)
        if found:
            Path(args.here).write_text(json.dumps(found))
        return
    if args.answer:
        answer()
        return
    if args.ask:
        far = ["ip", "netns", "exec", "wire1", sys.executable, __file__, "--answer"]
        with subprocess.Popen(far, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            Path(args.ask).write_text(json.dumps(ask("10.77.0.2", 50_000_000)))
        return
    if args.measure:
        RECORD.write_text(json.dumps(measure(), indent=1) + "\n")


if __name__ == "__main__":
    main()
