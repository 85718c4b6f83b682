"""Claims and their owners: who owns a lease, and whether that process still lives."""

import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, final

from storage_schemas.format.errors import BusyError, CorruptionError, Problem
from storage_schemas.format.seal import sealed, unsealed

EXPIRY = 120.0
"""A claim on an object store expires when its last heartbeat is so old (seconds). One request takes at most
`RetryPolicy.outage` and one more answer, which is less: an owner that lives sends a heartbeat in time."""


UNKNOWN = -1
"""Instead of the start time of a process, where the system does not show it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The run that owns a claim. This is what a claim contains; the names of the fields are part of its format."""

    lease: str
    """The lease that is claimed; see `pipeline.leases.lease`."""
    work: str
    """What the run does, such as `extract dinov3`."""
    host: str
    """Name of its machine, for messages."""
    machine: str
    """Boot ID of its system and its PID namespace, in which `process` counts; empty where a system has none."""
    process: int
    """Process ID."""
    started: int
    """When the process started (clock ticks since boot): process IDs are used again."""
    since: str
    """When it made the claim, by its machine's clock; for messages only."""
    term: float
    """The claim expires when the last heartbeat is so old (seconds)."""

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to have ended: it ran on this machine, and does not any more."""
        return bool(self.machine) and self.machine == _machine() and not _is_alive(self.process, self.started)

    def body(self) -> bytes:
        """Return the content of the claim."""
        return (json.dumps(sealed(asdict(self)), indent=1, ensure_ascii=False) + "\n").encode()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim found in a cache."""

    name: str
    """Its object, relative to the cache."""
    lease: str
    """The lease that is claimed."""
    owner: Owner | None
    """The run that owns it; None where it is stale and cannot be read."""
    heartbeat: float | None
    """Time of the last heartbeat (seconds since 1970, by the store's clock); None in a folder, where locks are used."""
    stale: bool
    """Whether its owner is known to have ended."""


def this_process(lease: str, work: str, term: float = EXPIRY) -> Owner:
    """Return this process as the owner of a claim on a lease."""
    return Owner(
        lease=lease,
        work=work,
        host=socket.gethostname(),
        machine=_machine(),
        process=os.getpid(),
        started=_started(os.getpid()),
        since=said_time(datetime.now(UTC).timestamp()),
        term=term,
    )


def parse_owner(body: bytes, name: str) -> Owner:
    """Return the owner that a claim names.

    Raises:
        CorruptionError: the claim is not what was written.
    """
    try:
        return Owner(**_checked(unsealed(json.loads(body), name)))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        fix = "delete it when no run is using this cache"
        raise CorruptionError("lease", [Problem(place=name, found="cannot be read", fix=fix)]) from error


def busy(cache: str, rivals: Iterable[Claim], now: float | None) -> BusyError:
    """Return the error for a run that rivals keep from writing.

    Args:
        cache: its URI.
        rivals: claims of other runs.
        now: the time by the store's clock; None where a claim does not expire.
    """
    problems = []
    for claim in rivals:
        fix = "wait until it ends, or stop it: its lease ends with its process"
        if now is not None and claim.heartbeat is not None and claim.owner is not None:
            left = claim.heartbeat + claim.owner.term - now
            fix = f"wait until it ends, or stop it; if it was killed, its lease expires in {left:.0f} s"
        problems.append(Problem(place=claim.lease, found=f"by {described(claim)}", fix=fix))
    return BusyError(f"cache {cache}", problems)


def described(claim: Claim) -> str:
    """Say who owns a claim: `process 7 on node-3 (extract dinov3), since …, last heartbeat …`."""
    if claim.owner is None:
        return "a run that has ended"
    owner, alive = claim.owner, "running now"
    if claim.heartbeat is not None:
        alive = f"last heartbeat {said_time(claim.heartbeat)} by the store's clock"
    return f"process {owner.process} on {owner.host} ({owner.work}), since {owner.since}, {alive}"


def said_time(seconds: float) -> str:
    """Return a time as `2026-11-24 06:12:40 UTC`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _checked(values: Mapping[str, Any]) -> Mapping[str, Any]:
    numbers = {"process": int, "started": int, "term": int | float}
    for field in fields(Owner):
        if not isinstance(values.get(field.name), numbers.get(field.name, str)):
            raise TypeError(field.name)
    return values


def _machine() -> str:
    """Identify the space in which process IDs count here: each container of a host may have its own."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_alive(process: int, started: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it belongs to another user
    return _started(process) in (started, UNKNOWN)


def _started(process: int) -> int:
    """Return when a process started (clock ticks since boot); 0 where it has ended."""
    try:
        with open(f"/proc/{process}/stat") as file:
            state, *rest = file.read().rpartition(")")[2].split()
    except OSError:
        return UNKNOWN  # a system may hide other users' processes
    return 0 if state in "ZX" else int(rest[18])
