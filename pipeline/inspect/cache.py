"""Inspecting a cache: what is in it, and how far each stage is. Manifests, commit log and small arrays are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.config import TeacherChoice
from pipeline.inspect.facts import (
    SCHEMA,
    CacheFacts,
    DetailFacts,
    FeatureFacts,
    PhiSFacts,
    TeacherFacts,
    ViewSetFacts,
    WriterFacts,
)
from pipeline.inventory.commands import recipe_teachers
from pipeline.inventory.commit_log import committed_units
from pipeline.inventory.manifest_units import (
    canvas_units,
    detail_units,
    detailed_teachers,
    feature_units,
    sides_of,
    stored_sides,
)
from pipeline.inventory.teacher_maps import map_specs, teacher_spec
from pipeline.inventory.unfinished import is_complete, list_unfinished
from pipeline.inventory.units import Unit
from pipeline.leases.claim import Claim, said_time
from pipeline.leases.lease import list_claims
from pipeline.stats.facts import stats_facts
from storage_schemas.cache import Cache
from storage_schemas.commits import UnitLog
from storage_schemas.format.feature_storage import FeatureStorage
from storage_schemas.format.identity import digest
from storage_schemas.format.layout import features_unit
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.stats import TOLERANCE
from storage_schemas.format.views import teacher_tokens
from storage_schemas.read_groups import stored_format
from storage_schemas.unit_log import LogTotals, empty_log


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What a cache says of itself, each object read once."""

    cache: Cache
    recipe: str
    views: ViewsManifest
    teachers: tuple[TeacherManifest, ...]
    """Sorted by name; without those that have no manifest yet."""
    groups: tuple[str, ...]
    """Names of all teachers that have a group: also of those whose PHI-S is not fitted yet."""
    committed: Mapping[str, UnitLog]

    def totals(self, unit: Unit) -> LogTotals:
        """Return what a unit's committed shards hold, after checking that they belong to it."""
        log = self.committed.get(unit.name) or empty_log(self.cache.store, unit.name)
        return log.totals(unit.identity)


def inspect_cache(cache: Cache, tolerance: float = TOLERANCE) -> CacheFacts:
    """Gather what `inspect` says of a cache.

    Args:
        cache: the cache.
        tolerance: the residual above which a view set's features are off.

    Raises:
        MissingError: there is no cache, or a teacher's PHI-S is gone.
        ContractError: the cache is of another format version, or parts of it do not belong together.
        CorruptionError: a manifest, a commit record or a small array is damaged.
    """
    groups = cache.teachers()
    manifests, committed = cache.manifests(groups), committed_units(cache)
    recipe, writers = manifests.recipe, tuple(map(_writer, list_claims(cache.store)))
    if manifests.views is None:
        return _without_views(cache, recipe, writers)
    contents = _Contents(
        cache=cache,
        recipe=recipe,
        views=manifests.views,
        teachers=tuple(manifests.teachers.values()),
        groups=tuple(groups),
        committed=committed,
    )
    views, details = manifests.views, _details(contents)
    teachers = tuple(_teacher(contents, manifest, tolerance) for manifest in contents.teachers)
    measured = {teacher.name for teacher in teachers if teacher.stats is not None and teacher.stats.current}
    shards = _shards(contents, details)
    return CacheFacts(
        schema=SCHEMA,
        cache=cache.store.uri,
        recipe=recipe,
        format=stored_format(cache.store),
        identity=views.digest,
        exported_from=views.identity["export"]["source"] if views.exported else None,
        images=sum(generation.images["count"] for generation in views.generations),
        passed_over=views.passed_over,
        generations=len(views.generations),
        view_sets=tuple(_view_set(contents, unit, details) for unit in canvas_units(views)),
        teachers=teachers,
        unfinished=tuple(list_unfinished(cache, recipe, views, contents.teachers, shards, committed, measured)),
        writers=writers,
    )


def _without_views(cache: Cache, recipe: str, writers: tuple[WriterFacts, ...]) -> CacheFacts:
    return CacheFacts(
        schema=SCHEMA,
        cache=cache.store.uri,
        recipe=recipe,
        format=stored_format(cache.store),
        identity=None,
        exported_from=None,
        images=0,
        passed_over=None,
        generations=0,
        view_sets=(),
        teachers=(),
        unfinished=tuple(list_unfinished(cache, recipe, None, (), {"views": 1}, {}, ())),
        writers=writers,
    )


def _writer(claim: Claim) -> WriterFacts:
    owner = claim.owner
    return WriterFacts(
        lease=claim.lease,
        work=owner.work if owner else "",
        host=owner.host if owner else "",
        process=owner.process if owner else 0,
        since=owner.since if owner else "",
        last_sign=None if claim.heartbeat is None else said_time(claim.heartbeat),
        ended=claim.stale,
    )


def _details(contents: _Contents) -> list[Unit]:
    """Return the units of details that are in the cache, or that a teacher still needs."""
    views, specs = contents.views, [manifest.spec for manifest in contents.teachers]
    specs = [*map(teacher_spec, _expected(contents)), *specs]
    sides = {spec.forward_of: sides_of(spec, views) for spec in specs if spec.size_rule == "fixed"}
    stored = detailed_teachers(contents.committed)
    if views.exported:  # an export has only the details that were asked for
        sides = {name: sides[name] for name in sides if name in stored}
    sides |= {name: stored_sides(contents.cache, views, name) for name in stored if name not in sides}
    shown = [name for name in sides if name in stored or not is_complete(views, name, contents.committed)]
    return [unit for name in sorted(shown) for unit in detail_units(views, name, sides[name])]


def _shards(contents: _Contents, details: Sequence[Unit]) -> dict[str, int]:
    """Return how many shards each unit is to have: of canvases, of details, then of each teacher's features."""
    shards = {unit.name: unit.grid.shards for unit in (*canvas_units(contents.views), *details)}
    expected = {spec.name for choice in _expected(contents) for spec in map_specs(choice)}
    for name in sorted(expected.union(contents.groups)):
        shards |= {features_unit(view_set, name): shape.grid.shards for view_set, shape in contents.views.sets.items()}
    return shards


def _expected(contents: _Contents) -> tuple[TeacherChoice, ...]:
    """Return the teachers that a cache is to have beside those that it has: its recipe's, but of an export none."""
    return () if contents.views.exported else recipe_teachers(contents.recipe)


def _view_set(contents: _Contents, unit: Unit, details: Sequence[Unit]) -> ViewSetFacts:
    totals = contents.totals(unit)
    return ViewSetFacts(
        name=unit.view_set.name,
        resolution=unit.view_set.resolution,
        side=unit.shape.geometry.side,
        drawn=unit.grid.views,
        cut=totals.views,
        rejected=totals.rejected,
        rows_per_shard=unit.grid.rows_per_shard,
        shards=unit.grid.shards,
        committed=totals.shards,
        bytes=totals.bytes,
        details=tuple(_detail(contents, detail) for detail in details if detail.view_set == unit.view_set),
    )


def _detail(contents: _Contents, unit: Unit) -> DetailFacts:
    totals = contents.totals(unit)
    return DetailFacts(
        teacher=unit.name.rsplit("/", 1)[-1],
        shards=unit.grid.shards,
        committed=totals.shards,
        bytes=totals.bytes,
    )


def _teacher(contents: _Contents, manifest: TeacherManifest, tolerance: float) -> TeacherFacts:
    spec, identity = manifest.spec, manifest.identity
    storage = FeatureStorage.of_identity(identity)
    sets = tuple(_features(contents, unit, manifest) for unit in feature_units(contents.views, manifest))
    return TeacherFacts(
        **{name: getattr(spec, name) for name in _SPEC_FIELDS},
        **{name: identity[name] for name in _IDENTITY_FIELDS},
        step=storage.step if storage.encoding == "int8" else None,
        storage=storage.text,
        identity=manifest.digest,
        computed_by=manifest.computed_by,
        exported_from=digest(manifest.identity["source"]) if manifest.exported else None,
        sets=sets,
        bytes=sum(features.bytes for features in sets),
        phi_s=_phi_s(contents.cache, spec.name),
        stats=stats_facts(contents.cache, contents.views, manifest, tolerance),
    )


_SPEC_FIELDS = (
    "name",
    "model",
    "dim",
    "summary_dim",
    "patch",
    "size_rule",
    "native",
    "licence",
    "random_weights",
)
_IDENTITY_FIELDS = ("weights_sha256", "precision", "batch", "encoding", "compression")


def _features(contents: _Contents, unit: Unit, manifest: TeacherManifest) -> FeatureFacts:
    totals = contents.totals(unit)
    return FeatureFacts(
        view_set=unit.view_set.name,
        tokens=teacher_tokens(manifest.spec, unit.view_set, unit.shape.geometry),
        views=totals.views,
        shards=unit.grid.shards,
        committed=totals.shards,
        bytes=totals.bytes,
    )


def _phi_s(cache: Cache, teacher: str) -> PhiSFacts:
    phi_s, attributes = cache.require_phi_s(teacher)
    return PhiSFacts(tokens=attributes["tokens"], scale=phi_s.scale, sha256=attributes["sha256"])
