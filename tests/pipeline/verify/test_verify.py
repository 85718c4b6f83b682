"""`verify` finds damage of every kind, names it, and says what mends it; it takes nothing sound for damage."""

import json
import pickle
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from pipeline.__main__ import main
from pipeline.config import RunConfig, TeacherChoice
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.inspect.cache import inspect_cache
from pipeline.inventory.commit_log import committed_units
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.stats.stage import measure_teachers
from pipeline.verify.manifests import read_manifests
from pipeline.verify.options import VerifyOptions
from pipeline.verify.problems import Findings
from pipeline.verify.stage import verify_cache
from pipeline.verify.tasks import check_tasks
from pipeline.verify.text import verdict_lines
from pipeline.verify.verdict import Verdict
from pipeline.verify.worker import ShardChecker
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord, read_commit, record_path, to_table
from storage_schemas.format.errors import ContractError, IdentityError, MissingError, SettingError
from storage_schemas.format.phi_s import phi_s_digest
from storage_schemas.format.seal import sealed, unsealed
from storage_schemas.format.shard_format import ArraySpec, encode_chunk, encode_index, parse_array_metadata
from storage_schemas.format.tables import PLACEMENTS, VIEWS, from_parquet, to_parquet
from storage_schemas.objects.store import Store
from storage_schemas.small_arrays import write_small_arrays

LOCAL = RunConfig(executor="local")
CLASSES = {
    "quarter-mean-fixed": "teachers.quarter_mean:QuarterMeanFixed",
    "quarter-mean-canvas": "teachers.quarter_mean:QuarterMeanCanvas",
}
Rewrite = Callable[[str, Callable[[bytes], bytes]], Path]

OBJECTS = {
    "root": "features.zarr/zarr.json",
    "views manifest": "features.zarr/views/zarr.json",
    "group of a set": "features.zarr/views/low-192/zarr.json",
    "group of details": "features.zarr/views/low-192/detail/zarr.json",
    "pixels metadata": "features.zarr/views/low-192/pixels/zarr.json",
    "pixels": "features.zarr/views/low-192/pixels/c/0/0/0/0",
    "detail metadata": "features.zarr/views/low-192/detail/quarter-mean-fixed/zarr.json",
    "detail": "features.zarr/views/low-192/detail/quarter-mean-fixed/c/1/0/0/0",
    "group of teachers": "features.zarr/teachers/zarr.json",
    "teacher manifest": "features.zarr/teachers/dinov3/zarr.json",
    "group of features": "features.zarr/teachers/dinov3/high-256/zarr.json",
    "spatial metadata": "features.zarr/teachers/quarter-mean-canvas/low-192/spatial/zarr.json",
    "spatial": "features.zarr/teachers/dinov3/low-192/spatial/c/0/0/0/0",
    "compressed spatial": "features.zarr/teachers/quarter-mean-canvas/low-192/spatial/c/0/0/0/0",
    "summary": "features.zarr/teachers/quarter-mean-fixed/low-192/summary/c/0/0",
    "PHI-S attributes": "features.zarr/teachers/dinov3/phi_s/zarr.json",
    "PHI-S metadata": "features.zarr/teachers/dinov3/phi_s/mean/zarr.json",
    "PHI-S array": "features.zarr/teachers/dinov3/phi_s/rotation/c/0/0",
    "stats attributes": "features.zarr/teachers/dinov3/stats/zarr.json",
    "stats group": "features.zarr/teachers/dinov3/stats/low-192/zarr.json",
    "stats metadata": "features.zarr/teachers/dinov3/stats/variance/zarr.json",
    "stats array": "features.zarr/teachers/dinov3/stats/dispersion/c",
    "image list": "tables/images/00000.parquet",
    "views table": "tables/views/low-192/00000.parquet",
    "rejected table": "tables/rejected/low-192/00000.parquet",
    "placements table": "tables/placements/quarter-mean-canvas/low-192/00000.parquet",
    "views record": "tables/shards/views/low-192/00000.parquet",
    "detail record": "tables/shards/views/low-192/detail/quarter-mean-fixed/00000.parquet",
    "features record": "tables/shards/teachers/dinov3/low-192/00000.parquet",
}
ARRAYS = {"pixels", "detail", "spatial", "compressed spatial", "summary"}
"""Those whose bytes are most of a cache."""


def verified(cache: Path, **options: Any) -> Verdict:
    return verify_cache(Cache(store=Store(uri=str(cache))), VerifyOptions(**options))


def problems(cache: Path, **options: Any) -> list[str]:
    return [str(problem) for problem in verified(cache, **options).problems]


def flipped(body: bytes, position: int, bit: int = 0) -> bytes:
    return body[:position] + bytes([body[position] ^ 1 << bit]) + body[position + 1 :]


def in_the_middle(body: bytes) -> bytes:
    return flipped(body, len(body) // 2)


def put(path: Path, body: bytes) -> None:
    path.unlink()
    path.write_bytes(body)


def recommit(cache: Path, unit: str, shard: int, change: Callable[[ShardRecord], ShardRecord]) -> None:
    records = [change(record) for record in read_commit(Store(uri=str(cache)), unit, shard)]
    put(cache / record_path(unit, shard), to_parquet(to_table(records)))


def forge(cache: Path, unit: str, shard: int, name: str, body: bytes, chunks: bytes = b"") -> None:
    """Put an object in the place of another, with a record that bears it out: only its contents can betray it."""
    put(cache / name, body)
    size, xxh3 = len(body), xxhash.xxh3_128(body).hexdigest()
    told = {"bytes": size, "xxh3": xxh3, "chunks": chunks}
    recommit(cache, unit, shard, lambda record: replace(record, **told) if record.path == name else record)


def forge_table(cache: Path, unit: str, name: str, schema: pa.Schema, change: Callable[[list[dict]], None]) -> None:
    rows = from_parquet((cache / name).read_bytes(), schema, name).to_pylist()
    change(rows)
    forge(cache, unit, 0, name, to_parquet(pa.Table.from_pylist(rows, schema)))


def forge_manifest(cache: Path, name: str, change: Callable[[dict], None]) -> None:
    """Edit a manifest and seal it anew: only what it says can betray it."""
    put(cache / name, sealed_anew((cache / name).read_bytes(), change))


def sealed_anew(body: bytes, change: Callable[[dict], None]) -> bytes:
    document = json.loads(body)
    values = unsealed(document["attributes"]["stillhouse"], "attributes")
    change(values)
    document["attributes"]["stillhouse"] = sealed(values)
    return json.dumps(document).encode()


def stored_spec(cache: Path, array: str) -> ArraySpec:
    return parse_array_metadata(array, json.loads((cache / f"features.zarr/{array}/zarr.json").read_text()))


def forge_array(cache: Path, array: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rewrite the first shard of a teacher's array, as a writer would that computed other values."""
    opened = Cache(store=Store(uri=str(cache)))
    unit = array.rpartition("/")[0]
    commits = {0: read_commit(opened.store, unit, 0)}
    [record] = [record for record in commits[0] if record.array == array]
    spec = stored_spec(cache, array)
    entries = change(opened.array(array, commits).read(range(record.rows)))
    chunks = [b"".join(encode_chunk(entry, spec)) for entry in entries]
    starts = np.cumsum([0, *map(len, chunks)]).tolist()
    spans = [(start, len(chunk)) for start, chunk in zip(starts, chunks, strict=False)]
    body, checksums = (
        b"".join(chunks) + encode_index(spans, spec.rows_per_shard),
        b"".join(chunk[-4:] for chunk in chunks),
    )
    forge(cache, unit, 0, record.path, body, checksums)


def test_a_sound_cache_has_no_problem_nothing_unfinished_and_nothing_left_over(small_run: Any) -> None:
    verdict = verified(small_run.cache)
    assert verdict.problems == ()
    assert verdict.unfinished == ()
    assert verdict.leftovers == {}


def test_every_array_shard_and_every_part_of_a_table_is_counted(small_run: Any) -> None:
    shards = [path for path in small_run.cache.rglob("c/**/*") if path.is_file() and "spatial" in str(path)]
    shards += [path for kind in ("pixels", "detail", "summary") for path in small_run.cache.rglob(f"{kind}/**/c/**/*")]
    tables = [path for path in (small_run.cache / "tables").rglob("*.parquet") if "/shards/" not in str(path)]
    files = {path for path in [*shards, *tables] if path.is_file() and "images" not in str(path)}
    verdict = verified(small_run.cache)
    assert verdict.objects == len(files)
    assert verdict.bytes == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_flipped_bit_is_found_in_every_kind_of_object_and_its_place_named(kind: str, rewritten: Rewrite) -> None:
    cache = rewritten(OBJECTS[kind], in_the_middle)
    found = problems(cache)
    place = OBJECTS[kind].removeprefix("features.zarr/").removesuffix("/zarr.json").partition("/c")[0]
    if kind == "root":
        place = "features.zarr/zarr.json"
    assert any(place in problem for problem in found), found
    assert all(problem.endswith(")") for problem in found), "every problem says what mends it"


@pytest.mark.parametrize("kind", OBJECTS)
def test_in_haste_a_flipped_bit_is_found_in_all_but_arrays(kind: str, rewritten: Rewrite) -> None:
    cache = rewritten(OBJECTS[kind], in_the_middle)
    verdict = verified(cache, quick=True)
    assert bool(verdict.problems) == (kind not in ARRAYS)
    said = list(verdict_lines(verdict, str(cache)))
    assert ("the bytes of arrays were not read" in "".join(said)) == (kind in ARRAYS)


@pytest.mark.parametrize(("kind", "found"), [("pixels", False), ("views table", True), ("rejected table", True)])
def test_in_haste_all_but_arrays_are_compared_with_their_hash(kind: str, found: bool, copied: Path) -> None:
    def another(record: ShardRecord) -> ShardRecord:
        return replace(record, xxh3="0" * 32) if record.path == OBJECTS[kind] else record

    recommit(copied, "views/low-192", 0, another)
    said = [problem.partition(" (")[0] for problem in problems(copied, quick=True)]
    assert said == [f"{OBJECTS[kind]}: its XXH3 is not that of its commit record"] * found


@pytest.mark.parametrize("kind", ["pixels", "detail", "spatial", "summary"])
@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: put(path, path.read_bytes()[:-100])])
def test_in_haste_an_array_shard_that_is_lost_or_cut_is_found(
    kind: str, spoil: Callable[[Path], None], copied: Path
) -> None:
    spoil(copied / OBJECTS[kind])
    [problem] = problems(copied, quick=True)
    assert problem.startswith(OBJECTS[kind])


def test_a_flipped_bit_in_a_chunk_names_the_object_the_row_and_the_mend(rewritten: Rewrite) -> None:
    cache = rewritten("features.zarr/views/low-192/pixels/c/0/0/0/0", lambda body: flipped(body, 224 * 224 * 3 + 4 + 9))
    mend = (
        f"(delete tables/shards/views/low-192/00000.parquet; then `make views RECIPE=demo CACHE={cache} DATA=…` "
        "writes the shard again)"
    )
    assert problems(cache) == [
        "features.zarr/views/low-192/pixels/c/0/0/0/0: its XXH3 is not that of its commit record " + mend,
        "views/low-192/pixels shard 0 row 1: its CRC32C does not match its bytes " + mend,
    ]


def test_a_flipped_bit_in_an_index_is_found_once(rewritten: Rewrite) -> None:
    cache = rewritten(OBJECTS["spatial"], lambda body: flipped(body, len(body) - 9))
    said = [problem.partition(" (")[0] for problem in problems(cache)]
    assert said == [
        "features.zarr/teachers/dinov3/low-192/spatial/c/0/0/0/0: its XXH3 is not that of its commit record",
        "teachers/dinov3/low-192/spatial shard 0: its CRC32C does not match its bytes",
    ]


@pytest.mark.parametrize("kind", ["pixels", "spatial", "summary", "views table", "placements table", "image list"])
def test_a_truncated_object_is_found(kind: str, rewritten: Rewrite) -> None:
    cache = rewritten(OBJECTS[kind], lambda body: body[:-100])
    size = (cache / OBJECTS[kind]).stat().st_size
    found = problems(cache)
    assert any(problem.startswith(OBJECTS[kind]) for problem in found)
    assert kind == "image list" or found[0].startswith(
        f"{OBJECTS[kind]}: has {size} bytes, its commit record says {size + 100} (delete tables/shards/"
    )


@pytest.mark.parametrize("kind", ["pixels", "detail", "spatial", "summary", "rejected table", "placements table"])
def test_a_missing_object_that_a_record_names_is_found(kind: str, copied: Path) -> None:
    (copied / OBJECTS[kind]).unlink()
    [problem] = problems(copied)
    assert problem.startswith(f"{OBJECTS[kind]}: is missing, and its commit record names it (delete tables/shards/")


def test_a_missing_views_table_is_named_by_all_that_need_it(copied: Path) -> None:
    (copied / OBJECTS["views table"]).unlink()
    found = problems(copied)
    assert found[0].startswith(
        f"{OBJECTS['views table']}: is missing, and its commit record names it (delete tables/shards"
    )
    [named_by_features] = problems(copied, teacher="dinov3")
    assert named_by_features in found
    assert all(OBJECTS["views table"] in problem for problem in found)


@pytest.mark.parametrize(
    "kind",
    ["views manifest", "pixels metadata", "group of a set", "group of features", "spatial metadata", "image list"],
)
def test_missing_metadata_is_found(kind: str, copied: Path) -> None:
    (copied / OBJECTS[kind]).unlink()
    assert problems(copied)


def test_a_missing_manifest_leaves_its_committed_shards_without_meaning(copied: Path) -> None:
    (copied / OBJECTS["teacher manifest"]).unlink()
    assert [problem.partition(" (")[0] for problem in problems(copied)] == [
        f"tables/shards/teachers/dinov3/{name}: has committed shards, and no manifest defines them"
        for name in ("high-256", "low-192")
    ]


def test_details_that_are_lost_are_wanted_until_their_teacher_has_seen_all(copied: Path) -> None:
    lost = "views/low-192/detail/quarter-mean-fixed"
    (copied / record_path(lost, 0)).unlink()
    assert [facts.unit for facts in verified(copied).unfinished] == []
    assert lost not in [facts.unit for facts in inspect_cache(Cache(store=Store(uri=str(copied)))).unfinished]
    (copied / record_path("teachers/quarter-mean-fixed/high-256", 0)).unlink()
    assert lost in [facts.unit for facts in verified(copied).unfinished]
    assert lost in [facts.unit for facts in inspect_cache(Cache(store=Store(uri=str(copied)))).unfinished]


def test_swapped_shards_are_found_both(copied: Path) -> None:
    first, second = (copied / f"features.zarr/teachers/dinov3/low-192/spatial/c/{shard}/0/0/0" for shard in (0, 1))
    bodies = first.read_bytes(), second.read_bytes()
    assert bodies[0] != bodies[1]
    put(first, bodies[1])
    put(second, bodies[0])
    found = problems(copied)
    assert any("spatial/c/0/0/0/0" in problem for problem in found)
    assert any("spatial/c/1/0/0/0" in problem for problem in found)


def test_swapped_records_are_found_both(copied: Path) -> None:
    first, second = (copied / f"tables/shards/teachers/dinov3/low-192/{shard:05d}.parquet" for shard in (0, 1))
    bodies = first.read_bytes(), second.read_bytes()
    put(first, bodies[1])
    put(second, bodies[0])
    found = problems(copied)
    for shard in (0, 1):
        assert any(f"low-192/{shard:05d}.parquet: names " in problem for problem in found)


def test_a_record_of_another_identity_is_found(copied: Path) -> None:
    recommit(copied, "teachers/quarter-mean-canvas/high-256", 0, lambda record: replace(record, identity="f" * 64))
    [problem] = problems(copied)
    assert problem.startswith(
        "tables/shards/teachers/quarter-mean-canvas/high-256/00000.parquet: has the identity "
        f"{'f' * 64}, its group has "
    )


def test_a_record_of_too_few_rows_is_found(copied: Path) -> None:
    recommit(copied, "views/low-192", 0, lambda record: replace(record, rows=max(record.rows - 1, 0)))
    assert any("tables/shards/views/low-192/00000.parquet: names objects of" in problem for problem in problems(copied))


def test_a_record_that_starts_at_another_row_is_found(copied: Path) -> None:
    recommit(copied, "teachers/dinov3/low-192", 1, lambda record: replace(record, first_row=0))
    assert any(
        "teachers/dinov3/low-192/00001.parquet: does not start at row 8" in problem for problem in problems(copied)
    )


def test_another_phi_s_map_is_found_though_every_checksum_holds(copied: Path) -> None:
    cache = Cache(store=Store(uri=str(copied)))
    phi_s = cache.phi_s("dinov3")
    assert phi_s is not None
    shutil.rmtree(copied / "features.zarr/teachers/dinov3/phi_s/mean")
    write_small_arrays(cache.store, "teachers/dinov3/phi_s", {"mean": phi_s.mean + 1})
    found = problems(copied)
    assert found[0].startswith("teachers/dinov3/phi_s: its arrays are not those that were frozen (put it back")


def test_a_phi_s_map_that_features_were_not_stored_under_is_found(rewritten: Rewrite) -> None:
    def reseal(body: bytes) -> bytes:
        return sealed_anew(body, lambda values: values["identity"].update(batch=17))

    [problem] = problems(rewritten(OBJECTS["PHI-S attributes"], reseal))
    assert problem.startswith(
        "features.zarr/teachers/dinov3/phi_s/zarr.json: was fitted for other features than these; they differ in batch "
    )


def test_a_sealed_phi_s_map_that_features_were_not_stored_under_is_found(copied: Path) -> None:
    cache, group = Cache(store=Store(uri=str(copied))), "teachers/dinov3/phi_s"
    phi_s = cache.phi_s("dinov3")
    assert phi_s is not None
    other = replace(phi_s, scale=2 * phi_s.scale)
    (copied / f"features.zarr/{group}/scale/c").unlink()
    (copied / f"features.zarr/{group}/scale/zarr.json").unlink()
    write_small_arrays(cache.store, group, {"scale": np.array(other.scale)})
    forge_manifest(copied, OBJECTS["PHI-S attributes"], lambda values: values.update(sha256=phi_s_digest(other)))
    [problem] = problems(copied)
    assert problem.startswith(f"{OBJECTS['PHI-S attributes']}: is not the map that the features were stored under (put")


@pytest.mark.parametrize(
    ("kind", "change", "found"),
    [
        (
            "views manifest",
            lambda values: values["sets"]["low-192"].update(margin=3),
            "its view sets are not those that its",
        ),
        (
            "views manifest",
            lambda values: values["sets"].pop("high-256"),
            "its view sets are not those that its settings",
        ),
        (
            "views manifest",
            lambda values: values["identity"]["views"].pop("seed"),
            "its settings differ from those of this version in seed",
        ),
        (
            "views manifest",
            lambda values: values["identity"]["views"].update(zoom=1),
            "its settings differ from those of this version in zoom",
        ),
        ("views manifest", lambda values: values["identity"]["views"].update(patch=0), "patch: 0 is less than 1"),
        (
            "teacher manifest",
            lambda values: values["tokens"].update({"low-192": 13}),
            "its tokens are not those that its",
        ),
        (
            "teacher manifest",
            lambda values: values["spec"].update(dim=97),
            "its identity contains another spec than its own",
        ),
        (
            "teacher manifest",
            lambda values: values["spec"].update(name="other"),
            "is the manifest of a teacher named other",
        ),
        (
            "teacher manifest",
            lambda values: values["identity"].update(views="0" * 64),
            f"its features are of views {'0' * 64}, the",
        ),
        ("teacher manifest", lambda values: values["identity"].pop("batch"), "attributes.identity: lacks batch"),
    ],
)
def test_an_edited_manifest_is_found_though_its_seal_holds(
    kind: str, change: Callable[[dict], None], found: str, copied: Path
) -> None:
    forge_manifest(copied, OBJECTS[kind], change)
    assert any(problem.startswith(f"{OBJECTS[kind]}: {found}") for problem in problems(copied)), problems(copied)


def test_a_root_of_another_recipe_is_found(rewritten: Rewrite) -> None:
    [problem] = problems(
        rewritten(OBJECTS["root"], lambda body: sealed_anew(body, lambda values: values.update(recipe="dema")))
    )
    assert problem.startswith("features.zarr/zarr.json: names the recipe dema, the views are of demo (put it back")


def test_a_cache_of_another_format_is_refused_by_name(rewritten: Rewrite) -> None:
    cache = rewritten(OBJECTS["root"], lambda body: sealed_anew(body, lambda values: values.update(format=3)))
    with pytest.raises(ContractError, match=r"has format 3, this version of Stillhouse reads 1 and 2 \("):
        verified(cache)


@pytest.mark.parametrize("kind", ["group of a set", "group of details", "group of teachers", "group of features"])
def test_a_group_that_says_what_no_group_of_a_cache_says_is_found(kind: str, rewritten: Rewrite) -> None:
    cache = rewritten(OBJECTS[kind], lambda body: body.replace(b'"zarr_format": 3', b'"zarr_format": 2'))
    [problem] = problems(cache)
    assert problem.startswith(
        f"{OBJECTS[kind]}: is not the metadata of a group in a cache (put it back from a copy of "
    )


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda rows: rows[1].update(left=rows[1]["left"] + 0.5), "row 1: does not hold the box that is drawn for it"),
        (lambda rows: rows[2].update(flip=not rows[2]["flip"]), "row 2: does not hold the box that is drawn for it"),
        (lambda rows: rows[0].update(split="heldout"), "row 0: is not the view that is drawn for it"),
        (lambda rows: rows[0].update(row=5), "row 0: does not have the number of its row slot"),
        (lambda rows: rows.pop(), "rows, expected"),
    ],
)
def test_an_edited_views_table_is_found_though_its_record_bears_it_out(
    change: Callable[[list[dict]], None], found: str, copied: Path
) -> None:
    forge_table(copied, "views/low-192", OBJECTS["views table"], VIEWS, change)
    assert any(problem.startswith(OBJECTS["views table"]) and found in problem for problem in problems(copied))


@pytest.mark.parametrize("field", ["offset_row", "offset_col", "mosaic", "cell"])
def test_an_edited_placement_is_found_though_its_record_bears_it_out(field: str, copied: Path) -> None:
    def change(rows: list[dict]) -> None:
        rows[5][field] = rows[5][field] + 1

    forge_table(copied, "teachers/quarter-mean-canvas/low-192", OBJECTS["placements table"], PLACEMENTS, change)
    [problem] = problems(copied)
    assert problem.startswith(f"{OBJECTS['placements table']} row 5: is not the placement that is drawn for it (delete")


def test_a_stored_nan_is_found_though_every_checksum_holds(copied: Path) -> None:
    def spoil(entries: np.ndarray) -> np.ndarray:
        entries[2, 0, 0, 0] = np.nan
        return entries

    forge_array(copied, "teachers/dinov3/low-192/spatial", spoil)
    [problem] = problems(copied)
    assert problem.startswith("teachers/dinov3/low-192/spatial row 2: holds NaN or infinity (delete")


def test_chunks_beyond_the_views_are_found(copied: Path) -> None:
    unit, name = "teachers/dinov3/low-192", "features.zarr/teachers/dinov3/low-192/summary/c/1/0"
    spec = stored_spec(copied, f"{unit}/summary")
    chunk = b"".join(encode_chunk(np.zeros(spec.entry_shape, spec.dtype), spec))
    spans = [(len(chunk) * slot, len(chunk)) for slot in range(spec.rows_per_shard)]
    filled = next(record.rows for record in read_commit(Store(uri=str(copied)), unit, 1) if record.path == name)
    assert filled < spec.rows_per_shard
    body = chunk * spec.rows_per_shard + encode_index(spans, spec.rows_per_shard)
    forge(copied, unit, 1, name, body, chunk[-4:] * filled)
    [problem] = problems(copied)
    assert problem.startswith(f"{name}: its index has chunks in slots without a view (delete")


def test_an_array_of_another_shape_than_the_manifests_imply_is_found(rewritten: Rewrite) -> None:
    def grow(body: bytes) -> bytes:
        document = json.loads(body)
        document["shape"][0] += 1
        return json.dumps(document).encode()

    [problem] = problems(rewritten(OBJECTS["spatial metadata"], grow))
    assert problem.startswith(f"{OBJECTS['spatial metadata']}: shape is (")


def test_of_statistics_what_is_damaged_is_named_and_not_the_group_that_it_lies_in(rewritten: Rewrite) -> None:
    [problem] = problems(rewritten(OBJECTS["stats array"], in_the_middle))
    assert problem.startswith("teachers/dinov3/stats/dispersion: its CRC32C does not match its bytes (delete")


def test_a_damaged_record_is_not_held_against_the_statistics_of_its_views(rewritten: Rewrite) -> None:
    [problem] = problems(rewritten(OBJECTS["features record"], in_the_middle))
    assert problem.startswith(f"{OBJECTS['features record']}: its bytes do not have the SHA-256")


def test_statistics_that_count_other_views_are_found(rewritten: Rewrite) -> None:
    def miscount(body: bytes) -> bytes:
        return sealed_anew(body, lambda values: values.update(views=values["views"] + 1))

    [problem] = problems(rewritten(OBJECTS["stats attributes"], miscount))
    assert problem.startswith(f"{OBJECTS['stats attributes']}: counts 17 views and ")


def test_statistics_whose_attribute_lost_its_name_are_not_taken_for_unmeasured_ones(rewritten: Rewrite) -> None:
    cache = rewritten(OBJECTS["stats attributes"], lambda body: body.replace(b'"stillhouse"', b'"stillhousd"'))
    [problem] = problems(cache)
    assert problem.startswith(f"{OBJECTS['stats attributes']}: is not the metadata of a group in a cache (delete")


def test_a_stats_run_killed_before_its_end_is_unfinished_not_damaged(rewritten: Rewrite) -> None:
    bare = json.dumps({"attributes": {}, "zarr_format": 3, "node_type": "group"}).encode()
    verdict = verified(rewritten(OBJECTS["stats attributes"], lambda _: bare))
    assert verdict.problems == ()
    assert [facts.unit for facts in verdict.unfinished] == ["teachers/dinov3/stats"]


def test_an_image_list_of_other_images_is_found_though_it_is_whole(rewritten: Rewrite) -> None:
    def rename(body: bytes) -> bytes:
        from storage_schemas.format.tables import IMAGES

        rows = from_parquet(body, IMAGES, "images").to_pylist()
        rows[0]["image"] = "another.png"
        return to_parquet(pa.Table.from_pylist(rows, IMAGES))

    [problem] = problems(rewritten(OBJECTS["image list"], rename))
    assert problem.startswith("tables/images/00000.parquet: is not the image list that the views were drawn from (put")


def test_every_problem_is_reported_not_only_the_first(copied: Path) -> None:
    hit = [OBJECTS[kind] for kind in ("pixels", "compressed spatial", "placements table", "stats array", "image list")]
    for name in hit:
        put(copied / name, in_the_middle((copied / name).read_bytes()))
    found = "\n".join(problems(copied))
    for name in hit:
        assert name.removeprefix("features.zarr/").partition("/c")[0] in found


def test_a_shard_without_a_record_is_unfinished_and_its_objects_are_left_over(copied: Path) -> None:
    (copied / "tables/shards/teachers/dinov3/low-192/00000.parquet").unlink()
    verdict = verified(copied)
    assert verdict.problems == ()
    [unfinished] = verdict.unfinished
    assert (unfinished.unit, unfinished.done, unfinished.of) == ("teachers/dinov3/low-192", 1, 2)
    assert unfinished.command == f"make extract RECIPE=demo CACHE={copied} TEACHER=dinov3"
    assert list(verdict.leftovers) == [
        "features.zarr/teachers/dinov3/low-192/spatial/c/0/0/0/0",
        "features.zarr/teachers/dinov3/low-192/summary/c/0/0",
        "tables/placements/dinov3/low-192/00000.parquet",
    ]


def test_temporary_files_and_strangers_are_left_over_not_wrong(copied: Path) -> None:
    ours = f"features.zarr/views/low-192/pixels/c/0/0/0/0.{'a' * 32}.partial"
    foreign = ["tables/shards/views/low-192/7.parquet", "tables/shards/views/notes.txt"]
    for name in (ours, *foreign):
        (copied / name).write_bytes(b"1234")
    verdict = verified(copied)
    assert verdict.problems == ()
    assert (verdict.leftovers, verdict.foreign) == ({ours: 4}, dict.fromkeys(foreign, 4))


def test_features_not_measured_yet_are_unfinished(copied: Path) -> None:
    shutil.rmtree(copied / "features.zarr/teachers/quarter-mean-canvas/stats")
    verdict = verified(copied)
    assert verdict.problems == ()
    assert [(facts.unit, facts.command) for facts in verdict.unfinished] == [
        ("teachers/quarter-mean-canvas/stats", f"make stats CACHE={copied} TEACHER=quarter-mean-canvas")
    ]


def test_one_teacher_alone_is_checked_without_the_others(copied: Path) -> None:
    (copied / OBJECTS["spatial"]).unlink()
    assert problems(copied, teacher="quarter-mean-fixed") == []
    assert problems(copied, teacher=CLASSES["quarter-mean-canvas"]) == []
    assert problems(copied, teacher="dinov3") != []


def test_an_unknown_teacher_is_refused(small_run: Any) -> None:
    with pytest.raises(MissingError) as refusal:
        verified(small_run.cache, teacher="clip")
    assert str(refusal.value) == (
        "TEACHER is missing:\n"
        "  clip: has no features in this cache (choose from: dinov3, quarter-mean-canvas, quarter-mean-fixed)"
    )


def test_a_place_without_a_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"holds no features\.zarr \(run `make extract` first"):
        verified(tmp_path)


def test_what_a_run_leaves_that_is_killed_at_its_very_first_object_is_no_damaged_cache(tmp_path: Path) -> None:
    (tmp_path / "features.zarr").mkdir()
    (tmp_path / "features.zarr/zarr.json.0123456789abcdef.partial").write_bytes(b"{")
    with pytest.raises(MissingError, match=r"holds no features\.zarr \(run `make extract` first"):
        verified(tmp_path)


def test_doing_what_a_problem_says_mends_a_shard_to_the_same_bytes(small_run: Any, rewritten: Rewrite) -> None:
    names = [OBJECTS[kind] for kind in ("pixels", "spatial", "placements table")]
    before = {name: (small_run.cache / name).read_bytes() for name in names}
    for name in names:
        copy = rewritten(name, in_the_middle)
    for problem in verified(copy).problems:
        (copy / problem.fix.removeprefix("delete ").partition(";")[0]).unlink(missing_ok=True)
    cache = Cache(store=Store(uri=str(copy)))
    specs = [teacher_spec(choice) for choice in small_run.recipe.teachers]
    make_views(cache, small_run.recipe, specs, str(small_run.data), LOCAL, str)
    for teacher in ("dinov3", "quarter-mean-canvas"):
        extract_teacher(plan_extraction(cache, small_run.recipe, small_run.recipe.teacher(teacher)), LOCAL, str)
    assert verified(copy).problems == ()
    assert {name: (copy / name).read_bytes() for name in names} == before


@pytest.mark.parametrize("kind", ["views manifest", "pixels metadata", "detail metadata", "group of a set"])
def test_doing_what_a_problem_says_mends_the_metadata_of_views(kind: str, small_run: Any, rewritten: Rewrite) -> None:
    copy = rewritten(OBJECTS[kind], in_the_middle)
    cache = Cache(store=Store(uri=str(copy)))
    named = {problem.place.partition(":")[0]: problem for problem in verified(copy).problems}
    problem = named.get(OBJECTS[kind]) or named[OBJECTS[kind].removesuffix("/zarr.json")]
    assert "`make views RECIPE=demo" in problem.fix
    for name in {OBJECTS[kind], OBJECTS["views manifest"]}:
        assert name in problem.fix or "delete it" in problem.fix
        (copy / name).unlink()
    specs = [teacher_spec(choice) for choice in small_run.recipe.teachers]
    make_views(cache, small_run.recipe, specs, str(small_run.data), LOCAL, str)
    assert verified(copy).problems == ()


@pytest.mark.parametrize("kind", ["teacher manifest", "group of features"])
def test_doing_what_a_problem_says_mends_the_metadata_of_a_teacher(
    kind: str, small_run: Any, rewritten: Rewrite
) -> None:
    copy = rewritten(OBJECTS[kind], in_the_middle)
    cache = Cache(store=Store(uri=str(copy)))
    first = "tables/shards/teachers/dinov3/high-256/00000.parquet"
    assert any(f"{OBJECTS['teacher manifest']} and {first}" in problem for problem in problems(copy))
    for name in {OBJECTS[kind], OBJECTS["teacher manifest"], first}:
        (copy / name).unlink()
    extract_teacher(plan_extraction(cache, small_run.recipe, small_run.recipe.teacher("dinov3")), LOCAL, str)
    assert verified(copy).problems == ()


def test_doing_what_a_problem_says_mends_statistics(rewritten: Rewrite) -> None:
    copy = rewritten(OBJECTS["stats array"], in_the_middle)
    assert any("(delete features.zarr/teachers/dinov3/stats, and `make stats" in problem for problem in problems(copy))
    shutil.rmtree(copy / "features.zarr/teachers/dinov3/stats")
    measure_teachers(Cache(store=Store(uri=str(copy))), ["dinov3"], LOCAL, str)
    assert verified(copy).problems == ()


@pytest.mark.parametrize("teacher", ["dinov3", CLASSES["quarter-mean-canvas"]])
def test_a_teacher_run_again_gives_what_is_stored_to_float16_rounding(teacher: str, small_run: Any) -> None:
    verdict = verified(small_run.cache, teacher=teacher, recompute=1000)
    assert verdict.problems == ()
    [recomputed] = verdict.recomputed
    assert recomputed.views == 16
    assert recomputed.largest_error <= 2**-11


def test_a_teacher_run_again_gives_what_is_stored_in_float32_to_the_order_of_sums(small_run: Any) -> None:
    [recomputed] = verified(small_run.cache, teacher=CLASSES["quarter-mean-fixed"], recompute=3).recomputed
    assert (recomputed.teacher, recomputed.views) == ("quarter-mean-fixed", 3)
    assert recomputed.largest_error < 1e-6


@pytest.mark.parametrize("array", ["teachers/dinov3/low-192/spatial", "teachers/dinov3/low-192/summary"])
def test_features_of_another_view_are_found_by_running_the_teacher_again(array: str, copied: Path) -> None:
    forge_array(copied, array, lambda entries: np.roll(entries, 1, axis=0))
    assert problems(copied, teacher="dinov3") == []
    found = problems(copied, teacher="dinov3", recompute=1000)
    for row, problem in enumerate(found):
        assert problem.startswith(
            f"teachers/dinov3/low-192/spatial row {row}: differs from what the teacher computes: "
        )
        assert ", tolerance 0.00195 (delete the record of its shard" in problem
    assert len(found) == 8


def test_other_weights_than_the_features_are_of_are_refused(small_run: Any) -> None:
    with pytest.raises(IdentityError, match="weights_sha256: the cache has"):
        verified(small_run.cache, teacher="dinov3", recompute=1, weights="random:99")


def test_a_teacher_that_the_recipe_lacks_is_not_run_again_without_its_class(small_run: Any) -> None:
    with pytest.raises(SettingError, match="recipe demo has no teacher 'quarter-mean-fixed'"):
        verified(small_run.cache, teacher="quarter-mean-fixed", recompute=1)


def test_a_class_that_goes_by_another_name_is_run_again_when_it_is_said_what_it_is(
    small_run: Any, copied: Path
) -> None:
    source, cache = CLASSES["quarter-mean-canvas"], Cache(store=Store(uri=str(copied)))
    choice = TeacherChoice(name="another", source=source, weights="own")
    extract_teacher(plan_extraction(cache, small_run.recipe, choice), LOCAL, str)
    with pytest.raises(SettingError, match="recipe demo has no teacher 'another'"):
        verified(copied, teacher="another", recompute=5)
    verdict = verified(copied, teacher="another", source=source, recompute=5)
    assert verdict.problems == ()
    [recomputed] = verdict.recomputed
    assert (recomputed.teacher, recomputed.views) == ("another", 5)
    assert recomputed.largest_error <= 2**-11


def test_the_command_says_one_line_of_a_sound_cache_and_exits_with_0(
    small_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--cache", str(small_run.cache)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("verify: sound: 10 units, ")
    assert said.out.count("\n") == 1
    assert said.err == ""


def test_the_command_lists_all_problems_and_exits_with_2(
    rewritten: Rewrite, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(OBJECTS["summary"], in_the_middle)
    cache = rewritten(OBJECTS["pixels"], in_the_middle)
    assert main(["verify", "--cache", str(cache)]) == 2
    said = capsys.readouterr()
    assert "sound" not in said.out
    assert said.err.startswith(f"error: cache {cache} is damaged:\n  ")
    assert OBJECTS["summary"] in said.err
    assert OBJECTS["pixels"] in said.err


def test_tasks_and_reports_survive_the_way_to_another_process_and_back(copied: Path) -> None:
    (copied / OBJECTS["spatial"]).unlink()
    cache = Cache(store=Store(uri=str(copied)))
    manifests, committed = read_manifests(cache, "", Findings()), committed_units(cache)
    for task in check_tasks(cache, manifests, committed):
        sent = pickle.loads(pickle.dumps(task))
        assert sent == task
        report = ShardChecker(store=cache.store).check(sent)
        assert pickle.loads(pickle.dumps(report)) == report


def random_flips(cache: Path, count: int) -> list[str]:
    """Flip one random bit of a random object, `count` times; return the objects in which it was not found."""
    draws = random.Random(7)
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    unseen = []
    for _ in range(count):
        path = draws.choice(files)
        body = path.read_bytes()
        position = draws.randrange(len(body))
        put(path, flipped(body, position, draws.randrange(8)))
        verdict = verified(cache)
        if not verdict.problems and not verdict.unfinished:
            unseen.append(f"{path.relative_to(cache)} at {position}")
        put(path, body)
    return unseen


@pytest.mark.slow
def test_a_thousand_random_flipped_bits_are_found(copied: Path) -> None:
    unseen = random_flips(copied, 1000)
    # how many tokens PHI-S was fitted on is said nowhere else
    assert [name for name in unseen if "phi_s/zarr.json" not in name] == []
