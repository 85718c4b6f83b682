"""`inspect` says what is on the disk, the same as text and as JSON, and which command finishes what is unfinished."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from pipeline.__main__ import main
from pipeline.config import RunConfig
from pipeline.inspect.cache import inspect_cache
from pipeline.inspect.facts import CacheFacts
from pipeline.inspect.text import cache_lines
from pipeline.inspect.view import view_facts
from pipeline.stats.facts import paper_name
from pipeline.text_table import sized
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, MissingError, SettingError
from storage_schemas.format.seal import sealed, unsealed
from storage_schemas.format.stats import PAPER_DISPERSIONS
from storage_schemas.objects.publish import publish_group
from storage_schemas.objects.store import Store
from teachers.source import spec_of

Rewrite = Callable[[str, Callable[[bytes], bytes]], Path]
SETS = ("high-256", "low-192")
TEACHERS = ("dinov3", "quarter-mean-canvas", "quarter-mean-fixed")


def opened(cache: Path) -> Cache:
    return Cache(store=Store(uri=str(cache)))


@pytest.fixture(scope="module")
def facts(small_run: Any) -> CacheFacts:
    return inspect_cache(opened(small_run.cache))


@pytest.fixture(scope="module")
def text(facts: CacheFacts) -> list[str]:
    return list(cache_lines(facts))


def array_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "c").rglob("*") if path.is_file())


def rows(folder: Path) -> int:
    return sum(pq.read_table(path).num_rows for path in folder.glob("*.parquet"))


def test_view_sets_are_as_they_lie_on_the_disk(facts: CacheFacts, small_run: Any) -> None:
    cache = small_run.cache
    assert tuple(view_set.name for view_set in facts.view_sets) == SETS
    for view_set in facts.view_sets:
        records = list((cache / "tables/shards/views" / view_set.name).glob("*.parquet"))
        assert (view_set.cut, view_set.rejected) == (rows(cache / f"tables/views/{view_set.name}"), 0)
        assert view_set.drawn == view_set.cut
        assert view_set.committed == view_set.shards == len(records)
        assert view_set.bytes == array_bytes(cache / f"features.zarr/views/{view_set.name}/pixels")
        detail, waiting = view_set.details
        assert (detail.teacher, waiting.teacher) == ("quarter-mean-fixed", "siglip2")
        assert (waiting.committed, waiting.bytes) == (0, 0)
        assert detail.bytes == array_bytes(cache / f"features.zarr/views/{view_set.name}/detail/quarter-mean-fixed")
        assert detail.committed == detail.shards == view_set.shards
    assert sum(view_set.cut for view_set in facts.view_sets) == 16
    assert facts.images == 8


def test_teachers_are_as_they_lie_on_the_disk(facts: CacheFacts, small_run: Any) -> None:
    assert tuple(teacher.name for teacher in facts.teachers) == TEACHERS
    for teacher in facts.teachers:
        folder = small_run.cache / "features.zarr/teachers" / teacher.name
        for features in teacher.sets:
            spatial = zarr.open_array(folder / features.view_set / "spatial", mode="r")
            assert features.tokens == spatial.shape[1]
            assert teacher.dim == spatial.shape[3]
            assert teacher.encoding == str(spatial.dtype)
            assert features.bytes == sum(
                array_bytes(folder / features.view_set / array)
                for array in ("spatial", "summary")
                if (folder / features.view_set / array).exists()
            )
            assert features.views == rows(small_run.cache / "tables/placements" / teacher.name / features.view_set)
        assert teacher.bytes == sum(features.bytes for features in teacher.sets)
        assert teacher.summary_dim is None or (folder / "low-192/summary").exists()
        assert teacher.phi_s.scale == float(zarr.open_array(folder / "phi_s/scale", mode="r")[()])


def test_identities_are_the_digests_that_the_records_carry(facts: CacheFacts, small_run: Any) -> None:
    def carried(unit: str) -> set[str]:
        folder = small_run.cache / "tables/shards" / unit
        return {digest for path in folder.glob("*.parquet") for digest in pq.read_table(path)["identity"].to_pylist()}

    assert carried("views/low-192") == {facts.identity}
    for teacher in facts.teachers:
        assert carried(f"teachers/{teacher.name}/low-192") == {teacher.identity}


def test_residuals_and_dispersion_are_what_stats_stored(facts: CacheFacts, small_run: Any) -> None:
    for teacher in facts.teachers:
        stats, folder = teacher.stats, small_run.cache / "features.zarr/teachers" / teacher.name / "stats"
        assert stats is not None
        assert stats.current
        assert stats.views == 16
        assert [residual.view_set for residual in stats.residuals] == [*SETS, "all"]
        for residual in stats.residuals:
            where = folder if residual.view_set == "all" else folder / residual.view_set
            mean = zarr.open_array(where / "mean", mode="r")[...]
            variance = zarr.open_array(where / "variance", mode="r")[...]
            assert residual.mean == pytest.approx(np.sqrt((np.asarray(mean) ** 2).mean()), rel=1e-12)
            assert residual.variance == pytest.approx(np.asarray(variance).mean() - 1, rel=1e-9, abs=1e-12)
        if teacher.summary_dim is None:
            assert stats.dispersion is None
        else:
            assert stats.dispersion == float(zarr.open_array(folder / "dispersion", mode="r")[()])


def test_the_text_of_view_sets_says_the_json_s_numbers(facts: CacheFacts, text: list[str]) -> None:
    written = json.loads(json.dumps(asdict(facts)))
    lines = {line.split()[0]: line for line in text[3:5]}
    for view_set in written["view_sets"]:
        details = [
            [f"{each['committed']}/{each['shards']},", *sized(each["bytes"]).split()] for each in view_set["details"]
        ]
        assert len(details) == 2
        assert lines[view_set["name"]].split() == [
            view_set["name"],
            str(view_set["side"]),
            "px",
            str(view_set["drawn"]),
            str(view_set["cut"]),
            str(view_set["rejected"]),
            str(view_set["rows_per_shard"]),
            f"{view_set['committed']}/{view_set['shards']}",
            *sized(view_set["bytes"]).split(),
            *details[0],
            *details[1],
        ]


def test_the_text_of_a_teacher_says_the_json_s_facts(facts: CacheFacts, text: list[str]) -> None:
    written = json.loads(json.dumps(asdict(facts)))["teachers"][0]
    start = next(number for number, line in enumerate(text) if line.startswith("teacher dinov3"))
    [computed_by] = written["computed_by"]
    assert computed_by["libraries"].keys() == {"timm", "torch"}
    libraries = ", ".join(f"{name} {version}" for name, version in computed_by["libraries"].items())
    assert text[start : start + 8] == [
        "teacher dinov3: RANDOM WEIGHTS, a demonstration, not a teacher",
        f"  model    {written['model']}: 96 channels, summaries of 96, patch 16, any size",
        f"  licence  {written['licence']}",
        f"  weights  {written['weights_sha256'][:12]}, run in fp32, 16 inputs a forward",
        f"  computed by {libraries}",
        f"  stored   {sized(written['bytes'])} in float16, identity {written['identity'][:12]}",
        f"  PHI-S    φ = {written['phi_s']['scale']:.4g}, fitted on {written['phi_s']['tokens']:,} tokens",
        f"  stats    16 views, dispersion of summaries {written['stats']['dispersion']:.4g} rad² "
        f"(of held-out views {written['stats']['heldout_dispersion']:.4g})",
    ]
    for row, features, residual in zip(
        text[start + 9 : start + 11], written["sets"], written["stats"]["residuals"], strict=False
    ):
        assert row.split() == [
            features["view_set"],
            *f"{features['tokens']} × {features['tokens']}".split(),
            str(features["views"]),
            f"{features['committed']}/{features['shards']}",
            *sized(features["bytes"]).split(),
            f"{residual['tokens']:,}",
            f"{residual['mean']:.4f}",
            f"{residual['variance']:+.4f}",
            f"{residual['deviation']:.4f}",
            f"{residual['effective_rank']:.1f}",
        ]


def test_the_text_tells_the_size_rules_and_encodings_apart(text: list[str]) -> None:
    said = "\n".join(text)
    assert "quarter_mean: 12 channels, summaries of 12, patch 16, 192 px alone (fixed)" in said
    assert "quarter_mean: 12 channels, no summary, patch 14, 336 px alone (canvas)" in said
    assert "teacher quarter-mean-canvas\n" in said
    assert " in float16, zstd, identity " in said
    assert " in float32, identity " in said


def test_json_and_text_come_from_the_same_facts(
    small_run: Any, facts: CacheFacts, text: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "--cache", str(small_run.cache), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(asdict(facts)))
    assert main(["inspect", "--cache", str(small_run.cache)]) == 0
    assert capsys.readouterr().out == "\n".join(text) + "\n"


def test_teachers_of_the_recipe_that_were_not_started_are_unfinished(facts: CacheFacts, text: list[str]) -> None:
    assert {(left.unit, left.done) for left in facts.unfinished} == {
        (unit, 0)
        for view_set in SETS
        for unit in (
            f"views/{view_set}/detail/siglip2",
            f"teachers/siglip2/{view_set}",
            f"teachers/sam3/{view_set}",
        )
    }
    extract = f"make extract RECIPE=demo CACHE={facts.cache} TEACHER=sam3"
    assert {left.command for left in facts.unfinished if "sam3" in left.unit} == {extract}
    assert any(line.split()[:2] == ["teachers/sam3/low-192", "0/2"] and line.endswith(extract) for line in text)


def test_lost_records_are_unfinished_units_with_the_commands_that_finish_them(copied: Path) -> None:
    seen = "teachers/quarter-mean-fixed/low-192"
    for unit in ("views/low-192", "teachers/dinov3/low-192", "views/low-192/detail/quarter-mean-fixed", seen):
        (copied / f"tables/shards/{unit}/00001.parquet").unlink()
    facts = inspect_cache(opened(copied))
    left = {entry.unit: entry for entry in facts.unfinished if entry.done}
    recipe = f"RECIPE=demo CACHE={copied}"
    own = f"make extract {recipe} TEACHER=<module:Class of quarter-mean-fixed>"
    assert {unit: (entry.done, entry.of, entry.command) for unit, entry in left.items()} == {
        "views/low-192": (1, 2, f"make views {recipe} DATA=…"),
        "views/low-192/detail/quarter-mean-fixed": (1, 2, f"{own} DATA=…"),
        seen: (1, 2, own),
        "teachers/dinov3/low-192": (1, 2, f"make extract {recipe} TEACHER=dinov3"),
    }
    [low] = [view_set for view_set in facts.view_sets if view_set.name == "low-192"]
    assert (low.committed, low.shards, low.cut) == (1, 2, 8)


def test_features_that_were_not_measured_say_so_and_name_the_command(copied: Path) -> None:
    shutil.rmtree(copied / "features.zarr/teachers/dinov3/stats")
    facts = inspect_cache(opened(copied))
    assert facts.teachers[0].stats is None
    assert "  stats    not measured" in list(cache_lines(facts))
    [waiting] = [left for left in facts.unfinished if left.unit.endswith("/stats")]
    assert (waiting.unit, waiting.done, waiting.of) == ("teachers/dinov3/stats", 0, 1)
    assert waiting.command == f"make stats CACHE={copied} TEACHER=dinov3"


def test_statistics_of_other_features_say_so(rewritten: Rewrite) -> None:
    def age(body: bytes) -> bytes:
        document = json.loads(body)
        values = unsealed(document["attributes"]["stillhouse"], "stats") | {"identity": "0" * 64}
        document["attributes"]["stillhouse"] = sealed(values)
        return json.dumps(document).encode()

    facts = inspect_cache(opened(rewritten("features.zarr/teachers/dinov3/stats/zarr.json", age)))
    assert any("16 views OF OTHER FEATURES THAN THESE, dispersion" in line for line in cache_lines(facts))
    assert "teachers/dinov3/stats" in [left.unit for left in facts.unfinished]


@pytest.mark.parametrize(
    ("source", "paper"),
    [("siglip2-g-384", "SigLIP2-g-384"), ("dinov3-h-plus", "DINOv3-H+"), ("dinov3-7b", "DINOv3-7B")],
)
def test_a_model_of_the_report_is_known_under_any_name_but_not_as_noise(source: str, paper: str) -> None:
    assert paper_name(spec_of(source, name="mine")) == paper
    assert paper_name(spec_of(source, random_weights=True)) is None


@pytest.mark.parametrize("source", ["dinov3-l", "sam3", "siglip2-tiny", "dinov3-tiny", "siglip2-so400m-384"])
def test_a_model_that_is_not_in_the_report_has_no_name_there(source: str) -> None:
    assert paper_name(spec_of(source)) is None


def test_the_report_s_dispersion_stands_beside_ours(facts: CacheFacts) -> None:
    teacher = facts.teachers[0]
    assert teacher.stats is not None
    stats = replace(
        teacher.stats,
        paper_model="DINOv3-7B",
        paper_dispersion=PAPER_DISPERSIONS["DINOv3-7B"],
        dispersion=2.2,
        heldout_dispersion=2.1,
    )
    lines = list(cache_lines(replace(facts, teachers=(replace(teacher, stats=stats),))))
    beside = "(of held-out views 2.1; the report has 2.186 for DINOv3-7B)"
    assert f"  stats    16 views, dispersion of summaries 2.2 rad² {beside}" in lines


def test_a_cache_before_its_first_view_says_what_comes_next(tmp_path: Path) -> None:
    publish_group(Store(uri=str(tmp_path)), "", {"format": 1, "recipe": "small"})
    facts = inspect_cache(opened(tmp_path))
    assert (facts.identity, facts.view_sets, facts.teachers) == (None, (), ())
    assert list(cache_lines(facts)) == [
        f"{tmp_path}: recipe small, format 1, no views yet, 0 images",
        "",
        "unfinished  done  finished by",
        f"views       0/1   make views RECIPE=small CACHE={tmp_path} DATA=…",
    ]


def test_a_view_s_facts_are_its_rows_and_numpy_s_numbers(small_run: Any) -> None:
    found = view_facts(opened(small_run.cache), "low-192/9")
    features = zarr.open_group(small_run.cache / "features.zarr", mode="r")
    table = pq.read_table(small_run.cache / "tables/views/low-192/00001.parquet").to_pylist()
    assert (found.shard, found.row, found.view_set) == (1, 9, "low-192")
    assert found.view == table[1]
    for teacher in TEACHERS:
        placements = small_run.cache / f"tables/placements/{teacher}/low-192/00001.parquet"
        assert found.placements[teacher] == pq.read_table(placements).to_pylist()[1]
    assert [array.array for array in found.arrays] == [
        "views/low-192/pixels",
        "views/low-192/detail/quarter-mean-fixed",
        "teachers/dinov3/low-192/spatial",
        "teachers/dinov3/low-192/summary",
        "teachers/quarter-mean-canvas/low-192/spatial",
        "teachers/quarter-mean-fixed/low-192/spatial",
        "teachers/quarter-mean-fixed/low-192/summary",
    ]
    for array in found.arrays:
        entry = np.asarray(features[array.array][9])
        assert (array.dtype, array.shape) == (str(entry.dtype), entry.shape)
        expected = [float(entry.min()), float(entry.max()), entry.mean(dtype=float), entry.std(dtype=float)]
        assert [array.min, array.max, array.mean, array.std] == pytest.approx(expected, rel=1e-9)


def test_a_view_s_text_says_its_json_s_facts(small_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["inspect", "--cache", str(small_run.cache), "--view", "high-256/0"]
    assert main([*arguments, "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{small_run.cache}: view high-256/0, in shard 0"
    columns = dict(line.split(maxsplit=1) for line in lines[2:14])
    assert columns == {name: str(value) for name, value in written["view"].items()}
    said = {line.split()[0]: line.split()[1:] for line in lines if line}
    for array in written["arrays"]:
        shape = " × ".join(map(str, array["shape"])).split()
        numbers = [f"{array[name]:.5g}" for name in ("min", "max", "mean", "std")]
        assert said[array["array"]] == [array["dtype"], *shape, *numbers]
    for teacher, placement in written["placements"].items():
        assert said[teacher] == [str(value) for value in placement.values() if value is not None]


@pytest.mark.parametrize("view", ["low-192", "low-192/", "low-192/x", "low-192/-1", "low-128/0", "/0"])
def test_what_names_no_view_is_refused(view: str, small_run: Any) -> None:
    with pytest.raises(SettingError) as refusal:
        view_facts(opened(small_run.cache), view)
    assert str(refusal.value) == (
        f"--view cannot be used:\n  {view}: names no view of this cache "
        "(give a set and a row, as in high-256/0; there are high-256, low-192)"
    )


def test_a_row_beyond_a_set_is_refused(small_run: Any, facts: CacheFacts) -> None:
    drawn = facts.view_sets[1].drawn
    with pytest.raises(SettingError, match=f"low-192/{drawn}: low-192 has rows 0 to {drawn - 1}"):
        view_facts(opened(small_run.cache), f"low-192/{drawn}")


def test_a_view_of_a_shard_that_was_never_committed_is_refused(copied: Path) -> None:
    (copied / "tables/shards/views/low-192/00001.parquet").unlink()
    with pytest.raises(MissingError, match=r"low-192/9: shard 1 of low-192 is not committed \(run `make views`"):
        view_facts(opened(copied), "low-192/9")


def test_a_view_shows_only_what_is_committed_of_it(copied: Path) -> None:
    (copied / "tables/shards/teachers/dinov3/low-192/00001.parquet").unlink()
    found = view_facts(opened(copied), "low-192/9")
    assert sorted(found.placements) == ["quarter-mean-canvas", "quarter-mean-fixed"]
    assert not any("dinov3" in array.array for array in found.arrays)


def test_rejected_views_are_counted_and_their_slots_hold_no_view(small_run: Any, tmp_path: Path) -> None:
    data = tmp_path / "images"
    shutil.copytree(small_run.data, data)
    (data / "image-3.png").write_bytes(b"no image")
    cache, run = opened(tmp_path / "cache"), RunConfig(executor="local", max_rejected=1.0)
    make_views(cache, replace(small_run.recipe, teachers=()), [], str(data), run, str)
    facts = inspect_cache(cache)
    assert sum(view_set.rejected for view_set in facts.view_sets) == 2
    assert sum(view_set.cut for view_set in facts.view_sets) == 14
    [first, *_] = (view_set for view_set in facts.view_sets if view_set.rejected)
    empty = next(row for row in range(first.drawn) if not filled(tmp_path / "cache/tables/views" / first.name, row))
    with pytest.raises(MissingError, match="this row slot has no view: some views of its shard were rejected"):
        view_facts(cache, f"{first.name}/{empty}")


def filled(folder: Path, row: int) -> bool:
    return any(row in pq.read_table(path)["row"].to_pylist() for path in folder.glob("*.parquet"))


def test_a_shard_of_another_identity_is_refused(copied: Path) -> None:
    record = copied / "tables/shards/teachers/dinov3/low-192/00001.parquet"
    other = copied / "tables/shards/teachers/quarter-mean-canvas/low-192/00001.parquet"
    body = other.read_bytes()
    record.unlink()
    record.write_bytes(body)
    with pytest.raises(ContractError, match="teachers/dinov3/low-192: shard"):
        view_facts(opened(copied), "low-192/9")
    with pytest.raises(ContractError, match="teachers/dinov3/low-192: shard"):
        inspect_cache(opened(copied))


@pytest.mark.parametrize(
    "name",
    [
        "features.zarr/zarr.json",
        "features.zarr/views/zarr.json",
        "features.zarr/teachers/dinov3/zarr.json",
        "features.zarr/teachers/dinov3/phi_s/zarr.json",
        "features.zarr/teachers/dinov3/phi_s/scale/c",
        "features.zarr/teachers/dinov3/stats/zarr.json",
        "tables/shards/views/low-192/00000.parquet",
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_damaged_cache_is_refused_in_one_message_or_read_as_it_was(
    name: str, share: float, rewritten: Rewrite, capsys: pytest.CaptureFixture[str]
) -> None:
    def flip(body: bytes) -> bytes:
        position = int(len(body) * share)
        return body[:position] + bytes([body[position] ^ 4]) + body[position + 1 :]

    status = main(["inspect", "--cache", str(rewritten(name, flip))])
    said = capsys.readouterr()
    assert status == 0 or said.err.startswith("error: ")


def test_a_place_without_a_cache_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--cache", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: cache is missing:\n")
