"""A training run at the terminal: its progress, Ctrl-C, and the notice at its end. Everything goes to stderr."""

import signal
import sys
import threading
import time
from contextlib import closing, contextmanager

from tqdm import tqdm

from .. import backend
from ..errors import InputError
from ..report import steps, tables
from ..training import checkpoint, loop
from ..training.run import Evaluated

INTERRUPTED = 130  # the exit code after Ctrl-C


def notice(text):
    print(text, file=sys.stderr)


@contextmanager
def _ctrl_c():
    """Within this context the first Ctrl-C only sets a flag, which the yielded function reads; the second ends at once.

    Any further one is ignored, also after the context: all that remains then is to clean up and to end.
    """
    asked = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may take signals
        yield lambda: False
        return

    def note(number, frame):
        if asked:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN if asked else before)


def do(run, title, go_on):
    """Run to the end with a progress bar. -> seconds, None if Ctrl-C stopped it; go_on: the command that resumes it."""
    backend.keep_freed_memory()  # each step frees and asks for the same large arrays
    if run.started:
        notice(run.started)
    start, trained, waited = time.perf_counter(), 0.0, 0.0
    bar = tqdm(total=run.config.iterations, initial=run.done, desc=title, unit="it", disable=None)
    with _ctrl_c() as asked, bar, closing(run.events(asked)) as events:
        try:
            for event in events:
                if isinstance(event, loop.Step):
                    trained, waited = trained + event.seconds, waited + event.waited
                    bar.update()
                    bar.set_postfix(loss=f"{event.loss:.3f}", refresh=False)
                elif isinstance(event, Evaluated):
                    shown = {**tables.SCORES, "pq": tables.OBJECT_SCORES["pq"]}
                    named = ((name, event.scores[key]) for key, name in shown.items() if key in event.scores)
                    scores = ", ".join(f"{name} {100 * score:.1f}" for name, score in named)
                    steps.keep(run, event.iteration)
                    bar.write(f"{title} iteration {event.iteration}: {scores}", file=sys.stderr)
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
