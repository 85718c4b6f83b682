"""Taking a lease. A second run that wants a conflicting lease is refused, and its message names the first.

The room's docstring explains the protocol. Reading needs no lease, and a run that has nothing to write takes none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

from pipeline.leases.claim import Claim, this_process
from pipeline.leases.file_claims import file_claim, list_file_claims
from pipeline.leases.names import VIEWS_LEASE, WHOLE_LEASE, teacher_lease
from pipeline.leases.object_claims import Timing, list_object_claims, object_claim
from storage_schemas.cache import Cache
from storage_schemas.objects.store import Store

__all__ = ["VIEWS_LEASE", "WHOLE_LEASE", "Lease", "leased", "list_claims", "teacher_lease"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease that this run owns."""

    cache: Cache
    """The cache, to be written through this value: once the claim is gone, nothing that counts can be published."""
    cleared: tuple[str, ...]
    """Stale claims and heartbeats of other runs that were deleted: objects, relative to the cache."""


@contextmanager
def leased(cache: Cache, lease: str, work: str, timing: Timing | None = None) -> Iterator[Lease]:
    """Own a lease until the block ends, or this process.

    Args:
        cache: the cache.
        lease: what will be written.
        work: what the run does, for the message to a run that is refused.
        timing: of heartbeats and expiry, where the cache is on an object store.

    Raises:
        BusyError: other runs own conflicting leases; it names them.
        StorageError: the store fails, or has no locks.
    """
    timing = timing or Timing()
    owner = this_process(lease, work, timing.expiry)
    claiming = file_claim(cache.store, owner) if cache.store.is_local else object_claim(cache.store, owner, timing)
    with claiming as (claim, cleared):
        yield Lease(cache=replace(cache, store=replace(cache.store, claim=claim)), cleared=cleared)


def list_claims(store: Store) -> list[Claim]:
    """Return all claims in a cache, stale ones too, sorted by name. It writes nothing."""
    return list_file_claims(store) if store.is_local else list_object_claims(store)
