"""Checking what a cache says of a teacher: its manifest, its PHI-S map, its arrays' shapes, its statistics."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.inventory.stored_units import feature_units
from pipeline.inventory.units import Unit
from pipeline.stats.stored import read_sums
from pipeline.verify.findings import Findings, noting
from pipeline.verify.metadata import check_group, check_unit, copied_back, metadata_name, small_array_objects
from storage_schemas.cache import Cache
from storage_schemas.commits import record_path
from storage_schemas.format.identity import differences
from storage_schemas.format.layout import FEATURES, features_unit
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.stats import TeacherStats
from storage_schemas.format.views import ViewSet, teacher_tokens

FITTED_AFTER = frozenset({"encoding", "compression", "phi_s_sha256"})
"""What PHI-S does not depend on, of all that features depend on."""


def check_teacher(
    cache: Cache, name: str, views: ViewsManifest, command: str, found: Findings
) -> tuple[TeacherManifest, list[Unit]] | None:
    """Check all that is said of a teacher but for its statistics.

    Args:
        cache: the cache.
        name: the teacher's.
        views: the cache's.
        command: what extracts it.
        found: what is wrong is noted here.

    Returns:
        Its manifest and units; None where they cannot be read.
    """
    first = record_path(features_unit(next(iter(views.sets)), name), 0)
    group, place = f"teachers/{name}", metadata_name(f"teachers/{name}")
    fix = f"{copied_back(cache)}; or delete {place} and {first}, and `{command}` writes them again"
    manifest, units = None, []
    found.known.add(place)
    with noting(found.problems, place, fix):
        attributes = cache.attributes(group)
        manifest = None if attributes is None else TeacherManifest.from_attributes(attributes)
    _check_phi_s(cache, name, manifest, command, found)
    if manifest is None:
        return None
    check_group(cache.store, group, ours=True, fix=fix, found=found)
    with noting(found.problems, place, fix):
        _check_manifest(manifest, name, views, place, fix, found)
        units = feature_units(views, manifest)
    for unit in units:
        again = f"{copied_back(cache)}; or delete it, {place} and {first}, and `{command}` writes them again"
        check_unit(cache, unit, group=unit.name, group_fix=again, array_fix=again, found=found)
    return manifest, units


def check_stats(
    cache: Cache,
    manifest: TeacherManifest,
    rows: Mapping[ViewSet, int] | None,
    shards: Mapping[ViewSet, int],
    command: str,
    found: Findings,
) -> TeacherStats | None:
    """Check a teacher's statistics, and return them; None where there are none that can be read, or shards came since.

    Args:
        cache: the cache.
        manifest: the teacher's.
        rows: views of the teacher's features by set; None while these are not complete.
        shards: how many each set has.
        command: what measures it.
        found: what is wrong is noted here.
    """
    name = manifest.spec.name
    group, said, stats = f"teachers/{name}/stats", None, None
    place, fix = metadata_name(group), f"delete {FEATURES}/{group}, and `{command}` measures again"
    arrays = [("mean", 1), ("variance", 1), ("spectrum", 1), ("rounding", 1)]
    summary = [("dispersion", 0), ("mean_direction", 1), ("summary_sum", 1), ("summary_length", 0)]
    found.known.update(small_array_objects(group, [*arrays, *summary]))
    with noting(found.problems, place, fix):
        said = cache.attributes(group)
        stats = cache.stats(name)
        read_sums(cache, manifest, stats)  # new shards would be added to these; nothing else reads them
    if said is not None or cache.store.exists(place):  # a run that was killed leaves a group that says nothing yet
        check_group(cache.store, group, ours=said is not None, fix=fix, found=found)
    if stats is None:
        return None
    for view_set in stats.sets:
        check_group(cache.store, f"{group}/{view_set.name}", ours=False, fix=fix, found=found)
        found.known.update(small_array_objects(f"{group}/{view_set.name}", [*arrays, ("covariance", 2)]))
    if stats.identity != manifest.digest:
        problem = f"measured features {stats.identity}, these are {manifest.digest}"
        found.note(place, problem, f"`{command}` measures again")
    elif rows is not None:
        if stats.unmeasured(shards):
            return None
        _check_counts(stats, manifest, rows, place, fix, found)
    return stats


def _check_manifest(
    manifest: TeacherManifest, name: str, views: ViewsManifest, place: str, fix: str, found: Findings
) -> None:
    spec, identity = manifest.spec, manifest.identity
    if spec.name != name:
        found.note(place, f"is of a teacher called {spec.name}", fix)
    if identity["views"] != views.digest:
        problem = f"looked at views {identity['views']}, the cache has {views.digest}"
        found.note(place, problem, fix)
    if differences(identity["teacher"], spec.attributes()):
        found.note(place, "its identity is of another spec than its own", fix)
    if manifest.exported and identity["source"]["views"] != views.identity.get("export", {}).get("source"):
        found.note(place, "was exported from features of other views than those that were exported to here", fix)
    tokens = {view_set: teacher_tokens(spec, view_set, shape.geometry) for view_set, shape in views.sets.items()}
    # a set that an extension brought is declared before its first shard, when the teacher is run over it
    waiting = {view_set: tokens[view_set] for view_set, shape in views.sets.items() if not shape.grid.counts[0]}
    if tokens != waiting | dict(manifest.tokens):
        found.note(place, "its tokens are not those that its spec implies", fix)


def _check_phi_s(cache: Cache, name: str, manifest: TeacherManifest | None, command: str, found: Findings) -> None:
    group = f"teachers/{name}/phi_s"
    place = metadata_name(group)
    kept = f"{FEATURES}/teachers/{name}, tables/shards/teachers/{name} and tables/placements/{name}"
    fix = f"{copied_back(cache)}; stored features mean nothing without it: else delete {kept}, and run `{command}`"
    found.known.update({place, *small_array_objects(group, [("mean", 1), ("rotation", 2), ("scale", 0)])})
    phi_s, attributes = None, None
    with noting(found.problems, place, fix):
        attributes = cache.attributes(group)
        phi_s = cache.phi_s(name)
    if attributes is None or phi_s is None:
        if manifest is not None and attributes is None:
            found.note(place, "is gone: features were stored under it", fix)
        return
    check_group(cache.store, group, ours=True, fix=fix, found=found)
    with noting(found.problems, place, fix):
        for one in _phi_s_problems(attributes, manifest):
            found.note(place, one, fix)


def _phi_s_problems(attributes: Mapping[str, Any], manifest: TeacherManifest | None) -> Iterator[str]:
    if set(attributes) != {"sha256", "identity", "tokens"}:
        yield f"has the fields {', '.join(sorted(attributes))}"
    if manifest is None:
        return
    if attributes["sha256"] != manifest.identity["phi_s_sha256"]:
        yield "is not the map that the features were stored under"
    fitted_for = {name: value for name, value in manifest.origin.items() if name not in FITTED_AFTER}
    if unlike := differences(attributes["identity"], fitted_for):
        yield f"was fitted for something else than these features: {', '.join(one.place for one in unlike)}"


def _check_counts(
    stats: TeacherStats, manifest: TeacherManifest, rows: Mapping[ViewSet, int], place: str, fix: str, found: Findings
) -> None:
    tokens = {view_set: rows[view_set] * side**2 for view_set, side in manifest.tokens.items()}
    measured = {view_set: channels.tokens for view_set, channels in stats.sets.items()}
    said = (stats.views, stats.pooled.tokens, stats.dispersion is not None, measured)
    expected = (
        sum(rows.values()),
        sum(tokens.values()),
        manifest.spec.summary_dim is not None,
        {view_set: count for view_set, count in tokens.items() if count},
    )
    if said != expected:
        problem = f"counts {stats.views} views and {stats.pooled.tokens} tokens, its features do not"
        found.note(place, problem, fix)
