"""The cache gives back what was put in it, and says by name what is missing, foreign or damaged."""

import hashlib
import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from counting_store import counted
from identities import features_identity, views_identity

from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord, record_path, to_table
from storage_schemas.format import layout
from storage_schemas.format.errors import ContractError, CorruptionError, MissingError
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.manifest import TeacherManifest, ViewSetManifest, ViewsManifest
from storage_schemas.format.phi_s import PhiS, phi_s_digest
from storage_schemas.format.seal import sealed, unsealed
from storage_schemas.format.shard_format import ArraySpec, array_metadata, encode_chunk, encode_index
from storage_schemas.format.snapshots import head_name
from storage_schemas.format.tables import PLACEMENTS, VIEWS, to_parquet
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store
from storage_schemas.small_arrays import array_digest, write_small_arrays

LOW = ViewSet(partition="low", resolution=32)
ROWS, SLOTS = 5, 2
MANIFEST = ViewsManifest(
    identity=views_identity("demo"),
    sets={
        LOW: ViewSetManifest(
            grid=ShardGrid(counts=(ROWS,), rows_per_shard=SLOTS),
            geometry=CanvasGeometry(resolution=32, patch=16, margin=1),
        )
    },
)
SPEC = TeacherSpec(
    name="t",
    model="tiny",
    dim=4,
    summary_dim=3,
    patch=16,
    size_rule="any",
    native=32,
    mean=(0.5, 0.5, 0.5),
    std=(1.0, 1.0, 1.0),
)
TEACHER = TeacherManifest(spec=SPEC, identity=features_identity(SPEC, MANIFEST.digest), tokens={LOW: 2})
PHI_S = PhiS(mean=np.arange(4.0), rotation=np.eye(4)[::-1].copy(), scale=2.5)
PIXELS = np.random.default_rng(0).integers(0, 255, size=(ROWS, 48, 48, 3)).astype(np.uint8)
VIEW = {
    "draw": 0,
    "split": "train",
    "sha256": "0" * 64,
    "left": 0.0,
    "top": 0.5,
    "width": 9.0,
    "height": 8.0,
    "flip": False,
    "image_height": 480,
    "image_width": 640,
}
VIEW_ROWS = [VIEW | {"row": row, "image": f"{row}.jpg"} for row in range(ROWS)]
PLACEMENT_ROWS = [
    {"row": row, "offset_row": row % 2, "offset_col": 1, "mosaic": None if row % 2 else 0, "cell": row % 2 or None}
    for row in range(ROWS)
]


def put(store: Store, name: str, body: bytes) -> None:
    """Write an object."""
    store.filesystem.makedirs(store.path(name).rsplit("/", 1)[0], exist_ok=True)
    store.filesystem.pipe_file(store.path(name), body)


def group(store: Store, path: str, attributes: Any = None) -> None:
    """Write a group's metadata."""
    held = {} if attributes is None else {"stillhouse": sealed(attributes)}
    name = f"features.zarr/{path}/zarr.json" if path else "features.zarr/zarr.json"
    put(store, name, json.dumps({"zarr_format": 3, "node_type": "group", "attributes": held}).encode())


def record(name: str, array: str, shard: int, chunks: list[bytes], body: bytes, identity: str) -> ShardRecord:
    """Return an object's commit record."""
    return ShardRecord(
        path=name,
        array=array,
        first_row=shard * SLOTS,
        rows=len(chunks),
        bytes=len(body),
        xxh3=xxhash.xxh3_128(body).hexdigest(),
        chunks=b"".join(chunk[-4:] for chunk in chunks) if array else b"",
        identity=identity,
    )


def fill(store: Store) -> None:
    """Write a cache of five views in three shards, one teacher's placements of them, and its PHI-S."""
    group(store, "", {"format": 1, "recipe": "demo"})
    group(store, "views", MANIFEST.attributes())
    group(store, "teachers")
    group(store, "teachers/t", TEACHER.attributes())
    spec = ArraySpec(path=layout.pixels_array(LOW), shape=PIXELS.shape, dtype="uint8", rows_per_shard=SLOTS)
    put(store, f"features.zarr/{spec.path}/zarr.json", json.dumps(array_metadata(spec)).encode())
    for shard in range(3):
        rows = slice(SLOTS * shard, SLOTS * shard + SLOTS)
        chunks = [b"".join(encode_chunk(entry, spec)) for entry in PIXELS[rows]]
        spans = [(index * len(chunks[0]), len(chunks[0])) for index in range(len(chunks))]
        body, name = b"".join(chunks) + encode_index(spans, SLOTS), f"features.zarr/{spec.path}/c/{shard}/0/0/0"
        part, part_name = (
            to_parquet(pa.Table.from_pylist(VIEW_ROWS[rows], VIEWS)),
            f"tables/views/low-32/{shard:05}.parquet",
        )
        seen, seen_name = (
            to_parquet(pa.Table.from_pylist(PLACEMENT_ROWS[rows], PLACEMENTS)),
            f"tables/placements/t/low-32/{shard:05}.parquet",
        )
        for object_name, content in ((name, body), (part_name, part), (seen_name, seen)):
            put(store, object_name, content)
        views = [
            record(name, spec.path, shard, chunks, body, MANIFEST.digest),
            record(part_name, "", shard, chunks, part, MANIFEST.digest),
        ]
        features = [record(seen_name, "", shard, chunks, seen, TEACHER.digest)]
        put(store, record_path(layout.views_unit(LOW), shard), to_parquet(to_table(views)))
        put(store, record_path(layout.features_unit(LOW, "t"), shard), to_parquet(to_table(features)))
    arrays = {"mean": PHI_S.mean, "rotation": PHI_S.rotation, "scale": np.array(PHI_S.scale)}
    write_small_arrays(store, "teachers/t/phi_s", arrays)
    group(store, "teachers/t/phi_s", {"sha256": phi_s_digest(PHI_S)})


def measured(store: Store, *, summarised: bool) -> None:
    """Write the teacher's statistics."""
    arrays = {
        f"{prefix}{name}": np.full(4, 0.5 + len(prefix))
        for prefix in ("", "low-32/")
        for name in ("mean", "variance", "spectrum")
    }
    arrays |= {f"{prefix}rounding": np.array([20.0, 0.0, 0.0, 0.0]) for prefix in ("", "low-32/")}
    if summarised:
        arrays |= {"dispersion": np.array(0.694), "mean_direction": np.array([0.0, 0.6, 0.8])}
    write_small_arrays(store, "teachers/t/stats", arrays)
    about = {"identity": TEACHER.digest, "views": 5, "tokens": 20, "sets": {"low-32": 20}, "summarised": summarised}
    about |= {"shards": {"low-32": [[0, 2], [3, 4]]}}
    about |= {"arrays": {name: array_digest(values) for name, values in arrays.items()}}
    group(store, "teachers/t/stats", about)


@pytest.fixture(params=["local", "memory"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cache]:
    """A filled cache on each kind of store."""
    store = Store(uri=str(tmp_path) if request.param == "local" else "memory://cache")
    fill(store)
    yield Cache(store=store)
    if request.param == "memory":
        store.filesystem.rm("/cache", recursive=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a filled cache."""
    fill(Store(uri=str(tmp_path)))
    return tmp_path


def opened(folder: Path) -> Cache:
    """Open the cache in a folder."""
    return Cache(store=Store(uri=str(folder)))


def rewrite(place: Path, **changes: Any) -> None:
    """Change values of a group's attribute of ours."""
    metadata = json.loads(place.read_text())
    values = unsealed(metadata["attributes"]["stillhouse"], str(place)) | changes
    metadata["attributes"]["stillhouse"] = sealed(values)
    place.write_text(json.dumps(metadata))


def test_a_cache_names_its_recipe(cache: Cache) -> None:
    assert cache.require() == "demo"


def test_what_a_cache_says_of_itself_is_read_back(cache: Cache) -> None:
    assert cache.views_manifest() == MANIFEST
    assert cache.teacher_manifest("t") == TEACHER
    assert cache.teachers() == ["t"]


def test_manifests_are_read_in_one_go_without_teachers_that_have_none(cache: Cache) -> None:
    read = cache.manifests(["t", "nobody"])
    assert (read.recipe, read.views, dict(read.teachers)) == ("demo", MANIFEST, {"t": TEACHER})
    assert dict(cache.manifests().teachers) == {}


def test_manifests_of_no_cache_are_refused_as_the_cache_is(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"holds no features\.zarr"):
        opened(tmp_path).manifests()
    group(Store(uri=str(tmp_path)), "", {"format": 1, "recipe": "demo"})
    assert opened(tmp_path).manifests(["t"]).views is None


def test_each_manifest_is_read_once(folder: Path) -> None:
    with counted() as requests:
        Cache(store=Store(uri=f"counted://{folder}")).manifests(["t"])
    names = ("zarr.json", "views/zarr.json", "teachers/t/zarr.json")
    assert requests.reads == [f"{folder}/features.zarr/{name}" for name in names]
    assert requests.total == 3


def test_records_of_shards_that_are_known_are_read_without_a_listing(folder: Path) -> None:
    unit = layout.views_unit(LOW)
    with counted() as requests:
        records = Cache(store=Store(uri=f"counted://{folder}")).records(unit, MANIFEST.digest, [2, 0])
    assert records == {shard: opened(folder).records(unit, MANIFEST.digest)[shard] for shard in (0, 2)}
    records_read = [f"{folder}/{record_path(unit, shard)}" for shard in (0, 2)]
    assert requests.reads == [f"{folder}/{head_name(unit)}", *records_read]
    assert requests.total == 3


def test_a_cache_may_be_sent_to_another_process(cache: Cache) -> None:
    assert pickle.loads(pickle.dumps(cache)).views_manifest() == MANIFEST


def test_an_empty_folder_holds_no_cache(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    with pytest.raises(MissingError) as refusal:
        cache.require()
    assert str(refusal.value) == (
        f"cache is missing:\n  {tmp_path}: holds no features.zarr (run `make extract` first, or point CACHE at a cache)"
    )
    assert (cache.views_manifest(), cache.teacher_manifest("t"), cache.teachers()) == (None, None, [])
    assert (cache.phi_s("t"), cache.stats("t")) == (None, None)


@pytest.mark.parametrize("version", [0, 3, "1", None])
def test_a_cache_of_another_format_is_refused_by_name_whatever_is_asked_of_it(folder: Path, version: Any) -> None:
    rewrite(folder / "features.zarr/zarr.json", format=version)
    cache = opened(folder)
    for ask in (cache.require, cache.views_manifest, lambda: cache.teacher_manifest("t")):
        with pytest.raises(ContractError) as refusal:
            ask()
        assert str(refusal.value) == (
            "cache breaks the storage contract:\n"
            f"  {folder}: has format {version}, this version of Stillhouse reads 1 and 2 "
            "(use the version that wrote it)"
        )


def test_a_cache_that_names_no_recipe_is_damaged(folder: Path) -> None:
    rewrite(folder / "features.zarr/zarr.json", recipe=None)
    with pytest.raises(CorruptionError) as refusal:
        opened(folder).require()
    assert str(refusal.value) == f"cache is damaged:\n  {folder}: does not name its recipe"


def test_a_group_that_zarr_made_before_us_has_no_attribute_yet(folder: Path) -> None:
    group(Store(uri=str(folder)), "teachers/t/phi_s")
    assert opened(folder).attributes("teachers/t/phi_s") is None
    assert opened(folder).phi_s("t") is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "metadata is damaged:\n  features.zarr/views/zarr.json: is not JSON: "),
        ("[]", "metadata is damaged:\n  features.zarr/views/zarr.json: is not a JSON object"),
        (
            '{"zarr_format": 3, "node_type": "group", "attributes": {"stillhouse": [1]}}',
            "group is damaged:\n  features.zarr/views/zarr.json: is not the metadata of a group in a cache",
        ),
        (
            '{"zarr_format": 3, "node_type": "group", "attributes": {"stillhousd": {}}}',
            "group is damaged:\n  features.zarr/views/zarr.json: is not the metadata of a group in a cache",
        ),
        (
            '{"zarr_format": 3, "node_type": "group", "attributds": {}}',
            "group is damaged:\n  features.zarr/views/zarr.json: is not the metadata of a group in a cache",
        ),
        (
            '{"zarr_format": 3, "node_type": "group", "attributes": {"stillhouse": {"identity": {}}}}',
            "attributes is damaged:\n  features.zarr/views/zarr.json: their seal does not match their values",
        ),
    ],
)
def test_a_damaged_group_is_refused_by_its_place(folder: Path, body: str, said: str) -> None:
    (folder / "features.zarr/views/zarr.json").write_text(body)
    with pytest.raises(CorruptionError) as refusal:
        opened(folder).views_manifest()
    assert str(refusal.value).startswith(said)


def test_teachers_are_sorted_and_other_folders_are_passed_over(folder: Path) -> None:
    store = Store(uri=str(folder))
    for name in ("z", "a", "m"):
        group(store, f"teachers/{name}", {})
    put(store, "features.zarr/teachers/half/low-32/spatial/c/0/0/0/0", b"")
    assert opened(folder).teachers() == ["a", "m", "t", "z"]


def test_views_are_read_through_the_commit_log(cache: Cache) -> None:
    commits = cache.records(layout.views_unit(LOW), MANIFEST.digest)
    array = cache.array(layout.pixels_array(LOW), commits)
    np.testing.assert_array_equal(array.read([4, 0, 3]), PIXELS[[4, 0, 3]])
    assert sorted(array.records) == [0, 1, 2]


def test_tables_come_in_the_order_of_their_rows(cache: Cache) -> None:
    commits = cache.records(layout.views_unit(LOW), MANIFEST.digest)
    assert cache.views(LOW, dict(reversed(commits.items()))).to_pylist() == VIEW_ROWS
    seen = cache.records(layout.features_unit(LOW, "t"), TEACHER.digest)
    assert cache.placements(LOW, "t", seen).to_pylist() == PLACEMENT_ROWS


def test_only_committed_shards_are_in_a_table(cache: Cache) -> None:
    commits = cache.records(layout.views_unit(LOW), MANIFEST.digest)
    assert cache.views(LOW, {1: commits[1]}).to_pylist() == VIEW_ROWS[2:4]
    assert cache.views(LOW, {}).schema == VIEWS
    assert cache.views(LOW, {}).num_rows == 0


def test_records_of_another_identity_are_refused_by_their_shards(cache: Cache) -> None:
    with pytest.raises(ContractError) as refusal:
        cache.records(layout.views_unit(LOW), "f" * 64)
    assert str(refusal.value) == (
        "commit log breaks the storage contract:\n"
        "  views/low-32: shards 0, 1, 2 were computed from something else than the group says"
    )


def test_one_object_of_another_identity_is_enough_to_refuse_its_shard(cache: Cache) -> None:
    first, second = cache.records(layout.views_unit(LOW), MANIFEST.digest)[1]
    mixed = to_parquet(to_table([first, replace(second, identity="f" * 64)]))
    put(cache.store, record_path(layout.views_unit(LOW), 1), mixed)
    with pytest.raises(ContractError, match="views/low-32: shards 1 were computed from something else"):
        cache.records(layout.views_unit(LOW), MANIFEST.digest)


@pytest.mark.parametrize("table", ["views/low-32", "placements/t/low-32"])
def test_a_table_in_anothers_place_is_damaged_though_it_is_sound(folder: Path, table: str) -> None:
    first, second = (folder / f"tables/{table}/{shard:05}.parquet" for shard in (0, 1))
    second.write_bytes(first.read_bytes())
    cache = opened(folder)
    commits = cache.records(layout.views_unit(LOW), MANIFEST.digest)
    seen = cache.records(layout.features_unit(LOW, "t"), TEACHER.digest)
    with pytest.raises(CorruptionError) as refusal:
        _ = cache.views(LOW, commits), cache.placements(LOW, "t", seen)
    assert str(refusal.value) == (
        f"table is damaged:\n  tables/{table}/00001.parquet: its XXH3 is not the one that its shard was committed with"
    )


def test_a_table_that_its_shard_was_not_committed_with_is_refused(cache: Cache) -> None:
    seen = cache.records(layout.features_unit(LOW, "t"), TEACHER.digest)
    with pytest.raises(CorruptionError, match=r"tables/views/low-32/00000\.parquet: its XXH3 is not the one"):
        cache.views(LOW, seen)


def test_a_table_that_is_gone_is_missing(folder: Path) -> None:
    (folder / "tables/views/low-32/00001.parquet").unlink()
    cache = opened(folder)
    commits = cache.records(layout.views_unit(LOW), MANIFEST.digest)
    with pytest.raises(MissingError, match=r"tables/views/low-32/00001\.parquet: is not there"):
        cache.views(LOW, commits)


@pytest.mark.parametrize(
    ("body", "kind"), [(b"{", CorruptionError), (b"[]", CorruptionError), (b'{"shape": [5]}', ContractError)]
)
def test_an_array_whose_metadata_is_damaged_or_foreign_is_refused(
    folder: Path, body: bytes, kind: type[Exception]
) -> None:
    path = layout.pixels_array(LOW)
    (folder / "features.zarr" / path / "zarr.json").write_bytes(body)
    with pytest.raises(kind, match=f"{path}/zarr.json"):
        opened(folder).array(path, {})


def test_phi_s_comes_back_as_it_was_frozen(cache: Cache) -> None:
    phi_s = cache.phi_s("t")
    assert phi_s is not None
    assert phi_s_digest(phi_s) == phi_s_digest(PHI_S)
    np.testing.assert_array_equal(phi_s.mean, PHI_S.mean)
    np.testing.assert_array_equal(phi_s.rotation, PHI_S.rotation)
    assert phi_s.scale == PHI_S.scale


@pytest.mark.parametrize("name", ["mean", "rotation", "scale"])
def test_phi_s_with_any_array_replaced_is_refused(folder: Path, name: str) -> None:
    store = Store(uri=str(folder))
    arrays = {"mean": PHI_S.mean, "rotation": PHI_S.rotation, "scale": np.array(PHI_S.scale)}
    write_small_arrays(store, "teachers/t/phi_s", {name: np.nextafter(arrays[name], 9)})
    with pytest.raises(CorruptionError) as refusal:
        opened(folder).phi_s("t")
    assert str(refusal.value) == ("PHI-S is damaged:\n  teachers/t/phi_s: its arrays are not those that were frozen")


def test_phi_s_without_its_seal_is_refused(folder: Path) -> None:
    group(Store(uri=str(folder)), "teachers/t/phi_s", {"sha256": "0" * 64})
    with pytest.raises(CorruptionError, match="its arrays are not those that were frozen"):
        opened(folder).phi_s("t")
    group(Store(uri=str(folder)), "teachers/t/phi_s", {})
    with pytest.raises(ContractError, match="teachers/t/phi_s: lacks sha256"):
        opened(folder).phi_s("t")


def test_the_digest_of_phi_s_is_that_of_its_float64_bytes() -> None:
    body = PHI_S.mean.tobytes() + PHI_S.rotation.tobytes() + np.array(2.5).tobytes()
    assert phi_s_digest(PHI_S) == hashlib.sha256(body).hexdigest()


def test_statistics_come_back_by_set(cache: Cache) -> None:
    assert cache.stats("t") is None
    measured(cache.store, summarised=True)
    stats = cache.stats("t")
    assert stats is not None
    assert (stats.identity, stats.views, stats.dispersion) == (TEACHER.digest, 5, 0.694)
    assert stats.mean_direction is not None
    assert stats.mean_direction.tolist() == [0.0, 0.6, 0.8]
    assert (stats.pooled.tokens, stats.pooled.mean.tolist()) == (20, [0.5] * 4)
    assert list(stats.sets) == [LOW]
    assert (stats.sets[LOW].tokens, stats.sets[LOW].variance.tolist()) == (20, [7.5] * 4)
    assert stats.shards == {LOW: {0, 1, 3}}
    assert stats.unmeasured({LOW: 5}) == 2


def test_statistics_that_do_not_tell_what_an_array_is_are_refused(folder: Path) -> None:
    measured(Store(uri=str(folder)), summarised=False)
    rewrite(folder / "features.zarr/teachers/t/stats/zarr.json", arrays={})
    with pytest.raises(ContractError, match="does not name the SHA-256 of low-32/mean, low-32/variance"):
        opened(folder).stats("t")


def test_a_teacher_without_a_summary_has_no_dispersion(folder: Path) -> None:
    measured(Store(uri=str(folder)), summarised=False)
    stats = opened(folder).stats("t")
    assert stats is not None
    assert (stats.dispersion, stats.mean_direction) == (None, None)


def test_statistics_of_another_version_are_refused(folder: Path) -> None:
    measured(Store(uri=str(folder)), summarised=False)
    rewrite(folder / "features.zarr/teachers/t/stats/zarr.json", median=0, mode=0, best=0)
    with pytest.raises(ContractError) as refusal:
        opened(folder).stats("t")
    assert str(refusal.value) == (
        "statistics breaks the storage contract:\n"
        "  teachers/t/stats: has unknown best, median, mode (another version of Stillhouse wrote it: use that version)"
    )


def test_statistics_with_an_array_gone_are_refused(folder: Path) -> None:
    measured(Store(uri=str(folder)), summarised=True)
    (folder / "features.zarr/teachers/t/stats/low-32/variance/zarr.json").unlink()
    with pytest.raises(MissingError, match=r"teachers/t/stats/low-32/variance: is not there"):
        opened(folder).stats("t")
