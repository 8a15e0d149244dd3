"""One process at a time in a run's folder."""

import errno
import logging
import os
from contextlib import contextmanager

from ..errors import InputError
from ..files import make_folder, writing

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

NAME = ".lock"
NO_LOCKS = errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP  # Lustre without -o flock, NFS without a lock service
log = logging.getLogger("minifcn.training")


@contextmanager
def locked(folder):
    """Keep other processes out of `folder`, which is made if it is not there.

    The system drops the lock with the process, however that ends: the file that stays behind locks nothing.
    Raises InputError, naming the folder and the other process, if one is at work there; OSError if the folder cannot be
    written to.
    """
    folder = make_folder(folder)
    with writing(folder):
        file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _take(file):
            other = os.read(file, 20).decode("ascii", "replace") or "unknown"
            raise InputError(f"{folder}: another process is training here (process id {other})")
        with writing(folder / NAME):
            os.ftruncate(file, 0)
            os.write(file, str(os.getpid()).encode("ascii"))
        yield
    finally:
        os.close(file)  # which also unlocks it


def _take(file):
    """Lock an open file. -> whether nobody else had"""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(file, 1 << 30, os.SEEK_SET)  # what is locked cannot be read, so lock a byte far behind the number
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning("this file system has no locks: let no other process train in this folder meanwhile")
    finally:
        os.lseek(file, 0, os.SEEK_SET)
    return True
