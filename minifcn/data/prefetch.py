"""Batches made ahead, in a thread of its own, while the network works on the one before."""

import threading
from contextlib import suppress
from queue import Empty, Queue

AHEAD = 2  # batches: enough to even out fast and slow ones
_PATIENCE = 2.0  # seconds for the batch in the making, when nobody wants it any more


class Prefetch:
    """The batches of a `BatchStream` in their order: at most two wait, and one more is in the making.

    Use it in a `with` statement; afterwards, or where the body fails, the thread ends. An error in the thread (a file that
    cannot be read) is raised by the `next` whose batch it spoiled.
    """

    def __init__(self, stream):
        self._stream, self._state = stream, stream.state()
        self._made, self._closed = Queue(AHEAD), threading.Event()
        # A daemon, so that a file that never answers does not keep the program from ending.
        self._thread = threading.Thread(target=self._work, name="minifcn prefetch", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._closed.set()
        with suppress(Empty):
            while True:  # make room, in case the thread waits for some
                self._made.get_nowait()
        self._thread.join(_PATIENCE)

    def __iter__(self):
        return self

    def __next__(self):
        batch, state, error = self._made.get()
        if error:
            self._made.put((None, None, error))  # whoever asks again hears it again instead of waiting for ever
            raise error
        self._state = state
        return batch

    def state(self):
        """Where the stream stood after the batch that `next` gave last: those made ahead do not count."""
        return self._state

    def _work(self):
        while not self._closed.is_set():
            try:
                made = next(self._stream), self._stream.state(), None
            except BaseException as error:  # raised again where the batch is asked for
                self._made.put((None, None, error))
                return
            self._made.put(made)
