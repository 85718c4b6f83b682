"""What belongs to the shards that a process reads from: it is read with the shard, and dropped when others are opened.

So the memory of a reading process is bounded by the shards that it has open, not by the size of the cache.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any, Generic, TypeVar, final

import numpy as np

from storage_schemas.commits import ShardRecord, UnitLog
from storage_schemas.format.errors import MissingError, Problem, first_few
from storage_schemas.unit_log import array_bytes

Part = TypeVar("Part")
OPEN_SLOTS = 2**17
"""Row slots of a view set whose shards a process keeps open."""


def shards_kept_open(rows_per_shard: int, least: int = 64) -> int:
    """Return how many shards of a view set a process keeps open.

    Args:
        rows_per_shard: row slots in a shard.
        least: shards that are read from at the same time.
    """
    return max(OPEN_SLOTS // rows_per_shard, least)


@final
class OpenShards(Generic[Part]):
    """A part of each open shard, by shard number. Threads may share it; another process reads its parts itself."""

    def __init__(self, read: Callable[[Sequence[int]], Mapping[int, Part]], most: int) -> None:
        """Describe the parts; nothing is read yet.

        Args:
            read: reads the parts of some shards at once. It can be pickled.
            most: how many shards stay open. The shard that was not asked for for the longest time is closed first.
        """
        self.read, self.most = read, most
        self._open: OrderedDict[int, Part] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenShards, (self.read, self.most)

    def __len__(self) -> int:
        return len(self._open)

    def of(self, shards: Sequence[int]) -> dict[int, Part]:
        """Return the parts of some shards; those of shards that are not open yet are read together.

        Raises:
            MissingError, CorruptionError, ContractError: a part cannot be read.
        """
        with self._lock:
            absent = [shard for shard in shards if shard not in self._open]
            if absent:
                self._open.update(self.read(absent))
            found = {shard: self._open[shard] for shard in shards}
            for shard in shards:
                self._open.move_to_end(shard)
            while len(self._open) > self.most:
                self._open.popitem(last=False)
        return found


@final
class UnitRecords:
    """The commit records of a unit, by shard number, each read when its shard is opened."""

    def __init__(self, log: UnitLog, identity: str, shards: int, most: int) -> None:
        """Describe the records; nothing is read yet.

        Args:
            log: commit log of the unit.
            identity: digest that every record must carry.
            shards: how many shards of the unit are read, the first ones, all of them committed.
            most: shards that stay open.
        """
        self.log, self.unit, self.shards = log, log.unit, shards
        self.records: OpenShards[list[ShardRecord]] = OpenShards(partial(log.records, identity=identity), most)

    def __getitem__(self, shard: int) -> list[ShardRecord]:
        if not 0 <= shard < self.shards:
            raise KeyError(shard)
        return self.records.of([shard])[shard]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.shards))

    def __len__(self) -> int:
        return self.shards

    def __contains__(self, shard: object) -> bool:
        return isinstance(shard, int) and 0 <= shard < self.shards

    def open(self, shards: Sequence[int]) -> dict[int, list[ShardRecord]]:
        """Return the records of some shards, which are read together."""
        return self.records.of([shard for shard in shards if shard in self])

    def array_bytes(self) -> int:
        """Return the size of all array shards that are read (bytes). It reads the records that are in no snapshot."""
        if len(self.log) == self.shards:
            return self.log.totals().bytes
        parts = self.log.read_in_parts(range(self.shards))
        return sum(array_bytes(records) for part in parts for records in part.values())


UnitCommits = UnitRecords | Mapping[int, list[ShardRecord]]
"""Commit records of a unit, by shard number: read when their shards are opened, or all in memory."""


@final
class RecordsOfArray:
    """The commit record of each shard of an array, by shard number, read when the shard is opened."""

    def __init__(self, records: UnitRecords, path: str) -> None:
        """Describe the records; nothing is read yet.

        Args:
            records: of the unit that the array belongs to.
            path: the array, inside `features.zarr`.
        """
        self.records, self.path = records, path

    @property
    def most_open(self) -> int:
        """Shards that stay open."""
        return self.records.records.most

    def __getitem__(self, shard: int) -> ShardRecord:
        for record in self.records[shard]:
            if record.array == self.path:
                return record
        raise KeyError(shard)

    def __iter__(self) -> Iterator[int]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __contains__(self, shard: object) -> bool:
        return shard in self.records


@final
class SlotValues:
    """A value for each row slot, read with the shard that the slot is in."""

    def __init__(self, name: str, rows_per_shard: int, values: OpenShards[np.ndarray]) -> None:
        """Describe the values; nothing is read yet.

        Args:
            name: what has the values, for the error.
            rows_per_shard: row slots in a shard.
            values: reads the values of shards, `[rows_per_shard, …]`; −1 for a slot without a view.
        """
        self.name, self.rows_per_shard, self.values = name, rows_per_shard, values

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the values of some row slots, in their order.

        Raises:
            MissingError: a row slot has no value.
            CorruptionError, ContractError: what is read with a shard is damaged.
        """
        slots = np.asarray(rows, dtype=np.int64)
        shards, within = np.divmod(slots.reshape(-1), self.rows_per_shard)
        numbers, of_slot = np.unique(shards, return_inverse=True)
        parts = self.values.of(numbers.tolist())
        if not slots.size:
            return slots
        found = np.stack([parts[number] for number in numbers.tolist()])[of_slot, within]
        if without := slots.reshape(-1)[(found.reshape(len(found), -1) < 0).any(axis=1)].tolist():
            found_nothing, places = "no view fills this row slot", first_few(without)
            raise MissingError("view", [Problem(place=f"{self.name} row {row}", found=found_nothing) for row in places])
        return found.reshape((*slots.shape, *found.shape[1:]))
