"""`docs/format.md` says what the code does: every name, every type, every byte that can be checked, every example."""

import json
import re
from collections.abc import Collection
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import zarr

from storage_schemas.format import document_schemas, layout, tables
from storage_schemas.format.computed_by import NOT_RECORDED
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.identity import digest
from storage_schemas.format.manifest import Generation, TeacherManifest, ViewSetManifest, ViewsManifest
from storage_schemas.format.phi_s import PhiS, to_raw
from storage_schemas.format.seal import SEAL
from storage_schemas.format.shard_format import ArraySpec, Compression, StoredType, array_metadata, encode_chunk
from storage_schemas.format.teacher import Resample, SizeRule, TeacherSpec
from storage_schemas.format.views import Split, ViewSet
from storage_schemas.objects.store import Store
from storage_schemas.read_latents import LATENT_ARRAYS
from storage_schemas.read_phi_s import PHI_S_ARRAYS
from storage_schemas.read_stats import (
    HELDOUT_DISPERSION,
    SET_MERGE_ARRAYS,
    STATS_ARRAYS,
    STATS_ATTRIBUTES,
    SUMMARY_MERGE_ARRAYS,
    SUMMARY_STATS_ARRAYS,
    TRAINING_VIEWS,
)
from storage_schemas.small_arrays import write_small_arrays

PAGE = (Path(__file__).parent.parent / "docs" / "format.md").read_text()
LOW = ViewSet(partition="low", resolution=32)
SPEC = TeacherSpec(
    name="t",
    model="tiny",
    dim=4,
    summary_dim=None,
    patch=16,
    size_rule="any",
    native=32,
    mean=(0.5, 0.5, 0.5),
    std=(1.0, 1.0, 1.0),
)
SHAPE = ViewSetManifest(
    grid=layout.ShardGrid(counts=(5,), rows_per_shard=2), geometry=CanvasGeometry(resolution=32, patch=16, margin=1)
)
SCHEMAS = {name.lower(): schema for name, schema in vars(tables).items() if isinstance(schema, pa.Schema)}
TYPES = {"double": "float64"}


def rows_after(heading: str) -> list[list[str]]:
    """Return the cells of the first table after a heading, its head left out."""
    lines = PAGE[PAGE.index(heading) :].split("\n")
    first = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def names_in(cell: str) -> list[str]:
    """Return the names in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def names_after(heading: str) -> list[str]:
    """Return the names in the first column of the first table after a heading."""
    return [name for row in rows_after(heading) for name in names_in(row[0])]


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_page_has_every_column_of_every_table_in_order_with_its_type(name: str) -> None:
    told = [(column, row[1]) for row in rows_after(f"\n**`{name}`**: ") for column in names_in(row[0])]
    kinds = [TYPES.get(str(field.type), str(field.type)) + ", nullable" * field.nullable for field in SCHEMAS[name]]
    assert told == list(zip(SCHEMAS[name].names, kinds, strict=True))


def test_the_page_has_every_table_and_no_other() -> None:
    assert set(re.findall(r"^\*\*`(\w+)`\*\*:", PAGE, re.MULTILINE)) == set(SCHEMAS)
    assert set(re.findall(r"^  (\w+)/.*parquet", PAGE, re.MULTILINE)) == set(SCHEMAS)


def test_the_page_has_every_array_and_every_unit_by_its_path() -> None:
    tree = PAGE[PAGE.index("```") :].split("```")[1]
    units = [row[0] for row in rows_after("| unit | its objects |")]
    for place, where in [
        (layout.pixels_array(LOW), tree),
        (layout.detail_array(LOW, "t"), tree),
        (layout.spatial_array(LOW, "t"), tree),
        (layout.summary_array(LOW, "t"), tree),
        (f"teachers/t/phi_s/{{{','.join(PHI_S_ARRAYS)}}}", tree),
        (f"teachers/t/latents/{{{','.join(LATENT_ARRAYS)}}}", tree),
        (layout.views_unit(LOW), str(units)),
        (layout.detail_unit(LOW, "t"), str(units)),
        (layout.features_unit(LOW, "t"), str(units)),
        (layout.images_part(0).removeprefix("tables/").replace("00000", "<generation>"), tree),
    ]:
        named = place.replace("low-32", "<set>").replace("/t/", "/<teacher>/")
        assert re.sub("/t$", "/<teacher>", named) in where


def test_the_page_has_every_small_array() -> None:
    expected = [f"phi_s/{name}" for name in PHI_S_ARRAYS] + [f"latents/{name}" for name in LATENT_ARRAYS]
    of_summaries = (*SUMMARY_STATS_ARRAYS, HELDOUT_DISPERSION, *SUMMARY_MERGE_ARRAYS)
    expected += [f"stats/{name}" for name in (*STATS_ARRAYS, *of_summaries)]
    expected += [f"stats/<set>/{name}" for name in (*STATS_ARRAYS, *SET_MERGE_ARRAYS)]
    assert sorted(names_after("## Small arrays")) == sorted(expected)


TEACHER = TeacherManifest(spec=SPEC, identity={}, tokens={LOW: 2}, computed_by=(NOT_RECORDED,))


@pytest.mark.parametrize(
    ("group", "attributes"),
    [
        ("features.zarr", {"format", "recipe"}),
        ("views", ViewsManifest(identity={}, sets={LOW: SHAPE}, passed_over={}).attributes()),
        ("teachers/<teacher>", TEACHER.attributes()),
        ("teachers/<teacher>/phi_s", {"sha256", "identity", "tokens", "computed_by"}),
        ("teachers/<teacher>/latents", document_schemas.LATENTS.kinds),
        ("teachers/<teacher>/stats", STATS_ATTRIBUTES | TRAINING_VIEWS),
    ],
)
def test_the_page_has_every_attribute_of_every_group(group: str, attributes: Collection[str]) -> None:
    assert sorted(names_after(f"\n**`{group}`**\n")) == sorted(attributes)


def test_the_page_has_the_seal_of_attributes() -> None:
    assert f"besides with `{SEAL}`" in PAGE


def test_the_page_has_every_field_of_a_generation() -> None:
    [extensions] = [row[1] for row in rows_after("\n**`views`**\n") if row[0] == "`extensions`"]
    assert names_in(extensions) == list(Generation(views={}, images={}).attributes())


def test_the_page_has_every_word_that_a_value_may_be() -> None:
    [rule] = [row[1] for row in rows_after("| in `spec` | value |") if row[0] == "`size_rule`"]
    [resample] = [row[1] for row in rows_after("| in `spec` | value |") if row[0] == "`resample`"]
    [split] = [row[2] for row in rows_after("\n**`views`**: ") if row[0] == "`split`"]
    told = [names_in(cell) for cell in (rule, resample, split)]
    assert [told[0], told[1][:2], told[2]] == [list(get_args(kind)) for kind in (SizeRule, Resample, Split)]


def test_the_page_has_every_field_of_a_teacher_and_of_a_view_set() -> None:
    assert names_after("| in `spec` | value |") == list(SPEC.attributes())
    [sets] = [row[1] for row in rows_after("\n**`views`**\n") if row[0] == "`sets`"]
    assert set(SHAPE.attributes()) <= set(names_in(sets))


def test_the_page_shows_the_metadata_that_is_written() -> None:
    shown = json.loads(PAGE.split("```json\n")[1].split("```")[0])
    spec = ArraySpec(path="a", shape=(1000, 464, 464, 3), dtype="uint8", rows_per_shard=44)
    assert shown == array_metadata(spec)


def test_the_page_has_every_codec_fill_value_and_type() -> None:
    told = PAGE.split("| field | value |")[1].split("###")[0]
    for dtype, compression in product(get_args(StoredType), get_args(Compression)):
        spec = ArraySpec(path="a", shape=(4, 3), dtype=dtype, rows_per_shard=2, compression=compression)
        metadata = array_metadata(spec)
        assert f"`{dtype}`" in told
        assert f"`{json.dumps(metadata['fill_value'])}`" in told
        latents = ArraySpec(path="a", shape=(4, 3, 3, 9), dtype="int8", rows_per_shard=2, latents="0" * 64)
        of_latents = array_metadata(latents)["codecs"][0]["configuration"]["codecs"]
        for codec in [*metadata["codecs"][0]["configuration"]["codecs"], *of_latents]:
            assert codec["name"] in told
            assert "configuration" not in codec or json.dumps(codec["configuration"]) in told


def test_the_page_has_the_checksum_of_its_nine_bytes() -> None:
    nine = ArraySpec(path="a", shape=(1, 9), dtype="uint8", rows_per_shard=1)
    body, checksum = map(bytes, encode_chunk(np.arange(0x31, 0x3A, dtype=np.uint8), nine))
    assert f"The nine bytes `{body.hex(' ')}` have `{checksum.hex(' ')}`" in PAGE


def run_example(number: int, **values: Any) -> dict[str, Any]:
    """Run a Python example of the page and return its names."""
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[number]
    exec(code, values)
    return values


def test_the_digest_of_the_example_is_ours() -> None:
    names = run_example(0)
    assert names["digest"] == digest(names["identity"])


def test_the_example_reads_raw_features_without_us(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).standard_normal((5, 2, 2, 4)).astype(np.float16)
    root = zarr.create_group(tmp_path / "features.zarr")
    root.create_array("teachers/t/low-32/spatial", data=stored, chunks=(1, 2, 2, 4), shards=(2, 2, 2, 4))
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))
    phi_s = PhiS(mean=np.arange(4.0), rotation=rotation, scale=2.5)
    arrays = {"mean": phi_s.mean, "rotation": phi_s.rotation, "scale": np.array(phi_s.scale)}
    write_small_arrays(Store(uri=str(tmp_path)), "teachers/t/phi_s", arrays)
    place = tmp_path / layout.table_part("placements", "t/low-32", 0)
    place.parent.mkdir(parents=True)
    placement = {"row": 3, "offset_row": 0, "offset_col": 1, "mosaic": None, "cell": None}
    place.write_bytes(tables.to_parquet(pa.Table.from_pylist([placement], tables.PLACEMENTS)))
    names = run_example(1, CACHE=str(tmp_path))
    np.testing.assert_allclose(names["raw"], to_raw(phi_s, stored[3]), atol=1e-5)
