"""An export is a cache of its own: what was selected, bit for bit or encoded in fewer bits, and nothing else."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorstore
import xxhash
import zarr
from extensions import BASE, cut, grown
from stage_runs import LOCAL, StageRun, contents, own, write_colours

from pipeline.__main__ import main
from pipeline.config import Recipe
from pipeline.export.options import ExportOptions
from pipeline.export.stage import export_cache, plan_export
from pipeline.export.tasks import missing_tasks
from pipeline.export.worker import ShardExporter
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.inspect.cache import inspect_cache
from pipeline.inspect.text import cache_lines
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.stats.stage import measure_teachers
from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from pipeline.verify.verdict import Verdict
from pipeline.views.sampling import draw_split
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.commits import read_commit, record_path, to_table
from storage_schemas.format.encodings import INT8_STEP, Coding, as_numbers, as_stored, step_of_fidelity
from storage_schemas.format.errors import (
    AbstractStillhouseError,
    CorruptionError,
    IdentityError,
    MissingError,
    SettingError,
)
from storage_schemas.format.tables import PLACEMENTS, to_parquet
from storage_schemas.objects.store import Store
from trainer.data.source import open_source

RECIPE = replace(
    grown(BASE, heldout=0.3),
    teachers=(
        own("teachers.quarter_mean:QuarterMean", encoding="float32"),
        own("teachers.quarter_mean:QuarterMeanFixed"),
        own("odd_teachers:CanvasSixteen", batch=2, compression="zstd"),
    ),
)
MORE = grown(RECIPE, low=(128, 192), draws=2)
TOLERANT = replace(LOCAL, max_rejected=0.2)
TEACHERS = ("canvas-16", "quarter-mean", "quarter-mean-fixed")
PART: dict[str, Any] = {
    "sets": ("low-128",),
    "split": "train",
    "rows_per_shard": 4,
    "encoding": "int8",
    "compression": "none",
}


@pytest.fixture(scope="module", autouse=True)
def _undurable() -> Iterator[None]:
    """No flushing to the disk, which takes most of the time and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def grown_run(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """A cache of two generations and two sets, of which two images could not be cut; nobody may write into it."""
    root = tmp_path_factory.mktemp("exported")
    data, where = write_colours(root / "images", 16), root / "cache"
    for number in (3, 12):
        (data / f"{number:03d}.png").write_bytes(b"no image")
    cache, specs = Cache(store=Store(uri=str(where))), [teacher_spec(choice) for choice in MORE.teachers]
    for recipe in (RECIPE, MORE):
        make_views(cache, recipe, specs, str(data), TOLERANT, str, extend=recipe is MORE)
        for choice in recipe.teachers:
            extract_teacher(plan_extraction(cache, recipe, choice), TOLERANT, str)
    measure_teachers(cache, ["quarter-mean"], LOCAL, str)
    return StageRun(recipe=MORE, data=data, where=where, said=())


def export(run: StageRun | Path, where: Path | str, **options: Any) -> StageRun:
    """Export a cache."""
    source, said = run.where if isinstance(run, StageRun) else run, list[str]()
    chosen = ExportOptions(cache=str(source), to=str(where), run=LOCAL, **options)
    target = Cache(store=Store(uri=str(where)))
    export_cache(plan_export(Cache(store=Store(uri=str(source))), target, chosen), LOCAL, said.append)
    return StageRun(recipe=MORE, data=None, where=Path(where), said=tuple(said))


def verified(run: StageRun, **options: Any) -> Verdict:
    return verify_cache(run.cache, VerifyOptions(cache=str(run.where), **options))


def keys(run: StageRun) -> list[str]:
    """Keys of all images."""
    return [row["image"] for part in run.parts("images", ".") for row in part.to_pylist()]


def rows_of(run: StageRun, view_set: str) -> dict[tuple[str, int], int]:
    """The row of each view of a set, in order."""
    return {(row["image"], row["draw"]): row["row"] for row in run.table("views", view_set)}


@pytest.fixture(scope="module")
def whole(grown_run: StageRun, tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """All of it, as it is."""
    return export(grown_run, tmp_path_factory.mktemp("whole") / "export", details=True)


@pytest.fixture(scope="module")
def part(grown_run: StageRun, tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """Two teachers' features of most training images in smaller shards and fewer bits."""
    root = tmp_path_factory.mktemp("part")
    (root / "keys.txt").write_text("\n".join(keys(grown_run)[:14]) + "\n\n")
    return export(
        grown_run,
        root / "export",
        teachers=("quarter-mean", "canvas-16"),
        images=str(root / "keys.txt"),
        **PART,
    )


def test_an_export_of_everything_has_the_bytes_of_every_shard_table_and_map(
    grown_run: StageRun, whole: StageRun
) -> None:
    before, after = contents(grown_run.where), contents(whole.where)
    # what says what it was computed from differs, and statistics are to be measured
    differing = {name for name in before if before[name] != after.get(name)}
    manifests = {
        f"features.zarr/{name}/zarr.json" for name in ("views", *(f"teachers/{teacher}" for teacher in TEACHERS))
    }
    assert {name for name in differing if not name.startswith("tables/shards/") and "/stats" not in name} == manifests
    assert {name for name in before if "/stats" in name}
    assert after.keys() == {name for name in before if "/stats" not in name}
    assert "MB of it copied without decoding" in whole.said[1]


def test_a_selection_has_the_views_that_were_selected(grown_run: StageRun, part: StageRun) -> None:
    before, after = rows_of(grown_run, "low-128"), rows_of(part, "low-128")
    wanted = [key for key in before if key[0] in keys(grown_run)[:14] and draw_split(key[0], MORE.views) == "train"]
    assert sorted(after) == sorted(wanted)
    assert 8 < len(wanted) < len(before) - 3
    assert part.sets == ["low-128"]
    rejected = {row["image"] for row in part.table("rejected", "low-128")}
    assert rejected == {
        row["image"]
        for row in grown_run.table("rejected", "low-128")
        if draw_split(row["image"], MORE.views) == "train"
    }
    assert set(keys(part)) == {key for key in keys(grown_run)[:14] if draw_split(key, MORE.views) == "train"}


@pytest.mark.parametrize("teacher", ["quarter-mean", "canvas-16"])
def test_a_selection_has_each_view_s_numbers_in_the_nearest_steps(
    grown_run: StageRun, part: StageRun, teacher: str
) -> None:
    before, after = rows_of(grown_run, "low-128"), rows_of(part, "low-128")
    source, target = (run.arrays[f"teachers/{teacher}/low-128"] for run in (grown_run, part))
    for key, row in after.items():
        expected = as_stored(source["spatial"][before[key]], Coding(encoding="int8", step=INT8_STEP))
        np.testing.assert_array_equal(target["spatial"][row], expected)
        pixels = [run.arrays["views/low-128/pixels"][of] for run, of in ((grown_run, before[key]), (part, row))]
        np.testing.assert_array_equal(pixels[0], pixels[1])
    if teacher == "quarter-mean":
        for key, row in after.items():
            np.testing.assert_array_equal(target["summary"][row], source["summary"][before[key]])
    placed = [
        {run_row["row"]: run_row for run_row in run.table("placements", f"{teacher}/low-128")}
        for run in (grown_run, part)
    ]
    for key, row in after.items():
        assert {**placed[1][row], "row": 0} == {**placed[0][before[key]], "row": 0}


def test_plain_zarr_and_tensorstore_read_an_export(part: StageRun) -> None:
    place = "teachers/quarter-mean/low-128/spatial"
    by_zarr = zarr.open_array(part.where / "features.zarr" / place, mode="r")[...]
    kvstore = {"driver": "file", "path": str(part.where / "features.zarr" / place)}
    by_tensorstore = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result().read().result()
    np.testing.assert_array_equal(by_zarr, by_tensorstore)
    assert by_zarr.dtype == np.int8
    assert (by_zarr != -128).any()


def test_phi_s_is_that_which_was_frozen(grown_run: StageRun, part: StageRun) -> None:
    for name in ("phi_s/mean/c/0", "phi_s/rotation/c/0/0", "phi_s/scale/c", "phi_s/zarr.json"):
        place = f"features.zarr/teachers/canvas-16/{name}"
        assert (part.where / place).read_bytes() == (grown_run.where / place).read_bytes()


def test_an_export_is_verified_inspected_measured_and_trained_on(part: StageRun, tmp_path: Path) -> None:
    run = replace(part, where=Path(shutil.copytree(part.where, tmp_path / "export")))
    verdict = verified(run)
    assert verdict.problems == ()
    assert {facts.unit for facts in verdict.unfinished} == {f"teachers/{name}/stats" for name in run.cache.teachers()}
    assert dict(verdict.leftovers) == {}
    measure_teachers(run.cache, run.cache.teachers(), LOCAL, str)
    facts = inspect_cache(run.cache)
    assert facts.unfinished == ()
    assert facts.exported_from is not None
    assert f"exported from views of identity {facts.exported_from[:12]}" in list(cache_lines(facts))
    assert verified(run).unfinished == ()
    source = open_source(run.cache)
    [view_set] = source.sets
    assert len(source.sets[view_set].rows["train"]) == len(rows_of(run, "low-128"))


def test_an_export_in_fewer_bits_is_what_a_run_in_these_bits_stores(grown_run: StageRun, tmp_path: Path) -> None:
    run = export(grown_run, tmp_path / "export", teachers=("quarter-mean",), encoding="float16", compression="zstd")
    assert verified(run).problems == ()
    for name in grown_run.sets:
        source, target = (of_run.arrays[f"teachers/quarter-mean/{name}/spatial"] for of_run in (grown_run, run))
        rows = list(rows_of(grown_run, name).values())
        np.testing.assert_array_equal(target[...][rows], as_stored(source[...][rows], Coding(encoding="float16")))
        assert target.dtype == np.float16


def test_an_export_of_int8_may_take_coarser_steps_and_no_finer_ones(part: StageRun, tmp_path: Path) -> None:
    chosen = {"teachers": ("quarter-mean",), "rows_per_shard": 5}
    run = export(part, tmp_path / "export", fidelity=100.0, compression="zstd", **chosen)
    assert verified(run).problems == ()
    source, target = (of_run.arrays["teachers/quarter-mean/low-128/spatial"] for of_run in (part, run))
    step = target.attrs["stillhouse"]["step"]
    assert (step, target.dtype) == (step_of_fidelity(100), np.int8)
    placed = rows_of(part, "low-128")
    rows, before = list(rows_of(run, "low-128").values()), [placed[key] for key in rows_of(run, "low-128")]
    numbers = as_numbers(source[...][before], Coding(encoding="int8", step=INT8_STEP))
    np.testing.assert_array_equal(target[...][rows], as_stored(numbers, Coding(encoding="int8", step=step)))
    assert run.cache.array("teachers/quarter-mean/low-128/spatial", {}).spec.level == 1
    [_, line, *_] = refusal(SettingError, lambda: export(run, tmp_path / "finer", step=0.1))
    assert line.startswith("quarter-mean: is stored in steps of 0.346: steps of 0.1 would add bytes and no precision")
    kept = export(run, tmp_path / "kept")
    array = "features.zarr/teachers/quarter-mean/low-128/spatial"
    assert contents(kept.where / array) == contents(run.where / array)


def test_an_export_to_latents_is_small_verified_and_as_near_as_was_asked_for(
    grown_run: StageRun, tmp_path: Path
) -> None:
    chosen = {"teachers": ("quarter-mean",), "encoding": "pca8", "fidelity": 30.0, "compression": "zstd"}
    run, again = export(grown_run, tmp_path / "export", **chosen), export(grown_run, tmp_path / "again", **chosen)
    assert verified(run).problems == ()
    assert contents(again.where) == contents(run.where)
    errors = []
    for name in grown_run.sets:
        rows = list(zip(rows_of(grown_run, name).values(), rows_of(run, name).values(), strict=True))
        exact = np.stack([grown_run.arrays[f"teachers/quarter-mean/{name}/spatial"][before] for before, _ in rows])
        coding = run.cache.coding(run.cache.array(f"teachers/quarter-mean/{name}/spatial", {}).spec)
        read = run.arrays[f"teachers/quarter-mean/{name}/spatial"][...][[after for _, after in rows]]
        errors.append(((as_numbers(read, coding) - exact) ** 2, exact**2))
    error, power = (np.concatenate([part.ravel() for part in parts]).mean() for parts in zip(*errors, strict=True))
    assert 28 < power / error < 60
    kept = export(run, tmp_path / "kept")
    assert verified(kept).problems == ()
    for place in ("teachers/quarter-mean/low-128/spatial/c", "teachers/quarter-mean/latents"):
        assert contents(kept.where / "features.zarr" / place) == contents(run.where / "features.zarr" / place)
    for options, said in (
        ({"encoding": "int8"}, "quarter-mean: is stored as pca8: int8 would add bytes and no precision"),
        ({"fidelity": 10.0}, "quarter-mean: is stored as pca8 at fidelity 30, and latents are not rounded twice"),
    ):
        [_, line, *_] = refusal(SettingError, lambda options=options: export(run, tmp_path / "other", **options))
        assert line.startswith(said)
    unmeasured = replace(run, where=Path(shutil.copytree(grown_run.where, tmp_path / "unmeasured")))
    shutil.rmtree(unmeasured.where / "features.zarr/teachers/quarter-mean/stats")
    [_, line] = refusal(MissingError, lambda: export(unmeasured, tmp_path / "other", **chosen))
    assert line.startswith("teachers/quarter-mean/stats: latents are chosen from the statistics of these features")


@pytest.mark.slow
def test_an_export_of_an_export_is_the_export_of_both_selections(
    grown_run: StageRun, part: StageRun, tmp_path: Path
) -> None:
    first = export(grown_run, tmp_path / "first", sets=("low-128",), tokens_per_shard=128)
    second = export(
        first,
        tmp_path / "second",
        teachers=("quarter-mean", "canvas-16"),
        images=str(part.where.parent / "keys.txt"),
        **PART,
    )
    before, after = contents(part.where), contents(second.where)
    differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    # what says what it was taken of, and every record, which holds the digest of that
    assert {name for name in differing if not name.startswith("tables/shards/")} == {
        f"features.zarr/{name}/zarr.json" for name in ("views", "teachers/quarter-mean", "teachers/canvas-16")
    }
    assert verified(second).problems == ()


@final
class KilledError(Exception):
    """The end of a process, as far as what it wrote can tell."""


MOMENTS = [20, *(pytest.param(moment, marks=pytest.mark.slow) for moment in (0, 1, 4, 9, 33))]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_was_cut_short_ends_in_the_same_bytes(
    grown_run: StageRun, part: StageRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    options = {"teachers": ("quarter-mean", "canvas-16"), "images": str(part.where.parent / "keys.txt"), **PART}
    rename, left = os.replace, iter(range(moment))

    def dying(*paths: Any) -> None:
        if next(left, None) is None:
            raise KilledError
        rename(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(KilledError):
            export(grown_run, tmp_path / "export", **options)
    begun = contents(tmp_path / "export")
    again = export(grown_run, tmp_path / "export", **options)
    assert contents(again.where) == contents(part.where)
    assert begun.items() <= contents(part.where).items()
    third = export(grown_run, tmp_path / "export", **options)
    assert third.said == (
        f"export: complete, nothing to do (17 views of 2 teachers at {again.where})",
        f"export: 2 views are rejected, since their images are unusable; `make inspect CACHE={again.where} "
        "ARGS=--rejected` lists the images",
    )


def test_a_teacher_may_join_an_export_later(grown_run: StageRun, whole: StageRun, tmp_path: Path) -> None:
    export(grown_run, tmp_path / "export", teachers=("canvas-16",))
    export(grown_run, tmp_path / "export", teachers=("quarter-mean", "quarter-mean-fixed"), details=True)
    assert contents(tmp_path / "export") == contents(whole.where)


def refusal(kind: type[AbstractStillhouseError], act: Callable[[], Any]) -> list[str]:
    """The lines of a refusal."""
    with pytest.raises(kind) as refused:
        act()
    return str(refused.value).split("\n  ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sets": ("low-64",)}, "low-64: is not in this cache (it has low-128, low-192)"),
        ({"teachers": ("sam3",)}, "sam3: is not in this cache (it has canvas-16, quarter-mean, quarter-mean-fixed)"),
        (
            {"encoding": "float32"},
            "canvas-16: is stored as float16: float32 would add bytes and no precision "
            "(export it with --encoding keep; --teachers names the others, which can be added to the export later)",
        ),
    ],
)
def test_what_is_not_there_is_refused(grown_run: StageRun, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    assert said in refusal(SettingError, lambda: export(grown_run, tmp_path / "export", **options))
    assert not (tmp_path / "export").exists()


def test_the_command_line_exports_and_asks_where_to(
    grown_run: StageRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "--cache", str(grown_run.where), "--run.executor", "local", "--teachers", "canvas-16"]
    assert main(command) == 2
    assert capsys.readouterr().err == "error: TO cannot be used:\n  --to: is not given (make … TO=…)\n"
    assert main([*command, "--to", str(tmp_path / "e"), "--run.report", str(tmp_path / "run.json")]) == 0
    assert capsys.readouterr().out.startswith("export: 37 views of 1 teachers; ")
    figures = json.loads((tmp_path / "run.json").read_text())["stages"]["export"]
    assert (figures["state"], figures["views_done"]) == ("done", figures["views_total"])
    assert main([*command, "--to", "x", "--rows-per-shard", "3", "--tokens-per-shard", "9"]) == 2


def test_keys_that_the_cache_does_not_have_are_named(grown_run: StageRun, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("000.png\nno-such.png\n")
    said = refusal(SettingError, lambda: export(grown_run, tmp_path / "e", images=str(tmp_path / "keys.txt")))
    assert said[1] == "no-such.png: this cache has no views of such an image"
    (tmp_path / "keys.txt").write_text("")
    said = refusal(SettingError, lambda: export(grown_run, tmp_path / "e", images=str(tmp_path / "keys.txt")))
    assert said[1].startswith("--sets, --split, --images: select no view of this cache")
    said = refusal(MissingError, lambda: export(grown_run, tmp_path / "e", images=str(tmp_path / "none.txt")))
    assert said[1] == f"{tmp_path / 'none.txt'}: does not exist"


def test_a_target_that_is_not_apart_or_not_empty_is_refused(grown_run: StageRun, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(grown_run.where)
    for where in (grown_run.where, grown_run.where / "inside", grown_run.where.parent, tmp_path / "link"):
        said = refusal(SettingError, lambda where=where: export(grown_run, where))
        assert said[1] == (f"{where}: overlaps the cache that is exported, {grown_run.where} (point TO at a new place)")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    said = refusal(IdentityError, lambda: export(grown_run, tmp_path / "full"))
    assert said[1] == f"{tmp_path / 'full'}: is not empty, and is not a cache (point TO at a new place)"
    assert list(contents(tmp_path / "full")) == ["notes.txt"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rows_per_shard": 5}, "identity.export.sets.low-128: the cache has 9, this run has 5"),
        ({"split": "heldout"}, "identity.images.count: the cache has 16, this run has 4"),
        ({"encoding": "int8"}, 'identity.encoding: the cache has "float16", this run has "int8"'),
        ({"compression": "zstd"}, 'identity.compression: the cache has "none", this run has "zstd"'),
    ],
)
def test_another_export_into_the_same_place_is_refused_with_both_values(
    grown_run: StageRun, whole: StageRun, options: dict[str, Any], said: str
) -> None:
    before = contents(whole.where)
    teachers = ("quarter-mean-fixed",)
    lines = refusal(IdentityError, lambda: export(grown_run, whole.where, teachers=teachers, **options))
    assert said in lines
    assert lines[-1] == "what to do: use the settings that this export was begun with, or point TO at a new place"
    assert contents(whole.where) == before


def test_an_export_into_a_cache_that_is_none_is_refused(grown_run: StageRun, tmp_path: Path) -> None:
    cut(RECIPE, write_colours(tmp_path / "images", 10), tmp_path / "cache", extend=False)
    said = refusal(IdentityError, lambda: export(grown_run, tmp_path / "cache"))
    assert any(line.startswith("identity.export.source: the cache has nothing, this run has") for line in said)


def test_what_is_not_complete_is_not_exported(grown_run: StageRun, tmp_path: Path) -> None:
    where = Path(shutil.copytree(grown_run.where, tmp_path / "cache"))
    (where / "tables/shards/teachers/quarter-mean/low-128/00001.parquet").unlink()
    said = refusal(MissingError, lambda: export(where, tmp_path / "export"))
    assert said[1].startswith("teachers/quarter-mean/low-128: 1 of 3 shards are not committed (run `make extract ")
    assert not (tmp_path / "export").exists()
    export(where, tmp_path / "export", teachers=("canvas-16",))
    shutil.rmtree(where / "tables/shards/views/low-128/detail")
    shutil.rmtree(where / "tables/shards/views/low-192/detail")
    more = {"teachers": ("quarter-mean-fixed",), "details": True}
    said = refusal(MissingError, lambda: export(where, tmp_path / "export", **more))
    assert said[1].startswith("quarter-mean-fixed: has no details in this cache (leave --details out")


def test_a_flipped_bit_of_the_source_is_found_and_its_shard_is_not_committed(
    grown_run: StageRun, tmp_path: Path
) -> None:
    where = Path(shutil.copytree(grown_run.where, tmp_path / "cache"))
    shard = where / "features.zarr/teachers/quarter-mean-fixed/low-128/spatial/c/1/0/0/0"
    body = bytearray(shard.read_bytes())
    body[100] ^= 1
    shard.write_bytes(body)
    said = refusal(CorruptionError, lambda: export(where, tmp_path / "export", teachers=("quarter-mean-fixed",)))
    assert said[1].startswith("teachers/quarter-mean-fixed/low-128/spatial shard 1 row 9: its CRC32C does not match")
    done = [name for name in contents(tmp_path / "export") if name.startswith("tables/shards/teachers/")]
    assert done == ["tables/shards/teachers/quarter-mean-fixed/low-128/00000.parquet"]
    assert not list((tmp_path / "export").glob("features.zarr/teachers/*/*/spatial/c/1/**/*.partial"))


def test_workers_and_their_tasks_travel(grown_run: StageRun, tmp_path: Path) -> None:
    options = ExportOptions(cache=str(grown_run.where), to=str(tmp_path / "export"), teachers=("canvas-16",))
    plan = plan_export(grown_run.cache, Cache(store=Store(uri=str(tmp_path / "export"))), options)
    [task, *_] = missing_tasks(plan.source, plan.views, plan.target, plan.exported, plan.pairs)
    factory = partial(ShardExporter, source=plan.source.store, target=plan.target.store)
    worker, sent = pickle.loads(pickle.dumps(factory))(), pickle.loads(pickle.dumps(task))
    assert worker.export(sent).views == len(task.rows)


def test_nothing_is_cut_or_extracted_into_what_was_exported(part: StageRun, tmp_path: Path) -> None:
    run = replace(part, where=Path(shutil.copytree(part.where, tmp_path / "export")))
    before = contents(run.where)
    specs = [teacher_spec(choice) for choice in MORE.teachers]
    said = refusal(SettingError, lambda: make_views(run.cache, MORE, specs, "", LOCAL, str, extend=True))
    assert "is an export, which cannot be extended" in said[1]
    said = refusal(SettingError, lambda: make_views(run.cache, MORE, specs, "", LOCAL, str))
    assert "is an export, and canvases or details of a teacher are missing" in said[1]
    again = MORE.teachers[0]
    said = refusal(IdentityError, lambda: extract_teacher(plan_extraction(run.cache, MORE, again), LOCAL, str))
    assert said[1].startswith("teachers/quarter-mean: was exported from another cache; only that cache can extract it")
    assert contents(run.where) == before


def test_another_teacher_may_be_run_over_exported_views(part: StageRun, tmp_path: Path) -> None:
    run = replace(part, where=Path(shutil.copytree(part.where, tmp_path / "export")))
    choice = own("odd_teachers:CanvasSixteen", name="another", batch=2)
    recipe = Recipe(name=MORE.name, views=MORE.views, teachers=(choice,), calibration=MORE.calibration)
    extract_teacher(plan_extraction(run.cache, recipe, choice), LOCAL, str)
    assert verified(run).problems == ()
    again = verified(run, teacher="another", source="odd_teachers:CanvasSixteen", recompute=100)
    assert again.problems == ()
    assert [(recomputed.views, recomputed.left_out) for recomputed in again.recomputed] == [
        (len(rows_of(run, "low-128")), 0)
    ]


def test_only_views_of_whole_mosaics_and_with_details_are_run_again(whole: StageRun, part: StageRun) -> None:
    source = "odd_teachers:CanvasSixteen"
    for run, least, most in ((whole, 9, 30), (part, 0, 0)):
        verdict = verified(run, teacher="canvas-16", source=source, recompute=1000)
        assert verdict.problems == ()
        [again] = verdict.recomputed
        views = sum(len(rows_of(run, name)) for name in run.sets)
        assert least <= again.views <= most
        assert again.left_out == views - again.views > 0
    [again] = verified(
        part, teacher="quarter-mean", source="teachers.quarter_mean:QuarterMean", recompute=99
    ).recomputed
    assert (again.views, again.left_out) == (len(rows_of(part, "low-128")), 0)
    assert again.largest_error < 0.01


def test_a_fixed_teacher_without_details_is_not_run_again(grown_run: StageRun, tmp_path: Path) -> None:
    run = export(grown_run, tmp_path / "export", teachers=("quarter-mean-fixed",))
    source = "teachers.quarter_mean:QuarterMeanFixed"
    verdict = verified(run, teacher="quarter-mean-fixed", source=source, recompute=5)
    assert verdict.problems == ()
    views = sum(len(rows_of(run, name)) for name in run.sets)
    assert [(recomputed.views, recomputed.left_out) for recomputed in verdict.recomputed] == [(0, views)]


def test_a_cell_that_no_mosaic_of_the_source_drew_is_found(whole: StageRun, tmp_path: Path) -> None:
    where = Path(shutil.copytree(whole.where, tmp_path / "export"))
    name = "tables/placements/canvas-16/low-128/00000.parquet"
    rows = pq.ParquetFile(where / name).read(use_threads=False).to_pylist()
    rows[0]["cell"], rows[1]["cell"] = rows[1]["cell"], rows[0]["cell"]
    body = to_parquet(pa.Table.from_pylist(rows, PLACEMENTS))
    (where / name).write_bytes(body)
    store = Store(uri=str(where))
    unit = "teachers/canvas-16/low-128"
    records = [
        replace(record, bytes=len(body), xxh3=xxhash.xxh3_128(body).hexdigest()) if record.path == name else record
        for record in read_commit(store, unit, 0)
    ]
    (where / record_path(unit, 0)).write_bytes(to_parquet(to_table(records)))
    problems = [str(problem) for problem in verify_cache(Cache(store=store), VerifyOptions()).problems]
    assert len(problems) == 1
    assert problems[0].startswith(f"{name} row 1: is not in a cell that is drawn for it")


def test_an_export_goes_to_any_store_and_back(grown_run: StageRun, tmp_path: Path) -> None:
    options: dict[str, Any] = {"teachers": ("quarter-mean",), "sets": ("low-128",)}
    uri = f"memory://export-{tmp_path.name}"
    local = export(grown_run, tmp_path / "local", **options)
    chosen = ExportOptions(cache=str(grown_run.where), to=uri, run=LOCAL, **options)
    there = Cache(store=Store(uri=uri))
    export_cache(plan_export(grown_run.cache, there, chosen), LOCAL, str)
    assert {name: there.store.read(name) for name in there.store.listing("")} == {
        name: (local.where / name).read_bytes() for name in contents(local.where)
    }
    back = Cache(store=Store(uri=str(tmp_path / "back")))
    export_cache(plan_export(there, back, replace(chosen, cache=uri, to=back.store.uri)), LOCAL, str)
    assert verify_cache(back, VerifyOptions()).problems == ()


@pytest.mark.parametrize(("teacher", "compression"), [("quarter-mean", "zstd"), ("canvas-16", "none")])
def test_an_export_in_another_codec_alone_is_what_its_metadata_says(
    grown_run: StageRun, tmp_path: Path, teacher: str, compression: str
) -> None:
    done = export(grown_run, tmp_path / "export", teachers=(teacher,), sets=("low-128",), compression=compression)
    assert "0.0 MB of it copied without decoding" not in done.said[1]  # the canvases are
    ours = done.arrays[f"teachers/{teacher}/low-128/spatial"]
    theirs = grown_run.arrays[f"teachers/{teacher}/low-128/spatial"]
    assert (ours.dtype, len(ours.metadata.codecs[0].codecs)) == (theirs.dtype, 3 if compression == "zstd" else 2)
    np.testing.assert_array_equal(ours[:], theirs[:])
    assert verified(done).problems == ()
