"""Claims in a folder, by file locks; the room's docstring explains the protocol.

The kernel drops a lock when its process ends. The last run to end removes the mutex file and the folder; what a killed
run left is deleted by the next run.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.leases.claim import Claim, Owner, busy, parse_owner
from pipeline.leases.names import LEASES, claim_name, claimed_lease, conflict, is_claim
from storage_schemas.format.errors import CorruptionError, Problem, StorageError
from storage_schemas.objects.dangling import refuse_dangling_link
from storage_schemas.objects.publish import TEMPORARY, as_storage_error, flush_folder, make_folder
from storage_schemas.objects.store import Store

MUTEX = f"{LEASES}/door"
"""The mutex file. Its name is part of the format: runs of other versions must meet at the same file."""
MUTEX_SECONDS = 30.0
"""How long to wait for the mutex before giving up. A process normally keeps it for milliseconds."""
MUTEX_PAUSE = 0.005
"""Pause between two attempts to lock the mutex (seconds)."""


@contextmanager
def file_claim(store: Store, owner: Owner) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Own a claim while the block runs. Yields its name, and the names of stale claims that were deleted.

    Raises:
        BusyError: there is a rival.
        StorageError: the folder cannot be written, or its file system has no locks.
    """
    with _mutex(store):
        claims = list_file_claims(store)
        rivals = [claim for claim in claims if not claim.stale and conflict(claim.lease, owner.lease)]
        if rivals:
            raise busy(store.uri, rivals, None)
        stale = tuple(claim.name for claim in claims if claim.stale)
        name = claim_name(owner.lease)
        with as_storage_error(store.path(LEASES)):
            for leftover in (*stale, *_temporary_files(store)):
                os.remove(store.path(leftover))
            descriptor = _create_locked(store.path(name), owner)
    try:
        yield name, stale
    finally:
        with suppress(OSError, StorageError):  # if this fails, closing the file still ends the claim
            _withdraw(store, name)
        os.close(descriptor)


def list_file_claims(store: Store) -> list[Claim]:
    """Return the claims in a folder, sorted by name."""
    claims = (_read_claim(store, name) for name in _names(store) if is_claim(name))
    return [claim for claim in claims if claim is not None]


def _read_claim(store: Store, name: str) -> Claim | None:
    path = store.path(name)
    try:
        stale = not _is_locked(path)
        with open(path, "rb") as file:
            body = file.read()
    except FileNotFoundError:
        return None  # its run has just ended
    try:
        owner = parse_owner(body, name)
    except CorruptionError:
        if not stale:
            raise
        owner = None
    return Claim(name=name, lease=claimed_lease(name), owner=owner, heartbeat=None, stale=stale)


def _names(store: Store) -> list[str]:
    return [f"{LEASES}/{name}" for name in store.children(LEASES)]


def _temporary_files(store: Store) -> list[str]:
    return [name for name in _names(store) if name.endswith(TEMPORARY)]


def _create_locked(path: str, owner: Owner) -> int:
    """Create a claim that is locked before it gets its name, so that it never looks stale. Returns the open file."""
    descriptor = os.open(f"{path}{TEMPORARY}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _try_lock(descriptor, path, fcntl.LOCK_EX)
        os.write(descriptor, owner.body())
        os.rename(f"{path}{TEMPORARY}", path)
    except BaseException:
        os.close(descriptor)
        with suppress(OSError):
            os.remove(f"{path}{TEMPORARY}")
        raise
    return descriptor


def _withdraw(store: Store, name: str) -> None:
    """Delete a claim; the last one takes the mutex file and the folder with it."""
    with _mutex(store):
        with suppress(FileNotFoundError):
            os.remove(store.path(name))
        if not any(map(is_claim, _names(store))):
            os.remove(store.path(MUTEX))
            os.rmdir(store.path(LEASES))


@contextmanager
def _mutex(store: Store) -> Iterator[None]:
    """Keep the mutex locked while the block runs: all other processes wait."""
    store.require_no_links(MUTEX)
    refuse_dangling_link(store)
    descriptor = _locked_mutex(store.path(MUTEX))
    try:
        yield
    finally:
        os.close(descriptor)


def _locked_mutex(path: str) -> int:
    """Lock the mutex file, and return it open. A locked file that another run has just removed does not count."""
    deadline = time.monotonic() + MUTEX_SECONDS
    while True:
        descriptor = _opened_mutex(path)
        if descriptor is not None:
            if _try_lock(descriptor, path, fcntl.LOCK_EX) and _still_named(descriptor, path):
                return descriptor
            os.close(descriptor)
        if time.monotonic() > deadline:
            found = f"has been locked by another process for {MUTEX_SECONDS:.0f} s"
            raise StorageError("lease", [Problem(place=path, found=found, fix="end that process; `lslocks` names it")])
        time.sleep(MUTEX_PAUSE)


def _opened_mutex(path: str) -> int | None:
    """Open the mutex file, or create it with its folder. Returns None if another run removes it meanwhile."""
    folder = os.path.dirname(path)
    with as_storage_error(path):
        try:
            # the cache's own folder may be new: a later publish flushes that folder, but not the ones above it
            for above in make_folder(folder)[2:]:
                flush_folder(above)
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            return None
        except FileExistsError:  # makedirs found it, then found no folder there: it was removed in between
            if os.path.isfile(folder):
                raise
            return None


def _still_named(descriptor: int, path: str) -> bool:
    """Say whether an open file is still the one at `path`: the last run to end removes the mutex file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _is_locked(path: str) -> bool:
    with open(path, "rb") as file:
        return not _try_lock(file.fileno(), path, fcntl.LOCK_SH)  # shared: processes that only look never collide


def _try_lock(descriptor: int, path: str, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        found = f"cannot be locked: {error.strerror or error}"
        fix = "mount its file system with locks that all its machines share, or point CACHE elsewhere"
        raise StorageError("lease", [Problem(place=path, found=found, fix=fix)]) from error
    return True
