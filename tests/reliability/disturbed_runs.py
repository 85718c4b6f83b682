"""Small runs in processes of their own, through planned faults too: how they ended, and what they left."""

import hashlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, final

import xxhash
from fault_proxy import Fault, FaultKind, FaultProxy
from swift_server import ACCESS, SECRET

from storage_schemas.commits import read_commits
from storage_schemas.objects.store import Store
from trainer.run_folder import RunFolder

HERE = Path(__file__).parent
UNITS = ("views/low-128", "teachers/quarter-mean/low-128")
RETRIES = {"outage": 20.0, "silence": 0.7, "first_wait": 0.02}
"""For runs through passing faults: a busy machine alone must not look like an outage."""
FEW_RETRIES = RETRIES | {"outage": 3.0}
"""For runs that meet an outage."""
SECONDS = {"stall": 2.0, "slow": 0.3}


@final
@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended."""

    status: int
    """0: complete; 2: refused in one message; anything else is a bug."""
    said: str
    """What it wrote to standard error."""


@final
class Runner:
    """Carries small runs out in processes of their own."""

    def __init__(self, process: subprocess.Popen, images: Path) -> None:
        self._process, self._images = process, images

    def run(self, step: str, cache: str, **settings: Any) -> Ended:
        """Carry out one run, and return how it ended."""
        run = {"step": step, "cache": cache, "images": str(self._images)} | settings
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(run) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


def contents(store: Store) -> dict[str, str]:
    """Return the XXH3 of every object of a cache, but for what a killed process leaves."""
    names = [name for name in store.listing("") if not name.endswith(".partial")]
    return {name: xxhash.xxh3_128(body).hexdigest() for name, body in zip(names, store.read_many(names), strict=True)}


def require_whole_commits(store: Store) -> None:
    """Check that every committed object exists, with the bytes that were committed."""
    records = [record for unit in UNITS for parts in read_commits(store, unit).values() for record in parts]
    bodies = store.read_many([record.path for record in records])
    assert [xxhash.xxh3_128(body).hexdigest() for body in bodies] == [record.xxh3 for record in records]


def require_one_message(ended: Ended) -> None:
    """Check that a run ended in one refusal, which shows no secret and no traceback."""
    errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    assert (ended.status, len(errors)) == (2, 1), ended.said
    assert not any(word in ended.said for word in ("Traceback", ACCESS, SECRET, "AWS4-HMAC", "Credential=")), ended.said


def weights(folder: Path) -> str:
    """Return the SHA-256 of the student that a run exported."""
    return hashlib.sha256(RunFolder(path=folder).weights.read_bytes()).hexdigest()


@final
@dataclass(frozen=True, kw_only=True)
class Weathered:
    """The result of runs through planned faults."""

    struck: int
    """Requests that failed."""
    runs: int
    """Runs until one was complete: 1 where the first was not stopped."""


def weather(
    runner: Runner, proxy: FaultProxy, step: str, uri: str, plan: Sequence[Fault], **settings: str
) -> Weathered:
    """Run through planned faults, and run again where one stops the run, such as a flipped bit in a listing, which has
    no checksum. Faults that are left strike the next run. Each stop is one message, and leaves whole commits.
    """
    proxy.arm(*plan)
    ended = [runner.run(step, uri, retries=RETRIES, **settings)]
    while ended[-1].status != 0 and len(ended) <= len(plan):
        require_one_message(ended[-1])
        with proxy.at_peace():
            require_whole_commits(Store(uri=uri))
        ended.append(runner.run(step, uri, retries=RETRIES, **settings))
    assert ended[-1].status == 0, ended[-1].said
    seen = Weathered(struck=len(proxy.struck), runs=len(ended))
    proxy.arm()
    return seen


def faults(numbers: Sequence[int], kinds: Sequence[FaultKind]) -> Iterator[Fault]:
    """Plan a fault at each of some requests, of each kind in turn."""
    for number, kind in zip(numbers, cycle(kinds), strict=False):
        yield Fault(kind=kind, first=number, last=number, seconds=SECONDS.get(kind, 0))
