"""One teacher's extraction before it runs: what the cache holds for it, and the checks that need no model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

from pipeline.config import PCA_FIDELITY, Recipe, RunConfig, TeacherChoice
from pipeline.features.worker import FeatureExtractor, FeatureTask
from pipeline.inventory.commit_log import committed_below
from pipeline.inventory.teacher_maps import map_specs
from pipeline.views.extension import stored_config
from pipeline.views.shard_task import details_of
from pipeline.views.stage import read_manifests
from pipeline.views.tasks import CommittedViews, read_committed
from storage_schemas.cache import Cache
from storage_schemas.commits import UnitLog
from storage_schemas.format.compressor import zstd_codec
from storage_schemas.format.computed_by import ComputedBy
from storage_schemas.format.errors import ContractError, MissingError, Problem, SettingError
from storage_schemas.format.feature_storage import FeatureStorage, LatentsKey
from storage_schemas.format.identity import require_same
from storage_schemas.format.layout import features_unit
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.phi_s import PhiS, phi_s_digest
from storage_schemas.format.teacher import Precision, TeacherSpec
from storage_schemas.format.views import ViewSet, teacher_tokens
from storage_schemas.read_latents import read_latents
from teachers.source import precision_of

Lacking = Mapping[tuple[ViewSet, int], Sequence[str]]
"""Shards of view sets, in order, each with the names of the maps of which it is not committed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredFeatures:
    """What a cache holds of one teacher's maps, as one reading found it."""

    manifests: Mapping[str, TeacherManifest]
    """Of the maps that have one, by name."""
    committed: Mapping[str, Collection[int]]
    """Committed shards of each unit of these maps, from the names in the commit log."""

    def lacking(self, views: ViewsManifest, maps: Sequence[TeacherSpec]) -> Lacking:
        """Return the shards that are not committed of every map."""
        lacking: dict[tuple[ViewSet, int], list[str]] = {}
        for view_set, shape in views.sets.items():
            for spec in maps:
                committed = self.committed.get(features_unit(view_set, spec.name), ())
                for shard in set(range(shape.grid.shards)) - set(committed):
                    lacking.setdefault((view_set, shard), []).append(spec.name)
        return {key: lacking[key] for key in sorted(lacking)}


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """What a cache holds for one teacher, as one reading found it."""

    views: CommittedViews | None
    """The canvases, and the details that the teacher still needs; None before any view was cut."""
    features: StoredFeatures


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extraction:
    """One teacher's extraction, ready to run."""

    cache: Cache
    recipe: Recipe
    choice: TeacherChoice
    maps: tuple[TeacherSpec, ...]
    """Specs of its feature maps in the cache: the last block's first, then those of `choice.layers`."""
    views: ViewsManifest
    tokens: Mapping[ViewSet, int]
    """Tokens along one side of a window, by set."""
    stored: StoredFeatures
    """What the cache holds of these maps already."""

    @property
    def name(self) -> str:
        """The teacher's name."""
        return self.choice.name

    @property
    def precision(self) -> Precision:
        """Arithmetic of the teacher's forward."""
        return precision_of(self.choice.source, self.choice.precision)

    @property
    def lacking(self) -> Lacking:
        """The shards that are still to be computed, each with the names of the maps that lack it."""
        return self.stored.lacking(self.views, self.maps)

    def read_again(self, cache: Cache) -> "Extraction":
        """Return this extraction over a cache whose lease is held, after reading again what is stored of its maps."""
        return replace(self, cache=cache, stored=_read_features(cache, self.maps))

    def worker(self, run: RunConfig) -> partial[FeatureExtractor]:
        """Return the factory of this extraction's workers."""
        return partial(
            FeatureExtractor,
            store=self.cache.store,
            choice=self.choice,
            seed=self.recipe.views.seed,
            shifts=stored_config(self.views.generations[-1].views).teacher_shifts,
            device=run.device,
            compiled=run.compiled,
            threads=run.threads,
        )

    def base_identity(self, spec: TeacherSpec, weights_sha256: str) -> dict[str, Any]:
        """Return everything that a map's features depend on, except PHI-S: the map of PHI-S is fitted from it."""
        return {
            "views": self.views.digest,
            "teacher": spec.attributes(),
            "weights_sha256": weights_sha256,
            "precision": self.precision,
            "batch": self.choice.batch,
            **({} if self.choice.summary == "own" else {"summary": self.choice.summary}),
        }

    @property
    def latent_fidelity(self) -> float | None:
        """The fidelity of the latents that features are stored in; None where they are stored in none."""
        return (self.choice.fidelity or PCA_FIDELITY) if self.choice.encoding == "pca8" else None

    def storage(self, name: str) -> FeatureStorage:
        """Return how the features of a map are stored. The latents of `pca8` are read: PHI-S is fitted before.

        Raises:
            MissingError: there are no latents: PHI-S was fitted for another encoding.
            IdentityError: the latents were chosen for another fidelity.
        """
        if self.latent_fidelity is None:
            return self.choice.storage
        read = read_latents(self.cache.store, name)
        if read is None:
            found = "was fitted for another encoding, and no latents were chosen with it"
            fix = "extract in that encoding, and make pca8 of it with `make export`"
            raise MissingError(f"teacher {name}", [Problem(place=f"teachers/{name}/phi_s", found=found, fix=fix)])
        latents, attributes = read
        chosen, fix = {"fidelity": self.latent_fidelity}, "use the fidelity that this teacher was begun with"
        require_same(f"latents of teacher {name}", {"fidelity": attributes["fidelity"]}, chosen, fix)
        key = LatentsKey(sha256=attributes["sha256"], kept=latents.kept, fidelity=attributes["fidelity"])
        return replace(self.choice.storage, latents=key)

    def identity(self, spec: TeacherSpec, weights_sha256: str, phi_s: PhiS) -> dict[str, Any]:
        """Return everything that a map's stored features depend on."""
        stored = self.storage(spec.name).identity()
        return self.base_identity(spec, weights_sha256) | stored | {"phi_s_sha256": phi_s_digest(phi_s)}

    def task(
        self,
        view_set: ViewSet,
        shard: int,
        identities: Mapping[str, str],
        computed_by: ComputedBy,
        storages: Mapping[str, FeatureStorage],
        *,
        first: int = 0,
    ) -> FeatureTask:
        """Return the task of one shard."""
        return FeatureTask(
            view_set=view_set,
            manifest=self.views.sets[view_set],
            shard=shard,
            identities=identities,
            computed_by=computed_by,
            storages=storages,
            first=first,
        )


def read_inputs(cache: Cache, recipe: Recipe, choice: TeacherChoice) -> Inputs:
    """Read what a cache holds for one teacher: manifests, commit records of views, names of committed features.

    Every object is read once.

    Raises:
        IdentityError: the cache was made by another recipe or with other settings, or details of this teacher were.
        SettingError: there is no such teacher.
    """
    maps = map_specs(choice)
    manifests = read_manifests(cache, recipe, [spec.name for spec in maps])
    if manifests is None or manifests.views is None:
        return Inputs(views=None, features=StoredFeatures(manifests={}, committed={}))
    features = StoredFeatures(manifests=manifests.teachers, committed=_committed(cache, maps))
    needed = maps[:1] if features.lacking(manifests.views, maps) else ()
    committed = read_committed(cache, manifests.views, details_of(manifests.views, needed))
    return Inputs(views=committed, features=features)


def plan_extraction(cache: Cache, recipe: Recipe, choice: TeacherChoice, inputs: Inputs | None = None) -> Extraction:
    """Check that a teacher can see a cache's views, all of which must be cut.

    Args:
        cache: the cache.
        recipe: what made it.
        choice: the teacher.
        inputs: what the cache holds for it; read when not given.

    Raises:
        MissingError: views are missing.
        SettingError: the teacher cannot see a resolution (every such set is named); or it has a summary, though it sees
            many views in one mosaic; or it has no such block.
    """
    if choice.compression == "zstd":
        zstd_codec()  # now, and not after hours of forwards
    maps, inputs = map_specs(choice), inputs or read_inputs(cache, recipe, choice)
    if inputs.views is None or inputs.views.missing_shards():
        found, fix = "not all views that the teacher needs are cut", "run `make views`; it resumes"
        raise MissingError("views", [Problem(place=cache.store.uri, found=found, fix=fix)])
    views = inputs.views.manifest
    return Extraction(
        cache=cache,
        recipe=recipe,
        choice=_with_stored_level(choice, inputs.features),
        maps=maps,
        views=views,
        tokens=_tokens_of_windows(maps[0], views),
        stored=inputs.features,
    )


def _with_stored_level(choice: TeacherChoice, features: StoredFeatures) -> TeacherChoice:
    """Return a choice with the level of compression that its stored features have, where the user gives none."""
    if choice.compression == "none" or choice.compression_level is not None:
        return choice
    stored = [FeatureStorage.of_identity(manifest.identity) for manifest in features.manifests.values()]
    levels = [storage.level for storage in stored if storage.compression == choice.compression]
    return replace(choice, compression_level=levels[0]) if levels else choice


def _tokens_of_windows(spec: TeacherSpec, views: ViewsManifest) -> dict[ViewSet, int]:
    """Return the tokens along one side of a teacher's window of each set."""
    tokens, problems = {}, []
    if spec.size_rule == "canvas" and spec.summary_dim is not None:
        found = f"{spec.summary_dim}, but a summary of a mosaic belongs to no single view"
        problems.append(Problem(place="summary_dim", found=found, fix="declare None"))
    for view_set, shape in views.sets.items():
        try:
            tokens[view_set] = teacher_tokens(spec, view_set, shape.geometry)
        except ContractError as error:
            problems += [
                Problem(place=view_set.name, found=problem.found, fix=problem.fix) for problem in error.problems
            ]
    if problems:
        raise SettingError(f"teacher {spec.name}", problems)
    return tokens


def _read_features(cache: Cache, maps: Sequence[TeacherSpec]) -> StoredFeatures:
    manifests = cache.manifests(spec.name for spec in maps).teachers
    return StoredFeatures(manifests=manifests, committed=_committed(cache, maps))


def _committed(cache: Cache, maps: Sequence[TeacherSpec]) -> dict[str, UnitLog]:
    return committed_below(cache, [f"teachers/{spec.name}" for spec in maps])
