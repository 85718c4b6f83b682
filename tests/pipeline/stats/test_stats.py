"""Statistics follow their definition, however the work is divided, and only new shards are measured."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.config import RunConfig
from pipeline.stats.committed import read_features
from pipeline.stats.facts import measured_facts
from pipeline.stats.stage import measure_teachers, observe_all_angles, observe_branches
from pipeline.stats.stored import NO_SUMS, TeacherSums, add_shards, read_sums, write_stats
from pipeline.stats.task import BRANCHES, branches
from pipeline.stats.text import stats_lines
from pipeline.stats.worker import FeatureMeasurer
from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from pipeline.workers.open_pool import open_pool
from pipeline.workers.pool import AbstractPool
from pipeline.workers.progress import progress
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store

MeasurerPool = AbstractPool[FeatureMeasurer]

LOCAL = RunConfig(executor="local")
TEACHER = "dinov3"
CLOSE = 1e-9
"""Largest difference between two ways of measuring, relative to the size of each array's values."""


def opened(where: Path) -> Cache:
    return Cache(store=Store(uri=str(where)))


def arrays_of(where: Path, teacher: str = TEACHER) -> dict[str, np.ndarray]:
    """All arrays of a teacher's statistics, through plain zarr."""
    group = zarr.open_group(where / f"features.zarr/teachers/{teacher}/stats", mode="r")
    return {name: node[...] for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}


def assert_same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        # means are near zero by construction: the numbers that are averaged have a size of 1
        size = max(np.abs(values).max(), 1.0 if name.endswith("mean") else 0.0)
        assert np.abs(found[name] - values).max() <= CLOSE * size, name


def all_tokens(where: Path, teacher: str, view_set: str) -> np.ndarray:
    group = zarr.open_group(where / f"features.zarr/teachers/{teacher}/{view_set}", mode="r")
    tokens = np.asarray(group["spatial"][...], dtype=np.float64)
    return tokens.reshape(-1, tokens.shape[-1])


def sets_of(where: Path, teacher: str) -> list[str]:
    manifest = opened(where).teacher_manifest(teacher)
    assert manifest is not None
    return [view_set.name for view_set in manifest.tokens]


@pytest.mark.parametrize("teacher", [TEACHER, "quarter-mean-canvas", "quarter-mean-fixed"])
def test_moments_and_spectra_are_those_of_numpy_over_all_tokens(small_run: Any, teacher: str) -> None:
    found = arrays_of(small_run.cache, teacher)
    by_set = {f"{name}/": all_tokens(small_run.cache, teacher, name) for name in sets_of(small_run.cache, teacher)}
    assert len(by_set) == 2
    for prefix, tokens in {"": np.concatenate(list(by_set.values())), **by_set}.items():
        covariance = np.cov(tokens.T)
        np.testing.assert_allclose(found[f"{prefix}mean"], tokens.mean(axis=0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(found[f"{prefix}variance"], np.diagonal(covariance), rtol=1e-9)
        expected = np.linalg.svd(tokens - tokens.mean(axis=0), compute_uv=False) ** 2 / (len(tokens) - 1)
        np.testing.assert_allclose(found[f"{prefix}spectrum"], expected, rtol=0, atol=1e-9 * expected[0])
        if prefix:
            np.testing.assert_allclose(found[f"{prefix}covariance"], covariance, rtol=0, atol=1e-12)


def test_the_mean_direction_and_the_dispersion_are_those_of_loops_over_raw_summaries(small_run: Any) -> None:
    rows, heldout = split_summaries(small_run.cache)
    assert min(len(rows), len(heldout)) > 1
    total = sum(rows)
    direction = total / np.linalg.norm(total)
    angles = [np.arccos(row @ (total - row) / np.linalg.norm(row) / np.linalg.norm(total - row)) for row in rows]
    found = arrays_of(small_run.cache)
    np.testing.assert_allclose(found["mean_direction"], direction, atol=1e-12)
    np.testing.assert_allclose(found["summary_sum"], total, rtol=1e-12)
    assert found["summary_length"] == pytest.approx(sum(map(np.linalg.norm, rows)), rel=1e-12)
    assert found["dispersion"] == pytest.approx(np.mean(np.square(angles)), rel=1e-6)
    apart = [np.arccos(row @ direction / np.linalg.norm(row)) for row in heldout]
    assert found["heldout_dispersion"] == pytest.approx(np.mean(np.square(apart)), rel=1e-6)
    stats = opened(small_run.cache).stats(TEACHER)
    assert stats is not None
    assert (stats.training_views, stats.heldout_dispersion) == (len(rows), found["heldout_dispersion"])


def split_summaries(where: Path) -> tuple[np.ndarray, np.ndarray]:
    """The summaries of training views and those of held-out views, as the tables of views name them."""
    group = zarr.open_group(where / f"features.zarr/teachers/{TEACHER}", mode="r")
    tables = {name: pq.read_table(where / "tables/views" / name) for name in sets_of(where, TEACHER)}
    training = np.concatenate([np.array(table["split"].to_pylist()) == "train" for table in tables.values()])
    stored = [group[f"{name}/summary"][...][table["row"].to_numpy()] for name, table in tables.items()]
    summaries = np.concatenate(stored).astype(np.float64)
    return summaries[training], summaries[~training]


def test_statistics_over_all_views_stay_so_when_shards_join_them(copied: Path, pool: MeasurerPool) -> None:
    cache = opened(copied)
    measure(cache, replace(NO_SUMS, kept_apart=False), first_shards(cache), pool)
    assert cache.stats(TEACHER).training_views is None
    measure_teachers(cache, [TEACHER], LOCAL, str)
    stats, everything = cache.stats(TEACHER), np.concatenate(split_summaries(copied))
    assert (stats.views, stats.training_views, stats.heldout_dispersion) == (16, None, None)
    np.testing.assert_allclose(arrays_of(copied)["summary_sum"], everything.sum(axis=0), rtol=1e-9)
    facts, scales = measured_facts(cache, read_features(cache, [TEACHER]).values(), 0.2)
    assert facts[TEACHER].over_all_views
    assert any("measured with them" in line for line in stats_lines(facts, scales))


@pytest.fixture
def pool(copied: Path) -> Iterator[MeasurerPool]:
    with open_pool(partial(FeatureMeasurer, store=Store(uri=str(copied)), threads=1), LOCAL, tasks=1) as opened_pool:
        yield opened_pool


def measure(cache: Cache, before: TeacherSums, shards: Mapping[ViewSet, frozenset[int]], pool: MeasurerPool) -> None:
    """Add some shards to sums, and write the statistics, as a cache had them before it grew by the other shards."""
    features, tasks = read_features(cache, [TEACHER])[TEACHER], []
    for view_set, numbers in shards.items():
        rows = features.rows[view_set]
        held = [(shard, rows[shard]) for shard in sorted(numbers)]
        tasks += branches(TEACHER, view_set, held, True, before.kept_apart)
    with progress("stats", done=0, total=0) as bar:
        sums = add_shards(before, sum(task.views for task in tasks), shards, observe_branches(tasks, pool, bar))
    assert sums.directions is not None
    write_stats(cache, features.manifest, sums, observe_all_angles(tasks, sums.directions, pool))


def first_shards(cache: Cache) -> dict[ViewSet, frozenset[int]]:
    """The first shard of each set: the others are as if they had come later."""
    manifest = cache.teacher_manifest(TEACHER)
    assert manifest is not None
    return {view_set: frozenset({0}) for view_set in manifest.tokens}


def shard_objects(where: Path, shard: int) -> list[Path]:
    return list((where / f"features.zarr/teachers/{TEACHER}").glob(f"*/spatial/c/{shard}/0/0/0"))


def test_new_shards_are_measured_alone_and_merge_to_what_all_at_once_gives(
    small_run: Any, copied: Path, pool: MeasurerPool
) -> None:
    cache = opened(copied)
    measure(cache, NO_SUMS, first_shards(cache), pool)
    partly = arrays_of(copied)
    measured_already = shard_objects(copied, 0)
    assert len(measured_already) == 2
    for path in measured_already:  # whoever reads them again finds nothing
        path.unlink()
    said: list[str] = []
    measure_teachers(cache, [TEACHER], LOCAL, said.append)
    views, first = cache.stats(TEACHER).views, 16 - int(said[0].split("measured ")[1].split()[0])
    assert views == 16
    assert 0 < first < 16
    assert f", merged with {first} measured before; " in said[0]
    assert_same(arrays_of(copied), arrays_of(small_run.cache))
    assert np.abs(partly["mean"] - arrays_of(copied)["mean"]).max() > 1e-3, "the new shards weigh something"
    assert partly["dispersion"] != arrays_of(copied)["dispersion"]


@final
class BackwardPool(AbstractPool[FeatureMeasurer]):
    """Workers of which the last to be asked is the first to be done."""

    def __init__(self, worker: FeatureMeasurer) -> None:
        self._worker = worker

    def run(self, step: Callable[..., Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for index in reversed(range(len(tasks))):
            yield index, step(self._worker, tasks[index])


def test_the_order_in_which_workers_are_done_changes_no_bit(small_run: Any, copied: Path) -> None:
    cache = opened(copied)
    shutil.rmtree(copied / f"features.zarr/teachers/{TEACHER}/stats")
    manifest = read_features(cache, [TEACHER])[TEACHER].manifest
    both = BackwardPool(FeatureMeasurer(store=cache.store, threads=1))
    shards = {view_set: frozenset(range(2 if view_set.name == "low-192" else 1)) for view_set in manifest.tokens}
    measure(cache, NO_SUMS, shards, both)
    for name, values in arrays_of(small_run.cache).items():
        assert arrays_of(copied)[name].tobytes() == values.tobytes(), name


def test_a_second_run_finds_nothing_to_do_and_changes_nothing(copied: Path) -> None:
    before = {path: path.read_bytes() for path in (copied / "features.zarr/teachers").rglob("*") if path.is_file()}
    said: list[str] = []
    measure_teachers(opened(copied), [TEACHER], LOCAL, said.append)
    assert said == ["stats dinov3: complete, nothing to do (16 views measured)"]
    assert before == {path: path.read_bytes() for path in before}


@final
class KilledError(Exception):
    """The end of a process, as far as what it wrote can tell."""


@pytest.mark.parametrize("moment", [0, 1, 2, 9, 20, 26])
def test_a_run_killed_while_it_writes_counts_no_shard_twice(
    moment: int, small_run: Any, copied: Path, pool: MeasurerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = opened(copied)
    measure(cache, NO_SUMS, first_shards(cache), pool)
    rename, left = os.replace, iter(range(moment))

    def dying(*paths: Any) -> None:
        if next(left, None) is None:
            raise KilledError
        rename(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(KilledError):
            measure_teachers(cache, [TEACHER], LOCAL, str)
    assert (cache.stats(TEACHER) is None) == (moment > 0), "it says nothing while its arrays change"
    measure_teachers(cache, [TEACHER], LOCAL, str)
    assert_same(arrays_of(copied), arrays_of(small_run.cache))


@pytest.mark.parametrize("name", ["low-192/covariance/c/0/0", "summary_sum/c/0", "summary_length/c"])
def test_damage_to_what_new_shards_would_be_merged_into_is_found(name: str, rewritten: Any) -> None:
    def flip(body: bytes) -> bytes:
        return bytes([body[0] ^ 1]) + body[1:]

    copy = rewritten(f"features.zarr/teachers/{TEACHER}/stats/{name}", flip)
    verdict = verify_cache(opened(copy), VerifyOptions(cache=str(copy)))
    [problem] = verdict.problems
    assert problem.place == f"teachers/{TEACHER}/stats/{name.rpartition('/c')[0]}"
    assert problem.found == "its CRC32C does not match its bytes"


def test_statistics_of_other_features_are_not_merged_into(copied: Path) -> None:
    cache = opened(copied)
    manifest, other = cache.teacher_manifest(TEACHER), cache.teacher_manifest("quarter-mean-fixed")
    assert manifest is not None
    assert other is not None
    assert read_sums(cache, manifest, cache.stats(TEACHER)).views == 16
    shutil.rmtree(copied / f"features.zarr/teachers/{TEACHER}/stats")
    shutil.copytree(
        copied / "features.zarr/teachers/quarter-mean-fixed/stats", copied / f"features.zarr/teachers/{TEACHER}/stats"
    )
    assert read_sums(cache, manifest, cache.stats(TEACHER)) is NO_SUMS


def test_shards_that_came_later_are_unfinished_work_of_inspect(
    copied: Path, pool: MeasurerPool, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = opened(copied)
    measure(cache, NO_SUMS, first_shards(cache), pool)
    assert main(["inspect", "--cache", str(copied)]) == 0
    said = capsys.readouterr().out
    [line] = [line for line in said.splitlines() if line.startswith("  stats ") and "WITHOUT" in line]
    assert " WITHOUT 1 SHARD THAT CAME SINCE, dispersion of summaries " in line
    assert any(line.startswith(f"teachers/{TEACHER}/stats ") for line in said.splitlines())


def test_shards_that_came_later_are_unfinished_work_of_verify_and_no_damage(copied: Path, pool: MeasurerPool) -> None:
    cache = opened(copied)
    measure(cache, NO_SUMS, first_shards(cache), pool)
    verdict = verify_cache(cache, VerifyOptions(cache=str(copied)))
    assert verdict.problems == ()
    units = [unfinished.unit for unfinished in verdict.unfinished]
    assert [unit for unit in units if unit.endswith("/stats")] == [f"teachers/{TEACHER}/stats"]
    assert not any("stats" in name for name in verdict.leftovers)


@given(st.lists(st.integers(1, 50), max_size=200))
def test_branches_hold_every_shard_once_in_order_and_nearly_alike(held: list[int]) -> None:
    views = [(7 + 2 * number, count) for number, count in enumerate(held)]
    found = branches("t", ViewSet(partition="low", resolution=64), views, True)
    assert [shard for task in found for shard in task.shards] == [shard for shard, _ in views]
    assert sum(task.views for task in found) == sum(held)
    assert len(found) == min(BRANCHES, len(held))
    sizes = {len(task.shards) for task in found}
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_a_teacher_without_features_is_refused(copied: Path) -> None:
    with pytest.raises(MissingError, match="teacher nobody is missing"):
        measure_teachers(opened(copied), ["nobody"], LOCAL, str)
