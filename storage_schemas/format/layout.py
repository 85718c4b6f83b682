"""Names in a cache: where every array, table and object lies.

    CACHE/features.zarr/views/<set>/pixels
    CACHE/features.zarr/views/<set>/detail/<teacher>
    CACHE/features.zarr/teachers/<teacher>/<set>/{spatial,summary}
    CACHE/features.zarr/teachers/<teacher>/{phi_s,stats}/…
    CACHE/tables/{images,views,rejected,placements,shards}/…

A **unit** is what is committed together: the views of a set, the details of a set for one teacher, the features of a
set from one teacher.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.views import ViewSet

FORMAT_VERSION = 1
"""Version of the format of a new cache."""
SEALED_FORMAT = 2
"""Version of the format of a cache in which a commit log was sealed. A reader refuses a later one."""
FEATURES = "features.zarr"
"""The Zarr group, relative to the cache."""
ATTRIBUTE = "stillhouse"
"""The only attribute of a Zarr group; its value is a JSON object."""


def views_unit(view_set: ViewSet) -> str:
    """Return the unit of a set's canvases, and of the tables that say which crop of which image each of them is."""
    return f"views/{view_set.name}"


def detail_unit(view_set: ViewSet, teacher: str) -> str:
    """Return the unit of the windows that a fixed teacher sees at its own scale."""
    return f"views/{view_set.name}/detail/{teacher}"


def features_unit(view_set: ViewSet, teacher: str) -> str:
    """Return the unit of a teacher's features of a set, with the placements that they were computed with."""
    return f"teachers/{teacher}/{view_set.name}"


def pixels_array(view_set: ViewSet) -> str:
    """Return the path of the canvases at the student's scale: uint8 `[rows, side, side, 3]`."""
    return f"{views_unit(view_set)}/pixels"


def detail_array(view_set: ViewSet, teacher: str) -> str:
    """Return the path of a fixed teacher's windows, cut from the source image at its own scale.

    The array is uint8 `[rows, side, side, 3]`.
    """
    return detail_unit(view_set, teacher)


def spatial_array(view_set: ViewSet, teacher: str) -> str:
    """Return the path of a teacher's spatial tokens in PHI-S units: `[rows, tokens, tokens, channels]`."""
    return f"{features_unit(view_set, teacher)}/spatial"


def summary_array(view_set: ViewSet, teacher: str) -> str:
    """Return the path of a teacher's summaries in raw teacher units: float32 `[rows, channels]`."""
    return f"{features_unit(view_set, teacher)}/summary"


def array_object(array: str, shard: int, axes: int) -> str:
    """Return the object that holds a shard of an array, relative to the cache.

    Args:
        array: path inside `features.zarr`.
        shard: number of the shard, along the first axis.
        axes: number of axes of the array.
    """
    return f"{FEATURES}/{array}/c/{shard}" + "/0" * (axes - 1)


def table_part(table: str, where: str, shard: int) -> str:
    """Return the Parquet file with a shard's rows of a table, relative to the cache.

    Args:
        table: name of the table.
        where: what the part is of: a view set, a teacher and a view set, or a unit.
        shard: number of the shard.
    """
    return f"tables/{table}/{where}/{shard:05d}.parquet"


def images_part(generation: int) -> str:
    """Return the Parquet file with the images that a generation added, copies included, relative to the cache."""
    return f"tables/images/{generation:05d}.parquet"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShardGrid:
    """The row slots of a view set, divided into shards. Each generation of views starts in a new shard."""

    counts: tuple[int, ...]
    """Views drawn in each generation: the first one, then one for each extension. Every view has a row slot."""
    rows_per_shard: int
    """Row slots in a shard (views). A shard is the smallest unit that is written; a chunk, one view, the smallest that
    is read."""

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
        """Number of shards. The last shard of each generation may be filled in part."""
        return sum(-(-count // self.rows_per_shard) for count in self.counts)

    @property
    def rows(self) -> int:
        """Length of the set's arrays: all row slots up to the last one that a view was drawn for."""
        return self.slots(self.shards - 1).stop if self.shards else 0

    def missing(self, committed: Iterable[int]) -> list[int]:
        """Return the shards of the grid that are not among the committed ones, in order."""
        absent = bytearray(b"\1") * self.shards  # a set of millions of numbers would take fifty times as much
        for shard in committed:
            if 0 <= shard < self.shards:
                absent[shard] = 0
        return [shard for shard, value in enumerate(absent) if value]

    def first(self, generations: int) -> "ShardGrid":
        """Return the grid of the first generations alone, as it was before the others were added."""
        return ShardGrid(counts=self.counts[:generations], rows_per_shard=self.rows_per_shard)

    def slots(self, shard: int) -> range:
        """Return the row slots of a shard.

        Raises:
            ContractError: the grid has no such shard.
        """
        first = shard * self.rows_per_shard
        return range(first, first + len(self.drawn(shard)))

    def drawn(self, shard: int) -> range:
        """Return which views of the set a shard was given, by their numbers over all generations.

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
        found = f"there is no shard {shard}: the set has {self.shards} shards"
        raise ContractError("shard grid", [Problem(place="shard", found=found)])
