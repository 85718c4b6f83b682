"""A view is read in one call with what every teacher gave for it, or the call says what is missing."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage_schemas.cache import Cache
from storage_schemas.commits import record_path
from storage_schemas.format import layout
from storage_schemas.format.encodings import INT8_STEP, as_stored
from storage_schemas.format.errors import AbstractStillhouseError, ContractError, CorruptionError, MissingError
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.manifest import TeacherManifest, ViewSetManifest, ViewsManifest
from storage_schemas.format.phi_s import PhiS, phi_s_digest, to_stored
from storage_schemas.format.shard_format import ArraySpec, StoredType
from storage_schemas.format.tables import PLACEMENTS, VIEWS
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.publish import publish_group
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardKey, array_record, commit, create_array, open_shard, write_table_part
from storage_schemas.small_arrays import write_small_arrays

LOW = ViewSet(partition="low", resolution=32)
HIGH = ViewSet(partition="high", resolution=64)
SLOTS = 4
REJECTED = 3
"""The row slot of `low-32`, the last of its first shard, that a rejected view left empty."""
GEOMETRY = CanvasGeometry(resolution=32, patch=16, margin=1)
MANIFEST = ViewsManifest(
    identity={"recipe": "small"},
    sets={
        LOW: ViewSetManifest(grid=ShardGrid(counts=(7,), rows_per_shard=SLOTS), geometry=GEOMETRY),
        HIGH: ViewSetManifest(
            grid=ShardGrid(counts=(3,), rows_per_shard=SLOTS), geometry=replace(GEOMETRY, resolution=64)
        ),
    },
)
SPEC = TeacherSpec(
    name="any",
    model="tiny",
    dim=4,
    summary_dim=3,
    patch=16,
    size_rule="any",
    native=32,
    mean=(0.5, 0.5, 0.5),
    std=(1.0, 1.0, 1.0),
)
PLAIN = replace(SPEC, name="plain", summary_dim=None)
"""A teacher without a summary, stored in `int8`, that has seen `low-32` alone."""
PHI_S = PhiS(mean=np.arange(4.0), rotation=np.linalg.qr(np.random.default_rng(9).normal(size=(4, 4)))[0], scale=2.5)


def seeded(kind: int, view_set: ViewSet, row: int) -> np.random.Generator:
    """Return the randomness of one thing of one view."""
    return np.random.default_rng([kind, view_set.resolution, row])


def canvas(view_set: ViewSet, row: int) -> np.ndarray:
    """Return the canvas of a view."""
    side = MANIFEST.sets[view_set].geometry.side
    return seeded(0, view_set, row).integers(0, 256, (side, side, 3), dtype=np.uint8)


def raw_tokens(view_set: ViewSet, row: int) -> np.ndarray:
    """Return what a teacher said of a view, in its own units."""
    side = view_set.resolution // 16
    return seeded(1, view_set, row).normal(3, 2, (side, side, 4)).astype(np.float32)


def summary(view_set: ViewSet, row: int) -> np.ndarray:
    """Return a teacher's summary of a view."""
    return seeded(2, view_set, row).normal(size=3).astype(np.float32)


def offset(view_set: ViewSet, row: int) -> list[int]:
    """Return where a teacher's window starts."""
    return seeded(3, view_set, row).integers(0, 2, 2).tolist()


def split(row: int) -> str:
    """Return the split of a view."""
    return "heldout" if row % 3 == 0 else "train"


def filled(view_set: ViewSet, shard: int) -> list[int]:
    """Return the rows of a shard that hold a view."""
    return [row for row in MANIFEST.sets[view_set].grid.slots(shard) if (view_set, row) != (LOW, REJECTED)]


class Writer:
    """Writes shards of the small cache."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(uri=str(folder))
        publish_group(self.store, "", {"format": 1, "recipe": "small"})
        publish_group(self.store, "views", MANIFEST.attributes())

    def shard(
        self, key: ShardKey, entries: dict[str, tuple[StoredType, list[np.ndarray]]], rows: int, table: tuple[str, Any]
    ) -> None:
        """Write one shard of arrays and of a table, and commit it."""
        records = []
        for path, (dtype, values) in entries.items():
            spec = ArraySpec(path=path, shape=(rows, *values[0].shape), dtype=dtype, rows_per_shard=SLOTS)
            create_array(self.store, spec)
            with open_shard(self.store, spec, key.shard) as writer:
                writer.append_all(values)
            records.append(array_record(writer, key))
        records.append(write_table_part(self.store, *table, key.shard * SLOTS, key))
        commit(self.store, key, records)

    def views(self, view_set: ViewSet, shard: int) -> None:
        """Write canvases."""
        rows = filled(view_set, shard)
        more = {"draw": 0, "sha256": "0" * 64, "flip": False, "image_height": 1, "image_width": 1}
        more |= dict.fromkeys(("left", "top", "width", "height"), 0.0)
        table = pa.Table.from_pylist(
            [more | {"row": row, "image": f"{row}.jpg", "split": split(row)} for row in rows], VIEWS
        )
        self.shard(
            ShardKey(unit=layout.views_unit(view_set), shard=shard, identity=MANIFEST.digest),
            {layout.pixels_array(view_set): ("uint8", [canvas(view_set, row) for row in rows])},
            MANIFEST.sets[view_set].grid.rows,
            (layout.table_part("views", view_set.name, shard), table),
        )

    def teacher(self, spec: TeacherSpec) -> TeacherManifest:
        """Write what a teacher's group says, and its PHI-S."""
        tokens = {view_set: view_set.resolution // 16 for view_set in MANIFEST.sets}
        manifest = TeacherManifest(spec=spec, identity={"of": spec.name}, tokens=tokens)
        group = f"teachers/{spec.name}"
        publish_group(self.store, group, manifest.attributes())
        arrays = {"mean": PHI_S.mean, "rotation": PHI_S.rotation, "scale": np.array(PHI_S.scale)}
        write_small_arrays(self.store, f"{group}/phi_s", arrays)
        publish_group(self.store, f"{group}/phi_s", {"sha256": phi_s_digest(PHI_S)})
        return manifest

    def features(self, manifest: TeacherManifest, view_set: ViewSet, shard: int) -> None:
        """Write a teacher's features."""
        rows, name = filled(view_set, shard), manifest.spec.name
        dtype = "int8" if name == PLAIN.name else "float16"
        stored = [as_stored(to_stored(PHI_S, raw_tokens(view_set, row)), dtype) for row in rows]
        entries = {layout.spatial_array(view_set, name): (dtype, stored)}
        if manifest.spec.summary_dim is not None:
            summaries = [summary(view_set, row) for row in rows]
            entries[layout.summary_array(view_set, name)] = ("float32", summaries)
        places = [(row, *offset(view_set, row)) for row in rows]
        placed = [{"row": row, "offset_row": top, "offset_col": left} for row, top, left in places]
        self.shard(
            ShardKey(unit=layout.features_unit(view_set, name), shard=shard, identity=manifest.digest),
            entries,
            MANIFEST.sets[view_set].grid.rows,
            (
                layout.table_part("placements", f"{name}/{view_set.name}", shard),
                pa.Table.from_pylist([{"mosaic": None, "cell": None} | place for place in placed], PLACEMENTS),
            ),
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cache of two sets and two teachers. Tests only read it."""
    folder = tmp_path_factory.mktemp("cache")
    writer = Writer(folder)
    shards = [(view_set, shard) for view_set, shape in MANIFEST.sets.items() for shard in range(shape.grid.shards)]
    for view_set, shard in shards:
        writer.views(view_set, shard)
    of_any, of_plain = writer.teacher(SPEC), writer.teacher(PLAIN)
    for view_set, shard in shards:
        writer.features(of_any, view_set, shard)
        if view_set == LOW:
            writer.features(of_plain, view_set, shard)
    return folder


@pytest.fixture
def cache(made: Path) -> Cache:
    """The cache."""
    return Cache.open(str(made))


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of the cache's folder, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def refusal_of(call: Callable[[], object], kind: type[AbstractStillhouseError] = AbstractStillhouseError) -> str:
    """Return what a call is refused with."""
    with pytest.raises(kind) as refusal:
        call()
    return str(refusal.value)


def test_what_is_in_a_cache_is_told_with_counts(cache: Cache) -> None:
    contents = cache.contents()
    assert contents.recipe == "small"
    told = {name: (found.drawn, found.views, found.geometry.side) for name, found in contents.view_sets.items()}
    assert told == {"high-64": (3, 3, 80), "low-32": (7, 6, 48)}
    assert {name: teacher.spec for name, teacher in contents.teachers.items()} == {"any": SPEC, "plain": PLAIN}
    assert contents.teachers["any"].tokens == {"high-64": 4, "low-32": 2}
    assert [teacher.views for teacher in contents.teachers.values()] == [{"high-64": 3, "low-32": 6}, {"low-32": 6}]


def test_the_counts_are_of_committed_views(copied: Path) -> None:
    store = Store(uri=str(copied))
    store.remove(record_path(layout.views_unit(LOW), 0))
    store.remove(record_path(layout.features_unit(LOW, "any"), 1))
    contents = Cache.open(str(copied)).contents()
    assert contents.view_sets["low-32"].views == 3
    assert contents.teachers["any"].views == {"high-64": 3, "low-32": 3}


def test_a_place_without_a_cache_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    said = refusal_of(lambda: Cache.open(str(tmp_path)), MissingError)
    assert said.startswith(f"cache is missing:\n  {tmp_path}: holds no features.zarr")


@pytest.mark.parametrize("row", [0, 2, 4, 6])
def test_a_view_comes_with_its_canvas_and_where_it_is_from(cache: Cache, row: int) -> None:
    view = cache.view("low-32", row)
    np.testing.assert_array_equal(view.pixels, canvas(LOW, row))
    assert (view.view_set, view.row, view.image, view.split) == (LOW, row, f"{row}.jpg", split(row))
    assert view.geometry == GEOMETRY
    assert list(view.teachers) == ["any", "plain"]


@pytest.mark.parametrize("row", [0, 2, 4, 6])
def test_raw_features_are_what_the_teacher_gave_within_the_rounding_of_what_is_stored(cache: Cache, row: int) -> None:
    view, given = cache.view("low-32", row, units="raw"), raw_tokens(LOW, row)
    largest = np.abs(to_stored(PHI_S, given)).max()
    for name, rounding in (("any", largest * 2.0**-11), ("plain", INT8_STEP / 2)):
        seen = view.teachers[name]
        assert seen.spatial.dtype == np.float32
        # an orthogonal map moves an error of `rounding` in each of 4 channels by no more than twice that, times φ
        np.testing.assert_allclose(seen.spatial, given, rtol=0, atol=2 * rounding * PHI_S.scale + 1e-5)
        assert seen.offset.tolist() == offset(LOW, row)


def test_features_are_in_the_units_that_are_stored_unless_told(cache: Cache) -> None:
    seen = cache.view("high-64", 2).teachers["any"]
    assert seen.spatial.dtype == np.float32
    np.testing.assert_allclose(seen.spatial, to_stored(PHI_S, raw_tokens(HIGH, 2)), atol=2e-3)


def test_summaries_are_raw_in_either_units_and_none_where_a_teacher_has_none(cache: Cache) -> None:
    for units in ("raw", "phi-s"):
        view = cache.view("low-32", 4, units=units)
        np.testing.assert_array_equal(view.teachers["any"].summary, summary(LOW, 4))
        assert view.teachers["plain"].summary is None


def test_a_teacher_that_has_not_seen_the_set_is_left_out_unless_it_is_named(cache: Cache) -> None:
    assert list(cache.view("high-64", 0).teachers) == ["any"]
    assert refusal_of(lambda: cache.view("high-64", 0, teachers=["plain"]), MissingError) == (
        "features is missing:\n  plain: has no features of high-64 yet (run `make extract TEACHER=plain`)"
    )


def test_teachers_are_chosen_by_name(cache: Cache) -> None:
    assert list(cache.view("low-32", 0, teachers=["plain"]).teachers) == ["plain"]
    assert cache.view("low-32", 0, teachers=[]).teachers == {}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda cache: cache.view("low-23", 0),
            "view set cannot be used:\n  low-23: the cache has no such view set (did you mean low-32?)",
        ),
        (
            lambda cache: cache.open_views("train"),
            "view set cannot be used:\n  train: the cache has no such view set (there are high-64, low-32)",
        ),
        (
            lambda cache: cache.view("low-32", 0, teachers=["plane", "any"]),
            "teacher is missing:\n  plane: the cache has no features of this teacher (did you mean plain?)",
        ),
        (
            lambda cache: cache.open_views("low-32", teachers="any"),
            "view cannot be used:\n  teachers: 'any' is text, expected a list of names (give teachers=['any'])",
        ),
        (
            lambda cache: cache.view("low-32", 7),
            "view cannot be used:\n  low-32/7: low-32 has the row slots 0 to 6",
        ),
        (
            lambda cache: cache.view("low-32", -1),
            "view cannot be used:\n  low-32/-1: low-32 has the row slots 0 to 6",
        ),
        (
            lambda cache: cache.view("low-32", REJECTED),
            "view is missing:\n  low-32/3: no view fills this row slot: it was rejected, or none was drawn for it",
        ),
    ],
)
def test_a_name_or_a_row_that_is_not_there_is_refused_with_what_is(
    cache: Cache, call: Callable[[Cache], object], said: str
) -> None:
    assert refusal_of(lambda: call(cache)) == said


@pytest.mark.usefixtures("unchecked")
def test_unknown_units_are_refused(cache: Cache) -> None:
    said = refusal_of(lambda: cache.view("low-32", 0, units="phi_s"))  # type: ignore[arg-type]
    assert said == "view cannot be used:\n  units: 'phi_s' is none of phi-s, raw"


@pytest.mark.parametrize(
    ("unit", "command"),
    [("views/low-32", "make views"), ("teachers/any/low-32", "make extract TEACHER=any")],
)
def test_a_shard_that_was_never_committed_is_not_read_though_its_bytes_are_there(
    copied: Path, unit: str, command: str
) -> None:
    Store(uri=str(copied)).remove(record_path(unit, 1))
    cache = Cache.open(str(copied))
    assert cache.view("low-32", 2).row == 2
    assert refusal_of(lambda: cache.view("low-32", 4), MissingError) == (
        f"shards is missing:\n  {unit}: shard 1 is not committed (run `{command}` again: it resumes)"
    )
    assert refusal_of(lambda: cache.open_views("low-32"), MissingError) == (
        f"shards is missing:\n  {unit}: 1 of 2 shards are not committed: 1 (run `{command}` again: it resumes)"
    )
    assert cache.view("high-64", 0).row == 0


def test_features_of_other_views_are_refused(copied: Path) -> None:
    publish_group(Store(uri=str(copied)), "teachers/any", replace_identity(SPEC).attributes())
    assert refusal_of(lambda: Cache.open(str(copied)).view("low-32", 0), ContractError) == (
        "commit log breaks the storage contract:\n"
        "  teachers/any/low-32: shards 0 were computed from something else than the group says"
    )


def replace_identity(spec: TeacherSpec) -> TeacherManifest:
    """Return a manifest of a teacher that computed its features from something else."""
    return TeacherManifest(spec=spec, identity={"of": "others"}, tokens={LOW: 2, HIGH: 4})


def test_a_damaged_chunk_is_refused(copied: Path) -> None:
    place = copied / layout.array_object(layout.spatial_array(LOW, "any"), 0, 4)
    body = bytearray(place.read_bytes())
    body[0] ^= 1
    place.write_bytes(body)
    assert "teachers/any/low-32/spatial shard 0 row 0" in refusal_of(
        lambda: Cache.open(str(copied)).view("low-32", 0), CorruptionError
    )


def test_raw_units_without_the_map_are_refused_and_phi_s_units_are_not(copied: Path) -> None:
    publish_group(Store(uri=str(copied)), "teachers/any/phi_s")
    cache = Cache.open(str(copied))
    assert cache.view("low-32", 0).row == 0
    assert refusal_of(lambda: cache.view("low-32", 0, units="raw"), MissingError) == (
        "PHI-S is missing:\n  teachers/any/phi_s: is gone, and features were stored under it "
        "(put it back from a copy of the cache, or make a new cache)"
    )


def test_all_views_of_a_set_are_read_one_by_one_as_they_are_alone(cache: Cache) -> None:
    views = cache.open_views("low-32", units="raw")
    assert views.rows().tolist() == [0, 1, 2, 4, 5, 6]
    assert (views.rows("train").tolist(), views.rows("heldout").tolist()) == ([1, 2, 4, 5], [0, 6])
    assert views.geometry == GEOMETRY
    for row in views.rows()[::-1].tolist():
        view, alone = views.read(row), cache.view("low-32", row, units="raw")
        np.testing.assert_array_equal(view.pixels, alone.pixels)
        for name, seen in view.teachers.items():
            np.testing.assert_array_equal(seen.spatial, alone.teachers[name].spatial)
    with pytest.raises(MissingError, match="low-32/3: no view fills this row slot: it was rejected, or none was drawn"):
        views.read(REJECTED)


def test_a_reader_may_be_sent_to_another_process(cache: Cache) -> None:
    views = cache.open_views("low-32")
    views.read(5)
    copy = pickle.loads(pickle.dumps(views))
    np.testing.assert_array_equal(copy.read(5).teachers["any"].spatial, views.read(5).teachers["any"].spatial)


def test_a_window_is_cut_at_its_offset(cache: Cache) -> None:
    view = cache.view("low-32", 1)
    at = np.array([1, 0])
    np.testing.assert_array_equal(view.window(at), canvas(LOW, 1)[16:48, 0:32])
    np.testing.assert_array_equal(view.window(at, channels_first=True), view.window(at).transpose(2, 0, 1))
    for outside in ([0, 2], [-1, 0]):
        said = refusal_of(lambda outside=outside: view.window(np.array(outside)), ContractError)
        assert said.endswith(f"offset: {outside} patches, expected 0 to 1 along each axis")


def test_one_view_is_read_from_the_records_of_its_own_shard(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    plain = Store.read_many

    def counting(self: Store, names: list[str]) -> list[bytes]:
        read.extend(names)
        return plain(self, names)

    monkeypatch.setattr(Store, "read_many", counting)
    cache.view("low-32", 5)
    parts = [name for name in read if name.endswith(".parquet")]
    assert len(parts) == 6
    assert {name.rpartition("/")[2] for name in parts} == {"00001.parquet"}
