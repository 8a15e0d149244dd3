"""A training run at the terminal: its progress, Ctrl-C, and the notice at its end. Everything goes to stderr."""

import errno
import os
import signal
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from functools import partial

from tqdm import tqdm

from .. import backend
from ..distributed import world
from ..errors import InputError
from ..inference.shared_work import in_order
from ..report import steps, tables
from ..training import checkpoint, loop
from ..training.run import Evaluated

INTERRUPTED = 130  # the exit code after Ctrl-C
COLUMNS = "MINIFCN_COLUMNS"  # of the terminal in which --processes was typed, for a process that has none
HANGUP = getattr(signal, "SIGHUP", None)  # the terminal was closed; Windows does not say so
STOP = getattr(signal, "SIGUSR1", signal.SIGINT)  # what mpirun passes on to its processes


def alone():
    """Whether this process is a job of its own."""
    try:
        return world().size == 1
    except InputError:  # which ends the command
        return True


def leads():
    """Whether this process is the one of its job that speaks."""
    return alone() or world().rank == 0


def notice(text, bar=None):
    """Print a line from the process that leads, above its bar if there is one. It is dropped where the terminal was closed, which a write
    may notice before the signal arrives."""
    if leads():
        try:
            (bar.write if bar else print)(text, file=sys.stderr)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            _to_nowhere(sys.stderr.fileno())


def bar_over(work=None, **more):
    """A tqdm bar of the process that leads, if a terminal shows it: its own, or that of the command that started mpirun."""
    columns = os.environ.get(COLUMNS)
    silent = (False if columns else None) if leads() else True
    return tqdm(work, disable=silent, ncols=int(columns) if columns else None, **more)


def shared_out(work, count):
    """A bar over work(0) … work(count − 1), images that the job's processes divide up (`in_order`): empty in all but process 0."""
    return iter(bar_over(in_order(world(), count, work), total=count, unit="image"))


def catch(note, *more):
    """Call note(number, frame) on Ctrl-C, a request to end and, unless nohup ignores it, when the terminal closes; more: other signals.

    -> {number: the handler before}
    """
    shown = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def hung_up(number, frame):
        _to_nowhere(*shown)
        note(number, frame)

    handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM, *more), note)
    if HANGUP and signal.getsignal(HANGUP) != signal.SIG_IGN:
        handlers[HANGUP] = hung_up
    return {number: signal.signal(number, handler) for number, handler in handlers.items()}


def _to_nowhere(*descriptors):
    """Discard from now on what is written to a terminal: it was closed, and a write would fail."""
    with open(os.devnull, "wb") as nowhere:
        for descriptor in descriptors:
            os.dup2(nowhere.fileno(), descriptor)


def _say_that_mpirun_ends_this(go_on):
    """Write to the terminal itself, if there is one: mpirun, which answers Ctrl-C with a request to end and a kill a quarter of a second
    later, no longer passes on what its processes write."""
    with suppress(OSError), open("/dev/tty", "w") as terminal:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # by which some terminals stop background processes that write
        terminal.write(f"\nminifcn: interrupted; go on with: {go_on}\n")  # below a bar, or the echo of Ctrl-C


@contextmanager
def _ctrl_c(by_mpirun):
    """Within this context the first Ctrl-C only sets a flag, which the yielded function reads; the second ends at once.

    Any further one is ignored, even after the context: all that remains then is to clean up and to end. One of several processes takes
    what mpirun passes on as Ctrl-C; by_mpirun() is called in the one that leads when mpirun asks to end. Closing the terminal never counts
    as the second.
    """
    asked, several = [], world().size > 1
    if threading.current_thread() is not threading.main_thread():  # only the main thread may take signals
        yield lambda: False
        return

    def note(number, frame):
        if several and leads() and number == signal.SIGTERM:
            by_mpirun()
        if asked and number != HANGUP:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise KeyboardInterrupt
        asked.append(number)

    before = catch(note, *[STOP] * several)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if asked and (several or number == signal.SIGINT) else handler)


def do(run, title, go_on):
    """Run to the end with a progress bar. -> seconds, None if Ctrl-C stopped it; go_on: the command that resumes it."""
    backend.keep_freed_memory()  # each step frees and asks for the same large arrays
    if run.started:
        notice(run.started)
    start, trained, waited = time.perf_counter(), 0.0, 0.0
    bar = bar_over(total=run.config.iterations, initial=run.done, desc=title, unit="it")
    by_mpirun = partial(_say_that_mpirun_ends_this, go_on)
    with _ctrl_c(by_mpirun) as asked, bar, closing(run.events(asked)) as events:
        try:
            for event in events:
                if isinstance(event, loop.Step):
                    trained, waited = trained + event.seconds, waited + event.waited
                    bar.update()
                    bar.set_postfix(loss=f"{event.loss:.3f}", refresh=False)
                elif isinstance(event, Evaluated) and leads():
                    shown = {**tables.SCORES, "pq": tables.OBJECT_SCORES["pq"]}
                    named = ((name, event.scores[key]) for key, name in shown.items() if key in event.scores)
                    scores = ", ".join(f"{name} {100 * score:.1f}" for name, score in named)
                    steps.keep(run, event.iteration)
                    notice(f"{title} iteration {event.iteration}: {scores}", bar)
            stopped = asked()  # also during the last update, after which nothing is left to stop
        except loop.Diverged as error:
            good = checkpoint.read(run.checkpoint)[1]["iteration"]
            last = f"the last good checkpoint, iteration {good}, is {run.checkpoint}"
            raise InputError(f"{title}: {error}; {last}") from error
    if waited > max(1.0, 0.2 * trained):  # seconds; the wait for the very first batch is not worth a notice
        notice(
            f"{title}: {100 * waited / trained:.0f} % of the training time was waiting for data; images shrunk by --resize, "
            "fewer processes beside this one or a faster disk would help"
        )
    if stopped:
        notice(f"{title}: stopped and saved; go on with: {go_on}")
        return None
    return time.perf_counter() - start
