"""`minifcn data download`: its arguments, and the download with a progress bar."""

import sys
from pathlib import Path

from tqdm import tqdm

from ..data import tars
from ..data.download import ARCHIVES, TIMEOUT, HostFailed, download
from ..errors import InputError


def add_parser(kinds, formatter):
    """Add the command to those of `minifcn data`."""
    parser = kinds.add_parser(
        "download",
        help="download a data set",
        description="Fetch a data set's official archive from its host or, where that fails, from mirrors. A download that was "
        "cut, or stopped with Ctrl-C, goes on with the same command. Size and SHA-256 are verified before the file gets its "
        "name; a file that is there is never overwritten. The tar need not be unpacked: --data takes it as it is.",
        epilog="voc2012: VOCtrainval_11-May-2012.tar, 2.0 GB. By hand: put the file of that name, from anywhere, into FOLDER "
        "and run this command to check it.",
        formatter_class=formatter,
    )
    add = parser.add_argument
    add("name", choices=tuple(ARCHIVES), metavar="NAME", help=f"which: {', '.join(ARCHIVES)}")
    add("folder", metavar="FOLDER", help="where to; made if absent")
    add("--unpack", action="store_true", help="also unpack it into FOLDER, where it overwrites nothing")
    timeout = "without a byte until a host counts as dead"
    add("--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help=timeout)


def run(args):
    """Download, verify, and with --unpack unpack."""
    if not 0 < args.timeout <= 3600:
        raise InputError(f"timeout: expected a number of seconds from 0 to 3600, got {args.timeout:g}")
    archive, folder = ARCHIVES[args.name], Path(args.folder)
    target = folder / archive.name
    with tqdm(unit="B", unit_scale=True, disable=None) as bar:
        for event in download(archive, folder, args.timeout):
            if isinstance(event, HostFailed):
                bar.write(f"{event.host}: {event.reason}", file=sys.stderr)
            else:
                _show(bar, event.what, event.bytes, archive.size)
        complete = f"{target}: complete, size and SHA-256 verified"
        bar.write(f"{complete}; train on it with: minifcn train --data {target}", sys.stderr)
        if args.unpack:
            made = tars.unpack(target, folder, lambda done, total: _show(bar, "unpacking", done, total))
            bar.write(f"unpacked: {', '.join(map(str, made))}", sys.stderr)
    return 0


def _show(bar, what, done, total):
    """Move the bar; when it shows something else, its clock starts anew."""
    if bar.disable:
        return
    if bar.desc != f"{what}: ":
        bar.reset(total)
        bar.initial = bar.n = done
        bar.set_description(what)
    bar.update(done - bar.n)
