"""Whether the array shards that are committed are still there, by their sizes alone: listings, and no byte is read."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from pipeline.inventory.commands import forget_command
from pipeline.inventory.commit_log import unit_command
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord, UnitLog
from storage_schemas.format.errors import CorruptionError, Problem, first_problems
from storage_schemas.format.layout import FEATURES
from storage_schemas.unit_log import empty_log

Commits = Mapping[int, Sequence[ShardRecord]]
"""Commit records by shard number."""


def require_present(
    cache: Cache, recipe: str, commits: Mapping[str, Commits], exported: Collection[str] = frozenset()
) -> None:
    """Refuse to call a stage complete, or to go on with it, where an array shard of it is lost or has another size.

    Args:
        cache: the cache.
        recipe: name of its recipe.
        commits: commit records by unit.
        exported: parts of the cache that come from another one; see `exported_names`.

    Raises:
        CorruptionError: with every such shard, and the command that writes it again.
    """
    problems: list[Problem] = []
    for unit, shards in commits.items():
        records = [(shard, record) for shard in shards for record in shards[shard] if record.array]
        arrays = dict.fromkeys(record.array for _, record in records)
        sizes = {name: size for array in arrays for name, size in cache.store.sizes(f"{FEATURES}/{array}/c").items()}
        command = unit_command(cache, recipe, unit, exported)
        problems += _problems(cache, unit, records, sizes, command)
    if problems:
        raise CorruptionError(f"cache {cache.store.uri}", first_problems(problems))


def rewrite_fix(cache: Cache, log: UnitLog, shard: int, command: str) -> str:
    """Return what to do about a damaged shard: once it does not count as committed, it is one that is still missing.

    Args:
        cache: the cache.
        log: of the shard's unit.
        shard: its number.
        command: the command that writes missing shards of the unit.
    """
    return f"{uncommit(cache, log, shard)}; then `{command}` writes the shard again"


def uncommit(cache: Cache, log: UnitLog, shard: int) -> str:
    """Return what makes a committed shard one that is missing."""
    if log.snapshot_of(shard) is None:
        return f"delete {log.place(shard)}"
    return f"run `{forget_command(cache, log.unit, shard)}`"


def _problems(
    cache: Cache, unit: str, records: Sequence[tuple[int, ShardRecord]], sizes: Mapping[str, int], command: str
) -> Iterator[Problem]:
    wrong = [(shard, record) for shard, record in records if sizes.get(record.path) != record.bytes]
    log = cache.log(unit) if wrong else empty_log(cache.store, unit)
    for shard, record in wrong:
        size, fix = sizes.get(record.path), rewrite_fix(cache, log, shard, command)
        if size is None:
            yield Problem(place=record.path, found="is missing, and its commit record names it", fix=fix)
        else:
            yield Problem(place=record.path, found=f"has {size} bytes, its commit record says {record.bytes}", fix=fix)
