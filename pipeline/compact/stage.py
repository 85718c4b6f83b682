"""Sealing the commit log: at the end of a run, and by `make compact`, which may also take shards out of it."""

from collections.abc import Iterable, Mapping

from pipeline.compact.options import CompactOptions
from pipeline.inventory.commit_log import committed_units
from pipeline.leases.lease import WHOLE_LEASE, leased
from pipeline.workers.progress import Say
from storage_schemas.cache import Cache
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.seal_log import WORTH_SEALING, forget_shards, seal_unit


def seal_finished(cache: Cache, units: Iterable[str], stage: str, say: Say) -> None:
    """Seal the commit logs of units that a run has written, where many of their records are in no snapshot.

    Args:
        cache: the cache, under the lease of the run.
        units: their names.
        stage: what the line for the user begins with.
        say: takes lines for the user.

    Raises:
        StorageError: the store fails; or the claim of this run is gone. What is committed is kept.
    """
    if sealed := sum(seal_unit(cache.store, unit, WORTH_SEALING) for unit in units):
        say(f"{stage}: sealed the commit records of {sealed} shards: a reader needs few requests for them")


def compact_log(cache: Cache, options: CompactOptions, say: Say) -> None:
    """Seal every commit record of a cache that is in no snapshot, after taking out of the log what is to be forgotten.

    Args:
        cache: the cache.
        options: which shards are forgotten.
        say: takes lines for the user.

    Raises:
        MissingError: there is no cache; or a shard that is to be forgotten is not committed.
        SettingError: the name of a shard has another form.
        BusyError: another run writes to the cache.
        ContractError, CorruptionError: a record, a head or a snapshot is damaged.
        StorageError: the store fails.
    """
    cache.require()
    forgotten = _named_shards(options.forget)
    with leased(cache, WHOLE_LEASE, "compact") as lease:
        for unit, shards in forgotten.items():
            forget_shards(lease.cache.store, unit, shards)
            say(f"compact: {unit}: {len(shards)} shards are not committed any more")
        logs = committed_units(lease.cache)
        sealed = {unit: seal_unit(lease.cache.store, unit) for unit in logs}
    for unit, count in sealed.items():
        if count:
            say(f"compact: {unit}: sealed {count} of {len(logs[unit])} shards")
    if not any(sealed.values()):
        say(f"compact: complete, nothing to do ({sum(map(len, logs.values()))} shards of {len(logs)} units)")


def _named_shards(names: Iterable[str]) -> Mapping[str, set[int]]:
    """Return the shards of each unit that are named as `<unit>/<number>`."""
    shards: dict[str, set[int]] = {}
    for name in names:
        unit, _, number = name.rpartition("/")
        if not unit or not (number.isascii() and number.isdecimal()):
            fix = "give the unit and the number, as in teachers/dinov3/low-256/00012"
            raise SettingError("--forget", [Problem(place=name, found="names no shard", fix=fix)])
        shards.setdefault(unit, set()).add(int(number))
    return shards
