"""Claims on an object store: objects that are written once, and signs of life beside them.

No store is asked to write only where nothing is: some that say they can let several win. Instead a run writes its
claim under a name of its own, and then looks. It holds the lease when no other claim stands in the way. Of two that
begin at once, at least the one that looks later sees the other. The one whose claim is older then waits for the other
to withdraw, which that does as soon as it sees the older.

What ends a claim is that it is deleted, by its holder or by one who found it dead; and nothing is published without it.
Times are compared as the store gives them, never with a clock of a machine."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import final

from pipeline.leases.claim import TERM, Claim, Holder, busy, parse_holder
from pipeline.leases.names import LEASES, claim_name, claimed_lease, conflict, is_claim, is_sign, sign_of
from storage_schemas.format.errors import AbstractStillhouseError, MissingError, Problem, StorageError
from storage_schemas.objects.publish import AGAIN, publish_bytes
from storage_schemas.objects.store import Store

SETTLED = 10.0
"""For so long a claim waits for a younger one to withdraw, and to be listed (seconds)."""
LOOK_AGAIN = 0.2
"""Pause between two looks (seconds)."""
BRIEF = 5.0
"""How long it is tried to give a sign of life, and to withdraw where something has failed already (seconds)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When a holder is known to live."""

    beat: float = 15.0
    """Time between signs of life (seconds)."""
    term: float = TERM
    """A claim without a sign of life for so long is dead (seconds)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What lay there at one time."""

    now: float
    """No later than it was, by the store's clock."""
    made: Mapping[str, float]
    """When each claim was made, by the store's clock."""
    claims: Sequence[Claim]
    """Those of others."""
    strays: Sequence[str]
    """Signs of life without a claim."""


@contextmanager
def claimed_object(store: Store, holder: Holder, timing: Timing) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Hold a claim while the block runs. Yields its object, and those of ended runs that were cleared.

    Raises:
        BusyError: another run's stands in the way.
        StorageError: the store fails, or does not list what was written.
    """
    name, ended, signed = claim_name(holder.lease), threading.Event(), threading.Event()
    brief = replace(store, patience=replace(store.patience, outage=min(BRIEF, store.patience.outage)))
    try:
        publish_bytes(store, name, holder.body())
        cleared = _settle(store, name, holder.lease)
        signs = threading.Thread(target=_give_signs, args=(brief, name, timing.beat, ended, signed), daemon=True)
        signs.start()
        yield name, tuple(cleared)
        ended.set()
        signs.join()
    except BaseException:
        ended.set()
        with suppress(AbstractStillhouseError, OSError):  # it ends by itself
            _withdraw(brief, name, signed.is_set())
        raise
    with suppress(AbstractStillhouseError, OSError):
        _withdraw(store, name, signed.is_set())


def standing_objects(store: Store) -> list[Claim]:
    """Return the claims in a store, sorted by name. Whether one died elsewhere is not known without writing."""
    return [replace(one, over=_is_gone(one)) for one in _look(store).claims]


def _settle(store: Store, mine: str, lease: str) -> list[str]:
    """Wait until no other claim stands in the way. Returns the dead ones that were deleted, in the way or not."""
    until, suspected, cleared = time.monotonic() + SETTLED, frozenset[str](), list[str]()
    while True:
        look = _look(store, mine)
        others = look.claims
        # a listing has no checksum: two must agree that a claim is dead
        dead = [one.name for one in others if one.over and one.name in suspected]
        suspected = frozenset(one.name for one in others if one.over)
        for name in dead:
            _withdraw(store, name, signed=True)
        for name in look.strays:
            store.remove(name)
        cleared += [*dead, *look.strays]
        rivals = [one for one in others if one.name not in dead and conflict(one.lease, lease)]
        if mine in look.made:
            if not rivals and suspected <= {*dead}:
                return cleared
            order = {name: (made, name) for name, made in look.made.items()}
            living = sorted((one for one in rivals if not one.over), key=lambda one: order[one.name])
            if living and (order[living[0].name] < order[mine] or time.monotonic() > until):
                raise busy(store.uri, living, look.now)
        elif time.monotonic() > until:
            found = f"was written and is not listed after {SETTLED:.0f} s"
            raise StorageError("lease", [Problem(place=f"{store.uri}/{mine}", found=found, fix=AGAIN)])
        time.sleep(LOOK_AGAIN)


def _look(store: Store, mine: str = "") -> _Look:
    times = store.times(LEASES)
    now = max(times.values(), default=0.0)
    made = {name: made for name, made in times.items() if is_claim(name)}
    signs = {sign_of(name): name for name in made}
    claims = []
    for name in sorted(made.keys() - {mine}):
        with suppress(MissingError):  # it was withdrawn just now
            [holder] = store.read_parsed([name], parse_holder)
            sign = max(made[name], times.get(sign_of(name), 0.0))
            claim = Claim(name=name, lease=claimed_lease(name), holder=holder, sign=sign, over=False)
            claims.append(replace(claim, over=_is_gone(claim) or now - sign > holder.term))
    strays = [name for name in sorted(times) if is_sign(name) and name not in signs]
    return _Look(now=now, made=made, claims=claims, strays=strays)


def _is_gone(claim: Claim) -> bool:
    return claim.holder is not None and claim.holder.is_gone


def _give_signs(store: Store, name: str, beat: float, ended: threading.Event, signed: threading.Event) -> None:
    """Write a sign of life now and then, for as long as the claim stands."""
    while not ended.wait(beat):
        with suppress(AbstractStillhouseError, OSError):  # the next one may succeed; the claim says what holds
            if not store.exists(name):
                return
            signed.set()
            publish_bytes(store, sign_of(name), b"")


def _withdraw(store: Store, name: str, signed: bool) -> None:
    store.remove(name)
    if signed:
        store.remove(sign_of(name))
