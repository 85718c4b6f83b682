"""Evaluation views through the stages: what teachers see of them is what Pillow alone makes of the images."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from quarter_oracle import phi_s_of, quarters, resized
from stage_runs import LOCAL, StageRun, contents, own, write_colours

from pipeline.__main__ import main
from pipeline.config import Recipe, RunConfig
from pipeline.features.stage import make_features
from pipeline.inspect.cache import inspect_cache
from pipeline.recipes import recipe_of
from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError
from storage_schemas.format.phi_s import to_raw
from storage_schemas.objects.store import Store

TEACHERS = tuple(own(f"teachers.quarter_mean:QuarterMean{rule}") for rule in ("", "Fixed", "Canvas"))
EVALUATION = recipe_of("evaluation")
CENTRE = replace(EVALUATION, views=replace(EVALUATION.views, low=(64, 128), canvas_tokens=24), teachers=TEACHERS)
WINDOWS = replace(
    EVALUATION,
    views=replace(EVALUATION.views, low=(64,), placing="windows", draws=2, max_aspect=2),
    teachers=TEACHERS[:1],
)


def run(recipe: Recipe, data: Path, where: Path, workers: RunConfig = LOCAL) -> StageRun:
    """Cut the views and run every teacher; measure no statistics."""
    said: list[str] = []
    for choice in recipe.teachers:
        make_features(Cache(store=Store(uri=str(where))), recipe, choice, str(data), workers, said.append)
    return StageRun(recipe=recipe, data=data, where=where, said=tuple(said))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes, and one that is higher than wide."""
    folder = write_colours(tmp_path_factory.mktemp("evaluation") / "images", 4)
    Image.open(folder / "001.png").transpose(Image.Transpose.ROTATE_90).save(folder / "upright.png")
    return folder


@pytest.fixture(scope="module")
def centre(images: Path) -> StageRun:
    """A run over centred views by a teacher of each size rule. Nobody may write into its cache."""
    return run(CENTRE, images, images.parent / "centre")


def seen(image: Image.Image, side: int, box: Sequence[float]) -> np.ndarray:
    """A square of an image, resized by Pillow."""
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC, box=tuple(box)))


def square_of(image: Image.Image, start: float) -> tuple[float, float, float, float]:
    """The box of the square that starts there along the long side."""
    side, wide = min(image.size), image.width > image.height
    left, top = (start, 0) if wide else (0, start)
    return left, top, left + side, top + side


def raw(result: StageRun, teacher: str, view_set: str, row: int) -> np.ndarray:
    """What is stored of a view, in the teacher's units."""
    return to_raw(phi_s_of(result, teacher), result.arrays[f"teachers/{teacher}/{view_set}/spatial"][row])


@pytest.mark.parametrize("resolution", [64, 128])
@pytest.mark.parametrize("teacher", [choice.name for choice in TEACHERS])
def test_a_teacher_of_each_size_rule_sees_the_centred_square_as_pillow_cuts_it(
    centre: StageRun, teacher: str, resolution: int
) -> None:
    spec, rows = centre.spec(teacher), centre.table("views", f"low-{resolution}")
    assert sorted(row["image"] for row in rows) == sorted(path.name for path in centre.data.iterdir())
    for row in rows:
        image = Image.open(centre.data / row["image"])
        box = square_of(image, (max(image.size) - min(image.size)) / 2)
        pixels = seen(image, 192 if spec.size_rule == "fixed" else resolution, box)
        if spec.size_rule == "canvas":
            pixels = resized(pixels, resolution // 16 * spec.patch)
        expected = quarters(pixels, spec.patch)
        assert np.abs(raw(centre, teacher, f"low-{resolution}", row["row"]) - expected).max() < 2e-3


def test_windows_show_the_image_from_its_start_to_its_end(images: Path, tmp_path: Path) -> None:
    result = run(WINDOWS, images, tmp_path / "cache")
    rows = result.table("views", "low-64")
    assert len(rows) == 2 * len(list(images.iterdir()))
    for row in rows:
        image = Image.open(images / row["image"])
        box = square_of(image, (0, max(image.size) - min(image.size))[row["draw"]])
        expected = quarters(seen(image, 64, box), 16)
        assert np.abs(raw(result, "quarter-mean", "low-64", row["row"]) - expected).max() < 2e-3


def test_an_image_that_the_windows_do_not_cover_is_rejected_by_name(tmp_path: Path) -> None:
    folder = write_colours(tmp_path / "images", 3)
    Image.new("RGB", (210, 100)).save(folder / "wide.png")
    result = run(WINDOWS, folder, tmp_path / "cache", RunConfig(executor="local", max_rejected=0.3))
    assert [(row["image"], row["reason"]) for row in result.table("rejected", "low-64")] == [
        ("wide.png", "too elongated")
    ] * 2


@pytest.mark.parametrize("count", [2, 3])
def test_phi_s_is_fitted_on_few_images_or_refused(count: int, tmp_path: Path) -> None:
    data = write_colours(tmp_path / "images", count)
    recipe = replace(WINDOWS, views=replace(EVALUATION.views, low=(32,)))
    if count * 4 >= 12:
        assert "PHI-S fitted on 12 tokens and frozen" in "".join(run(recipe, data, tmp_path / "cache").said)
        return
    with pytest.raises(SettingError, match="training views: 8 tokens for 12 channels, fewer than 1 for each"):
        run(recipe, data, tmp_path / "cache")


def test_another_run_writes_the_same_bytes_and_verify_finds_both_sound(
    centre: StageRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(CENTRE, centre.data, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(centre.where)
    assert main(["verify", "--cache", str(centre.where), "--run.executor", "local"]) == 0
    assert "verify: sound" in capsys.readouterr().out


def test_nothing_is_unfinished_without_statistics_and_no_split_is_asked_for(centre: StageRun) -> None:
    facts = inspect_cache(centre.cache)
    assert facts.unfinished == ()
    assert not [line for line in centre.said if "HELD OUT" in line or "held out" in line]


def test_details_of_a_finished_teacher_can_go_though_the_recipe_names_no_teachers(
    centre: StageRun, tmp_path: Path
) -> None:
    cache = shutil.copytree(centre.where, tmp_path / "cache")
    assert main(["gc", "--recipe", "evaluation", "--cache", str(cache), "--details", "--delete"]) == 0
    gone = set(contents(centre.where)) - set(contents(cache))
    assert gone
    assert all("/detail/quarter-mean-fixed" in name for name in gone)
    assert main(["verify", "--cache", str(cache), "--run.executor", "local"]) == 0


@pytest.mark.slow
def test_two_workers_write_the_bytes_of_one(centre: StageRun, tmp_path: Path) -> None:
    run(CENTRE, centre.data, tmp_path / "ray", RunConfig(executor="ray", workers=2))
    assert contents(tmp_path / "ray") == contents(centre.where)
