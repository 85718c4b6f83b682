"""Inspecting a cache: what is in it, and how far each stage is. Manifests, commit log and small arrays are read."""

from collections.abc import Sequence

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
    teacher_manifests,
)
from pipeline.inventory.teacher_maps import map_specs, teacher_spec
from pipeline.inventory.unfinished import CommittedShards, is_complete, list_unfinished
from pipeline.inventory.units import Unit
from pipeline.leases.claim import Claim, said_time
from pipeline.leases.lease import list_claims
from pipeline.stats.facts import stats_facts
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord
from storage_schemas.format.identity import digest
from storage_schemas.format.layout import FORMAT_VERSION, features_unit
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.stats import TOLERANCE
from storage_schemas.format.views import teacher_tokens


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
    recipe, views = cache.require(), cache.views_manifest()
    manifests, committed = teacher_manifests(cache), committed_units(cache)
    details = [] if views is None else _details(cache, recipe, views, manifests, committed)
    teachers = () if views is None else tuple(_teacher(cache, views, manifest, tolerance) for manifest in manifests)
    shards = {"views": 1} if views is None else _shards(cache, recipe, views, manifests, details)
    measured = {teacher.name for teacher in teachers if teacher.stats is not None and teacher.stats.current}
    return CacheFacts(
        schema=SCHEMA,
        cache=cache.store.uri,
        recipe=recipe,
        format=FORMAT_VERSION,
        identity=None if views is None else views.digest,
        exported_from=views.identity["export"]["source"] if views is not None and views.exported else None,
        images=0 if views is None else sum(generation.images["count"] for generation in views.generations),
        generations=0 if views is None else len(views.generations),
        view_sets=() if views is None else tuple(_view_set(cache, unit, details) for unit in canvas_units(views)),
        teachers=teachers,
        unfinished=tuple(list_unfinished(cache, recipe, views, manifests, shards, committed, measured)),
        writers=tuple(map(_writer, list_claims(cache.store))),
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


def _details(
    cache: Cache, recipe: str, views: ViewsManifest, manifests: Sequence[TeacherManifest], committed: CommittedShards
) -> list[Unit]:
    """Return the units of details that are in the cache, or that a teacher still needs."""
    specs = [teacher_spec(choice) for choice in _expected(recipe, views)] + [manifest.spec for manifest in manifests]
    sides = {spec.forward_of: sides_of(spec, views) for spec in specs if spec.size_rule == "fixed"}
    stored = detailed_teachers(committed)
    if views.exported:  # an export has only the details that were asked for
        sides = {name: sides[name] for name in sides if name in stored}
    sides |= {name: stored_sides(cache, views, name) for name in stored if name not in sides}
    shown = [name for name in sides if name in stored or not is_complete(views, name, committed)]
    return [unit for name in sorted(shown) for unit in detail_units(views, name, sides[name])]


def _shards(
    cache: Cache,
    recipe: str,
    views: ViewsManifest,
    manifests: Sequence[TeacherManifest],
    details: Sequence[Unit],
) -> dict[str, int]:
    """Return how many shards each unit is to have: of canvases, of details, then of each teacher's features."""
    shards = {unit.name: unit.grid.shards for unit in (*canvas_units(views), *details)}
    names = {spec.name for choice in _expected(recipe, views) for spec in map_specs(choice)}
    names |= {manifest.spec.name for manifest in manifests}
    for name in sorted(names | set(cache.teachers())):
        shards |= {features_unit(view_set, name): shape.grid.shards for view_set, shape in views.sets.items()}
    return shards


def _view_set(cache: Cache, unit: Unit, details: Sequence[Unit]) -> ViewSetFacts:
    commits = cache.records(unit.name, unit.identity)
    records = [record for parts in commits.values() for record in parts]
    return ViewSetFacts(
        name=unit.view_set.name,
        resolution=unit.view_set.resolution,
        side=unit.shape.geometry.side,
        drawn=unit.grid.views,
        cut=sum(record.rows for record in records if record.array),
        rejected=sum(record.rows for record in records if record.path.startswith("tables/rejected/")),
        rows_per_shard=unit.grid.rows_per_shard,
        shards=unit.grid.shards,
        committed=len(commits),
        bytes=_array_bytes(records),
        details=tuple(_detail(cache, detail) for detail in details if detail.view_set == unit.view_set),
    )


def _detail(cache: Cache, unit: Unit) -> DetailFacts:
    commits = cache.records(unit.name, unit.identity)
    return DetailFacts(
        teacher=unit.name.rsplit("/", 1)[-1],
        shards=unit.grid.shards,
        committed=len(commits),
        bytes=_array_bytes([record for parts in commits.values() for record in parts]),
    )


def _teacher(cache: Cache, views: ViewsManifest, manifest: TeacherManifest, tolerance: float) -> TeacherFacts:
    spec, identity = manifest.spec, manifest.identity
    sets = tuple(_features(cache, unit, manifest) for unit in feature_units(views, manifest))
    return TeacherFacts(
        **{name: getattr(spec, name) for name in _SPEC_FIELDS},
        **{name: identity[name] for name in _IDENTITY_FIELDS},
        identity=manifest.digest,
        exported_from=digest(manifest.identity["source"]) if manifest.exported else None,
        sets=sets,
        bytes=sum(features.bytes for features in sets),
        phi_s=_phi_s(cache, spec.name),
        stats=stats_facts(cache, views, manifest, tolerance),
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


def _features(cache: Cache, unit: Unit, manifest: TeacherManifest) -> FeatureFacts:
    commits = cache.records(unit.name, unit.identity)
    records = [record for parts in commits.values() for record in parts]
    return FeatureFacts(
        view_set=unit.view_set.name,
        tokens=teacher_tokens(manifest.spec, unit.view_set, unit.shape.geometry),
        views=sum(record.rows for record in records if record.array == unit.arrays[0].path),
        shards=unit.grid.shards,
        committed=len(commits),
        bytes=_array_bytes(records),
    )


def _phi_s(cache: Cache, teacher: str) -> PhiSFacts:
    phi_s, attributes = cache.require_phi_s(teacher)
    return PhiSFacts(tokens=attributes["tokens"], scale=phi_s.scale, sha256=attributes["sha256"])


def _expected(recipe: str, views: ViewsManifest) -> tuple[TeacherChoice, ...]:
    """Return the teachers that a cache is to have beside those that it has: its recipe's, but of an export none."""
    return () if views.exported else recipe_teachers(recipe)


def _array_bytes(records: Sequence[ShardRecord]) -> int:
    return sum(record.bytes for record in records if record.array)
