"""The sealed commit log of a unit: its head, which lists snapshots, and the snapshots, which hold many commit records.

    tables/heads/<unit>/head.json                          which snapshots count
    tables/snapshots/<unit>/<first shard>-<XXH3>.parquet   commit records of many shards
    tables/shards/<unit>/after/<epoch>/<shard>.parquet     commit records that are newer than the head

A snapshot never changes; its name holds the hash of its bytes. The head is replaced as a whole, and its epoch then is
one higher: records that are written afterwards go to a folder of that epoch.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

from storage_schemas.format.errors import ContractError, CorruptionError, Problem
from storage_schemas.format.layout import table_part
from storage_schemas.format.seal import sealed, unsealed

SHARDS_PER_SNAPSHOT = 512
"""A snapshot holds the commit records of at most so many shards."""
CHECKSUMS_PER_SNAPSHOT = 2**20
"""A snapshot is closed once its records hold so many bytes of checksums: shards of tiny features have many views."""
BASE = 0
"""The epoch of the records that were written before their unit had a head."""
MOST = 2**60
_FIELDS = ("first", "stop", "missing", "epochs", "views", "rejected", "bytes", "size", "xxh3")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One snapshot, as the head lists it."""

    first: int
    """Its first shard."""
    stop: int
    """The shard after its last one."""
    missing: tuple[int, ...]
    """Shards between these that are not in it, sorted."""
    epochs: tuple[int, ...]
    """The epochs of its shards' commit records, sorted: nearly always one."""
    views: int
    """Views that its shards hold."""
    rejected: int
    """Views of its shards that could not be cut."""
    bytes: int
    """Size of the array shards that its records name (bytes)."""
    size: int
    """Size of the snapshot itself (bytes)."""
    xxh3: str
    """XXH3 (128 bits) of its own bytes, hexadecimal."""

    @property
    def shards(self) -> int:
        """How many shards it has the records of."""
        return self.stop - self.first - len(self.missing)

    def numbers(self) -> list[int]:
        """Return the numbers of its shards, in order."""
        return [shard for shard in range(self.first, self.stop) if shard not in self.missing]

    def holds(self, shard: int) -> bool:
        """Say whether it has the records of a shard."""
        return self.first <= shard < self.stop and shard not in self.missing


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a unit's log."""

    unit: str
    """Name of the unit."""
    epoch: int
    """How often the log was sealed; newer records lie in the folder of this epoch."""
    identity: str
    """Digest that all sealed records carry."""
    snapshots: tuple[Snapshot, ...]
    """In order of their shards, which do not overlap."""

    def to_json(self) -> bytes:
        """Return the head as it is stored: a JSON object with a seal."""
        rows = [[getattr(snapshot, name) for name in _FIELDS] for snapshot in self.snapshots]
        values = {"unit": self.unit, "epoch": self.epoch, "identity": self.identity, "snapshots": rows}
        # the seal is over values as they are read back: lists, no tuples
        return json.dumps(sealed(json.loads(json.dumps(values))), separators=(",", ":")).encode() + b"\n"


def parse_head(body: bytes, place: str) -> Head:
    """Return a stored head.

    Args:
        body: its bytes.
        place: the object, for the message.

    Raises:
        CorruptionError: it is not what was written.
        ContractError: it lists snapshots that cannot be.
    """
    try:
        document = json.loads(body)
        values = unsealed(document, place)
    except (ValueError, AttributeError, RecursionError) as error:
        raise CorruptionError("head", [Problem(place=place, found="is no JSON object")]) from error
    head = _head(values)
    if head is None or place != head_name(head.unit) or not _in_order(head.snapshots):
        fix = "another program or version wrote it: delete it, and the commit records count alone"
        raise ContractError("head", [Problem(place=place, found="does not list snapshots of this unit", fix=fix)])
    return head


def head_name(unit: str) -> str:
    """Return the object that is the head of a unit's log, relative to the cache."""
    return f"{HEADS}/{unit}/head.json"


def snapshot_name(unit: str, snapshot: Snapshot) -> str:
    """Return the object that a snapshot is, relative to the cache."""
    return f"{SNAPSHOTS}/{unit}/{snapshot.first:05d}-{snapshot.xxh3}.parquet"


def record_name(unit: str, shard: int, epoch: int) -> str:
    """Return the object that is a shard's commit record, relative to the cache."""
    return table_part("shards", unit if epoch == BASE else epoch_folder(unit, epoch), shard)


def epoch_folder(unit: str, epoch: int) -> str:
    """Return the folder of the records of an epoch, inside `tables/shards`."""
    return f"{unit}/{AFTER}/{epoch:05d}"


HEADS = "tables/heads"
"""Folder of the heads, relative to the cache."""
SNAPSHOTS = "tables/snapshots"
"""Folder of the snapshots, relative to the cache."""
AFTER = "after"
"""Folder of records that are newer than a head, inside the folder of a unit's records."""


def _head(values: Mapping[str, Any]) -> Head | None:
    """Return the head with these values, or None where a value is not of its type."""
    rows, texts = values.get("snapshots"), [values.get(name) for name in ("unit", "identity")]
    sound = (
        isinstance(rows, list) and all(isinstance(text, str) for text in texts) and _is_count(values.get("epoch"), 1)
    )
    if not sound or not rows or not all(map(_is_row, rows)):
        return None
    known = [dict(zip(_FIELDS, row, strict=True)) for row in rows]
    lists = [{name: tuple(row[name]) for name in ("missing", "epochs")} for row in known]
    snapshots = tuple(Snapshot(**row | some) for row, some in zip(known, lists, strict=True))
    return Head(unit=values["unit"], epoch=values["epoch"], identity=values["identity"], snapshots=snapshots)


def _is_row(row: Any) -> bool:
    """Say whether the fields of a snapshot have the types and the sizes that they must have."""
    if not isinstance(row, list) or len(row) != len(_FIELDS):
        return False
    first, stop, missing, epochs, *counts, xxh3 = row
    if not isinstance(missing, list) or not isinstance(epochs, list) or not epochs or not isinstance(xxh3, str):
        return False
    whole = all(map(_is_count, [first, stop, *missing, *epochs, *counts]))
    return whole and re.fullmatch(r"[0-9a-f]{32}", xxh3) is not None


def _is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value <= MOST


def _in_order(snapshots: Sequence[Snapshot]) -> bool:
    """Say whether each snapshot begins after the one before it ends, and its gaps lie inside it, in order."""
    places = [place for each in snapshots for place in (each.first, *each.missing, each.stop - 1)]
    lone = [each for each in snapshots if each.stop - each.first == 1 and not each.missing]
    rising = sum(before >= after for before, after in pairwise(places))
    return rising == len(lone) and all(each.stop > each.first for each in snapshots)
