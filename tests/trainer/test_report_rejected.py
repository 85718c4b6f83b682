"""The report says which images could not be cut, and why."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROWS_PER_SHARD, CacheMaker, view_row

from storage_schemas.cache import Cache
from storage_schemas.format import layout
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.format.tables import REJECTED, VIEWS
from storage_schemas.format.views import ViewSet
from storage_schemas.shard_writer import ShardKey, array_record, commit, open_shard, write_table_part
from trainer.data.set_source import open_set
from trainer.report.rejected_images import NAMED, RejectedFor, rejected_images


def cache_of(folder: Path, rejected: list[tuple[str, str, str]]) -> CacheMaker:
    """A cache of one set, of whose shards each holds one view: all others were rejected."""
    shards = -(-len(rejected) // (ROWS_PER_SHARD - 1))
    maker = CacheMaker(folder, {"low-32": ROWS_PER_SHARD * shards})
    [low_32] = maker.manifest.sets
    maker.views(lambda _shard: False)
    side, grid = maker.manifest.sets[low_32].geometry.side, maker.manifest.sets[low_32].grid
    array = ArraySpec(
        path=layout.pixels_array(low_32),
        shape=(grid.rows, side, side, 3),
        dtype="uint8",
        rows_per_shard=ROWS_PER_SHARD,
    )
    for shard in range(grid.shards):
        key = ShardKey(unit=layout.views_unit(low_32), shard=shard, identity=maker.manifest.digest)
        first = grid.slots(shard).start
        with open_shard(maker.store, array, shard) as writer:
            writer.append(np.zeros((side, side, 3), np.uint8))
        here = rejected[shard * (ROWS_PER_SHARD - 1) :][: ROWS_PER_SHARD - 1]
        rows = [{"image": image, "draw": 0, "reason": reason, "detail": detail} for image, reason, detail in here]
        views = pa.Table.from_pylist([view_row(first, "train")], VIEWS)
        parts = [
            write_table_part(maker.store, layout.table_part("views", low_32.name, shard), views, first, key),
            write_table_part(
                maker.store,
                layout.table_part("rejected", low_32.name, shard),
                pa.Table.from_pylist(rows, REJECTED),
                first,
                key,
            ),
        ]
        commit(maker.store, key, [array_record(writer, key), *parts])
    return maker


def found(maker: CacheMaker) -> list[RejectedFor]:
    cache = Cache(store=maker.store)
    sets = {view_set: open_set(cache, maker.manifest, view_set, {}) for view_set in maker.manifest.sets}
    return rejected_images(cache, maker.manifest.digest, sets)


def test_rejected_images_are_counted_by_reason_and_the_first_are_named(tmp_path: Path) -> None:
    damaged = [(f"{number:02d}.jpg", "damaged", "truncated") for number in range(NAMED + 2)]
    small = [("s.png", "too small", "8 × 8"), ("s.png", "too small", "8 × 8"), ("r.png", "too small", "9 × 9")]
    assert found(cache_of(tmp_path, [*small, *damaged])) == [
        RejectedFor(
            reason="damaged",
            images=NAMED + 2,
            views=NAMED + 2,
            named=tuple((image, detail) for image, _, detail in damaged[:NAMED]),
        ),
        RejectedFor(reason="too small", images=2, views=3, named=(("r.png", "9 × 9"), ("s.png", "8 × 8"))),
    ]


def test_a_cache_without_rejected_images_names_none_and_reads_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_cache: Cache, view_set: ViewSet, _commits: object) -> None:
        raise AssertionError(view_set)

    monkeypatch.setattr(Cache, "rejected", refuse)
    assert found(CacheMaker(tmp_path, {"low-32": 6}).views()) == []
