"""A view is read in one call with what every teacher gave for it, or the call says what is missing."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from identities import features_identity
from small_cache import SmallCache, spec_of, split_of

from storage_schemas.cache import Cache
from storage_schemas.cached_views import Units
from storage_schemas.commits import record_path
from storage_schemas.format import layout
from storage_schemas.format.encodings import INT8_STEP
from storage_schemas.format.errors import AbstractStillhouseError, ContractError, CorruptionError, MissingError
from storage_schemas.format.manifest import TeacherManifest
from storage_schemas.format.phi_s import to_stored
from storage_schemas.format.shard_format import array_metadata
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.publish import publish_group
from storage_schemas.objects.store import Store

LOW = ViewSet(partition="low", resolution=32)
HIGH = ViewSet(partition="high", resolution=64)
REJECTED = 3
"""The row slot of `low-32`, the last of its first shard, that a rejected view left empty."""
SPEC = spec_of("any", dim=4, summary_dim=3)
PLAIN = spec_of("plain", dim=4, summary_dim=None)
"""A teacher without a summary, stored in `int8`, that has seen `low-32` alone."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallCache:
    """A cache of two sets and two teachers. Tests only read it."""
    counts, encodings = {"low-32": 7, "high-64": 3}, {PLAIN.name: "int8"}
    folder = tmp_path_factory.mktemp("cache")
    made = SmallCache(folder, counts, rejected=[("low-32", REJECTED)], encodings=encodings)  # type: ignore[arg-type]
    of_any, of_plain = made.write_teacher(SPEC), made.write_teacher(PLAIN)
    for view_set, shard in made.shards:
        made.write_views(view_set, shard)
        made.write_features(of_any, view_set, shard)
        if view_set == LOW:
            made.write_features(of_plain, view_set, shard)
    return made


@pytest.fixture
def cache(made: SmallCache) -> Cache:
    """The cache."""
    return Cache.open(made.store.uri)


@pytest.fixture
def copied(made: SmallCache, tmp_path: Path) -> Path:
    """A copy of the cache's folder, to be changed."""
    return Path(shutil.copytree(made.store.uri, tmp_path / "copy"))


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
def test_a_view_comes_with_its_canvas_and_where_it_is_from(made: SmallCache, cache: Cache, row: int) -> None:
    view = cache.view("low-32", row)
    np.testing.assert_array_equal(view.pixels, made.canvas(LOW, row))
    assert (view.view_set, view.row, view.image, view.split) == (LOW, row, f"{row}.jpg", split_of(row))
    assert view.geometry == made.manifest.sets[LOW].geometry
    assert list(view.teachers) == ["any", "plain"]


@pytest.mark.parametrize(("spec", "rounding"), [(SPEC, None), (PLAIN, INT8_STEP / 2)])
@pytest.mark.parametrize("row", [0, 2, 4, 6])
def test_raw_features_are_what_the_teacher_gave_within_the_rounding_of_what_is_stored(
    made: SmallCache, cache: Cache, spec: TeacherSpec, rounding: float | None, row: int
) -> None:
    given, phi_s = made.raw(spec, LOW, row), made.phi_s(spec)
    seen = cache.view("low-32", row, units="raw").teachers[spec.name]
    assert seen.spatial.dtype == np.float32
    step = rounding or np.abs(to_stored(phi_s, given)).max() * 2.0**-11  # half a unit in the last place of a float16
    # an orthogonal map turns an error of one step in each of 4 channels into one of 2 steps at most; then comes φ
    np.testing.assert_allclose(seen.spatial, given, rtol=0, atol=2 * step * phi_s.scale + 1e-5)
    assert seen.offset.tolist() == made.offset(spec, LOW, row)


def test_features_are_in_the_units_that_are_stored_unless_told(made: SmallCache, cache: Cache) -> None:
    seen = cache.view("high-64", 2).teachers["any"]
    assert seen.spatial.dtype == np.float32
    np.testing.assert_allclose(seen.spatial, to_stored(made.phi_s(SPEC), made.raw(SPEC, HIGH, 2)), atol=2e-3)


@pytest.mark.parametrize("units", ["raw", "phi-s"])
def test_summaries_are_raw_in_either_units_and_none_where_a_teacher_has_none(
    made: SmallCache, cache: Cache, units: Units
) -> None:
    view = cache.view("low-32", 4, units=units)
    np.testing.assert_array_equal(view.teachers["any"].summary, made.summary(SPEC, LOW, 4))
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
            "view set cannot be used:\n"
            "  low-23: the cache has no such view set (did you mean low-32? there are high-64, low-32)",
        ),
        (
            lambda cache: cache.open_views("train"),
            "view set cannot be used:\n  train: the cache has no such view set (there are high-64, low-32)",
        ),
        (
            lambda cache: cache.view("low-32", 0, teachers=["plane", "any"]),
            "teacher is missing:\n"
            "  plane: the cache has no features of this teacher (did you mean plain? there are any, plain)",
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
    others = TeacherManifest(spec=SPEC, identity=features_identity(SPEC, "f" * 64), tokens={LOW: 2, HIGH: 4})
    publish_group(Store(uri=str(copied)), "teachers/any", others.attributes())
    assert refusal_of(lambda: Cache.open(str(copied)).view("low-32", 0), ContractError) == (
        "commit log breaks the storage contract:\n"
        "  teachers/any/low-32: shards 0 were computed from something else than the group says"
    )


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
    assert (views.rows("train").tolist(), views.rows("heldout").tolist()) == ([0, 1, 2, 4], [5, 6])
    assert views.geometry == views.read(0).geometry
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


def test_a_window_is_cut_at_its_offset(made: SmallCache, cache: Cache) -> None:
    view = cache.view("low-32", 1)
    at = np.array([1, 0])
    np.testing.assert_array_equal(view.window(at), made.canvas(LOW, 1)[16:48, 0:32])
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


def test_features_that_their_manifest_calls_something_else_are_refused(made: SmallCache, tmp_path: Path) -> None:
    copy, path = Path(shutil.copytree(made.store.uri, tmp_path / "cache")), f"teachers/{PLAIN.name}/low-32/spatial"
    cache = Cache.open(str(copy))
    other = replace(cache.array(path, {}).spec, step=0.25)
    (copy / "features.zarr" / path / "zarr.json").write_text(json.dumps(array_metadata(other)))
    with pytest.raises(CorruptionError) as refusal:
        cache.open_views("low-32")
    said = "is int8 in steps of 0.25, the manifest of its teacher says int8 in steps of 0.063"
    assert f"{path}/zarr.json: {said}" in str(refusal.value)
