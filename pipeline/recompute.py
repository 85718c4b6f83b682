"""Running a teacher again on a few views, and comparing what it gives with what is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from pipeline.config import RunConfig, TeacherChoice
from pipeline.declared import Declared
from pipeline.findings import Findings, noting
from pipeline.look_options import VerifyOptions
from pipeline.options import choose
from pipeline.recipes import recipe_of
from pipeline.run_again import distance
from pipeline.running_teacher import RunningTeacher, run_teacher
from pipeline.units import Unit, choice_of
from storage_schemas.cache import Cache
from storage_schemas.commits import committed_shards, read_commit, record_path
from storage_schemas.identity import require_same
from storage_schemas.manifest import TeacherManifest
from storage_schemas.seeds import generator
from storage_schemas.teacher import Precision, forward_of
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
    for unit, row in _picked(cache, manifest, units, count, found):
        place, fix = f"{unit.arrays[0].path} row {row}", "delete the record of its shard, and extract it again"
        with noting(found.problems, place, fix):
            distances.append(distance(cache, running, manifest, unit, row))
            if not distances[-1] <= tolerance:
                apart = f"is {distances[-1]:.3g} of a token's length from what the teacher gives"
                found.note(place, f"{apart}; rounding explains {tolerance:.3g}", fix)
    farthest = max(distances, default=0.0)
    return Recomputed(teacher=manifest.spec.name, views=len(distances), farthest=farthest, tolerance=tolerance)


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


def _picked(
    cache: Cache, manifest: TeacherManifest, units: Sequence[Unit], count: int, found: Findings
) -> list[tuple[Unit, int]]:
    """Draw committed rows, each as likely as any other, by the identity of the features alone."""
    rows: list[tuple[Unit, int]] = []
    for unit in units:
        for shard in committed_shards(cache.store, unit.name):
            with noting(found.problems, record_path(unit.name, shard), "see what else is wrong with this shard"):
                one = read_commit(cache.store, unit.name, shard)[0]
                rows += [(unit, row) for row in range(one.first_row, one.first_row + one.rows)]
    if not rows:
        return []
    draws = generator(("recompute", manifest.digest))
    return [rows[index] for index in sorted(draws.choice(len(rows), min(count, len(rows)), replace=False).tolist())]
