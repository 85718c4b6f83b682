"""Every thing in a cache has one place, and the slots of a view set fall into shards without gap or overlap."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format import layout
from storage_schemas.format.errors import ContractError
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.views import ViewSet

LOW = ViewSet(partition="low", resolution=256)


def test_the_places_are_those_they_always_were() -> None:
    assert (layout.FORMAT_VERSION, layout.FEATURES, layout.ATTRIBUTE) == (1, "features.zarr", "stillhouse")
    assert layout.views_unit(LOW) == "views/low-256"
    assert layout.detail_unit(LOW, "siglip2") == "views/low-256/detail/siglip2"
    assert layout.features_unit(LOW, "sam3") == "teachers/sam3/low-256"
    assert layout.pixels_array(LOW) == "views/low-256/pixels"
    assert layout.detail_array(LOW, "siglip2") == "views/low-256/detail/siglip2"
    assert layout.spatial_array(LOW, "sam3") == "teachers/sam3/low-256/spatial"
    assert layout.summary_array(LOW, "dinov3") == "teachers/dinov3/low-256/summary"
    assert layout.table_part("views", "low-256", 7) == "tables/views/low-256/00007.parquet"
    assert layout.images_part(1) == "tables/images/00001.parquet"


@pytest.mark.parametrize(("axes", "end"), [(2, "c/7/0"), (4, "c/7/0/0/0")])
def test_a_shard_lies_where_zarr_looks_for_it(axes: int, end: str) -> None:
    assert layout.array_object("views/low-256/pixels", 7, axes) == f"features.zarr/views/low-256/pixels/{end}"


@given(st.integers(0, 500), st.integers(1, 60))
def test_every_slot_lies_in_exactly_one_shard_in_order(views: int, rows_per_shard: int) -> None:
    grid = ShardGrid(counts=(views,), rows_per_shard=rows_per_shard)
    slots = [grid.slots(shard) for shard in range(grid.shards)]
    assert list(chain.from_iterable(slots)) == list(range(views))
    assert all(len(inside) == rows_per_shard for inside in slots[:-1])
    assert all(inside.start == shard * rows_per_shard for shard, inside in enumerate(slots))
    assert grid.rows == grid.views == views


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5).map(tuple), st.integers(1, 30))
def test_each_generation_starts_in_a_shard_of_its_own(counts: tuple[int, ...], rows_per_shard: int) -> None:
    # dealt out one view after the other, as if by hand
    shards: list[tuple[int, list[int]]] = []
    view = 0
    for generation, count in enumerate(counts):
        for _ in range(count):
            if not shards or shards[-1][0] != generation or len(shards[-1][1]) == rows_per_shard:
                shards.append((generation, []))
            shards[-1][1].append(view)
            view += 1
    grid = ShardGrid(counts=counts, rows_per_shard=rows_per_shard)
    assert [list(grid.drawn(shard)) for shard in range(grid.shards)] == [views for _, views in shards]
    slots = [
        range(shard * rows_per_shard, shard * rows_per_shard + len(views)) for shard, (_, views) in enumerate(shards)
    ]
    assert [grid.slots(shard) for shard in range(grid.shards)] == slots
    assert grid.rows == max((inside.stop for inside in slots), default=0)
    assert grid.views == view


@given(st.lists(st.integers(0, 100), min_size=2, max_size=5).map(tuple), st.integers(1, 30))
def test_a_generation_moves_nothing_of_the_earlier_ones(counts: tuple[int, ...], rows_per_shard: int) -> None:
    grid = ShardGrid(counts=counts, rows_per_shard=rows_per_shard)
    before = ShardGrid(counts=counts[:-1], rows_per_shard=rows_per_shard)
    assert grid.first(len(counts) - 1) == before
    for shard in range(before.shards):
        assert (grid.slots(shard), grid.drawn(shard)) == (before.slots(shard), before.drawn(shard))


@pytest.mark.parametrize("shard", [-1, 3])
def test_a_shard_that_the_grid_does_not_have_is_refused(shard: int) -> None:
    with pytest.raises(ContractError) as refusal:
        ShardGrid(counts=(3, 1), rows_per_shard=2).slots(shard)
    assert (
        str(refusal.value)
        == f"shard grid breaks the storage contract:\n  shard: there is no shard {shard}: the set has 3 shards"
    )


@pytest.mark.parametrize(
    ("counts", "rows_per_shard", "said"), [((-1,), 2, "-1"), ((5,), 0, "5"), ((5, 2), -2, "5 + 2"), ((), 2, "no")]
)
def test_a_grid_that_cannot_be_is_refused(counts: tuple[int, ...], rows_per_shard: int, said: str) -> None:
    with pytest.raises(ContractError) as refusal:
        ShardGrid(counts=counts, rows_per_shard=rows_per_shard)
    assert str(refusal.value) == (
        f"shard grid breaks the storage contract:\n  rows_per_shard: {said} views in shards of {rows_per_shard}"
    )
