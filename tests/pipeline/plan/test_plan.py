"""`plan` says beforehand, to the byte, what the pipeline then writes; and it writes nothing."""

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.config import CalibrationConfig, Recipe, TeacherChoice, ViewsConfig
from pipeline.images.listing import list_images
from pipeline.inventory.inputs import input_side
from pipeline.inventory.units import Unit, feature_unit, total_bytes, total_objects, total_shards
from pipeline.plan.forecast import drawn_views, expected_views, set_shares
from pipeline.plan.plan import Plan, TeacherPlan, plan_run, plan_teacher
from pipeline.plan.storage import Space, space_for
from pipeline.plan.text import plan_lines, space_line
from pipeline.recipes import RECIPES, recipe_of
from pipeline.text_table import aligned, sized
from pipeline.views.sampling import draw_set
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store
from teachers.cost import tflop_per_input
from teachers.source import spec_of

SIX_CHANNELS = """
import torch
from storage_schemas.format.teacher import TeacherSpec
from teachers.base import AbstractTeacher, TeacherOutput

class Six(AbstractTeacher):
    declared = TeacherSpec(name="six", model="six", dim=6, summary_dim=None, patch=16, size_rule="any", native=64,
                           mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self, *, spec, device, precision):
        super().__init__(spec=spec, network=torch.nn.Identity(), device=device, precision=precision)

    def features(self, images):
        batch, _, height, width = images.shape
        return TeacherOutput(summary=None, spatial=torch.zeros(batch, height // 16, width // 16, 6))
"""
SETS = (("low", 192), ("high", 256))


@pytest.fixture(scope="module")
def planned(small_run: Any) -> Plan:
    views = drawn_views(list_images(str(small_run.data)), small_run.recipe.views)
    return plan_run(small_run.recipe, views)


def of(plan: Plan, name: str) -> TeacherPlan:
    return next(teacher for teacher in plan.teachers if teacher.choice.name == name)


def array_sizes(cache: Path, unit: Unit) -> list[int]:
    folders = [cache / "features.zarr" / spec.path / "c" for spec in unit.arrays]
    return [path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()]


def objects(cache: Path, unit: Unit) -> int:
    records = list((cache / "tables/shards" / unit.name).glob("*.parquet"))
    parts = [path for table, folder in unit.tables for path in (cache / "tables" / table / folder).iterdir()]
    return len(array_sizes(cache, unit)) + len(records) + len(parts)


def test_the_planned_bytes_of_every_unit_are_those_on_the_disk(planned: Plan, small_run: Any) -> None:
    units = [unit for unit in planned.units if "canvas" not in unit.name]
    assert len(units) == 2 + 2 + 2 + 2  # canvases, dinov3, and the fixed teacher's features and details
    for unit in units:
        assert total_bytes([unit]) == sum(array_sizes(small_run.cache, unit)), unit.name


def test_compressed_features_take_no_more_than_planned(planned: Plan, small_run: Any) -> None:
    for unit in of(planned, "quarter-mean-canvas").stored:
        assert 0 < sum(array_sizes(small_run.cache, unit)) < total_bytes([unit])


def test_float32_takes_two_bytes_more_for_every_value_than_float16(planned: Plan) -> None:
    for teacher in planned.teachers:
        values = sum(math.prod(unit.arrays[0].shape) for unit in teacher.features["float16"])
        assert teacher.bytes("float32") - teacher.bytes("float16") == 2 * values


def test_the_planned_objects_and_shards_are_those_on_the_disk(planned: Plan, small_run: Any) -> None:
    for unit in planned.units:
        assert total_objects([unit]) == objects(small_run.cache, unit), unit.name
        assert total_shards([unit]) == len(list((small_run.cache / "tables/shards" / unit.name).glob("*.parquet")))


def test_forwards_are_the_views_of_a_teacher_and_the_mosaics_of_a_canvas_teacher(planned: Plan, small_run: Any) -> None:
    placements = small_run.cache / "tables/placements"
    mosaics = {
        (path.parent.name, mosaic)
        for path in placements.glob("quarter-mean-canvas/*/*.parquet")
        for mosaic in pq.read_table(path)["mosaic"].to_pylist()
    }
    assert of(planned, "dinov3").forwards == 16
    assert of(planned, "quarter-mean-fixed").forwards == 16
    assert of(planned, "quarter-mean-canvas").forwards == len(mosaics)


def test_calibration_counts_the_training_views_and_their_mosaics(planned: Plan, small_run: Any) -> None:
    per_mosaic = {"low-192": 4, "high-256": 1}
    training, mosaics = 0, 0
    for path in (small_run.cache / "tables/views").glob("*/*.parquet"):
        count = pq.read_table(path)["split"].to_pylist().count("train")
        training += count
        mosaics += math.ceil(count / per_mosaic[path.parent.name])
    assert 0 < training < 16
    assert of(planned, "dinov3").calibration == training
    assert of(planned, "quarter-mean-canvas").calibration == mosaics


def test_the_cost_is_that_of_every_forward_at_its_side(planned: Plan) -> None:
    sides = {"low-192": 192, "high-256": 256}
    forwards = {unit.view_set.name: unit.grid.rows for unit in planned.canvases}
    training = {view_set.name: count for view_set, (count,) in planned.views.training.items()}
    cost = sum((forwards[name] + training[name]) * tflop_per_input("dinov3-tiny", side) for name, side in sides.items())
    assert of(planned, "dinov3").tflop == pytest.approx(cost, rel=1e-12)


def test_a_fixed_teacher_costs_its_own_side_whatever_the_view() -> None:
    views = expected_views(40, ViewsConfig(low=(128, 192), high=(256,), canvas_tokens=24, tokens_per_shard=2304))
    planned = plan_teacher(recipe_of("demo").teacher("siglip2"), recipe_of("demo"), views)
    inputs = planned.forwards + planned.calibration
    assert planned.tflop == pytest.approx(inputs * tflop_per_input("siglip2-tiny", 192), rel=1e-12)


@pytest.mark.parametrize(("source", "side"), [("dinov3-7b", 432), ("siglip2-g-384", 384), ("sam3", 1008)])
def test_only_a_teacher_of_any_size_has_an_input_of_the_view_s_side(source: str, side: int) -> None:
    assert input_side(spec_of(source), CanvasGeometry(resolution=432, patch=16, margin=2)) == side


def test_expected_views_are_shares_rounded_down_and_the_rest_to_the_largest_fractions() -> None:
    config = ViewsConfig(low=(128, 192, 256), low_proportions=(1, 1, 2), high=(512,), high_share=0.2)
    # 11 views: high 2.2, low-128 2.2, low-192 2.2, low-256 4.4, so one is left over, for low-256
    counts = {name.name: shape.grid.rows for name, shape in expected_views(11, config).shapes.items()}
    assert counts == {"high-512": 2, "low-128": 2, "low-192": 2, "low-256": 5}


def test_of_equal_fractions_the_first_set_by_name_gets_what_is_left_over() -> None:
    config = ViewsConfig(low=(128, 192), high=(), draws=3)
    counts = {name.name: shape.grid.rows for name, shape in expected_views(1, config).shapes.items()}
    assert counts == {"low-128": 2, "low-192": 1}


@given(
    images=st.integers(1, 100_000),
    draws=st.integers(1, 12),
    high_share=st.floats(0, 1),
    weights=st.lists(st.floats(0.01, 100), min_size=3, max_size=3),
)
def test_expected_views_are_all_the_views_and_within_one_of_each_share(
    images: int, draws: int, high_share: float, weights: list[float]
) -> None:
    config = ViewsConfig(
        low=(128, 192, 256), low_proportions=tuple(weights), high=(512,), high_share=high_share, draws=draws
    )
    planned = expected_views(images, config)
    counts = Counter({view_set: shape.grid.rows for view_set, shape in planned.shapes.items()})
    assert counts.total() == images * draws
    for view_set, share in set_shares(config).items():
        assert abs(counts[view_set] - images * draws * share) <= 1 + 1e-6
        assert 0 <= sum(planned.training[view_set]) <= counts[view_set]


@pytest.mark.parametrize("name", RECIPES)
def test_shares_are_what_the_draws_come_to(name: str) -> None:
    config, keys = recipe_of(name).views, 4000
    drawn = Counter(draw_set(f"{key}.jpg", 0, config) for key in range(keys))
    shares = set_shares(config)
    assert sum(shares.values()) == pytest.approx(1)
    for view_set, share in shares.items():
        deviation = math.sqrt(share * (1 - share) / keys)
        assert abs(drawn[view_set] / keys - share) <= 5 * deviation, view_set


def test_a_recipe_of_one_partition_gives_it_everything() -> None:
    assert set_shares(ViewsConfig(low=(), high=(512, 768))) == {
        ViewSet(partition="high", resolution=512): 0.5,
        ViewSet(partition="high", resolution=768): 0.5,
    }
    assert set_shares(ViewsConfig(low=(128,), high=())) == {ViewSet(partition="low", resolution=128): 1.0}


def test_the_tables_are_aligned_and_say_each_number_once(planned: Plan) -> None:
    teachers = Recipe(name="demo", views=planned.recipe.views, teachers=planned.recipe.teachers[:1])
    lines = plan_lines(plan_run(teachers, planned.views), tflops=250.0)
    low, high = (planned.views.shapes[ViewSet(partition=partition, resolution=side)].grid for partition, side in SETS)
    assert [line.split() for line in lines[1:4]] == [
        # shards of less than 16 MiB are one PUT each, like any object
        [
            "high-256",
            str(high.rows),
            "4",
            str(high.shards),
            *sized(pixels(high, 288)).split(),
            *2 * [f"{4 * high.shards}"],
        ],
        ["low-192", str(low.rows), "8", str(low.shards), *sized(pixels(low, 224)).split(), *2 * [f"{4 * low.shards}"]],
        ["all", "16", "3", *sized(pixels(high, 288) + pixels(low, 224)).split(), "12", "12"],
    ]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[5].split()[:4] == ["teacher", "stored", "as", "views"]
    assert lines[6].startswith("dinov3   float16       16        16 ")
    assert lines[5].split().count("pca8") == 1
    assert lines[-4].startswith("bytes: of array shards, if no view is rejected; ")
    assert lines[-3].startswith("int8, pca8: before compression. By fidelity, zstd leaves about 3/4 of int8 (3,024), ")
    assert lines[-2] == "views: no view is held out of high-256: students are not scored at these resolutions"
    assert lines[-1] == "RANDOM WEIGHTS: dinov3: a demonstration, not teachers"


def pixels(grid: Any, side: int) -> int:
    return grid.rows * (side * side * 3 + 4) + grid.shards * (16 * grid.rows_per_shard + 4)


def test_gpu_hours_are_the_cost_at_the_stated_rate(planned: Plan) -> None:
    tflop = sum(teacher.tflop for teacher in planned.teachers)
    [line] = [line for line in plan_lines(planned, tflops=2e-9) if line.startswith("teachers: ")]
    assert line == f"teachers: {tflop:,.4g} TFLOP, {tflop / 2e-9 / 3600:,.3g} GPU hours at a stated 2e-09 TFLOP/s"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (42_471_234, "42.47 MB"),
        (999_940, "999.9 kB"),
        (999_960, "1 MB"),
        (77_600_000_000_000, "77.6 TB"),
        (1_234_500_000_000_000_000, "1,234 PB"),
    ],
)
def test_sizes_have_four_digits_in_decimal_units(size: int, text: str) -> None:
    assert sized(size) == text


def test_text_stands_left_and_numbers_right() -> None:
    assert aligned([["name", "a", "long"], ["b", "100", "2"]]) == ["name    a  long", "b     100     2"]


def test_what_does_not_fit_is_said_plainly() -> None:
    assert space_line("/data", Space(free=1_000, needed=5_000_000, present=0)) == (
        "space: 5 MB to write, 1 kB free at /data: does not fit: 4.999 MB short"
    )
    assert space_line("/data", Space(free=6_000_000, needed=5_000_000, present=2_000)) == (
        "space: 5 MB to write (2 kB exist already), 6 MB free at /data: fits"
    )
    assert space_line("s3://b/c", None) == "space: s3://b/c is not on this machine, so its free space is unknown"


def test_what_is_there_already_need_not_fit_again(planned: Plan, copied: Path, tmp_path: Path) -> None:
    units = [unit for unit in planned.units if "canvas" not in unit.name]
    space = space_for(Store(uri=str(copied)), units)
    assert space is not None
    assert (space.needed, space.present) == (0, total_bytes(units))
    shard = copied / "features.zarr/views/low-192/pixels/c/0/0/0/0"
    size = shard.stat().st_size
    shard.unlink()
    space = space_for(Store(uri=str(copied)), units)
    assert space is not None
    assert (space.needed, space.present) == (size, total_bytes(units) - size)
    nowhere = space_for(Store(uri=str(tmp_path / "not/there/yet")), units)
    assert nowhere is not None
    assert (nowhere.needed, nowhere.present) == (total_bytes(units), 0)
    assert nowhere.free > 0
    assert space_for(Store(uri="memory://plan"), units) is None


def test_the_command_plans_a_folder_and_writes_nothing(
    small_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(small_run.data.iterdir())
    cache = tmp_path / "cache"
    assert main(["plan", "--data", str(small_run.data), "--cache", str(cache), "--teacher", "dinov3"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\nall +96 ", said)
    assert f"free at {cache}: fits" in said
    assert not cache.exists()
    assert sorted(small_run.data.iterdir()) == before


def test_the_command_plans_a_number_of_images_without_any(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--images", "1000", "--teacher", "teachers.quarter_mean:QuarterMean", "--views.draws", "2"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "\nall       2,000 " in said
    assert "\nquarter-mean  float16    2,000     2,000 " in said


def test_a_teacher_that_cannot_see_a_set_is_named_after_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--images", "200", "--views.low", "128", "--views.high", "512", "768"]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out.startswith("view set ")
    assert said.err == (
        "error: recipe demo cannot be used:\n"
        "  sam3, high-512: 32 tokens do not fit a canvas of 24 "
        "(leave this resolution out, or give the teacher a larger canvas)\n"
        "  sam3, high-768: 48 tokens do not fit a canvas of 24 "
        "(leave this resolution out, or give the teacher a larger canvas)\n"
    )


def test_a_teacher_without_a_hadamard_matrix_is_refused_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "six_channels.py").write_text(SIX_CHANNELS)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["plan", "--images", "100", "--teacher", "six_channels:Six"]) == 2
    assert capsys.readouterr().err == (
        "error: recipe demo cannot be used:\n"
        "  six, PHI-S: order 6: no Kronecker product of Sylvester and Paley matrices has this order "
        "(the nearest that exist are 4 and 8)\n"
    )


def test_too_few_tokens_for_phi_s_are_said_before_the_teacher_runs(planned: Plan) -> None:
    recipe = replace(planned.recipe, calibration=CalibrationConfig(tokens_per_channel=100_000))
    [problem] = plan_teacher(recipe.teachers[0], recipe, planned.views).refusals
    tokens = sum(
        count * {192: 144, 256: 256}[view_set.resolution] for view_set, (count,) in planned.views.training.items()
    )
    assert str(problem) == (
        f"dinov3, PHI-S: training views: {tokens} tokens for 96 channels, fewer than 100000 for each "
        "(add images or draws, or accept a rougher fit with --calibration.tokens-per-channel)"
    )


def test_a_cache_of_another_recipe_is_refused(small_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--images", "10", "--recipe", "small", "--cache", str(small_run.cache)]) == 2
    assert 'recipe: the cache has "demo", this run has "small"' in capsys.readouterr().err


def test_neither_images_nor_a_number_of_them_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 2
    assert "DATA" in capsys.readouterr().err


@pytest.mark.parametrize(("setting", "value"), [("images", "-1"), ("tflops", "0"), ("tflops", "nan")])
def test_numbers_that_cannot_be_are_refused(setting: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--data", ".", f"--{setting}", value]) == 2
    assert f"--{setting}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "resolution", "megabytes"),
    [
        ("dinov3-7b", 256, 2.1),
        ("dinov3-7b", 432, 6.0),
        ("dinov3-7b", 1152, 42.5),
        ("sam3", 1152, 10.6),
        ("siglip2-g-384", 432, 1.8),
    ],
)
def test_a_view_takes_what_the_shapes_of_the_paper_s_teachers_come_to(
    source: str, resolution: int, megabytes: float
) -> None:
    [(view_set, shape)] = expected_views(5000, ViewsConfig(low=(resolution,), high=())).shapes.items()
    unit = feature_unit(view_set, shape, spec_of(source), TeacherChoice(name=source, source=source).storage)
    assert total_bytes([unit]) / 5000 / 1e6 == pytest.approx(megabytes, abs=0.05)


def test_blocks_cost_bytes_and_no_forward(small_run: Any) -> None:
    views = drawn_views(list_images(str(small_run.data)), small_run.recipe.views)
    whole = small_run.recipe.teacher("dinov3")
    alone, both = (plan_teacher(replace(whole, layers=layers), small_run.recipe, views) for layers in ((), (0,)))
    assert (both.forwards, both.calibration, both.tflop) == (alone.forwards, alone.calibration, alone.tflop)
    assert [unit.name for unit in both.features["float16"]] == [
        f"teachers/{name}/{partition}-{side}"
        for name in ("dinov3", "dinov3-block0")
        for partition, side in reversed(SETS)
    ]
    summaries = sum(
        array.shape[0] for unit in alone.features["float16"] for array in unit.arrays if len(array.shape) == 2
    )
    assert summaries > 0
    assert alone.bytes("float16") < both.bytes("float16") < 2 * alone.bytes("float16")


def test_a_block_that_the_model_has_not_is_told_by_the_plan(small_run: Any) -> None:
    views = expected_views(100, small_run.recipe.views)
    plan = plan_teacher(replace(small_run.recipe.teacher("dinov3"), layers=(2,)), small_run.recipe, views)
    assert [str(problem) for problem in plan.refusals] == [
        "dinov3: layers: there is no block 2 (blocks are 0 to 1)",
    ]
    assert plan.forwards == 0
