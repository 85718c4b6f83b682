"""The extract stage: fit PHI-S once, freeze it, and store a teacher's features of every view. It resumes by itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

from pipeline.calibration import calibration_sample, require_tokens
from pipeline.config import Recipe, RunConfig, TeacherChoice
from pipeline.cut_shard import committed_views
from pipeline.extract_shard import FeatureExtractor, FeatureReport, FeatureTask, spatial_spec, summary_spec
from pipeline.freeze_phi_s import freeze_phi_s, frozen_phi_s, require_same_teacher
from pipeline.moments import merge_all
from pipeline.pools import AbstractPool, in_order, open_pool
from pipeline.progress import Say, progress
from pipeline.publish import publish_group
from pipeline.shard_writer import create_array
from pipeline.stage_views import require_recipe, views_missing
from storage_schemas.cache import Cache, phi_s_digest
from storage_schemas.commits import committed_shards
from storage_schemas.errors import ContractError, MissingError, Problem, SettingError
from storage_schemas.layout import features_unit
from storage_schemas.manifest import TeacherManifest, ViewsManifest
from storage_schemas.phi_s import PhiS
from storage_schemas.teacher import TeacherSpec
from storage_schemas.views import ViewSet, teacher_tokens
from teachers.build import spec_of


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """One teacher's extract, ready to run."""

    cache: Cache
    recipe: Recipe
    choice: TeacherChoice
    spec: TeacherSpec
    views: ViewsManifest
    tokens: Mapping[ViewSet, int]
    """Tokens along one side of a window, by set."""

    @property
    def name(self) -> str:
        """The teacher's name in the cache."""
        return self.choice.name

    def worker(self, run: RunConfig) -> partial[FeatureExtractor]:
        """Return what makes a worker."""
        return partial(
            FeatureExtractor,
            store=self.cache.store,
            choice=self.choice,
            seed=self.recipe.views.seed,
            shifts=self.recipe.views.teacher_shifts,
            device=run.device,
            threads=run.threads,
        )

    def base_identity(self, weights_sha256: str) -> dict[str, Any]:
        """Return all that the features depend on but PHI-S, which is fitted from it."""
        return {
            "views": self.views.digest,
            "teacher": self.spec.attributes(),
            "weights_sha256": weights_sha256,
            "precision": self.choice.precision,
            "batch": self.choice.batch,
        }

    def identity(self, weights_sha256: str, phi_s: PhiS) -> dict[str, Any]:
        """Return all that the stored features depend on."""
        stored = {"encoding": self.choice.encoding, "compression": self.choice.compression}
        return self.base_identity(weights_sha256) | stored | {"phi_s_sha256": phi_s_digest(phi_s)}

    def task(self, view_set: ViewSet, shard: int, *, identity: str = "", first: int = 0) -> FeatureTask:
        """Return the task of one shard."""
        one = self.views.sets[view_set]
        return FeatureTask(view_set=view_set, manifest=one, shard=shard, identity=identity, first=first)


def teacher_spec(choice: TeacherChoice) -> TeacherSpec:
    """Return the spec of a recipe's teacher."""
    return spec_of(choice.source, name=choice.name, random_weights=choice.weights.startswith("random:"))


def plan_extraction(cache: Cache, recipe: Recipe, choice: TeacherChoice) -> Extraction:
    """Check that a teacher can look at this cache's views, all of which must be there.

    Raises:
        MissingError: views are missing.
        SettingError: the teacher cannot see a resolution; every such set is named. Or it has a summary, and would be
            shown many views at once.
    """
    spec, views = teacher_spec(choice), require_recipe(cache, recipe)
    if views is None or views_missing(cache, views, [spec]):
        found, fix = "not all views that the teacher needs are cut", "run `make views`; it resumes"
        raise MissingError("views", [Problem(place=cache.store.uri, found=found, fix=fix)])
    tokens, problems = {}, []
    if spec.size_rule == "canvas" and spec.summary_dim is not None:
        found = f"{spec.summary_dim}, but a summary of a mosaic is of no one view"
        problems.append(Problem(place="summary_dim", found=found, fix="declare None"))
    for view_set, one in views.sets.items():
        try:
            tokens[view_set] = teacher_tokens(spec, one.geometry)
        except ContractError as error:
            problems += [
                Problem(place=view_set.name, found=problem.found, fix=problem.fix) for problem in error.problems
            ]
    if problems:
        raise SettingError(f"teacher {choice.name}", problems)
    return Extraction(cache=cache, recipe=recipe, choice=choice, spec=spec, views=views, tokens=tokens)


def extract_teacher(extraction: Extraction, run: RunConfig, say: Say) -> None:
    """Bring one teacher's features to completion.

    Raises:
        IdentityError: the cache holds features of this name from other weights, settings or views.
    """
    name = extraction.name
    if extraction.spec.random_weights:
        say(f"extract {name}: RANDOM WEIGHTS ({extraction.choice.weights}): a demonstration, not a teacher")
    missing = _missing(extraction)
    if not missing:
        # weights have one digest wherever they are, and this machine may have no GPU
        weights = extraction.worker(replace(run, device="cpu"))().identify(None)
        manifest = _require_teacher(extraction, weights)
        say(f"extract {name}: complete, nothing to do ({_describe(extraction, manifest)})")
        return
    with open_pool(extraction.worker(run), run, tasks=len(missing)) as pool:
        weights = _only(pool, "identify")
        phi_s = _calibrated(extraction, weights, pool, say)
        manifest = _declare(extraction, weights, phi_s)
        _extract(extraction, manifest, missing, pool, say)


def _missing(extraction: Extraction) -> list[tuple[ViewSet, int]]:
    store, name = extraction.cache.store, extraction.name
    return [
        (view_set, shard)
        for view_set, one in extraction.views.sets.items()
        for shard in sorted(set(range(one.grid.shards)) - set(committed_shards(store, features_unit(view_set, name))))
    ]


def _require_teacher(extraction: Extraction, weights: str) -> TeacherManifest:
    manifest = extraction.cache.teacher_manifest(extraction.name)
    phi_s = frozen_phi_s(extraction.cache, extraction.name, extraction.base_identity(weights))
    if manifest is None or phi_s is None:
        found, fix = "does not say what computed the features below it", "make a new cache"
        place = f"teachers/{extraction.name}"
        raise MissingError(f"teacher {extraction.name}", [Problem(place=place, found=found, fix=fix)])
    require_same_teacher(extraction.name, manifest.identity, extraction.identity(weights, phi_s))
    return manifest


def _calibrated(extraction: Extraction, weights: str, pool: AbstractPool, say: Say) -> PhiS:
    cache, name, identity = extraction.cache, extraction.name, extraction.base_identity(weights)
    phi_s = frozen_phi_s(cache, name, identity)
    if phi_s is not None:
        return phi_s
    moments = merge_all(in_order(pool.run("observe", _calibration_tasks(extraction))))
    phi_s = freeze_phi_s(cache, name, identity, moments)
    say(f"extract {name}: PHI-S fitted on {moments.count} tokens and frozen; φ = {phi_s.scale:.4g}")
    return phi_s


def _calibration_tasks(extraction: Extraction) -> list[FeatureTask]:
    config, channels = extraction.recipe.calibration, extraction.spec.dim

    def training(view_set: ViewSet, shard: int) -> int:
        return committed_views(extraction.cache, view_set, shard)["split"].to_pylist().count("train")

    sample = calibration_sample(extraction.views.sets, extraction.tokens, training, config, channels)
    require_tokens(sample, extraction.tokens, config, channels)
    return [extraction.task(one.view_set, one.shard, first=one.views) for one in sample]


def _declare(extraction: Extraction, weights: str, phi_s: PhiS) -> TeacherManifest:
    manifest = TeacherManifest(
        spec=extraction.spec, identity=extraction.identity(weights, phi_s), tokens=extraction.tokens
    )
    stored = extraction.cache.teacher_manifest(extraction.name)
    if stored is not None:
        require_same_teacher(extraction.name, stored.identity, manifest.identity)
        return stored
    publish_group(extraction.cache.store, "teachers")
    for view_set in extraction.views.sets:
        task = extraction.task(view_set, 0)
        create_array(extraction.cache.store, spatial_spec(task, extraction.spec, extraction.choice))
        if extraction.spec.summary_dim is not None:
            create_array(extraction.cache.store, summary_spec(task, extraction.spec))
    publish_group(extraction.cache.store, f"teachers/{extraction.name}", manifest.attributes())
    return manifest


def _extract(
    extraction: Extraction, manifest: TeacherManifest, missing: list[tuple[ViewSet, int]], pool: AbstractPool, say: Say
) -> None:
    tasks = [extraction.task(view_set, shard, identity=manifest.digest) for view_set, shard in missing]
    total = sum(one.grid.rows for one in extraction.views.sets.values())
    waiting = sum(len(task.manifest.grid.slots(task.shard)) for task in tasks)
    say(f"extract {extraction.name}: {waiting} of {total} views to do in {len(tasks)} shards")
    reports: list[FeatureReport] = []
    with progress(f"extract {extraction.name}", done=total - waiting, total=total) as bar:
        for _, report in pool.run("extract", tasks):
            reports.append(report)
            bar.add(report.views)
    views, forwards, size = (sum(getattr(one, field) for one in reports) for field in ("views", "forwards", "bytes"))
    say(
        f"extract {extraction.name}: {views} views in {forwards} forwards, "
        f"{size / 1e6:.1f} MB written in {bar.rate}, {size / 1e6 / bar.seconds:.1f} MB/s"
    )


def _only(pool: AbstractPool, step: str) -> Any:
    [(_, result)] = pool.run(step, [None])
    return result


def _describe(extraction: Extraction, manifest: TeacherManifest) -> str:
    units = [features_unit(view_set, extraction.name) for view_set in extraction.views.sets]
    commits = [extraction.cache.records(unit, manifest.digest) for unit in units]
    arrays = [one for shards in commits for records in shards.values() for one in records if one.array]
    views = sum(one.rows for one in arrays if one.array.endswith("/spatial"))
    return f"{views} views, {sum(one.bytes for one in arrays) / 1e6:.1f} MB"
