"""Claims in a folder: files that their holders keep locked. The system lets go of a lock when its process ends.

To look who is at work, and to begin or end, a process passes a door, one at a time: a file that it locks meanwhile.
What is made here is taken away with the last claim; what a killed process leaves, the next one clears."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.leases.claim import Claim, Holder, busy, parse_holder
from pipeline.leases.names import LEASES, claim_name, claimed_lease, conflict, is_claim
from storage_schemas.format.errors import CorruptionError, Problem, StorageError
from storage_schemas.objects.publish import TEMPORARY, as_storage_error, flush_folder, make_folder
from storage_schemas.objects.store import Store

DOOR = f"{LEASES}/door"
"""The file that is locked while its process looks around."""
AT_THE_DOOR = 30.0
"""Looking around takes milliseconds; who waits for it longer than this is told (seconds)."""


@contextmanager
def claimed_file(store: Store, holder: Holder) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Hold a claim while the block runs. Yields its object, and those of ended runs that were cleared.

    Raises:
        BusyError: another run's stands in the way.
        StorageError: the folder may not be written, or its file system has no locks.
    """
    with _door(store):
        standing = standing_files(store)
        rivals = [one for one in standing if not one.over and conflict(one.lease, holder.lease)]
        if rivals:
            raise busy(store.uri, rivals, None)
        cleared = tuple(one.name for one in standing if one.over)
        name = claim_name(holder.lease)
        with as_storage_error(store.path(LEASES)):
            for left in (*cleared, *_unfinished(store)):
                os.remove(store.path(left))
            descriptor = _made(store.path(name), holder)
    try:
        yield name, cleared
    finally:
        with suppress(OSError, StorageError):  # the system ends it all the same
            _end(store, name)
        os.close(descriptor)


def standing_files(store: Store) -> list[Claim]:
    """Return the claims in a folder, sorted by name."""
    claims = (_standing(store, name) for name in _names(store) if is_claim(name))
    return [claim for claim in claims if claim is not None]


def _standing(store: Store, name: str) -> Claim | None:
    path = store.path(name)
    try:
        over = not _is_locked(path)
        with open(path, "rb") as file:
            body = file.read()
    except FileNotFoundError:
        return None  # it ended just now
    try:
        holder = parse_holder(body, name)
    except CorruptionError:
        if not over:
            raise
        holder = None
    return Claim(name=name, lease=claimed_lease(name), holder=holder, sign=None, over=over)


def _names(store: Store) -> list[str]:
    try:
        return sorted(f"{LEASES}/{name}" for name in os.listdir(store.path(LEASES)))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _unfinished(store: Store) -> list[str]:
    return [name for name in _names(store) if name.endswith(TEMPORARY)]


def _made(path: str, holder: Holder) -> int:
    """Make a claim, locked before it has its name."""
    descriptor = os.open(f"{path}{TEMPORARY}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _try_lock(descriptor, path, fcntl.LOCK_EX)
        os.write(descriptor, holder.body())
        os.rename(f"{path}{TEMPORARY}", path)
    except BaseException:
        os.close(descriptor)
        with suppress(OSError):
            os.remove(f"{path}{TEMPORARY}")
        raise
    return descriptor


def _end(store: Store, name: str) -> None:
    with _door(store):
        with suppress(FileNotFoundError):
            os.remove(store.path(name))
        if not any(map(is_claim, _names(store))):
            os.remove(store.path(DOOR))
            os.rmdir(store.path(LEASES))


@contextmanager
def _door(store: Store) -> Iterator[None]:
    descriptor = _locked_door(store.path(DOOR))
    try:
        yield
    finally:
        os.close(descriptor)


def _locked_door(path: str) -> int:
    until = time.monotonic() + AT_THE_DOOR
    while True:
        descriptor = _opened_door(path)
        if descriptor is not None:
            if _try_lock(descriptor, path, fcntl.LOCK_EX) and _is_the_one(descriptor, path):
                return descriptor
            os.close(descriptor)
        if time.monotonic() > until:
            found, fix = f"is locked by another process for {AT_THE_DOOR:.0f} s", "end that process; `lslocks` names it"
            raise StorageError("lease", [Problem(place=path, found=found, fix=fix)])
        time.sleep(0.005)


def _opened_door(path: str) -> int | None:
    """Return the door, open; None where the folder was taken away meanwhile."""
    folder = os.path.dirname(path)
    with as_storage_error(path):
        try:
            # the cache's own folder may be new: what is published later flushes it, but not those above it
            for above in make_folder(folder)[2:]:
                flush_folder(above)
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            return None
        except FileExistsError:  # it was there, and was no folder by the time that it was looked at
            if os.path.isfile(folder):
                raise
            return None


def _is_the_one(descriptor: int, path: str) -> bool:
    """Say whether an open file has its name still: the last to end takes it away."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _is_locked(path: str) -> bool:
    with open(path, "rb") as file:
        return not _try_lock(file.fileno(), path, fcntl.LOCK_SH)  # those who look do not stand in each other's way


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
