"""Running a teacher again on a few views, and comparing what it gives with what is stored."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float

from pipeline.config import RunConfig, TeacherChoice
from pipeline.features.forward import view_features
from pipeline.features.teacher import RunningTeacher, run_teacher
from pipeline.features.worker import teacher_pixels
from pipeline.inventory.inputs import views_per_input
from pipeline.inventory.units import Unit, choice_of
from pipeline.recipes import recipe_of
from pipeline.recipes.choice import choose
from pipeline.verify.declared import Declared
from pipeline.verify.findings import Findings, noting
from pipeline.verify.options import VerifyOptions
from pipeline.views.placements import Placement, placements_of
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord, committed_shards, read_commit, record_path
from storage_schemas.format.encodings import as_numbers, as_stored
from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.identity import require_same
from storage_schemas.format.layout import detail_unit, summary_array
from storage_schemas.format.manifest import TeacherManifest
from storage_schemas.format.phi_s import to_stored
from storage_schemas.format.seeds import generator
from storage_schemas.format.teacher import Precision, forward_of
from teachers.own import own_class
from teachers.source import is_own

TOLERANCE: Mapping[Precision, float] = {"fp32": 2**-9, "bf16-autocast": 2**-4, "bf16": 2**-4}
"""How far a token may be from what is stored, as a share of its own length or the view's mean one, the greater.

Both are compared as they are stored. The room is for another machine's order of sums, which float32 hardly notices and
bfloat16, of 8 bits, carries through every layer; either may tip a number to the next one of its encoding. Another
view's token is about 1 away."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """How views that were run again compare with what is stored."""

    teacher: str
    views: int
    """Views that were run again."""
    farthest: float
    """Largest difference, as `TOLERANCE` measures it."""
    tolerance: float
    left_out: int
    """Committed views that cannot be run again: their details are not in the cache, or not all of their mosaic is."""


def recompute_teachers(cache: Cache, declared: Declared, options: VerifyOptions, found: Findings) -> list[Recomputed]:
    """Run every teacher of a cache again on `options.recompute` views.

    Raises:
        SettingError: a teacher is not the recipe's, and the user names no class.
        MissingError: its weights are not to be had.
        IdentityError: it is not the teacher that the features are of.
    """
    recomputed = []
    for manifest in declared.teachers:
        choice = teacher_choice(declared.recipe, manifest.spec.name, options)
        running = _same_teacher(manifest, choice, options.run)
        units = [unit for unit in declared.units if unit.teacher == manifest.spec]
        recomputed.append(recompute_views(cache, manifest, units, running, options.recompute, found))
    return recomputed


def teacher_choice(recipe: str, name: str, options: VerifyOptions) -> TeacherChoice:
    """Return where a teacher of a cache is to be had: as its recipe says, or as the user does.

    Raises:
        SettingError: the recipe has no such teacher, and the user names no class.
    """
    if options.source:
        weights = options.weights or ("own" if is_own(options.source) else "hub")
        return TeacherChoice(name=forward_of(name), source=options.source, weights=weights)
    own = options.teacher if ":" in options.teacher else forward_of(name)
    choice = choose(recipe_of(recipe), own)
    return replace(choice, weights=options.weights) if options.weights else choice


def teacher_name(teacher: str) -> str:
    """Return a teacher's name in the cache: that of its class where one is given."""
    return own_class(teacher).declared.name if ":" in teacher else teacher


def recompute_views(
    cache: Cache,
    manifest: TeacherManifest,
    units: Sequence[Unit],
    running: RunningTeacher,
    count: int,
    found: Findings,
) -> Recomputed:
    """Run a teacher again on views drawn by hash, in the very batches in which they were run first.

    Args:
        cache: the cache.
        manifest: the teacher's.
        units: its features.
        running: the teacher that the features are of.
        count: how many views; all that are committed where there are fewer.
        found: what is wrong is noted here.
    """
    tolerance, distances = TOLERANCE[manifest.identity["precision"]], []
    rows = _committed_rows(cache, units, found)
    runnable = [(unit, row) for unit, seen in rows for row in _runnable(cache, manifest, unit, seen, found)]
    for unit, row in _drawn(manifest, runnable, count):
        place, fix = f"{unit.arrays[0].path} row {row}", "delete the record of its shard, and extract it again"
        with noting(found.problems, place, fix):
            distances.append(distance(cache, running, manifest, unit, row))
            if not distances[-1] <= tolerance:
                apart = f"is {distances[-1]:.3g} of a token's length from what the teacher gives"
                found.note(place, f"{apart}; rounding explains {tolerance:.3g}", fix)
    farthest, left = max(distances, default=0.0), sum(len(seen) for _, seen in rows) - len(runnable)
    return Recomputed(
        teacher=manifest.spec.name, views=len(distances), farthest=farthest, tolerance=tolerance, left_out=left
    )


def _same_teacher(manifest: TeacherManifest, choice: TeacherChoice, run: RunConfig) -> RunningTeacher:
    """Build the teacher as the features were made, and refuse any other than the one that they are of."""
    stored, layer = choice_of(manifest.spec, manifest.identity), manifest.spec.layer
    layers = () if layer is None else (layer,)
    as_stored = replace(stored, source=choice.source, weights=choice.weights, layers=layers)
    running = run_teacher(as_stored, run.device, compiled=run.compiled)
    current = {"teacher": running.maps[-1].attributes(), "weights_sha256": running.weights_sha256}
    before = {name: manifest.identity[name] for name in current}
    fix = "give the teacher and the weights that these features are of: --teacher, --weights"
    require_same(f"teacher {stored.name}", before, current, fix)
    return running


def _committed_rows(cache: Cache, units: Sequence[Unit], found: Findings) -> list[tuple[Unit, range]]:
    """Return the row slots that hold the views of every committed shard."""
    rows: list[tuple[Unit, range]] = []
    for unit in units:
        for shard in committed_shards(cache.store, unit.name):
            with noting(found.problems, record_path(unit.name, shard), "see what else is wrong with this shard"):
                one = read_commit(cache.store, unit.name, shard)[0]
                rows.append((unit, range(one.first_row, one.first_row + one.rows)))
    return rows


def _runnable(cache: Cache, manifest: TeacherManifest, unit: Unit, rows: range, found: Findings) -> Sequence[int]:
    """Return those of a shard's rows of which all is there that the teacher saw with them."""
    spec, shard = manifest.spec, rows.start // unit.grid.rows_per_shard
    if spec.size_rule == "fixed":
        return rows if cache.store.exists(record_path(detail_unit(unit.view_set, spec.forward_of), shard)) else ()
    if not (manifest.exported and spec.size_rule == "canvas"):
        return rows
    with noting(found.problems, unit.name, "see what else is wrong with this shard"):
        commits = {shard: read_commit(cache.store, unit.name, shard)}
        placements = placements_of(cache.placements(unit.view_set, spec.name, commits))
        members = Counter(one.mosaic for one in placements)
        capacity = views_per_input(spec, unit.shape.geometry)
        return [one.row for one in placements if members[one.mosaic] == capacity]
    return ()


def _drawn(manifest: TeacherManifest, rows: Sequence[tuple[Unit, int]], count: int) -> list[tuple[Unit, int]]:
    """Draw rows, each as likely as any other, by the identity of the features alone."""
    if not rows:
        return []
    draws = generator(("recompute", manifest.digest))
    return [rows[index] for index in sorted(draws.choice(len(rows), min(count, len(rows)), replace=False).tolist())]


def distance(cache: Cache, running: RunningTeacher, manifest: TeacherManifest, unit: Unit, row: int) -> float:
    """Run the batch that a view was in again, and return how far its stored features are from the result.

    Args:
        cache: the cache.
        running: the teacher that the features are of.
        manifest: its manifest.
        unit: its features of a set.
        row: the view's row in the set.

    Returns:
        The largest `token_distance` of its spatial tokens (PHI-S units) and its summary (raw units).

    Raises:
        MissingError: PHI-S, pixels or the shard are gone.
        CorruptionError: they are damaged.
    """
    name, view_set, shard = manifest.spec.name, unit.view_set, row // unit.grid.rows_per_shard
    phi_s = cache.phi_s(name)
    if phi_s is None:
        raise MissingError("PHI-S", [Problem(place=f"teachers/{name}/phi_s", found="is gone")])
    commits = {shard: read_commit(cache.store, unit.name, shard)}
    placements = placements_of(cache.placements(view_set, name, commits))
    batch, position = _batch(placements, row, manifest, unit.shape.geometry)
    source = teacher_pixels(cache, manifest.spec, view_set, shard)
    features = next(view_features(running, view_set, source, unit.shape.geometry, batch))
    raw = features.maps[manifest.spec.layer][position].float().cpu().numpy()
    expected = as_numbers(as_stored(to_stored(phi_s, raw), manifest.identity["encoding"]))
    apart = [token_distance(as_numbers(_entry(cache, unit.arrays[0].path, commits, row)), expected)]
    if features.summary is not None and manifest.spec.summary_dim is not None:
        summary = features.summary[position].float().cpu().numpy()
        apart.append(token_distance(_entry(cache, summary_array(view_set, name), commits, row), summary))
    return max(apart)


def token_distance(
    stored: Float[np.ndarray, "*tokens channels"], expected: Float[np.ndarray, "*tokens channels"]
) -> float:
    """Return the largest |stored − expected| of any token, as a share of the greater of |expected| and its rms."""
    lengths = np.linalg.norm(expected.astype(np.float64), axis=-1)
    apart = np.linalg.norm(stored.astype(np.float64) - expected, axis=-1)
    least = max(float(np.sqrt(np.mean(lengths**2))), float(np.finfo(np.float32).tiny))
    return float(np.max(apart / np.maximum(lengths, least)))


def _batch(
    placements: Sequence[Placement], row: int, manifest: TeacherManifest, geometry: CanvasGeometry
) -> tuple[Sequence[Placement], int]:
    """Return the placements of the batch that a row was in, whole mosaics of it, and the row's position there.

    Of features that come from another cache the batch is not known: the row's mosaic alone, or views beside it.
    """
    if manifest.exported and manifest.spec.size_rule == "canvas":
        [mosaic] = [one.mosaic for one in placements if one.row == row]
        batch = [one for one in placements if one.mosaic == mosaic]
        return batch, [one.row for one in batch].index(row)
    length = manifest.identity["batch"] * views_per_input(manifest.spec, geometry)
    position = [one.row for one in placements].index(row)
    first = position - position % length
    return placements[first : first + length], position - first


def _entry(cache: Cache, path: str, commits: dict[int, list[ShardRecord]], row: int) -> np.ndarray:
    return cache.array(path, commits).read([row])[0]
