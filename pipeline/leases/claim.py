"""Who holds a lease: a process, known well enough to tell whether it still lives, and to tell people where it is."""

import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, final

from storage_schemas.format.errors import BusyError, CorruptionError, Problem
from storage_schemas.format.seal import sealed, unsealed

TERM = 120.0
"""A holder on another machine that gave no sign of life for so long has ended (seconds). A request may be on its way
for `Patience.outage` and one answer more, so a holder that lives gives one well before."""


UNTOLD = -1
"""In place of the time when a process started, where the system does not tell."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What a claim says of the run that made it."""

    lease: str
    """What it claims; see `pipeline.leases.lease`."""
    work: str
    """What it does, such as `extract dinov3`."""
    host: str
    machine: str
    """Boot of the system, and the space in which its process numbers count; empty where a system does not tell."""
    process: int
    started: int
    """When the process started (clock ticks since boot): numbers of processes are used again."""
    since: str
    """When it claimed, by its own clock; for people alone."""
    term: float
    """It has ended when it gave no sign of life for so long (seconds)."""

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to have ended: it ran on this machine, and is there no more."""
        return bool(self.machine) and self.machine == _machine() and not _is_alive(self.process, self.started)

    def body(self) -> bytes:
        """Return what a claim holds."""
        return (json.dumps(sealed(asdict(self)), indent=1, ensure_ascii=False) + "\n").encode()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim that stands in a cache."""

    name: str
    """Its object, relative to the cache."""
    lease: str
    """What it claims."""
    holder: Holder | None
    """Whose it is; None where it has ended and cannot be read."""
    sign: float | None
    """Last sign of life (seconds since 1970, by the store's clock); None where the system tells whether it lives."""
    over: bool
    """Whether its holder is known to have ended."""


def this_process(lease: str, work: str, term: float = TERM) -> Holder:
    """Return this process as the holder of a lease."""
    return Holder(
        lease=lease,
        work=work,
        host=socket.gethostname(),
        machine=_machine(),
        process=os.getpid(),
        started=_started(os.getpid()),
        since=said_time(datetime.now(UTC).timestamp()),
        term=term,
    )


def parse_holder(body: bytes, name: str) -> Holder:
    """Return what a claim says.

    Raises:
        CorruptionError: it is not what was written.
    """
    try:
        return Holder(**_checked(unsealed(json.loads(body), name)))
    except (ValueError, TypeError, AttributeError) as error:
        fix = "delete it when no run is at work on this cache"
        raise CorruptionError("lease", [Problem(place=name, found="cannot be read", fix=fix)]) from error


def busy(cache: str, claims: Iterable[Claim], now: float | None) -> BusyError:
    """Return the refusal of a run that met the claims of others.

    Args:
        cache: its URI.
        claims: of the others.
        now: the time by the store's clock; None where a claim does not end by time.
    """
    problems = []
    for claim in claims:
        fix = "wait until it ends, or stop it: its hold ends with its process"
        if now is not None and claim.sign is not None and claim.holder is not None:
            left = claim.sign + claim.holder.term - now
            fix = f"wait until it ends, or stop it; if it was killed, its hold ends by itself in {left:.0f} s"
        problems.append(Problem(place=claim.lease, found=f"by {described(claim)}", fix=fix))
    return BusyError(f"cache {cache}", problems)


def described(claim: Claim) -> str:
    """Say who is at work: `process 7 on node-3 (extract dinov3), since …, last sign of life …`."""
    if claim.holder is None:
        return "a run that has ended"
    sign = "alive now" if claim.sign is None else f"last sign of life {said_time(claim.sign)} by the store's clock"
    one = claim.holder
    return f"process {one.process} on {one.host} ({one.work}), since {one.since}, {sign}"


def said_time(seconds: float) -> str:
    """Return a time as `2026-11-24 06:12:40 UTC`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _checked(values: Mapping[str, Any]) -> Mapping[str, Any]:
    numbers = {"process": int, "started": int, "term": int | float}
    for field in fields(Holder):
        if not isinstance(values.get(field.name), numbers.get(field.name, str)):
            raise TypeError(field.name)
    return values


def _machine() -> str:
    """Name where numbers of processes mean what they do here: containers of one host may each have their own."""
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
        pass  # another user's
    return _started(process) in (started, UNTOLD)


def _started(process: int) -> int:
    """Return when a process started (clock ticks since boot); 0 where it has ended."""
    try:
        with open(f"/proc/{process}/stat") as file:
            state, *rest = file.read().rpartition(")")[2].split()
    except OSError:
        return UNTOLD  # a system may hide other users' processes
    return 0 if state in "ZX" else int(rest[18])
