"""Features stored as `int8` and `float32`, from extract to the trainer, and what the plan and `verify` make of them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from quarter_oracle import expected_raw, phi_s_of
from stage_runs import StageRun, own, run_stages, write_colours

from pipeline.config import CalibrationConfig, Recipe, ViewsConfig
from pipeline.images.listing import list_images
from pipeline.phi_s.hadamard import hadamard
from pipeline.plan.forecast import drawn_views
from pipeline.plan.plan import plan_run
from pipeline.stats.committed import read_features
from pipeline.stats.facts import measured_facts
from pipeline.stats.quantization import EVERY, observe_rounding
from pipeline.stats.sizes import encoded_sizes, size_lines
from pipeline.stats.text import stats_lines
from pipeline.verify.options import VerifyOptions
from pipeline.verify.recompute import comparable
from pipeline.verify.stage import verify_cache
from storage_schemas.cache import Cache
from storage_schemas.format.encodings import INT8_STEP, Coding, as_numbers, as_stored
from storage_schemas.format.errors import CorruptionError, MissingError
from storage_schemas.format.latents import fit_latents
from storage_schemas.format.phi_s import to_raw, to_stored
from storage_schemas.format.stats import ChannelStats
from storage_schemas.read_latents import write_latents
from trainer.data.dataset import CachedBatches, heldout_requests
from trainer.data.source import open_source
from trainer.objective.stored_numbers import StoredNumbers
from trainer.report.views import pictured_views

SOURCE = "teachers.quarter_mean:QuarterMean"
ENCODINGS = ("float16", "float32", "int8")
CODINGS = {name: Coding(encoding=name, step=INT8_STEP if name == "int8" else 0.0) for name in ENCODINGS}


@pytest.fixture(scope="module")
def encoded_run(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """One teacher in every encoding, and `int8` compressed."""
    recipe = Recipe(
        name="encoded",
        views=ViewsConfig(seed=6, low=(128,), high=(), heldout=0.3, tokens_per_shard=1024, canvas_tokens=0),
        teachers=(
            *(own(SOURCE, name=encoding, encoding=encoding, batch=4) for encoding in ENCODINGS),
            own(SOURCE, name="int8-zstd", encoding="int8", compression="zstd", batch=4),
            own(SOURCE, name="int8-coarse", encoding="int8", fidelity=100.0, compression="zstd", batch=4),
            own(SOURCE, name="pca8", encoding="pca8", fidelity=100.0, compression="zstd", batch=4),
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


STEPS = {"int8": 8 / 127, "int8-zstd": 8 / 127, "int8-coarse": 0.12**0.5}
"""Each `int8` teacher of the run → its step."""


@pytest.mark.parametrize("teacher", STEPS)
def test_int8_is_the_nearest_step_and_says_its_length(encoded_run: StageRun, teacher: str) -> None:
    array = encoded_run.arrays[f"teachers/{teacher}/low-128/spatial"]
    step = array.attrs["stillhouse"]["step"]
    assert (array.dtype, array.fill_value, step) == (np.int8, -128, STEPS[teacher])
    stored = array[...][[row["row"] for row in encoded_run.table("placements", f"{teacher}/low-128")]]
    off = np.abs(stored.astype(np.float64) * step - numbers_of(encoded_run, teacher))
    assert off.max() <= step / 2 + 1e-4
    assert off.max() > step / 3


def test_numbers_that_saturate_int8_are_counted_and_reported(encoded_run: StageRun) -> None:
    largest = [np.abs(encoded_run.arrays[f"teachers/{name}/low-128/spatial"][:40]) for name in STEPS]
    counts = [int((numbers == 127).sum()) for numbers in largest]
    said = [line for line in encoded_run.said if ": int8: " in line]
    assert said == [
        f"extract {name}: int8: {count} numbers saturated (at or beyond its largest value)"
        for name, count in zip(STEPS, counts, strict=True)
    ]


def test_a_plan_knows_the_bytes_of_every_encoding(encoded_run: StageRun) -> None:
    plan = plan_run(encoded_run.recipe, drawn_views(list_images(str(encoded_run.data)), encoded_run.recipe.views))
    for teacher in plan.teachers[:3]:
        folder = encoded_run.where / "features.zarr" / "teachers" / teacher.choice.name
        files = [path for name in ("spatial", "summary") for path in folder.glob(f"*/{name}/c/**/*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) == teacher.bytes(teacher.choice.encoding)


def test_the_trainer_reads_numbers_in_phi_s_units_whatever_the_encoding(encoded_run: StageRun) -> None:
    source = open_source(encoded_run.cache)
    requests = list(heldout_requests(source, {"low": 100, "high": 1}, seed=0))
    [batch] = CachedBatches(source=source)[tuple(requests)]
    assert len(requests[0].rows) > 5
    bounds = {"float32": 1e-4, "float16": 0.01} | {name: step / 2 + 1e-4 for name, step in STEPS.items()}
    bounds |= {"pca8": 1.0}
    for name, bound in bounds.items():
        entries = batch.targets[name].spatial
        assert entries.element_size() == {"float32": 4, "float16": 2}.get(name, 1), "stored numbers travel"
        [features] = [found.features[name] for found in source.sets.values()]
        found = StoredNumbers(features.coding)(entries).numpy()
        assert found.dtype == (np.float16 if name == "float16" else np.float32)
        np.testing.assert_allclose(found, as_numbers(entries.numpy(), features.coding), rtol=1e-6, atol=1e-6)
        assert np.abs(found - numbers_of(encoded_run, name)[requests[0].rows]).max() <= bound

    for view in pictured_views(source):
        for name, bound in bounds.items():
            off = view.teachers[name].features - numbers_of(encoded_run, name)[view.row]
            assert np.abs(off).max() <= bound, "the report compares students with them"


def test_statistics_are_of_numbers_not_of_steps(encoded_run: StageRun) -> None:
    for teacher in (*ENCODINGS, "int8-coarse", "pca8"):
        stats = encoded_run.cache.stats(teacher)
        assert stats is not None
        assert abs(float(stats.pooled.variance.mean()) - 1) < 0.1


def channels_of(run: StageRun, teacher: str) -> ChannelStats:
    stats = run.cache.stats(teacher)
    assert stats is not None
    return stats.pooled


def sampled(views: np.ndarray) -> np.ndarray:
    """The tokens that are sampled of each shard."""
    shards = [views[first : first + 16] for first in range(0, len(views), 16)]
    return np.concatenate([shard.reshape(-1, 12)[::EVERY] for shard in shards]).astype(np.float64)


def squared(error: np.ndarray) -> float:
    return float(np.mean(error**2))


def test_expected_rounding_errors_are_the_actual_ones(encoded_run: StageRun) -> None:
    stored = {
        name: sampled(as_numbers(encoded_run.arrays[f"teachers/{name}/low-128/spatial"][:40], CODINGS[name]))
        for name in ENCODINGS
    }
    exact = {name: sampled(numbers_of(encoded_run, name)) for name in ENCODINGS}
    said = {name: channels_of(encoded_run, name).rounding for name in ENCODINGS}
    # measured: fewer bits than are stored
    for held, encoding in (("float32", "float16"), ("float32", "int8"), ("float16", "int8")):
        rounded = as_numbers(as_stored(stored[held], CODINGS[encoding]), CODINGS[encoding])
        error = rounded.astype(np.float64) - stored[held]
        assert getattr(said[held], encoding) == pytest.approx(squared(error), rel=1e-3)
    # expected: the error of rounding before storage, which only a run without rounding tells
    for encoding in ("float16", "int8"):
        assert getattr(said[encoding], encoding) == pytest.approx(squared(stored[encoding] - exact[encoding]), rel=0.1)
    assert said["int8"].int8 == pytest.approx(INT8_STEP**2 / 12, rel=1e-12)
    assert said["int8"].float16 == pytest.approx(said["float32"].float16, rel=0.1)


def test_the_step_of_stored_features_is_the_one_whose_error_is_told(encoded_run: StageRun) -> None:
    rounding = channels_of(encoded_run, "int8-coarse").rounding
    assert rounding.int8 == pytest.approx(1 / 100, rel=1e-9)
    exact = sampled(numbers_of(encoded_run, "int8-coarse"))
    coding = encoded_run.cache.array("teachers/int8-coarse/low-128/spatial", {}).spec.coding
    stored = sampled(as_numbers(encoded_run.arrays["teachers/int8-coarse/low-128/spatial"][:40], coding))
    assert rounding.int8 == pytest.approx(squared(stored - exact), rel=0.15)


def test_latents_are_stored_at_the_fidelity_that_was_asked_for(encoded_run: StageRun) -> None:
    exact, group = numbers_of(encoded_run, "pca8"), encoded_run.arrays["teachers/pca8"]
    rows = [row["row"] for row in encoded_run.table("placements", "pca8/low-128")]
    latents = group["low-128/spatial"][...][rows].astype(np.float64)
    steps, basis = group["latents/steps"][...], group["latents/basis"][...]
    # the line of docs/format.md
    numbers = (latents[..., 1:] * 2.0 ** latents[..., :1] * steps) @ basis
    assert 95 < exact.var() / np.mean((numbers - exact) ** 2) < 200
    assert latents.shape[-1] == 1 + len(steps)
    read = [encoded_run.cache.view("low-128", row, teachers=["pca8"]).teachers["pca8"].spatial for row in rows]
    np.testing.assert_allclose(np.stack(read), numbers, atol=1e-4)
    raw = encoded_run.cache.view("low-128", rows[0], teachers=["pca8"], units="raw").teachers["pca8"].spatial
    np.testing.assert_allclose(raw, to_raw(phi_s_of(encoded_run, "pca8"), read[0]), atol=1e-4)


def test_latents_that_are_gone_or_of_another_teacher_are_refused(encoded_run: StageRun, tmp_path: Path) -> None:
    where = Path(shutil.copytree(encoded_run.where, tmp_path / "cache"))
    cache, group = Cache.open(str(where)), where / "features.zarr/teachers/pca8/latents"
    other = fit_latents(np.geomspace(4, 0.1, 12), hadamard(12), 10.0)
    write_latents(cache.store, "pca8", other, 100.0)
    said = "are not those that teachers/pca8/low-128/spatial is stored in"
    with pytest.raises(CorruptionError, match=said):
        cache.open_views("low-128")
    with pytest.raises(CorruptionError, match=said):
        open_source(cache)
    options = VerifyOptions(cache=str(where))
    assert [problem.place for problem in verify_cache(cache, options).problems] == [
        "features.zarr/teachers/pca8/latents/zarr.json"
    ]
    shutil.rmtree(group)
    with pytest.raises(MissingError, match="are gone, and features were stored in them"):
        cache.open_views("low-128")
    assert "are gone" in verify_cache(cache, options).problems[0].found


def test_features_are_recomputed_up_to_half_a_step_and_no_further() -> None:
    coding = Coding(encoding="int8", step=0.5)
    stored = np.array([[1.0, -0.5, 63.5, 0.0]], np.float32)
    numbers = np.array([[1.25, -0.75, 1e4, 0.3]], np.float32)
    entries = (stored / 0.5).astype(np.int8)
    found, expected = comparable(entries, numbers, coding)
    np.testing.assert_array_equal(found, stored)
    np.testing.assert_allclose(expected, [[1.0, -0.5, 63.5, 0.05]], atol=1e-6)
    halves = Coding(encoding="float16")
    np.testing.assert_array_equal(comparable(stored.astype(np.float16), numbers, halves)[1], numbers.astype(np.float16))


def test_saturation_is_measured_where_it_can_be_and_counted_everywhere() -> None:
    rng = np.random.default_rng(5)
    numbers = rng.standard_normal((11 * 2000, 24)).astype(np.float32) * 4
    int8, float16 = CODINGS["int8"], CODINGS["float16"]
    seen = observe_rounding(numbers, CODINGS["float32"])
    kept = numbers[::EVERY]
    error = as_numbers(as_stored(kept, int8), int8).astype(np.float64) - kept
    assert seen.count == kept.size
    assert seen.int8 == pytest.approx((error**2).sum(), rel=1e-4)
    assert seen.saturated == (np.abs(as_stored(kept, int8)) == 127).sum() > 1000
    assert observe_rounding(as_stored(numbers, int8), int8).saturated == seen.saturated
    halves = kept.astype(np.float16)
    spacing = np.spacing(np.abs(halves)).astype(np.float64)
    assert observe_rounding(as_stored(numbers, float16), float16).float16 == pytest.approx(
        (spacing**2 / 12).sum(), rel=1e-4
    )
    assert seen.float16 == pytest.approx((spacing**2 / 12).sum(), rel=0.02)
    tiny = np.full((11, 4), 2.0**-20, dtype=np.float16)
    assert observe_rounding(tiny, float16).float16 == pytest.approx(4 * 2.0**-48 / 12), "below the smallest normal half"


def test_stats_show_the_fidelity_of_each_encoding(encoded_run: StageRun) -> None:
    features = read_features(encoded_run.cache, ENCODINGS)
    facts, scales = measured_facts(encoded_run.cache, features.values(), 0.2)
    rows = [line.split() for line in stats_lines(facts, scales) if line.split()[1:2] == ["low-128"] and "exact" in line]
    assert [(row[0], row[2], row[4]) for row in rows] == [(name, name, "exact") for name in ENCODINGS]
    assert [(row[3][0] == "~", row[5][0] == "~") for row in rows] == [(True, False), (False, False), (True, True)]
    for row in rows:
        assert float(row[5].lstrip("~").replace(",", "")) == pytest.approx(12 / INT8_STEP**2, rel=0.1)


def test_verify_runs_every_encoding_again(encoded_run: StageRun, tmp_path: Path) -> None:
    for choice in encoded_run.recipe.teachers:
        options = VerifyOptions(
            cache=str(tmp_path), teacher=choice.name, source=choice.source, recompute=100, independent=3
        )
        verdict = verify_cache(encoded_run.cache, options)
        assert verdict.problems == ()
        [again] = verdict.recomputed
        assert again.views == 40
        assert again.largest_error < 0.01, "and not by a step in every number"


def test_sizes_are_those_that_an_encoding_has_when_it_is_stored(encoded_run: StageRun) -> None:
    features = read_features(encoded_run.cache, ("float32", "int8-zstd", "int8-coarse", "pca8"))
    sizes = {size.storage: size for size in encoded_sizes(encoded_run.cache, features["float32"])}
    for told, name in (
        ("int8, zstd", "int8-zstd"),
        ("int8 at 100, zstd", "int8-coarse"),
        ("pca8 at 100, zstd", "pca8"),
    ):
        [stored] = encoded_sizes(encoded_run.cache, features[name])
        assert sizes[told].bytes == pytest.approx(stored.bytes, rel=0.05)
        assert (stored.storage, stored.fidelity) == (f"{name[:4]}, as it is", None)
    assert sizes["float16"].bytes == 8 * 8 * 12 * 2 + 4 + 16
    fidelities = [
        sizes[f"{encoding} at {fidelity}, zstd"].fidelity for encoding in ("int8", "pca8") for fidelity in (100, 30)
    ]
    assert fidelities == [pytest.approx(expected, rel=0.5) for expected in (100, 30, 100, 30)]
    lines = list(size_lines(list(sizes.values())))
    assert lines[0].split() == ["teacher", "view", "set", "stored", "as", "bytes", "of", "a", "view", "F"]
    assert len(lines) == 1 + len(sizes) + 1


def latent_files(where: Path) -> list[Path]:
    """Every file of the features of `pca8`, and of what leads back to PHI-S units."""
    folder = where / "features.zarr/teachers/pca8"
    files = [*(folder / "low-128/spatial").rglob("*"), *(folder / "latents").rglob("*"), folder / "zarr.json"]
    return sorted(path for path in files if path.is_file())


@pytest.mark.parametrize("flips", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_latents_is_found_wherever_it_is(encoded_run: StageRun, tmp_path: Path, flips: int) -> None:
    where = Path(shutil.copytree(encoded_run.where, tmp_path / "cache"))
    cache, draws = Cache.open(str(where)), np.random.default_rng(flips)
    files = latent_files(where)
    assert len(files) == 1 + 3 + 5 + 1, "metadata and shards of features, latents, and the manifest"
    for path in files * flips:
        sound = path.read_bytes()
        damaged = bytearray(sound)
        damaged[draws.integers(len(sound))] ^= 1 << draws.integers(8)
        path.write_bytes(damaged)
        try:
            problems = verify_cache(cache, VerifyOptions(cache=str(where), teacher="pca8")).problems
            assert problems, f"{path} with other bytes than {sound[:20]!r}…"
        finally:
            path.write_bytes(sound)
    assert verify_cache(cache, VerifyOptions(cache=str(where), teacher="pca8")).problems == ()
