"""The cache as a stranger finds it: plain zarr-python, nothing of ours."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from stage_runs import StageRun

from storage_schemas.commits import read_commits
from storage_schemas.format.layout import features_unit, spatial_array
from storage_schemas.format.seal import unsealed
from storage_schemas.format.views import ViewSet

SETS = {"low-128": (160, 8, 9), "low-192": (224, 12, 4), "high-256": (288, 16, 2)}  # side, tokens, rows in a shard


@pytest.fixture
def root(tiny_run: StageRun) -> zarr.Group:
    """The whole cache."""
    return zarr.open_group(tiny_run.where / "features.zarr", mode="r", zarr_format=3)


def test_every_group_and_array_has_the_name_that_the_design_gives_it(root: zarr.Group) -> None:
    found = {name: "array" if isinstance(node, zarr.Array) else "group" for name, node in root.members(max_depth=None)}
    expected = {"views": "group", "teachers": "group"}
    for view_set in SETS:
        expected |= {f"views/{view_set}": "group", f"views/{view_set}/detail": "group"}
        expected |= {f"views/{view_set}/pixels": "array", f"views/{view_set}/detail/siglip2": "array"}
    for teacher in ("dinov3", "siglip2", "sam3", "dinov3-block0", "siglip2-block0", "sam3-block0"):
        summarised = teacher in ("dinov3", "siglip2")
        stored = ("spatial", "summary") if summarised else ("spatial",)
        names = ("dispersion", "heldout_dispersion", "mean_direction", "summary_sum", "summary_length")
        of_summaries = names if summarised else ()
        measured = ("mean", "variance", "spectrum", "rounding", *of_summaries)
        above = f"teachers/{teacher}"
        expected |= {above: "group", f"{above}/phi_s": "group", f"{above}/stats": "group"}
        expected |= {f"{above}/phi_s/{name}": "array" for name in ("mean", "rotation", "scale")}
        expected |= {f"{above}/stats/{name}": "array" for name in measured}
        for view_set in SETS:
            expected |= {f"{above}/{view_set}": "group", f"{above}/stats/{view_set}": "group"}
            expected |= {f"{above}/{view_set}/{name}": "array" for name in stored}
            of_set = ("mean", "variance", "spectrum", "rounding", "covariance")
            expected |= {f"{above}/stats/{view_set}/{name}": "array" for name in of_set}
    assert found == expected


@pytest.mark.parametrize("view_set", SETS)
def test_arrays_are_sharded_by_the_view_with_the_shapes_and_types_of_the_design(
    tiny_run: StageRun, root: zarr.Group, view_set: str
) -> None:
    side, tokens, rows_per_shard = SETS[view_set]
    rows, siglip2 = len(tiny_run.table("views", view_set)), 24 if view_set == "high-256" else 12
    entries = {
        f"views/{view_set}/pixels": ((side, side, 3), "uint8"),
        f"views/{view_set}/detail/siglip2": ((16 * siglip2, 16 * siglip2, 3), "uint8"),
        f"teachers/dinov3/{view_set}/spatial": ((tokens, tokens, 96), "float16"),
        f"teachers/dinov3/{view_set}/summary": ((96,), "float32"),
        f"teachers/siglip2/{view_set}/spatial": ((siglip2, siglip2, 80), "float16"),
        f"teachers/siglip2/{view_set}/summary": ((80,), "float32"),
        f"teachers/sam3/{view_set}/spatial": ((tokens, tokens, 64), "float16"),
    }
    for name, (entry, dtype) in entries.items():
        array = root[name]
        assert (array.shape, array.dtype) == ((rows, *entry), np.dtype(dtype)), name
        assert (array.chunks, array.shards) == ((1, *entry), (rows_per_shard, *entry)), name


def test_a_missing_shard_of_features_reads_as_nan_and_not_as_zero(root: zarr.Group) -> None:
    for name, node in root.members(max_depth=None):
        if isinstance(node, zarr.Array) and node.dtype.kind == "f":
            assert np.isnan(node.fill_value), name


def test_plain_zarr_and_our_reader_decode_the_same(tiny_run: StageRun, root: zarr.Group) -> None:
    for name in SETS:
        view_set = ViewSet.parse(name)
        commits = read_commits(tiny_run.cache.store, features_unit(view_set, "sam3"))
        ours = tiny_run.cache.array(spatial_array(view_set, "sam3"), commits)
        plain = root[spatial_array(view_set, "sam3")]
        np.testing.assert_array_equal(ours.read(range(plain.shape[0])), plain[...])


def test_every_object_of_the_cache_is_named_by_its_commit_log_or_describes_it(tiny_run: StageRun) -> None:
    named = {"tables/images/00000.parquet"}
    for path in (tiny_run.where / "tables" / "shards").rglob("*.parquet"):
        unit = path.parent.relative_to(tiny_run.where / "tables" / "shards").as_posix()
        named |= {record.path for parts in read_commits(tiny_run.cache.store, unit).values() for record in parts}
        named.add(path.relative_to(tiny_run.where).as_posix())
    found = {path.relative_to(tiny_run.where).as_posix() for path in tiny_run.where.rglob("*") if path.is_file()}
    unnamed = found - named
    assert found >= named
    assert all(name.endswith("zarr.json") or "/phi_s/" in name or "/stats/" in name for name in unnamed)


def test_groups_are_written_by_us_and_no_release_of_zarr(tiny_run: StageRun) -> None:
    texts = [path.read_text() for path in tiny_run.where.rglob("zarr.json")]
    groups = {text: json.loads(text) for text in texts if json.loads(text)["node_type"] == "group"}
    for text, metadata in groups.items():
        assert text == json.dumps(metadata, indent=1) + "\n"
        assert list(metadata) == ["zarr_format", "node_type", "attributes"]


def test_groups_say_what_made_them(tiny_run: StageRun) -> None:
    def attributes(group: str) -> dict:
        return json.loads((Path(tiny_run.where) / "features.zarr" / group / "zarr.json").read_text())["attributes"]

    assert unsealed(attributes("")["stillhouse"], "root") == {"format": 1, "recipe": "demo"}
    views = attributes("views")["stillhouse"]
    assert views["identity"]["images"]["count"] == 60
    assert views["sets"]["low-128"]["rows_per_shard"] == 9
    teacher = attributes("teachers/sam3")["stillhouse"]
    assert teacher["tokens"] == {"low-128": 8, "low-192": 12, "high-256": 16}
    assert teacher["identity"]["views"] == tiny_run.cache.views_manifest().digest
