"""Inspecting a cache: what is in it, and how far each stage is, from its manifests and its commit log alone."""

from collections.abc import Iterator, Sequence

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
from pipeline.inventory.commands import recipe_teachers, stats_command, views_command
from pipeline.inventory.commit_log import committed_units, exported_names, unit_command
from pipeline.inventory.stored_units import (
    Committed,
    canvas_units,
    detail_units,
    detailed_teachers,
    feature_units,
    is_complete,
    seeing_nothing_more,
    sides_of,
    stored_sides,
    teacher_manifests,
)
from pipeline.inventory.teacher_maps import map_specs, teacher_spec
from pipeline.inventory.unfinished import UnfinishedFacts
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
        MissingError: there is no cache.
        ContractError: it is of another version, or parts of it do not belong together.
        CorruptionError: what it says of itself is damaged.
    """
    recipe, views = cache.require(), cache.views_manifest()
    manifests, committed = teacher_manifests(cache), committed_units(cache)
    details = [] if views is None else _details(cache, recipe, views, manifests, committed)
    return CacheFacts(
        schema=SCHEMA,
        cache=cache.store.uri,
        recipe=recipe,
        format=FORMAT_VERSION,
        identity=None if views is None else views.digest,
        exported_from=views.identity["export"]["source"] if views is not None and views.exported else None,
        images=0 if views is None else sum(one.images["count"] for one in views.generations),
        generations=0 if views is None else len(views.generations),
        view_sets=() if views is None else tuple(_view_set(cache, unit, details) for unit in canvas_units(views)),
        teachers=() if views is None else tuple(_teacher(cache, views, one, tolerance) for one in manifests),
        unfinished=tuple(_unfinished(cache, recipe, views, manifests, details, committed)),
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
    cache: Cache, recipe: str, views: ViewsManifest, manifests: Sequence[TeacherManifest], committed: Committed
) -> list[Unit]:
    """Return the units of details that are there, or that a teacher still needs."""
    specs = [teacher_spec(choice) for choice in _expected(recipe, views)] + [manifest.spec for manifest in manifests]
    sides = {spec.forward_of: sides_of(spec, views) for spec in specs if spec.size_rule == "fixed"}
    if views.exported:  # which has no details but those that were asked for
        sides = {name: one for name, one in sides.items() if name in detailed_teachers(committed)}
    there = detailed_teachers(committed)
    sides |= {name: stored_sides(cache, views, name) for name in there if name not in sides}
    needed = [name for name in sides if name in there or not is_complete(views, name, committed)]
    return [unit for name in sorted(needed) for unit in detail_units(views, name, sides[name])]


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
        bytes=sum(one.bytes for one in sets),
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


def _unfinished(
    cache: Cache,
    recipe: str,
    views: ViewsManifest | None,
    manifests: Sequence[TeacherManifest],
    details: Sequence[Unit],
    committed: Committed,
) -> Iterator[UnfinishedFacts]:
    if views is None:
        yield UnfinishedFacts(unit="views", done=0, of=1, command=views_command(cache, recipe))
        return
    names = {spec.name for choice in _expected(recipe, views) for spec in map_specs(choice)}
    exported = exported_names(views, manifests)
    names |= {manifest.spec.name for manifest in manifests}
    idle = seeing_nothing_more(views, manifests, committed)
    wanted = [unit for unit in details if unit.name.rpartition("/")[2] not in idle]
    shards = {unit.name: unit.grid.shards for unit in (*canvas_units(views), *wanted)}
    for name in sorted(names | set(cache.teachers())):
        shards |= {features_unit(view_set, name): shape.grid.shards for view_set, shape in views.sets.items()}
    for unit, of in shards.items():
        done = len(committed.get(unit, ()))
        if done < of:
            yield UnfinishedFacts(unit=unit, done=done, of=of, command=unit_command(cache, recipe, unit, exported))
    yield from _unmeasured(cache, views, manifests, committed)


def _unmeasured(
    cache: Cache, views: ViewsManifest, manifests: Sequence[TeacherManifest], committed: Committed
) -> Iterator[UnfinishedFacts]:
    for manifest in manifests:
        name, stats = manifest.spec.name, stats_facts(cache, views, manifest)
        if is_complete(views, name, committed) and (stats is None or not stats.current):
            yield UnfinishedFacts(unit=f"teachers/{name}/stats", done=0, of=1, command=stats_command(cache, name))


def _expected(recipe: str, views: ViewsManifest) -> tuple[TeacherChoice, ...]:
    """Return the teachers that a cache is to have: its recipe's; of an export, those that it has."""
    return () if views.exported else recipe_teachers(recipe)


def _array_bytes(records: Sequence[ShardRecord]) -> int:
    return sum(record.bytes for record in records if record.array)
