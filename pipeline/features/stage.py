"""The extract stage: fit PHI-S once, freeze it, and store a teacher's features of every view. It resumes by itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

from pipeline.config import Recipe, RunConfig, TeacherChoice
from pipeline.features.calibration import CalibrationShard, calibration_sample, require_tokens, require_varying
from pipeline.features.frozen_phi_s import freeze_phi_s, frozen_phi_s, require_same_teacher
from pipeline.features.worker import FeatureExtractor, FeatureReport, FeatureTask
from pipeline.inventory.arrays import spatial_spec, summary_spec
from pipeline.inventory.commands import export_command
from pipeline.inventory.inputs import input_side
from pipeline.inventory.teacher_maps import map_specs
from pipeline.inventory.unfinished import waiting_teachers
from pipeline.leases.lease import leased, teacher_lease
from pipeline.phi_s.moments import merge_each
from pipeline.views.stage import require_recipe, views_missing
from pipeline.views.worker import committed_views
from pipeline.workers.device import peak_tflops
from pipeline.workers.open_pool import open_pool
from pipeline.workers.ordered import in_order
from pipeline.workers.pool import AbstractPool
from pipeline.workers.progress import Say, progress
from storage_schemas.cache import Cache, phi_s_digest
from storage_schemas.commits import committed_shards
from storage_schemas.format.errors import ContractError, IdentityError, MissingError, Problem, SettingError
from storage_schemas.format.layout import features_unit
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.phi_s import PhiS
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.format.teacher import Precision, TeacherSpec
from storage_schemas.format.views import ViewSet, teacher_tokens
from storage_schemas.objects.publish import publish_group
from storage_schemas.shard_writer import create_array
from teachers.cost import tflop_per_input
from teachers.source import is_own, precision_of


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """One teacher's extract, ready to run."""

    cache: Cache
    recipe: Recipe
    choice: TeacherChoice
    maps: tuple[TeacherSpec, ...]
    """What each of its maps is in the cache: the last block's first, then those of `choice.layers`."""
    views: ViewsManifest
    tokens: Mapping[ViewSet, int]
    """Tokens along one side of a window, by set."""

    @property
    def name(self) -> str:
        """The teacher's name."""
        return self.choice.name

    @property
    def precision(self) -> Precision:
        """Arithmetic of its forward."""
        return precision_of(self.choice.source, self.choice.precision)

    def worker(self, run: RunConfig) -> partial[FeatureExtractor]:
        """Return what makes a worker."""
        return partial(
            FeatureExtractor,
            store=self.cache.store,
            choice=self.choice,
            seed=self.recipe.views.seed,
            shifts=self.recipe.views.teacher_shifts,
            device=run.device,
            compiled=run.compiled,
            threads=run.threads,
        )

    def base_identity(self, spec: TeacherSpec, weights_sha256: str) -> dict[str, Any]:
        """Return all that the features of a map depend on but PHI-S, which is fitted from it."""
        return {
            "views": self.views.digest,
            "teacher": spec.attributes(),
            "weights_sha256": weights_sha256,
            "precision": self.precision,
            "batch": self.choice.batch,
        }

    def identity(self, spec: TeacherSpec, weights_sha256: str, phi_s: PhiS) -> dict[str, Any]:
        """Return all that the stored features of a map depend on."""
        stored = {"encoding": self.choice.encoding, "compression": self.choice.compression}
        return self.base_identity(spec, weights_sha256) | stored | {"phi_s_sha256": phi_s_digest(phi_s)}

    def task(self, view_set: ViewSet, shard: int, identities: Mapping[str, str], *, first: int = 0) -> FeatureTask:
        """Return the task of one shard."""
        one = self.views.sets[view_set]
        return FeatureTask(view_set=view_set, manifest=one, shard=shard, identities=identities, first=first)


def plan_extraction(cache: Cache, recipe: Recipe, choice: TeacherChoice) -> Extraction:
    """Check that a teacher can look at this cache's views, all of which must be there.

    Raises:
        MissingError: views are missing.
        SettingError: the teacher cannot see a resolution; every such set is named. Or it has a summary, and would be
            shown many views at once; or it has no such block.
    """
    maps, views = map_specs(choice), require_recipe(cache, recipe)
    spec = maps[0]
    if views is None or views_missing(cache, views, waiting_teachers(cache, views, [choice])):
        found, fix = "not all views that the teacher needs are cut", "run `make views`; it resumes"
        raise MissingError("views", [Problem(place=cache.store.uri, found=found, fix=fix)])
    tokens, problems = {}, []
    if spec.size_rule == "canvas" and spec.summary_dim is not None:
        found = f"{spec.summary_dim}, but a summary of a mosaic is of no one view"
        problems.append(Problem(place="summary_dim", found=found, fix="declare None"))
    for view_set, one in views.sets.items():
        try:
            tokens[view_set] = teacher_tokens(spec, view_set, one.geometry)
        except ContractError as error:
            problems += [
                Problem(place=view_set.name, found=problem.found, fix=problem.fix) for problem in error.problems
            ]
    if problems:
        raise SettingError(f"teacher {choice.name}", problems)
    return Extraction(cache=cache, recipe=recipe, choice=choice, maps=maps, views=views, tokens=tokens)


def extract_teacher(extraction: Extraction, run: RunConfig, say: Say) -> None:
    """Bring the features of all maps of one teacher to completion.

    Raises:
        IdentityError: the cache holds features of one of these names from other weights, settings or views, or from
            another cache.
        BusyError: another run is writing this teacher's.
    """
    name = extraction.name
    _require_own(extraction)
    if extraction.maps[0].random_weights:
        say(f"extract {name}: RANDOM WEIGHTS ({extraction.choice.weights}): a demonstration, not a teacher")
    if _missing(extraction):
        with leased(extraction.cache, teacher_lease(name), f"extract {name}") as lease:
            ours = replace(extraction, cache=lease.cache)
            if missing := _missing(ours):  # another run may have done it meanwhile
                _extract_missing(ours, missing, run, say)
                return
    # weights have one digest wherever they are, and this machine may have no GPU
    weights = extraction.worker(replace(run, device="cpu"))().identify(None)
    manifests = [_require_map(extraction, spec, weights) for spec in extraction.maps]
    say(f"extract {name}: complete, nothing to do ({_describe(extraction, manifests)})")


def _extract_missing(
    extraction: Extraction, missing: Mapping[tuple[ViewSet, int], list[str]], run: RunConfig, say: Say
) -> None:
    with open_pool(extraction.worker(run), run, tasks=len(missing)) as pool:
        weights = _only(pool, FeatureExtractor.identify)
        frozen = _calibrated(extraction, weights, pool, say)
        manifests = [_declare(extraction, spec, weights, frozen[spec.name]) for spec in extraction.maps]
        _extract(extraction, manifests, missing, pool, run, say)


def _require_own(extraction: Extraction) -> None:
    """Refuse to go on with features that come from another cache: nothing here can make the rest of them."""
    manifests = (extraction.cache.teacher_manifest(spec.name) for spec in extraction.maps)
    if names := [manifest.spec.name for manifest in manifests if manifest is not None and manifest.exported]:
        found = "was exported to here; it is extracted in the cache that it comes from"
        fix = f"`{export_command(extraction.cache)}` finishes it; a teacher of another name can be run over these views"
        problems = [Problem(place=f"teachers/{name}", found=found, fix=fix) for name in names]
        raise IdentityError(f"teacher {extraction.name}", problems)


def _missing(extraction: Extraction) -> dict[tuple[ViewSet, int], list[str]]:
    """Return the shards that are not committed of every map, each with the names of those that lack it."""
    missing: dict[tuple[ViewSet, int], list[str]] = {}
    for view_set, one in extraction.views.sets.items():
        for spec in extraction.maps:
            unit = features_unit(view_set, spec.name)
            for shard in set(range(one.grid.shards)) - set(committed_shards(extraction.cache.store, unit)):
                missing.setdefault((view_set, shard), []).append(spec.name)
    return {key: missing[key] for key in sorted(missing)}


def _require_map(extraction: Extraction, spec: TeacherSpec, weights: str) -> TeacherManifest:
    manifest = extraction.cache.teacher_manifest(spec.name)
    phi_s = frozen_phi_s(extraction.cache, spec.name, extraction.base_identity(spec, weights))
    if manifest is None or phi_s is None:
        found, fix = "does not say what computed the features below it", "make a new cache"
        raise MissingError(f"teacher {spec.name}", [Problem(place=f"teachers/{spec.name}", found=found, fix=fix)])
    require_same_teacher(spec.name, manifest.identity, extraction.identity(spec, weights, phi_s))
    return manifest


def _calibrated(
    extraction: Extraction, weights: str, pool: AbstractPool[FeatureExtractor], say: Say
) -> dict[str, PhiS]:
    """Return the frozen PHI-S of every map, after fitting those that have none yet.

    Raises:
        ContractError: the teacher gave NaN, infinity, or a channel that never changes; nothing of it is stored.
    """
    identities = {spec.name: extraction.base_identity(spec, weights) for spec in extraction.maps}
    stored = {name: frozen_phi_s(extraction.cache, name, identity) for name, identity in identities.items()}
    frozen = {name: phi_s for name, phi_s in stored.items() if phi_s is not None}
    unfitted = [name for name in identities if name not in frozen]
    if not unfitted:
        return frozen
    sample, wanted = _calibration_views(extraction), dict.fromkeys(unfitted, "")
    tasks = [extraction.task(one.view_set, one.shard, wanted, first=one.views) for one in sample]
    moments = merge_each(in_order(pool.run(FeatureExtractor.observe, tasks)))
    require_varying(moments, sample)
    for name in unfitted:
        frozen[name] = freeze_phi_s(extraction.cache, name, identities[name], moments[name])
        fitted = f"PHI-S fitted on {moments[name].count} tokens and frozen; φ = {frozen[name].scale:.4g}"
        say(f"extract {name}: {fitted}")
    return frozen


def _calibration_views(extraction: Extraction) -> list[CalibrationShard]:
    config, channels = extraction.recipe.calibration, extraction.maps[0].dim

    def training(view_set: ViewSet, shard: int) -> int:
        return committed_views(extraction.cache, view_set, shard)["split"].to_pylist().count("train")

    sample = calibration_sample(extraction.views.sets, extraction.tokens, training, config, channels)
    require_tokens(sample, extraction.tokens, config, channels)
    return sample


def _declare(extraction: Extraction, spec: TeacherSpec, weights: str, phi_s: PhiS) -> TeacherManifest:
    cache, identity, arrays = extraction.cache, extraction.identity(spec, weights, phi_s), _arrays(extraction, spec)
    manifest = TeacherManifest(spec=spec, identity=identity, tokens=extraction.tokens)
    stored = cache.teacher_manifest(spec.name)
    if stored is not None:
        require_same_teacher(spec.name, stored.identity, manifest.identity)
        # views may have been added since: then arrays are to be longer, or there are to be more
        known = dict(stored.tokens) == dict(manifest.tokens)
        if known and all(cache.array(one.path, {}).spec == one for one in arrays):
            return stored
    publish_group(cache.store, "teachers")
    for one in arrays:
        create_array(cache.store, one)
    publish_group(cache.store, f"teachers/{spec.name}", manifest.attributes())
    return manifest


def _arrays(extraction: Extraction, spec: TeacherSpec) -> list[ArraySpec]:
    sets = extraction.views.sets.items()
    arrays = [spatial_spec(view_set, shape, spec, extraction.choice) for view_set, shape in sets]
    if spec.summary_dim is not None:
        arrays += [summary_spec(view_set, shape, spec) for view_set, shape in sets]
    return arrays


def _extract(
    extraction: Extraction,
    manifests: Sequence[TeacherManifest],
    missing: Mapping[tuple[ViewSet, int], list[str]],
    pool: AbstractPool[FeatureExtractor],
    run: RunConfig,
    say: Say,
) -> None:
    digests = {manifest.spec.name: manifest.digest for manifest in manifests}
    tasks = [
        extraction.task(view_set, shard, {name: digests[name] for name in names})
        for (view_set, shard), names in missing.items()
    ]
    total = sum(one.grid.views for one in extraction.views.sets.values())
    waiting = sum(len(task.manifest.grid.slots(task.shard)) for task in tasks)
    say(f"extract {extraction.name}: {waiting} of {total} views to do in {len(tasks)} shards")
    reports, costs = list[FeatureReport](), _costs(extraction, tasks)
    with progress(f"extract {extraction.name}", done=total - waiting, total=total, report=run.report) as bar:
        for index, report in pool.run(FeatureExtractor.extract, tasks):
            reports.append(report)
            view_set = tasks[index].view_set
            bar.peaks[report.device.place] = peak_tflops(report.device, extraction.precision)
            tokens, tflop = report.views * extraction.tokens[view_set] ** 2, report.forwards * costs.get(view_set, 0.0)
            bar.add(report.views, tokens=tokens, tflop=tflop, size=report.bytes)
    forwards = sum(report.forwards for report in reports)
    say(f"extract {extraction.name}: {bar.views} views in {forwards} forwards, {bar.bytes / 1e6:.1f} MB in {bar.rate}")
    if extraction.choice.encoding == "int8":
        saturated = sum(one.saturated for one in reports)
        say(f"extract {extraction.name}: int8: {saturated} numbers were as large as it holds, or larger")


def _costs(extraction: Extraction, tasks: Sequence[FeatureTask]) -> dict[ViewSet, float]:
    """Return what an input of each set costs (10¹² operations); nothing of a class of the user's own, which would have
    to be run for it."""
    source, spec = extraction.choice.source, extraction.maps[0]
    if is_own(source):
        return {}
    shapes = {task.view_set: task.manifest.geometry for task in tasks}
    return {one: tflop_per_input(source, input_side(spec, geometry)) for one, geometry in shapes.items()}


def _only(pool: AbstractPool[FeatureExtractor], step: Callable[[FeatureExtractor, None], Any]) -> Any:
    [(_, result)] = pool.run(step, [None])
    return result


def _describe(extraction: Extraction, manifests: Sequence[TeacherManifest]) -> str:
    commits = [
        extraction.cache.records(features_unit(view_set, manifest.spec.name), manifest.digest)
        for manifest in manifests
        for view_set in extraction.views.sets
    ]
    arrays = [one for shards in commits for records in shards.values() for one in records if one.array]
    views = sum(one.rows for one in arrays if one.array.endswith("/spatial")) // len(manifests)
    return f"{views} views, {sum(one.bytes for one in arrays) / 1e6:.1f} MB"
