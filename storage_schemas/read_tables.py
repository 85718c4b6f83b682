"""Reading the tables of committed shards."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import xxhash

from storage_schemas.commits import Commits, ShardRecord
from storage_schemas.format.errors import CorruptionError, Problem
from storage_schemas.format.layout import table_part
from storage_schemas.format.tables import from_parquet
from storage_schemas.objects.store import Store


def read_parts(
    store: Store, table: str, where: str, schema: pa.Schema, commits: Mapping[int, Sequence[ShardRecord]]
) -> dict[int, pa.Table]:
    """Read the parts of a table that belong to committed shards, by shard number; see `read_table`."""
    shards = {table_part(table, where, shard): shard for shard in sorted(commits)}
    parts = store.read_parsed(list(shards), lambda body, name: _parsed(name, body, commits[shards[name]], schema))
    return dict(zip(shards.values(), parts, strict=True))


def read_table(store: Store, table: str, where: str, schema: pa.Schema, commits: Commits) -> pa.Table:
    """Read the parts of a table that belong to committed shards, shard after shard.

    Args:
        store: the cache.
        table: name of the table.
        where: what its parts are of: a view set, or a teacher and a view set.
        schema: columns of the table.
        commits: commit records of the shards to read.

    Raises:
        MissingError: a part is not there.
        CorruptionError: a part is damaged, or is not the part that its shard was committed with.
        ContractError: its columns are not those of the table.
    """
    return pa.concat_tables([schema.empty_table(), *read_parts(store, table, where, schema, commits).values()])


def _parsed(name: str, body: bytes, records: Sequence[ShardRecord], schema: pa.Schema) -> pa.Table:
    _require_committed(name, body, records)
    return from_parquet(body, schema, name)


def _require_committed(name: str, body: bytes, records: Sequence[ShardRecord]) -> None:
    committed = [record.xxh3 for record in records if record.path == name]
    if committed != [xxhash.xxh3_128(body).hexdigest()]:
        found = "its XXH3 is not the one that its shard was committed with"
        raise CorruptionError("table", [Problem(place=name, found=found)])
