"""A network cable between two hosts that are namespaces of this machine, with a set latency and rate: packets wait here until they are due.

    python benchmarks/wire.py --delay 2 --rate 1 -- COMMAND …      # needs root (CAP_NET_ADMIN) and /dev/net/tun

The hosts are called wire0 and wire1, at 10.77.0.1 and 10.77.0.2; the command runs in wire0. For Linux kernels without `netem`; where there is one, `tc
qdisc add dev … root netem delay 2ms rate 1gbit` on a veth pair does the same with less work.
"""

import argparse
import ctypes
import fcntl
import heapq
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

NAMES, ADDRESSES = ("wire0", "wire1"), ("10.77.0.1", "10.77.0.2")
TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 1, 0x1000, 0x40000000


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def enter(name):
    """Move this process to a network namespace."""
    with open(f"/run/netns/{name}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"{name}: cannot be entered")


def lay(mtu):
    """Make both hosts. -> the ends of the cable, to read packets from and write packets to"""
    ends = []
    for name, address in zip(NAMES, ADDRESSES, strict=True):
        subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)  # left by a run that was killed
        ip("netns", "add", name)
        enter(name)
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
        ip("link", "set", "lo", "up")
        ip("addr", "add", f"{address}/24", "dev", "wire")
        ip("link", "set", "wire", "mtu", str(mtu), "up")
        ends.append(end)
    return ends


def carry(ends, delay, rate, stop):
    """Carry packets until stop(): each leaves when those before it have, at `rate` bytes a second, and arrives `delay` seconds later."""
    free, due, count = [0.0, 0.0], [], 0
    while not stop():
        wait = min(0.05, due[0][0] - time.perf_counter()) if due else 0.05
        for end in select.select(ends, [], [], max(0, wait))[0]:
            side = ends.index(end)
            for _ in range(16):
                try:
                    packet = os.read(end, 1 << 16)
                except BlockingIOError:
                    break
                free[side] = max(free[side], time.perf_counter()) + len(packet) / rate
                count += 1
                heapq.heappush(due, (free[side] + delay, count, 1 - side, packet))
        while due and due[0][0] <= time.perf_counter():
            _, _, side, packet = heapq.heappop(due)
            os.write(ends[side], packet)


# For programs that start mpirun on both hosts.

AGENT = """#!/bin/sh
case $1 in 10.77.0.1) name=wire0;; *) name=wire1;; esac
shift
exec ip netns exec $name unshare -u sh -c "hostname $name; $*"
"""


@contextmanager
def two_hosts():
    """What mpirun starts in place of ssh on wire0 and wire1, as a file that is there within this context."""
    with tempfile.TemporaryDirectory() as folder:
        agent = Path(folder, "agent")
        agent.write_text(AGENT)
        agent.chmod(0o755)
        yield str(agent)


def over_wire(delay, rate, *more):
    """The beginning of a command line that runs a program beside a wire of so many ms and Gbit/s; more: options of wire.py."""
    return [sys.executable, __file__, "--delay", str(delay), "--rate", str(rate), *more, "--"]


def on_wire0(job):
    """The command line that runs another on the host wire0."""
    return ["unshare", "-u", "sh", "-c", f"hostname wire0; {' '.join(job)}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=0.1, help="milliseconds from one host to the other")
    parser.add_argument("--rate", type=float, default=1, help="Gbit a second, each way")
    parser.add_argument("--mtu", type=int, default=9000, help="bytes of the largest packet")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    ends = lay(args.mtu)
    enter(NAMES[0])
    job = subprocess.Popen(args.command)
    os.sched_setscheduler(
        0, os.SCHED_FIFO, os.sched_param(1)
    )  # what is due is carried at once, however busy both hosts are
    try:
        carry(ends, args.delay / 1e3, args.rate * 1e9 / 8, lambda: job.poll() is not None)
    finally:
        for name in NAMES:
            ip("netns", "del", name)
    return job.returncode


if __name__ == "__main__":
    sys.exit(main())
