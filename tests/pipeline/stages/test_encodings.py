"""Features stored as `int8` and `float32`, from extract to the trainer, and what the plan and `verify` make of them."""

from pathlib import Path

import numpy as np
import pytest
from quarter_oracle import expected_raw, phi_s_of
from stage_runs import StageRun, own, run_stages, write_colours

from pipeline.config import CalibrationConfig, Recipe, ViewsConfig
from pipeline.look_options import VerifyOptions
from pipeline.plan import plan_run
from pipeline.planned_views import drawn_views
from pipeline.stage_views import list_images
from pipeline.verify import verify_cache
from storage_schemas.encodings import INT8_STEP
from storage_schemas.phi_s import to_stored
from trainer.dataset import CachedBatches, heldout_requests
from trainer.source import open_source

SOURCE = "teachers.quarter_mean:QuarterMean"
ENCODINGS = ("float16", "float32", "int8")


@pytest.fixture(scope="module")
def encoded_run(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """One teacher in every encoding, and `int8` compressed."""
    recipe = Recipe(
        name="encoded",
        views=ViewsConfig(seed=6, low=(128,), high=(), heldout=0.3, tokens_per_shard=1024, canvas_tokens=0),
        teachers=(
            *(own(SOURCE, name=encoding, encoding=encoding, batch=4) for encoding in ENCODINGS),
            own(SOURCE, name="int8-zstd", encoding="int8", compression="zstd", batch=4),
        ),
        calibration=CalibrationConfig(views=20),
    )
    root = tmp_path_factory.mktemp("encoded")
    return run_stages(recipe, write_colours(root / "images", 40), root / "cache")


def numbers_of(run: StageRun, teacher: str) -> np.ndarray:
    """What must be stored, in PHI-S units, before it is rounded."""
    placements = run.table("placements", f"{teacher}/low-128")
    raw = np.stack([expected_raw(run, teacher, "low-128", placement) for placement in placements])
    return to_stored(phi_s_of(run, teacher), raw)


@pytest.mark.parametrize("teacher", ["int8", "int8-zstd"])
def test_int8_is_the_nearest_step_and_says_its_length(encoded_run: StageRun, teacher: str) -> None:
    array = encoded_run.arrays[f"teachers/{teacher}/low-128/spatial"]
    step = array.attrs["stillhouse"]["step"]
    assert (array.dtype, array.fill_value, step) == (np.int8, -128, 8 / 127)
    stored = array[...][[row["row"] for row in encoded_run.table("placements", f"{teacher}/low-128")]]
    off = np.abs(stored.astype(np.float64) * step - numbers_of(encoded_run, teacher))
    assert off.max() <= step / 2 + 1e-4
    assert off.max() > step / 3


def test_what_int8_holds_is_said_and_counted(encoded_run: StageRun) -> None:
    largest = [np.abs(encoded_run.arrays[f"teachers/{name}/low-128/spatial"][:40]) for name in ("int8", "int8-zstd")]
    counts = [int((one == 127).sum()) for one in largest]
    said = [line for line in encoded_run.said if ": int8: " in line]
    assert said == [
        f"extract {name}: int8: {count} numbers were as large as it holds, or larger"
        for name, count in zip(("int8", "int8-zstd"), counts, strict=True)
    ]


def test_a_plan_knows_the_bytes_of_every_encoding(encoded_run: StageRun) -> None:
    plan = plan_run(encoded_run.recipe, drawn_views(list_images(str(encoded_run.data)), encoded_run.recipe.views))
    for teacher in plan.teachers[:3]:
        folder = encoded_run.where / "features.zarr" / "teachers" / teacher.choice.name
        files = [path for name in ("spatial", "summary") for path in folder.glob(f"*/{name}/c/**/*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) == teacher.bytes(teacher.choice.encoding)


def test_the_trainer_reads_numbers_in_phi_s_units_whatever_the_encoding(encoded_run: StageRun) -> None:
    source = open_source(encoded_run.cache)
    requests = heldout_requests(source, {"low": 100, "high": 1}, seed=0)
    [batch] = CachedBatches(source=source)[tuple(requests)]
    assert len(requests[0].rows) > 5
    bounds = {"float32": 1e-4, "float16": 0.01, "int8": INT8_STEP / 2 + 1e-4, "int8-zstd": INT8_STEP / 2 + 1e-4}
    for name, bound in bounds.items():
        found = batch.targets[name].spatial.numpy()
        assert found.dtype == (np.float16 if name == "float16" else np.float32)
        assert np.abs(found - numbers_of(encoded_run, name)[requests[0].rows]).max() <= bound


def test_statistics_are_of_numbers_not_of_steps(encoded_run: StageRun) -> None:
    for teacher in ENCODINGS:
        stats = encoded_run.cache.stats(teacher)
        assert stats is not None
        assert abs(float(stats.pooled.variance.mean()) - 1) < 0.1


def test_verify_runs_every_encoding_again(encoded_run: StageRun, tmp_path: Path) -> None:
    for choice in encoded_run.recipe.teachers:
        options = VerifyOptions(cache=str(tmp_path), teacher=choice.name, source=choice.source, recompute=100)
        verdict = verify_cache(encoded_run.cache, options)
        assert verdict.problems == ()
        [again] = verdict.recomputed
        assert again.views == 40
        assert again.farthest < 0.01, "and not by a step in every number"
