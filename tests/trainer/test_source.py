"""What a cache offers is gathered whole, or refused with the command that makes what is missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage_schemas.cache import Cache
from storage_schemas.format.errors import AbstractStillhouseError, ContractError, MissingError, SettingError
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.publish import publish_group
from storage_schemas.objects.store import Store
from trainer.data.source import open_source

LOW_32 = ViewSet(partition="low", resolution=32)
FEW = {"low-32": 9, "low-48": 2}


def message(kind: type[AbstractStillhouseError], cache: Cache, **chosen: Any) -> str:
    with pytest.raises(kind) as refusal:
        open_source(cache, **chosen)
    return str(refusal.value).replace(cache.store.uri, "CACHE")


def test_a_whole_cache_is_gathered_with_its_splits_apart(full_cache: Cache) -> None:
    source = open_source(full_cache)
    assert [view_set.name for view_set in source.sets] == ["high-64", "low-32", "low-48"]
    assert list(source.teachers) == ["any", "canvas", "fixed"]
    low = source.sets[LOW_32]
    assert low.rows["train"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert low.rows["heldout"].tolist() == [8, 9]
    assert {name: (seen.tokens, seen.has_summary) for name, seen in low.features.items()} == {
        "any": (2, True),
        "canvas": (2, False),
        "fixed": (3, True),
    }
    offsets = [seen.offsets[range(10)] for seen in low.features.values()]
    assert all(((each >= 0) & (each <= 1)).all() for each in offsets)


def test_only_the_teachers_and_sets_asked_for_are_gathered(full_cache: Cache) -> None:
    source = open_source(full_cache, teachers=["fixed"], sets=["low-48"])
    assert [view_set.name for view_set in source.sets] == ["low-48"]
    assert list(source.teachers) == ["fixed"]
    assert list(next(iter(source.sets.values())).features) == ["fixed"]


def test_the_identity_names_views_teachers_and_what_their_losses_divide_by(full_cache: Cache) -> None:
    identity = open_source(full_cache).identity
    assert set(identity) == {"views", "rows", "teachers"}
    assert identity["rows"]["low-32"] == {"train": 8, "heldout": 2}
    assert set(identity["teachers"]["any"]) == {"features", "phi_s", "dispersion"}
    assert identity["teachers"]["canvas"]["dispersion"] is None


def test_a_folder_without_a_cache_is_refused(tmp_path: Path) -> None:
    assert message(MissingError, Cache(store=Store(uri=str(tmp_path)))) == (
        "cache is missing:\n  CACHE: holds no features.zarr (run `make extract` first, or point CACHE at a cache)"
    )


def test_a_cache_without_views_is_refused(tmp_path: Path, cache_maker: Callable[..., Any]) -> None:
    cache = cache_maker(tmp_path, FEW).root().cache
    assert message(MissingError, cache) == "views is missing:\n  CACHE: has no views (run `make views`)"


def test_views_that_are_not_all_cut_are_refused_with_their_shards(
    tmp_path: Path, cache_maker: Callable[..., Any], specs: dict[str, TeacherSpec]
) -> None:
    maker = cache_maker(tmp_path, FEW).views(lambda shard: shard == 0).teacher(specs["any"]).stats(specs["any"])
    assert message(MissingError, maker.cache, sets=["low-32"]) == (
        "shards is missing:\n  views/low-32: 2 of 3 shards are not committed: 1, 2 (run `make views` again: it resumes)"
    )


def test_a_cache_without_features_is_refused(tmp_path: Path, cache_maker: Callable[..., Any]) -> None:
    assert message(MissingError, cache_maker(tmp_path, FEW).views().cache) == (
        "features is missing:\n"
        "  CACHE: has features of no teacher (run `make extract TEACHER=…` for each teacher of the recipe)"
    )


def test_features_that_were_never_measured_are_refused(
    tmp_path: Path, cache_maker: Callable[..., Any], specs: dict[str, TeacherSpec]
) -> None:
    assert message(MissingError, cache_maker(tmp_path, FEW).views().teacher(specs["any"]).cache) == (
        "statistics is missing:\n  teachers/any/stats: the features were never measured (run `make stats`)"
    )


def test_statistics_of_other_features_are_refused(
    tmp_path: Path, cache_maker: Callable[..., Any], specs: dict[str, TeacherSpec]
) -> None:
    maker = cache_maker(tmp_path, FEW).views().teacher(specs["any"]).stats(specs["any"])
    about = maker.cache.attributes("teachers/any/stats")
    publish_group(maker.store, "teachers/any/stats", {**about, "identity": "of others"})
    assert message(MissingError, maker.cache) == (
        "statistics is missing:\n  teachers/any/stats: describe other features than the cache holds (run `make stats`)"
    )


def test_shards_that_came_after_the_statistics_are_refused_with_their_number(
    tmp_path: Path, cache_maker: Callable[..., Any], specs: dict[str, TeacherSpec]
) -> None:
    maker = cache_maker(tmp_path, FEW).views().teacher(specs["any"]).stats(specs["any"])
    about = maker.cache.attributes("teachers/any/stats")
    shards = {name: [[0, 1]] for name in about["shards"]}
    left = sum(stop - 1 for [[_, stop]] in about["shards"].values())
    publish_group(maker.store, "teachers/any/stats", {**about, "shards": shards})
    assert left > 0
    assert message(MissingError, maker.cache) == (
        f"statistics is missing:\n  teachers/any/stats: {left} shards were added after the last `make stats` "
        "(run `make stats`: it measures those)"
    )


def test_a_set_that_was_extracted_in_part_is_refused_with_its_shards(
    tmp_path: Path, cache_maker: Callable[..., Any], specs: dict[str, TeacherSpec]
) -> None:
    maker = cache_maker(tmp_path, FEW).views().teacher(specs["any"], lambda _, shard: shard != 1).stats(specs["any"])
    assert message(MissingError, maker.cache, sets=["low-32"]) == (
        "shards is missing:\n"
        "  teachers/any/low-32: 1 of 3 shards are not committed: 1 (run `make extract TEACHER=any` again: it resumes)"
    )


def test_a_teacher_that_has_not_seen_every_set_teaches_those_it_has(
    tmp_path: Path, cache_maker: Callable[..., Any], specs: dict[str, TeacherSpec]
) -> None:
    maker = cache_maker(tmp_path, FEW).views().teacher(specs["any"]).stats(specs["any"])
    maker.teacher(specs["fixed"], lambda view_set, _: view_set == LOW_32).stats(specs["fixed"])
    sets = open_source(maker.cache).sets
    assert {view_set.name: list(set_source.features) for view_set, set_source in sets.items()} == {
        "low-32": ["any", "fixed"],
        "low-48": ["any"],
    }


def test_a_set_that_no_teacher_has_seen_is_refused(
    tmp_path: Path, cache_maker: Callable[..., Any], specs: dict[str, TeacherSpec]
) -> None:
    maker = cache_maker(tmp_path, FEW).views()
    maker.teacher(specs["any"], lambda view_set, _: view_set != LOW_32).stats(specs["any"])
    assert message(MissingError, maker.cache) == (
        "features is missing:\n"
        "  low-32: has features of no teacher (run `make extract` for any, or leave the set out with data.proportions)"
    )


def test_a_teacher_that_has_seen_none_of_the_sets_is_refused(
    tmp_path: Path, cache_maker: Callable[..., Any], specs: dict[str, TeacherSpec]
) -> None:
    maker = cache_maker(tmp_path, FEW).views().teacher(specs["any"]).stats(specs["any"])
    maker.teacher(specs["fixed"], lambda *_: False).stats(specs["fixed"])
    assert message(MissingError, maker.cache, sets=["low-32"]) == (
        "features is missing:\n  fixed: has features of none of low-32 (run `make extract TEACHER=fixed`)"
    )


def test_an_unknown_teacher_is_refused(full_cache: Cache) -> None:
    assert message(MissingError, full_cache, teachers=["dinov3"]) == (
        "teacher is missing:\n"
        "  dinov3: the cache has features of any, canvas, fixed (run `make extract TEACHER=dinov3`)"
    )


def test_an_unknown_view_set_is_refused(full_cache: Cache) -> None:
    assert message(SettingError, full_cache, sets=["low-64"]) == (
        "data.proportions cannot be used:\n  low-64: is not a view set of the cache "
        "(choose from low-32, low-48, high-64)"
    )


def test_a_dispersion_that_does_not_fit_the_teacher_is_refused(
    tmp_path: Path, cache_maker: Callable[..., Any], specs: dict[str, TeacherSpec]
) -> None:
    maker = cache_maker(tmp_path, FEW).views().teacher(specs["any"]).stats(specs["any"])
    about = maker.cache.attributes("teachers/any/stats")
    publish_group(maker.store, "teachers/any/stats", {**about, "summarised": False})
    assert message(ContractError, maker.cache) == (
        "statistics breaks the storage contract:\n"
        "  teachers/any/stats: dispersion None does not agree with 6 summary channels"
    )


def test_offsets_are_those_of_the_placements_table(full_cache: Cache) -> None:
    source = open_source(full_cache)
    seen = source.sets[LOW_32].features["any"]
    table = full_cache.placements(LOW_32, "any", seen.commits.open(range(3))).to_pylist()
    assert len(table) == 10
    assert all(np.array_equal(seen.offsets[row["row"]], [row["offset_row"], row["offset_col"]]) for row in table)
