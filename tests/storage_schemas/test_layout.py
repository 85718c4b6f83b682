"""Every thing in a cache has one place, and the slots of a view set fall into shards without gap or overlap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas import layout
from storage_schemas.errors import ContractError
from storage_schemas.layout import ShardGrid
from storage_schemas.views import ViewSet

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
    assert layout.IMAGES_TABLE == "tables/images/00000.parquet"


@pytest.mark.parametrize(("axes", "end"), [(2, "c/7/0"), (4, "c/7/0/0/0")])
def test_a_shard_lies_where_zarr_looks_for_it(axes: int, end: str) -> None:
    assert layout.array_object("views/low-256/pixels", 7, axes) == f"features.zarr/views/low-256/pixels/{end}"


@given(st.integers(0, 500), st.integers(1, 60))
def test_every_slot_lies_in_exactly_one_shard_in_order(rows: int, rows_per_shard: int) -> None:
    grid = ShardGrid(rows=rows, rows_per_shard=rows_per_shard)
    slots = [grid.slots(shard) for shard in range(grid.shards)]
    assert [slot for one in slots for slot in one] == list(range(rows))
    assert all(len(one) == rows_per_shard for one in slots[:-1])
    assert all(one.start == shard * rows_per_shard for shard, one in enumerate(slots))


@pytest.mark.parametrize("shard", [-1, 3])
def test_a_shard_that_the_grid_does_not_have_is_refused(shard: int) -> None:
    with pytest.raises(ContractError) as refusal:
        ShardGrid(rows=5, rows_per_shard=2).slots(shard)
    assert str(refusal.value) == f"shard grid breaks the storage contract:\n  shard: there is no shard {shard} among 3"


@pytest.mark.parametrize(("rows", "rows_per_shard"), [(-1, 2), (5, 0), (5, -2)])
def test_a_grid_that_cannot_be_is_refused(rows: int, rows_per_shard: int) -> None:
    with pytest.raises(ContractError) as refusal:
        ShardGrid(rows=rows, rows_per_shard=rows_per_shard)
    assert str(refusal.value) == (
        f"shard grid breaks the storage contract:\n  rows_per_shard: {rows} row slots in shards of {rows_per_shard}"
    )
