"""Claims on an object store, by listing and heartbeats; the room's docstring explains the protocol."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import final

from pipeline.leases.claim import EXPIRY, Claim, Owner, busy, parse_owner
from pipeline.leases.names import (
    LEASES,
    claim_name,
    claimed_lease,
    conflict,
    heartbeat_name,
    is_claim,
    is_heartbeat,
)
from storage_schemas.format.errors import AbstractStillhouseError, MissingError, Problem, StorageError
from storage_schemas.objects.publish import AGAIN, publish_bytes
from storage_schemas.objects.store import Store

SETTLE_SECONDS = 10.0
"""How long a run waits until its own claim is listed and younger rivals have withdrawn."""
LIST_PAUSE = 0.2
"""Pause between two listings (seconds)."""
BRIEF_OUTAGE = 5.0
"""How long a heartbeat, or a withdrawal after an error, is tried again while the store does not answer (seconds)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Times of heartbeats."""

    interval: float = 15.0
    """Time between two heartbeats (seconds)."""
    expiry: float = EXPIRY
    """A claim expires when its last heartbeat is so old (seconds)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    """The claims at one moment, seen by one run. All times are the store's."""

    now: float
    """The newest time listed: it is no later than the true time of the listing."""
    written: Mapping[str, float]
    """When each claim was written, this run's own too."""
    others: Sequence[Claim]
    """The claims of other runs."""
    orphans: Sequence[str]
    """Heartbeats whose claim is gone."""

    def age_order(self, name: str) -> tuple[float, str]:
        """Return a key that sorts claims from the oldest to the youngest."""
        return self.written[name], name


@contextmanager
def object_claim(store: Store, owner: Owner, timing: Timing) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Own a claim while the block runs. Yields its name, and the names of stale objects that were deleted.

    Raises:
        BusyError: there is a rival.
        StorageError: the store fails, or does not list what was written.
    """
    name, ended, sent = claim_name(owner.lease), threading.Event(), threading.Event()
    brief = replace(store, retries=replace(store.retries, outage=min(BRIEF_OUTAGE, store.retries.outage)))
    try:
        publish_bytes(store, name, owner.body())
        cleared = _settle(store, name, owner.lease)
        heartbeats = threading.Thread(target=_send, args=(brief, name, timing.interval, ended, sent), daemon=True)
        heartbeats.start()
        yield name, tuple(cleared)
        ended.set()
        heartbeats.join()
    except BaseException:
        ended.set()
        with suppress(AbstractStillhouseError, OSError):  # if this fails, the claim expires
            _withdraw(brief, name, heartbeat=sent.is_set())
        raise
    with suppress(AbstractStillhouseError, OSError):
        _withdraw(store, name, heartbeat=sent.is_set())


def list_object_claims(store: Store) -> list[Claim]:
    """Return the claims in a store, sorted by name.

    Only a claim of this machine is shown as stale. Whether one of another machine has expired is not known: the store's
    present time is known only from an object written just now, and this function writes nothing.
    """
    return [replace(claim, stale=_is_gone(claim)) for claim in _list(store).others]


def _settle(store: Store, mine: str, lease: str) -> list[str]:
    """List until no rival is left, and return the stale objects that were deleted.

    Raises:
        BusyError: an older rival owns the lease, or a younger one did not withdraw in time.
        StorageError: this run's own claim is not listed in time.
    """
    deadline, suspects, cleared = time.monotonic() + SETTLE_SECONDS, frozenset[str](), list[str]()
    while True:
        listing = _list(store, mine)
        stale = frozenset(claim.name for claim in listing.others if claim.stale)
        # a listing has no checksum: a claim is deleted when two in a row show it as stale
        confirmed, suspects = [claim.name for claim in listing.others if claim.name in stale & suspects], stale
        cleared += _delete(store, confirmed, listing.orphans)
        rivals = [claim for claim in listing.others if claim.name not in confirmed and conflict(claim.lease, lease)]
        late = time.monotonic() > deadline
        if mine not in listing.written:
            if late:
                found = f"was written and is not listed after {SETTLE_SECONDS:.0f} s"
                raise StorageError("lease", [Problem(place=f"{store.uri}/{mine}", found=found, fix=AGAIN)])
        elif not rivals and stale <= {*confirmed}:
            return cleared
        else:
            _refuse_if_younger(store, mine, listing, rivals, late)
        time.sleep(LIST_PAUSE)


def _refuse_if_younger(store: Store, mine: str, listing: _Listing, rivals: Sequence[Claim], late: bool) -> None:
    """Refuse this run when a living rival is older, or when younger ones had time to withdraw and did not."""
    living = sorted((claim for claim in rivals if not claim.stale), key=lambda claim: listing.age_order(claim.name))
    if living and (late or listing.age_order(living[0].name) < listing.age_order(mine)):
        raise busy(store.uri, living, listing.now)


def _delete(store: Store, claims: Sequence[str], orphans: Sequence[str]) -> list[str]:
    for name in claims:
        _withdraw(store, name, heartbeat=True)
    for name in orphans:
        store.remove(name)
    return [*claims, *orphans]


def _list(store: Store, mine: str = "") -> _Listing:
    times = store.times(LEASES)
    now = max(times.values(), default=0.0)
    written = {name: moment for name, moment in times.items() if is_claim(name)}
    claims = []
    for name in sorted(written.keys() - {mine}):
        with suppress(MissingError):  # its run has withdrawn it since
            [owner] = store.read_parsed([name], parse_owner)
            heartbeat = max(written[name], times.get(heartbeat_name(name), 0.0))
            claim = Claim(name=name, lease=claimed_lease(name), owner=owner, heartbeat=heartbeat, stale=False)
            claims.append(replace(claim, stale=_is_gone(claim) or now - heartbeat > owner.term))
    expected = {heartbeat_name(name) for name in written}
    orphans = [name for name in sorted(times) if is_heartbeat(name) and name not in expected]
    return _Listing(now=now, written=written, others=claims, orphans=orphans)


def _is_gone(claim: Claim) -> bool:
    return claim.owner is not None and claim.owner.is_gone


def _send(store: Store, name: str, interval: float, ended: threading.Event, sent: threading.Event) -> None:
    """Write a heartbeat every `interval` seconds, until the lease ends or its claim is gone."""
    while not ended.wait(interval):
        with suppress(AbstractStillhouseError, OSError):  # the next one may succeed; only the claim itself decides
            if not store.exists(name):
                return
            sent.set()
            publish_bytes(store, heartbeat_name(name), b"")


def _withdraw(store: Store, name: str, *, heartbeat: bool) -> None:
    store.remove(name)
    if heartbeat:
        store.remove(heartbeat_name(name))
