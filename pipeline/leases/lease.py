"""Leases: one run at a time writes one thing. Whoever comes second is refused, with the name of the first.

What is leased is what one stage writes: the views with their details; one teacher's PHI-S, features and statistics; or,
to delete, the whole cache. Reading needs no lease, and a run that has nothing to write takes none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

from pipeline.leases.claim import Claim, this_process
from pipeline.leases.file_claims import claimed_file, standing_files
from pipeline.leases.names import VIEWS_LEASE, WHOLE_LEASE, teacher_lease
from pipeline.leases.object_claims import Timing, claimed_object, standing_objects
from storage_schemas.cache import Cache
from storage_schemas.objects.store import Store

__all__ = ["VIEWS_LEASE", "WHOLE_LEASE", "Lease", "leased", "standing_claims", "teacher_lease"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease that is held."""

    cache: Cache
    """The cache, to be written under the lease: once that is lost, nothing that counts is, through this value."""
    cleared: tuple[str, ...]
    """What runs that have ended had left of theirs, and is gone now: objects, relative to the cache."""


@contextmanager
def leased(cache: Cache, lease: str, work: str, timing: Timing | None = None) -> Iterator[Lease]:
    """Hold a lease until the block ends, or this process.

    Args:
        cache: what it is of.
        lease: what is to be written.
        work: what the run does, for those who are refused.
        timing: of signs of life, where the cache is on an object store.

    Raises:
        BusyError: another run holds it, or one that does not go with it; it is named.
        StorageError: the store fails, or has no locks.
    """
    timing = timing or Timing()
    holder = this_process(lease, work, timing.term)
    if cache.store.is_local:
        claiming = claimed_file(cache.store, holder)
    else:
        claiming = claimed_object(cache.store, holder, timing)
    with claiming as (claim, cleared):
        yield Lease(cache=replace(cache, store=replace(cache.store, claim=claim)), cleared=cleared)


def standing_claims(store: Store) -> list[Claim]:
    """Return the claims that stand in a cache, those of ended runs too, sorted by name. Nothing is written for it."""
    return standing_files(store) if store.is_local else standing_objects(store)
