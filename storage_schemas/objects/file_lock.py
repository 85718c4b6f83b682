"""A lock on a folder of this machine or of a shared file system: the kernel drops it when its process ends."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from storage_schemas.format.errors import BusyError, Problem, StorageError
from storage_schemas.objects.publish import as_storage_error, flush_folder, make_folder

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system without locks."""


@contextmanager
def locked(path: str | os.PathLike[str], work: str) -> Iterator[None]:
    """Keep a lock file locked while the block runs, so that no other process can lock it. It is deleted at the end.

    Args:
        path: the lock file. Folders above it are made.
        work: what this process does, for the message to another one.

    Raises:
        BusyError: another process keeps it locked; the message says which.
        StorageError: it cannot be written, or its file system has no locks.
    """
    path = os.path.abspath(path)
    with as_storage_error(path):
        for above in make_folder(os.path.dirname(path))[1:]:
            flush_folder(above)  # the next file that is written in a new folder flushes that folder, not those above it
        descriptor = _locked_file(path)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{work}: {_this_process()}\n".encode(), 0)
    try:
        yield
    finally:
        with suppress(OSError):  # closing it ends the lock in any case
            os.remove(path)
        os.close(descriptor)


def is_locked(path: str | os.PathLike[str]) -> bool:
    """Return whether a process keeps a lock file locked. A process that was killed leaves its file, without a lock.

    Args:
        path: the lock file; it need not exist.

    Raises:
        StorageError: the file cannot be opened.
    """
    with as_storage_error(os.fspath(path)):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        finally:
            os.close(descriptor)  # which ends the lock, if it was had
    return False


def _locked_file(path: str) -> int:
    """Return the lock file, open and locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, path)
            if _still_named(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner has deleted it since: the lock would exclude nobody


def _lock(descriptor: int, path: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another process"
        fix = "wait until it ends, or stop it: its lock ends with its process"
        raise BusyError(
            f"folder {os.path.dirname(path)}", [Problem(place=path, found=f"by {owner}", fix=fix)]
        ) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        found, fix = "its file system has no file locks (flock)", "choose a folder on another file system"
        raise StorageError("lock", [Problem(place=path, found=found, fix=fix)]) from error


def _still_named(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
