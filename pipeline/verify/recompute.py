"""Running a teacher again on a few views, and comparing its features with the stored ones. Only this needs torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from pipeline.config import RunConfig, TeacherChoice
from pipeline.features.forward import view_features
from pipeline.features.teacher import RunningTeacher, run_teacher
from pipeline.features.worker import teacher_pixels
from pipeline.inventory.inputs import views_per_input
from pipeline.inventory.units import Unit, choice_of
from pipeline.recipes import recipe_of
from pipeline.recipes.choice import choose
from pipeline.verify.manifests import CheckedManifests
from pipeline.verify.options import VerifyOptions
from pipeline.verify.problems import Findings, collecting
from pipeline.verify.verdict import Recomputed
from pipeline.views.placements import Placement, placements_of
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord, read_commit
from storage_schemas.format.encodings import INT8_LARGEST, Coding, as_numbers, as_stored
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.identity import require_same
from storage_schemas.format.latents import LARGEST, Latents, latents_in_steps
from storage_schemas.format.layout import detail_unit, summary_array
from storage_schemas.format.manifest import TeacherManifest
from storage_schemas.format.phi_s import to_stored
from storage_schemas.format.seeds import generator
from storage_schemas.format.teacher import Precision, forward_of
from teachers.source import is_own

SEE_ABOVE = "see what else is wrong with this shard"
TOLERANCE: Mapping[Precision, float] = {"fp32": 2**-9, "bf16-autocast": 2**-4, "bf16": 2**-4}
"""Largest relative error of a token by precision: |stored − expected| over the greater of the token's length and the
rms length of the view's tokens. Both are compared in the stored encoding.

Another machine sums in another order. float32 hardly shows that; bfloat16 has 8 bits, and carries the difference
through every layer; and either can round a number to the next float16. Numbers of `int8` are compared up to half a
step. The token of another view has an error of about 1."""


def recompute_teachers(
    cache: Cache, manifests: CheckedManifests, options: VerifyOptions, findings: Findings
) -> list[Recomputed]:
    """Run every teacher of a cache again on `options.recompute` views.

    Raises:
        SettingError: the recipe does not have the teacher, and the user does not name its source.
        MissingError: its weights cannot be found.
        IdentityError: it is not the teacher that computed the features.
    """
    recomputed = []
    for manifest in manifests.teachers:
        choice = teacher_choice(manifests.recipe, manifest.spec.name, options)
        running = _same_teacher(manifest, choice, options.run)
        units = [unit for unit in manifests.units if unit.teacher == manifest.spec]
        recomputed.append(recompute_views(cache, manifest, units, running, options.recompute, findings))
    return recomputed


def teacher_choice(recipe: str, name: str, options: VerifyOptions) -> TeacherChoice:
    """Return the source and the weights of a cached teacher: those that the user gives, else those of the recipe.

    Raises:
        SettingError: the recipe does not have the teacher, and the user does not name its source.
    """
    if options.source:
        weights = options.weights or ("own" if is_own(options.source) else "hub")
        upsampler_weights = options.upsampler_weights
        return TeacherChoice(
            name=forward_of(name), source=options.source, weights=weights, upsampler_weights=upsampler_weights
        )
    own = options.teacher if ":" in options.teacher else forward_of(name)
    choice = choose(recipe_of(recipe), own)
    choice = replace(choice, upsampler_weights=options.upsampler_weights or choice.upsampler_weights)
    return replace(choice, weights=options.weights) if options.weights else choice


def recompute_views(
    cache: Cache,
    manifest: TeacherManifest,
    units: Sequence[Unit],
    running: RunningTeacher,
    count: int,
    findings: Findings,
) -> Recomputed:
    """Run a teacher again on views drawn by hash, in the same batches as the first time.

    Args:
        cache: the cache.
        manifest: the teacher's.
        units: its features.
        running: the teacher, as it computed the features.
        count: how many views; every committed view where there are fewer.
        findings: problems are added here.
    """
    tolerance, errors = TOLERANCE[manifest.identity["precision"]], list[float]()
    rows = _committed_rows(cache, units, findings)
    runnable = [(unit, row) for unit, of_shard in rows for row in _runnable(cache, manifest, unit, of_shard, findings)]
    for unit, row in _drawn_rows(manifest, runnable, count):
        place, fix = f"{unit.arrays[0].path} row {row}", "delete the record of its shard, and extract it again"
        with collecting(findings.problems, place, fix):
            errors.append(relative_error(cache, running, manifest, unit, row))
            if not errors[-1] <= tolerance:
                found = f"differs from what the teacher computes: relative error of a token {errors[-1]:.3g}"
                findings.add(place, f"{found}, tolerance {tolerance:.3g}", fix)
    return Recomputed(
        teacher=manifest.spec.name,
        views=len(errors),
        largest_error=max(errors, default=0.0),
        tolerance=tolerance,
        left_out=sum(len(of_shard) for _, of_shard in rows) - len(runnable),
    )


def _same_teacher(manifest: TeacherManifest, choice: TeacherChoice, run: RunConfig) -> RunningTeacher:
    """Build a teacher with the settings of its features, and refuse it where it is not the one that computed them."""
    stored, layer = choice_of(manifest.spec, manifest.identity), manifest.spec.layer
    layers = () if layer is None else (layer,)
    given: dict[str, Any] = {"source": choice.source, "weights": choice.weights}
    given["upsampler_weights"] = choice.upsampler_weights
    as_stored = replace(stored, **given, layers=layers)
    running = run_teacher(as_stored, run.device, compiled=run.compiled)
    current = {"teacher": running.maps[-1].attributes(), "weights_sha256": running.weights_sha256}
    before = {name: manifest.identity[name] for name in current}
    fix = "give the teacher and the weights that computed these features: --teacher, --weights"
    require_same(f"teacher {stored.name}", before, current, fix)
    return running


def _committed_rows(cache: Cache, units: Sequence[Unit], findings: Findings) -> list[tuple[Unit, range]]:
    """Return the row slots of the views of every committed shard."""
    rows: list[tuple[Unit, range]] = []
    for unit in units:
        log = cache.log(unit.name)
        for shard in log:
            with collecting(findings.problems, log.place(shard), SEE_ABOVE):
                record = log.read(shard)[0]
                rows.append((unit, range(record.first_row, record.first_row + record.rows)))
    return rows


def _runnable(cache: Cache, manifest: TeacherManifest, unit: Unit, rows: range, findings: Findings) -> Sequence[int]:
    """Return those rows of a shard for which the cache has the teacher's whole input."""
    spec, shard = manifest.spec, rows.start // unit.grid.rows_per_shard
    if spec.size_rule == "fixed":
        return rows if shard in cache.log(detail_unit(unit.view_set, spec.forward_of)) else ()
    if not (manifest.exported and spec.size_rule == "canvas"):
        return rows
    with collecting(findings.problems, unit.name, SEE_ABOVE):
        commits = {shard: read_commit(cache.store, unit.name, shard)}
        placements = placements_of(cache.placements(unit.view_set, spec.name, commits))
        members = Counter(placement.mosaic for placement in placements)
        capacity = views_per_input(spec, unit.shape.geometry)
        return [placement.row for placement in placements if members[placement.mosaic] == capacity]
    return ()


def _drawn_rows(manifest: TeacherManifest, rows: Sequence[tuple[Unit, int]], count: int) -> list[tuple[Unit, int]]:
    """Draw rows, each as likely as any other, by the identity of the features alone."""
    if not rows:
        return []
    draws = generator(("recompute", manifest.digest))
    return [rows[index] for index in sorted(draws.choice(len(rows), min(count, len(rows)), replace=False).tolist())]


def relative_error(cache: Cache, running: RunningTeacher, manifest: TeacherManifest, unit: Unit, row: int) -> float:
    """Run the batch of a view again, and return the relative error of the view's stored features.

    Args:
        cache: the cache.
        running: the teacher, as it computed the features.
        manifest: its manifest.
        unit: its features of a set.
        row: the view's row in the set.

    Returns:
        The larger `largest_token_error` of its spatial tokens (PHI-S units) and its summary (raw units).

    Raises:
        MissingError: PHI-S, pixels or the shard are gone.
        CorruptionError: they are damaged.
    """
    name, view_set, shard = manifest.spec.name, unit.view_set, row // unit.grid.rows_per_shard
    phi_s, _ = cache.require_phi_s(name)
    commits = {shard: read_commit(cache.store, unit.name, shard)}
    placements = placements_of(cache.placements(view_set, name, commits))
    batch, position = _batch(placements, row, manifest, unit.shape.geometry)
    source = teacher_pixels(cache, manifest.spec, view_set, shard)
    features = next(view_features(running, view_set, source, unit.shape.geometry, batch))
    raw = features.maps[manifest.spec.layer][position].float().cpu().numpy()
    entries, coding = _entry(cache, unit.arrays[0].path, commits, row), cache.coding(unit.arrays[0])
    errors = [largest_token_error(*comparable(entries, to_stored(phi_s, raw), coding))]
    if features.summary is not None and manifest.spec.summary_dim is not None:
        summary = features.summary[position].float().cpu().numpy()
        errors.append(largest_token_error(_entry(cache, summary_array(view_set, name), commits, row), summary))
    return max(errors)


def comparable(
    entries: Shaped[np.ndarray, "*tokens stored"], numbers: Float[np.ndarray, "*tokens channels"], coding: Coding
) -> tuple[np.ndarray, np.ndarray]:
    """Return stored numbers, and the numbers of the same kind that they are compared with.

    A computed number between two steps may be rounded to either, by a difference in its last digit. So a number that is
    stored in whole steps counts as equal where the computed one lies within half a step of it, and else as that half
    step nearer. Latents are compared along the axes that are stored, in PHI-S units: distances are the same there.

    Args:
        entries: as stored.
        numbers: computed (PHI-S units).
        coding: what the entries stand for.
    """
    if coding.latents is not None:
        return _comparable_latents(entries, numbers, coding.latents)
    stored = as_numbers(entries, coding)
    if coding.encoding != "int8":
        return stored, as_numbers(as_stored(numbers, coding), coding)
    reach = INT8_LARGEST * coding.step
    return stored, _nearer(np.clip(numbers.astype(np.float64), -reach, reach), stored, coding.step / 2)


def _comparable_latents(entries: np.ndarray, numbers: np.ndarray, latents: Latents) -> tuple[np.ndarray, np.ndarray]:
    computed, stored = numbers.astype(np.float64) @ latents.analysis, latents_in_steps(entries).astype(np.float64)
    # a token's steps are no coarser than its numbers need, give or take their last digits
    largest = 1.01 * np.abs(computed).max(axis=-1, keepdims=True)
    needed = np.maximum(np.frexp(largest / (LARGEST + 0.5))[1], 0)
    half = np.ldexp(0.5, np.minimum(entries[..., :1].astype(np.int64), needed))
    units = latents.steps * np.sqrt(latents.channels)
    return stored * units, _nearer(computed, stored, half) * units


def _nearer(computed: np.ndarray, stored: np.ndarray, half: np.ndarray | float) -> np.ndarray:
    """Return computed numbers, moved towards the stored ones by at most half a step."""
    off = computed - stored
    return stored + np.sign(off) * np.maximum(np.abs(off) - half, 0)


def largest_token_error(
    stored: Float[np.ndarray, "*tokens channels"], expected: Float[np.ndarray, "*tokens channels"]
) -> float:
    """Return the largest relative error of a token: max over t of |sₜ − eₜ| / max(|eₜ|, rms of |e|)."""
    lengths = np.linalg.norm(expected.astype(np.float64), axis=-1)
    errors = np.linalg.norm(stored.astype(np.float64) - expected, axis=-1)
    least = max(float(np.sqrt(np.mean(lengths**2))), float(np.finfo(np.float32).tiny))
    return float(np.max(errors / np.maximum(lengths, least)))


def _batch(
    placements: Sequence[Placement], row: int, manifest: TeacherManifest, geometry: CanvasGeometry
) -> tuple[Sequence[Placement], int]:
    """Return the placements of a row's batch, whole mosaics of it, and the row's position among them.

    The batch of exported features is not known: it is the row's mosaic alone, or views next to it.
    """
    if manifest.exported and manifest.spec.size_rule == "canvas":
        [mosaic] = [placement.mosaic for placement in placements if placement.row == row]
        batch = [placement for placement in placements if placement.mosaic == mosaic]
        return batch, [placement.row for placement in batch].index(row)
    length = manifest.identity["batch"] * views_per_input(manifest.spec, geometry)
    position = [placement.row for placement in placements].index(row)
    first = position - position % length
    return placements[first : first + length], position - first


def _entry(cache: Cache, path: str, commits: dict[int, list[ShardRecord]], row: int) -> np.ndarray:
    return cache.array(path, commits).read([row])[0]
