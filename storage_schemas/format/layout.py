"""Where things lie in a cache: every array, table and object by its one name.

    CACHE/features.zarr/views/<set>/pixels
    CACHE/features.zarr/views/<set>/detail/<teacher>
    CACHE/features.zarr/teachers/<teacher>/<set>/{spatial,summary}
    CACHE/features.zarr/teachers/<teacher>/{phi_s,stats}/…
    CACHE/tables/{images,views,rejected,placements,shards}/…

A **unit** is what commits together: the views of a set, a teacher's detail of a set, a teacher's features of a set.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.views import ViewSet

FORMAT_VERSION = 1
"""Version of the cache's format. A reader refuses any other by name."""
FEATURES = "features.zarr"
"""The Zarr group, relative to the cache."""
ATTRIBUTE = "stillhouse"
"""The one attribute of ours on a Zarr group; its value is a JSON object."""


def views_unit(view_set: ViewSet) -> str:
    """The unit of a set's canvases and of the tables that say what was cut from where."""
    return f"views/{view_set.name}"


def detail_unit(view_set: ViewSet, teacher: str) -> str:
    """The unit of the windows that a fixed teacher sees at its own scale."""
    return f"views/{view_set.name}/detail/{teacher}"


def features_unit(view_set: ViewSet, teacher: str) -> str:
    """The unit of a teacher's features of a set, with the placements they were computed under."""
    return f"teachers/{teacher}/{view_set.name}"


def pixels_array(view_set: ViewSet) -> str:
    """uint8 [rows, side, side, 3]: the canvases, at the student's scale."""
    return f"{views_unit(view_set)}/pixels"


def detail_array(view_set: ViewSet, teacher: str) -> str:
    """uint8 [rows, native, native, 3]: a fixed teacher's windows, cut straight from the source at its scale."""
    return detail_unit(view_set, teacher)


def spatial_array(view_set: ViewSet, teacher: str) -> str:
    """[rows, token rows, token columns, channels]: spatial tokens in PHI-S units."""
    return f"{features_unit(view_set, teacher)}/spatial"


def summary_array(view_set: ViewSet, teacher: str) -> str:
    """float32 [rows, channels]: summaries in raw teacher units."""
    return f"{features_unit(view_set, teacher)}/summary"


def array_object(array: str, shard: int, axes: int) -> str:
    """The object that holds a shard of an array sharded along its first axis, relative to the cache."""
    return f"{FEATURES}/{array}/c/{shard}" + "/0" * (axes - 1)


def table_part(table: str, where: str, shard: int) -> str:
    """The Parquet file with a shard's rows of a table, relative to the cache."""
    return f"tables/{table}/{where}/{shard:05d}.parquet"


def images_part(generation: int) -> str:
    """The images that a generation brought, copies too, relative to the cache."""
    return f"tables/images/{generation:05d}.parquet"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShardGrid:
    """Row slots of a view set, cut into shards. Each generation of views starts in a shard of its own."""

    counts: tuple[int, ...]
    """Views drawn in each generation, one row slot for each: what the cache was made with, then each extension."""
    rows_per_shard: int
    """Row slots in a shard (views): the smallest writable unit. A chunk is one view, the smallest readable unit."""

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 0 or self.rows_per_shard < 1:
            found = f"{' + '.join(map(str, self.counts)) or 'no'} views in shards of {self.rows_per_shard}"
            raise ContractError("shard grid", [Problem(place="rows_per_shard", found=found)])

    @property
    def views(self) -> int:
        """Views drawn, over all generations."""
        return sum(self.counts)

    @property
    def shards(self) -> int:
        """Number of shards; the last of each generation may be partly filled."""
        return sum(-(-count // self.rows_per_shard) for count in self.counts)

    @property
    def rows(self) -> int:
        """Length of the set's arrays: row slots up to the last one that a view was drawn for."""
        return self.slots(self.shards - 1).stop if self.shards else 0

    def missing(self, committed: Iterable[int]) -> list[int]:
        """Return the shards of the grid that are not among the committed ones, in order."""
        return sorted(set(range(self.shards)).difference(committed))

    def first(self, generations: int) -> "ShardGrid":
        """Return the grid as it was when there were only so many generations."""
        return ShardGrid(counts=self.counts[:generations], rows_per_shard=self.rows_per_shard)

    def slots(self, shard: int) -> range:
        """Return the row slots of a shard.

        Raises:
            ContractError: the grid has no such shard.
        """
        first = shard * self.rows_per_shard
        return range(first, first + len(self.drawn(shard)))

    def drawn(self, shard: int) -> range:
        """Return which of the set's views a shard was given, counted over all generations.

        Raises:
            ContractError: the grid has no such shard.
        """
        before, passed = 0, 0
        for count in self.counts if shard >= 0 else ():
            shards = -(-count // self.rows_per_shard)
            if shard < passed + shards:
                first = (shard - passed) * self.rows_per_shard
                return range(before + first, before + min(first + self.rows_per_shard, count))
            before, passed = before + count, passed + shards
        found = f"there is no shard {shard} among {self.shards}"
        raise ContractError("shard grid", [Problem(place="shard", found=found)])
