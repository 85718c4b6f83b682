"""A teacher's committed features and the statistics stored of them, and which shards are not measured yet."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.inventory.commit_log import committed_below
from pipeline.stats.task import MeasureTask, branches
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.layout import features_unit
from storage_schemas.format.manifest import CacheManifests, TeacherManifest, ViewsManifest
from storage_schemas.format.stats import TeacherStats
from storage_schemas.format.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CommittedFeatures:
    """One teacher's features, all of them committed, as one reading of the cache found them."""

    recipe: str
    """Name of the cache's recipe."""
    views: ViewsManifest
    manifest: TeacherManifest
    rows: Mapping[ViewSet, Mapping[int, int]]
    """Views in every shard, by set."""
    stats: TeacherStats | None
    """The statistics that are stored of this teacher; None before it was measured."""

    @property
    def name(self) -> str:
        """The teacher's name."""
        return self.manifest.spec.name

    @property
    def rejected(self) -> int:
        """Views that were drawn and have no features: their images were rejected."""
        return sum(self.views.sets[view_set].grid.views - sum(rows.values()) for view_set, rows in self.rows.items())

    @property
    def new_shards(self) -> dict[ViewSet, frozenset[int]]:
        """Shards that are not measured yet, by set: all of them where other features were measured."""
        same = self.stats is not None and self.stats.identity == self.manifest.digest
        measured = self.stats.shards if self.stats is not None and same else {}
        return {view_set: frozenset(rows) - measured.get(view_set, frozenset()) for view_set, rows in self.rows.items()}

    @property
    def is_measured(self) -> bool:
        """Whether every shard is measured."""
        return self.stats is not None and not any(self.new_shards.values())

    @property
    def kept_apart(self) -> bool:
        """Whether the dispersion is that of the training views; not where new shards join statistics over all views."""
        stats = self.stats
        return stats is None or stats.identity != self.manifest.digest or stats.training_views is not None

    @property
    def first_pass(self) -> list[MeasureTask]:
        """Tasks over the new shards."""
        return self._tasks(self.new_shards)

    @property
    def second_pass(self) -> list[MeasureTask]:
        """Tasks over all shards: every new summary turns the mean direction, and thereby changes all angles."""
        return self._tasks({view_set: frozenset(rows) for view_set, rows in self.rows.items()})

    def _tasks(self, shards: Mapping[ViewSet, frozenset[int]]) -> list[MeasureTask]:
        summarised, tasks = self.manifest.spec.summary_dim is not None, []
        for view_set, numbers in shards.items():
            # a shard holds no view where every one of its images was rejected
            rows = [(shard, count) for shard, count in self.rows[view_set].items() if shard in numbers and count]
            tasks += branches(self.name, view_set, rows, summarised, self.kept_apart)
        return tasks


def read_features(cache: Cache, teachers: Sequence[str]) -> dict[str, CommittedFeatures]:
    """Read manifests, commit records and statistics of teachers, each object once. Return them by teacher.

    Raises:
        MissingError: there is no cache; no teacher is named; or one has no features, or not all of them.
        ContractError: a commit record is of other features.
    """
    manifests = cache.manifests(teachers)
    if not teachers:
        fix = "run `make extract TEACHER=…`"
        raise MissingError("teacher", [Problem(place=cache.store.uri, found="holds the features of none", fix=fix)])
    shards = committed_below(cache, [f"teachers/{name}" for name in teachers])
    return {name: _read(cache, name, manifests, shards) for name in teachers}


def _read(
    cache: Cache, teacher: str, manifests: CacheManifests, shards: Mapping[str, Collection[int]]
) -> CommittedFeatures:
    manifest, views = manifests.teachers.get(teacher), manifests.views
    fix = f"run `make extract TEACHER={teacher}`; it resumes"
    if manifest is None or views is None:
        raise MissingError(f"teacher {teacher}", [Problem(place=cache.store.uri, found="has no features", fix=fix)])
    rows, problems = {}, []
    for view_set in {**views.sets, **manifest.tokens}:
        unit = features_unit(view_set, teacher)
        commits = cache.records(unit, manifest.digest, shards.get(unit, ()))
        rows[view_set] = {shard: records[0].rows for shard, records in commits.items()}
    for view_set, shape in views.sets.items():
        if lacking := shape.grid.shards - len(rows[view_set]):
            found = f"{lacking} of {shape.grid.shards} shards are not committed"
            problems.append(Problem(place=view_set.name, found=found, fix=fix))
    if problems:
        raise MissingError(f"teacher {teacher}", problems)
    return CommittedFeatures(
        recipe=manifests.recipe,
        views=views,
        manifest=manifest,
        rows={view_set: rows[view_set] for view_set in manifest.tokens},
        stats=cache.stats(teacher),
    )
