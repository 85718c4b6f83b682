"""Checking teachers, but for their shards: manifests, PHI-S maps, the metadata of their arrays, statistics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from pipeline.inventory.manifest_units import feature_units
from pipeline.inventory.present import uncommit
from pipeline.inventory.units import Unit
from pipeline.stats.stored import read_sums
from pipeline.verify.problems import Findings, collecting
from pipeline.verify.zarr_metadata import (
    Fixes,
    check_group,
    check_unit,
    metadata_name,
    restore_from_copy,
    small_array_objects,
)
from storage_schemas.cache import Cache
from storage_schemas.format.computed_by import history_of
from storage_schemas.format.feature_storage import STORAGE_FIELDS, FeatureStorage, LatentsKey
from storage_schemas.format.identity import differences
from storage_schemas.format.layout import FEATURES, features_unit
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.snapshots import HEADS
from storage_schemas.format.stats import TeacherStats
from storage_schemas.format.views import ViewSet, teacher_tokens
from storage_schemas.read_latents import latents_group, read_latents
from storage_schemas.unit_log import LOG

CHOSEN_AFTER_FITTING = STORAGE_FIELDS | {"phi_s_sha256"}
"""Fields of the features' identity that PHI-S does not depend on."""
PHI_S_AXES = {"mean": 1, "rotation": 2, "scale": 0}
"""Arrays of a PHI-S map, with their number of axes."""
LATENT_AXES = {"basis": 2, "steps": 1}
"""Arrays of latents, with their number of axes."""
STATS_AXES = {"mean": 1, "variance": 1, "spectrum": 1, "rounding": 1}
"""Arrays of statistics, over all sets and over each."""
SET_AXES = {**STATS_AXES, "covariance": 2}
"""Arrays of statistics over one set."""
SUMMARY_AXES = {"dispersion": 0, "heldout_dispersion": 0, "mean_direction": 1, "summary_sum": 1, "summary_length": 0}
"""Arrays of statistics of summaries."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTeacher:
    """A teacher whose manifest can be read."""

    manifest: TeacherManifest
    units: tuple[Unit, ...]
    """Its features of each set; none where the manifest contradicts the views."""


def check_teacher(
    cache: Cache, name: str, views: ViewsManifest, command: str, findings: Findings
) -> CheckedTeacher | None:
    """Check a teacher's manifest, PHI-S and the metadata of its arrays; None where the manifest cannot be read.

    Args:
        cache: the cache.
        name: the teacher's.
        views: the cache's.
        command: the command that extracts it.
        findings: problems are added here.
    """
    first = uncommit(cache, cache.log(features_unit(next(iter(views.sets)), name)), 0).removeprefix("delete ")
    group, place = f"teachers/{name}", metadata_name(f"teachers/{name}")
    fix = f"{restore_from_copy(cache)}; or delete {place} and {first}, and `{command}` writes them again"
    manifest, units = None, list[Unit]()
    findings.referenced.add(place)
    with collecting(findings.problems, place, fix):
        attributes = cache.attributes(group)
        manifest = None if attributes is None else TeacherManifest.from_attributes(attributes)
    _check_phi_s(cache, name, manifest, command, findings)
    if manifest is not None:
        _check_latents(cache, manifest, findings)
    if manifest is None:
        return None
    check_group(cache.store, group, has_attribute=True, fix=fix, findings=findings)
    with collecting(findings.problems, place, fix):
        for problem in _manifest_problems(manifest, name, views):
            findings.add(place, problem, fix)
        units = feature_units(views, manifest)
    again = f"{restore_from_copy(cache)}; or delete it, {place} and {first}, and `{command}` writes them again"
    for unit in units:
        check_unit(cache, unit, group=unit.name, fixes=Fixes(group=again, array=again), findings=findings)
    return CheckedTeacher(manifest=manifest, units=tuple(units))


def check_stats(
    cache: Cache,
    manifest: TeacherManifest,
    rows: Mapping[ViewSet, int] | None,
    shards: Mapping[ViewSet, int],
    command: str,
    findings: Findings,
) -> TeacherStats | None:
    """Check a teacher's statistics, and return them.

    Args:
        cache: the cache.
        manifest: the teacher's.
        rows: views of the teacher's features by set; None while these are not complete.
        shards: number of shards of each set.
        command: the command that measures the features.
        findings: problems are added here.

    Returns:
        The statistics; None where there are none, they cannot be read, or shards were added after they were measured.
    """
    name = manifest.spec.name
    group, attributes, stats = f"teachers/{name}/stats", None, None
    place, fix = metadata_name(group), f"delete {FEATURES}/{group}, and `{command}` measures again"
    findings.referenced.update(small_array_objects(group, STATS_AXES | SUMMARY_AXES))
    with collecting(findings.problems, place, fix):
        attributes = cache.attributes(group)
        stats = cache.stats(name)
        read_sums(cache, manifest, stats)  # the arrays that new shards are merged into: only `make stats` reads them
    if attributes is not None or cache.store.exists(place):  # a killed run leaves a group without an attribute
        check_group(cache.store, group, has_attribute=attributes is not None, fix=fix, findings=findings)
    if stats is None:
        return None
    _check_set_groups(cache, group, stats, fix, findings)
    if stats.identity != manifest.digest:
        problem = f"was measured on features of identity {stats.identity}, these have {manifest.digest}"
        findings.add(place, problem, f"`{command}` measures again")
    elif rows is not None:
        if stats.unmeasured(shards):
            return None
        _check_counts(stats, manifest, rows, place, fix, findings)
    return stats


def _check_set_groups(cache: Cache, group: str, stats: TeacherStats, fix: str, findings: Findings) -> None:
    for view_set in stats.sets:
        check_group(cache.store, f"{group}/{view_set.name}", has_attribute=False, fix=fix, findings=findings)
        findings.referenced.update(small_array_objects(f"{group}/{view_set.name}", SET_AXES))


def _manifest_problems(manifest: TeacherManifest, name: str, views: ViewsManifest) -> Iterator[str]:
    spec, identity = manifest.spec, manifest.identity
    if spec.name != name:
        yield f"is the manifest of a teacher named {spec.name}"
    if identity["views"] != views.digest:
        yield f"its features are of views {identity['views']}, the cache has {views.digest}"
    if differences(identity["teacher"], spec.attributes()):
        yield "its identity contains another spec than its own"
    if manifest.exported and identity["source"]["views"] != views.identity.get("export", {}).get("source"):
        yield "its features and the views of this cache were exported from different views"
    tokens = {view_set: teacher_tokens(spec, view_set, shape.geometry) for view_set, shape in views.sets.items()}
    # a set from an extension is in the manifest of the views before the teacher is run over it
    pending = {view_set: tokens[view_set] for view_set, shape in views.sets.items() if not shape.grid.counts[0]}
    if tokens != pending | dict(manifest.tokens):
        yield "its tokens are not those that its spec implies"


def _check_phi_s(cache: Cache, name: str, manifest: TeacherManifest | None, command: str, findings: Findings) -> None:
    group = f"teachers/{name}/phi_s"
    place = metadata_name(group)
    folders = ", ".join(f"{folder}/teachers/{name}" for folder in (FEATURES, HEADS, LOG))
    features = f"{folders} and tables/placements/{name}"
    fix = f"{restore_from_copy(cache)}; features are useless without it: else delete {features}, and run `{command}`"
    findings.referenced.update({place, *small_array_objects(group, PHI_S_AXES)})
    phi_s, attributes = None, None
    with collecting(findings.problems, place, fix):
        attributes = cache.attributes(group)
        phi_s = cache.phi_s(name) if manifest is None else cache.require_phi_s(name)[0]
    if attributes is None or phi_s is None:
        return
    check_group(cache.store, group, has_attribute=True, fix=fix, findings=findings)
    with collecting(findings.problems, place, fix):
        for problem in _phi_s_problems(attributes, manifest):
            findings.add(place, problem, fix)


def _check_latents(cache: Cache, manifest: TeacherManifest, findings: Findings) -> None:
    """Check the latents that features are stored in, where they are stored in some."""
    key = FeatureStorage.of_identity(manifest.identity).latents
    if key is None:
        return
    group = latents_group(manifest.spec.name)
    place, fix = metadata_name(group), f"{restore_from_copy(cache)}; features cannot be read without them"
    findings.referenced.update({place, *small_array_objects(group, LATENT_AXES)})
    with collecting(findings.problems, place, fix):
        read = read_latents(cache.store, manifest.spec.name)
        found = None if read is None else LatentsKey(kept=read[0].kept, **read[1])
        if found != key:
            what = "are gone" if found is None else f"are {found.kept} of digest {found.sha256}"
            findings.add(place, f"{what}; the features are stored in {key.kept} of digest {key.sha256}", fix)
    if cache.store.exists(place):
        check_group(cache.store, group, has_attribute=True, fix=fix, findings=findings)


def _phi_s_problems(attributes: Mapping[str, Any], manifest: TeacherManifest | None) -> Iterator[str]:
    if set(attributes) - {"computed_by"} != {"sha256", "identity", "tokens"}:
        yield f"has the fields {', '.join(sorted(attributes))}"
    history_of(attributes)  # which refuses what is not a history
    if manifest is None:
        return
    if attributes["sha256"] != manifest.identity["phi_s_sha256"]:
        yield "is not the map that the features were stored under"
    fitted_for = {name: value for name, value in manifest.origin.items() if name not in CHOSEN_AFTER_FITTING}
    if unlike := differences(attributes["identity"], fitted_for):
        fields = ", ".join(difference.place for difference in unlike)
        yield f"was fitted for other features than these; they differ in {fields}"


def _check_counts(
    stats: TeacherStats,
    manifest: TeacherManifest,
    rows: Mapping[ViewSet, int],
    place: str,
    fix: str,
    findings: Findings,
) -> None:
    tokens = {view_set: rows[view_set] * side**2 for view_set, side in manifest.tokens.items()}
    measured = {view_set: channels.tokens for view_set, channels in stats.sets.items()}
    counted = (stats.views, stats.pooled.tokens, stats.dispersion is not None, measured)
    expected = (
        sum(rows.values()),
        sum(tokens.values()),
        manifest.spec.summary_dim is not None,
        {view_set: count for view_set, count in tokens.items() if count},
    )
    if counted != expected:
        problem = f"counts {stats.views} views and {stats.pooled.tokens} tokens, its features have other counts"
        findings.add(place, problem, fix)
