"""Row slots of each split: found from counts and a few parts, held as ranges, read with their shards."""

import pickle
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_cache import SmallCache, spec_of, split_of

from storage_schemas.cache import Cache
from storage_schemas.commits import open_log
from storage_schemas.format.errors import ContractError, CorruptionError, MissingError
from storage_schemas.format.layout import ShardGrid, pixels_array, views_unit
from storage_schemas.format.tables import VIEWS, from_parquet, to_parquet
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store
from storage_schemas.open_shards import OpenShards, SlotValues, UnitRecords, shards_kept_open
from storage_schemas.row_ranges import joined_ranges, row_ranges
from storage_schemas.split_rows import ViewCounts, find_splits, open_offsets, open_splits, read_counts

LOW = ViewSet(partition="low", resolution=32)
SPEC = spec_of("any", dim=4, summary_dim=3)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_ranges_are_the_row_slots_that_were_put_in(gaps: list[tuple[int, int]]) -> None:
    starts, stops, slots, place = [], [], list[int](), 0
    for gap, length in gaps:
        starts.append(place + gap)
        stops.append(place + gap + length)
        slots += range(starts[-1], stops[-1])
        place = stops[-1]
    ranges = row_ranges(starts, stops)
    assert (ranges.tolist(), len(ranges)) == (slots, len(slots))
    assert ranges[1:4].tolist() == slots[1:4]
    assert ranges[[*range(len(slots))][::-1]].tolist() == slots[::-1]
    with pytest.raises(IndexError):
        ranges[len(slots)]
    middle = len(starts) // 2
    parts = [row_ranges(starts[:middle], stops[:middle]), row_ranges(starts[middle:], stops[middle:])]
    assert joined_ranges(parts).tolist() == slots
    assert len(ranges.starts) <= sum(length > 0 for _, length in gaps)


def test_the_last_row_slots_are_counted_from_the_end() -> None:
    assert row_ranges([2, 8], [4, 9])[-1] == 8
    assert row_ranges([2, 8], [4, 9])[[-1, 0, -3]].tolist() == [8, 2, 2]


def _values(of_shards: Sequence[Sequence[int]], size: int, shards: Sequence[int]) -> dict[int, np.ndarray]:
    return {shard: np.array([*of_shards[shard], *[-1] * size][:size], dtype=np.int8) for shard in shards}


@given(
    size=st.integers(1, 4),
    generations=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=1, max_size=3),
    rejected=st.sets(st.integers(0, 150), max_size=60),
)
@settings(max_examples=80)
def test_the_splits_found_are_those_of_every_row(
    size: int, generations: list[tuple[int, int]], rejected: set[int]
) -> None:
    grid = ShardGrid(counts=tuple(map(sum, generations)), rows_per_shard=size)
    splits = [split for training, held in generations for split in [0] * training + [1] * held]
    cut = [[splits[view] for view in grid.drawn(shard) if view not in rejected] for shard in range(grid.shards)]
    short = [shard for shard in range(grid.shards) if len(cut[shard]) < size]
    counts = ViewCounts(
        rows_per_shard=size,
        short=np.array(short, dtype=np.int64),
        views=np.array([len(cut[shard]) for shard in short], dtype=np.int64),
    )
    slots = SlotValues("tests", size, OpenShards(partial(_values, cut, size), 100))
    found = find_splits(grid, counts, slots)
    assert [part.shards for part in found] == [grid.first(number + 1).shards for number in range(len(found))]
    for split, name in enumerate(("train", "heldout")):
        rows = [shard * size + slot for shard, of in enumerate(cut) for slot, value in enumerate(of) if value == split]
        assert joined_ranges([part.rows[name] for part in found]).tolist() == rows  # type: ignore[index]


def test_the_search_reads_few_of_many_shards() -> None:
    read: list[int] = []

    def values(shards: Sequence[int]) -> dict[int, np.ndarray]:
        read.extend(shards)
        return {shard: np.full(160, int(shard >= 5_900_000), dtype=np.int8) for shard in shards}

    grid = ShardGrid(counts=(160 * 6_250_000,), rows_per_shard=160)
    nothing = np.zeros(0, dtype=np.int64)
    counts = ViewCounts(rows_per_shard=160, short=nothing, views=nothing)
    [found] = find_splits(grid, counts, SlotValues("tests", 160, OpenShards(values, 100)))
    assert len(found.rows["train"]) == 160 * 5_900_000
    assert len(found.rows["heldout"]) == 160 * 350_000
    assert len(found.rows["train"].starts) == 1
    assert len(read) < 80


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallCache:
    """A cache with rejected views. Tests only read it."""
    made = SmallCache(tmp_path_factory.mktemp("cache"), {"low-32": 11}, rejected=[("low-32", 3), ("low-32", 7)])
    teacher = made.write_teacher(SPEC)
    for view_set, shard in made.shards:
        made.write_views(view_set, shard)
        made.write_features(teacher, view_set, shard)
    return made


def test_rejected_views_are_left_out_exactly(made: SmallCache) -> None:
    views = Cache.open(made.store.uri).open_views("low-32")
    rows = [row for _, shard in made.shards for row in made.rows(LOW, shard)]
    assert len(rows) == 9
    assert views.rows().tolist() == rows
    for split in ("train", "heldout"):
        assert views.rows(split).tolist() == [row for row in rows if split_of(row) == split]  # type: ignore[arg-type]


def test_what_belongs_to_a_shard_is_read_once_and_dropped_when_others_are_opened(
    made: SmallCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    plain = Store.read_many
    monkeypatch.setattr(Store, "read_many", lambda self, names, *most: read.extend(names) or plain(self, names, *most))
    grid, identity = made.manifest.sets[LOW].grid, made.manifest.digest
    records = UnitRecords(open_log(made.store, views_unit(LOW)), identity, grid.shards, 1)
    splits = open_splits(made.store, LOW, grid, records)
    pixels = Cache(store=made.store).array(pixels_array(LOW), records)
    read.clear()
    assert splits[[0, 1]].tolist() == [0, 0]
    pixels.read([0, 1])
    assert read == ["tables/shards/views/low-32/00000.parquet", "tables/views/low-32/00000.parquet"]
    assert splits[[9, 4]].tolist() == [1, 0]  # of two shards at once, though one may stay open
    pixels.read([4, 9])
    pixels.read([9])
    assert (len(splits.values), len(records.records), len(pixels.opened), len(pixels.indices)) == (1, 1, 1, 1)
    copy = pickle.loads(pickle.dumps(splits))
    assert len(copy.values) == 0
    assert copy[10] == 1


def test_a_row_without_a_view_is_refused(made: SmallCache) -> None:
    grid, identity = made.manifest.sets[LOW].grid, made.manifest.digest
    splits = open_splits(
        made.store, LOW, grid, UnitRecords(open_log(made.store, views_unit(LOW)), identity, grid.shards, 8)
    )
    with pytest.raises(MissingError, match="views/low-32 row 3: no view fills this row slot"):
        splits[[0, 3]]


def _other_views(made: SmallCache, folder: Path, change: dict[int, str]) -> tuple[SmallCache, Path]:
    """A copy of the cache in which some views have another split, as another program might write them."""
    shutil.copytree(made.store.uri, folder)
    name = folder / "tables/views/low-32/00000.parquet"
    rows = from_parquet(name.read_bytes(), VIEWS, "").to_pylist()
    changed = [row | {"split": change.get(row["row"], row["split"])} for row in rows]
    name.write_bytes(to_parquet(pa.Table.from_pylist(changed, VIEWS)))
    return made, name


def test_a_part_that_is_not_the_committed_one_is_damaged(made: SmallCache, tmp_path: Path) -> None:
    _other_views(made, tmp_path / "cache", {0: "heldout"})
    with pytest.raises(CorruptionError, match=r"low-32/00000.parquet: its XXH3 is not the one"):
        Cache.open(str(tmp_path / "cache")).open_views("low-32").rows()


def test_views_out_of_the_order_of_their_splits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import small_cache

    monkeypatch.setattr(small_cache, "split_of", lambda row: "heldout" if row == 1 else "train")
    made = SmallCache(tmp_path, {"low-32": 8})
    for view_set, shard in made.shards:
        made.write_views(view_set, shard)
    with pytest.raises(ContractError, match=r"shard 0 has a training view after a held-out view"):
        Cache.open(made.store.uri).open_views("low-32", teachers=[]).rows()


def test_a_placement_for_each_view_is_required(made: SmallCache) -> None:
    grid = made.manifest.sets[LOW].grid
    features = Cache.open(made.store.uri).teacher_manifest(SPEC.name)
    assert features is not None
    records = UnitRecords(open_log(made.store, f"teachers/{SPEC.name}/low-32"), features.digest, grid.shards, 8)
    offsets = open_offsets(made.store, LOW, SPEC.name, grid, records)
    assert offsets[[0, 4, 8]].tolist() == [made.offset(SPEC, LOW, row) for row in (0, 4, 8)]
    with pytest.raises(MissingError, match="row 7: no view fills this row slot"):
        offsets[7]


@pytest.mark.parametrize("most", [1, 8])
def test_counts_are_those_of_the_commit_records(made: SmallCache, most: int) -> None:
    grid, identity = made.manifest.sets[LOW].grid, made.manifest.digest
    records = UnitRecords(open_log(made.store, views_unit(LOW)), identity, grid.shards, most)
    counts = read_counts(records, grid, identity)
    assert [counts.of(shard) for shard in range(3)] == [3, 3, 3]
    assert counts.short.tolist() == [0, 1, 2]
    with pytest.raises(ContractError, match="were computed from something else"):
        read_counts(records, grid, "f" * 64)


def test_a_set_keeps_as_many_shards_open_as_memory_and_windows_say() -> None:
    assert shards_kept_open(162) == 809
    assert shards_kept_open(10**6) == 64
    assert shards_kept_open(10**6, least=200) == 200
