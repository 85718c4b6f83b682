"""A program of test_sealing's: kills the sealing of a log with SIGKILL at every change that it makes to a folder.

    python killed_sealing.py FOLDER ACTION

FOLDER holds a cache. For each n it is copied, and a forked process seals the copy (ACTION `seal`), or takes shards out
of its log (`forget`), until it is about to make its n-th change: a rename or a deletion. Prints a JSON object for each
n: which shards then are committed, with a digest of their records, before and after the same action is repeated. The
last one is that of an action that was not killed.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from storage_schemas import seal_log
from storage_schemas.objects.store import Store
from storage_schemas.unit_log import open_log

UNIT = "teachers/t/low-64"
FORGOTTEN = (1, 6, 11)
CHANGES = ("os.rename", "os.remove")


def at_each_change(act: Callable[[int], None]) -> None:
    """From here on, call `act` with the number of each change that is about to be made in this process."""
    made = 0

    def hook(event: str, _: tuple[object, ...]) -> None:
        nonlocal made
        if event in CHANGES:
            made += 1
            act(made)

    sys.addaudithook(hook)


def acted(store: Store, action: str) -> None:
    """Carry the action out; of the shards to be forgotten, those that still count."""
    seal_log.SHARDS_PER_SNAPSHOT = 4
    if action == "seal":
        seal_log.seal_unit(store, UNIT)
    elif left := [shard for shard in FORGOTTEN if shard in open_log(store, UNIT)]:
        seal_log.forget_shards(store, UNIT, left)


def killed(store: Store, action: str, moment: int) -> bool:
    """Carry the action out in another process, which is killed at that change; say whether it was."""
    child = os.fork()
    if child == 0:
        at_each_change(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == moment else None)
        acted(store, action)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def logged(store: Store) -> dict[int, str]:
    """Return the committed shards, each with a digest of its records, as a new reader finds them."""
    records = open_log(store, UNIT).records()
    return {shard: hashlib.sha256(repr(of_shard).encode()).hexdigest() for shard, of_shard in records.items()}


if __name__ == "__main__":
    folder, action = Path(sys.argv[1]), sys.argv[2]
    moment, alive = 0, True
    while alive:
        moment += 1
        copy = folder.with_name(f"killed-{action}-{moment}")
        shutil.copytree(folder, copy)
        store = Store(uri=str(copy))
        alive = killed(store, action, moment)
        found = logged(store)
        acted(store, action)
        print(json.dumps({"moment": moment, "killed": alive, "found": found, "repeated": logged(store)}), flush=True)
        shutil.rmtree(copy)
