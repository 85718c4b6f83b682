"""Planning a run of the views stage: which images there are, which views they give, and whether any is to be cut."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.config import Recipe, RunConfig
from pipeline.images.listing import list_images
from pipeline.images.passed_over import PassedOver
from pipeline.inventory.commands import export_command
from pipeline.inventory.commit_log import require_as_committed
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.views.duplicates import find_copies
from pipeline.views.extension import divide, match_images, stored_config
from pipeline.views.generations import ViewsPlan, plan_views
from pipeline.views.shard_task import Detail, details_of
from pipeline.views.tasks import CommittedViews
from pipeline.workers.progress import Say
from storage_schemas.cache import Cache
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet

Details = Mapping[ViewSet, Sequence[Detail]]
"""The details of each view set."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsRequest:
    """What a run of the views stage is asked to do."""

    recipe: Recipe
    """Decides which views are drawn."""
    specs: Sequence[TeacherSpec]
    """Teachers that will read the views; the fixed ones need details."""
    data: str
    """DATA: the images; see `pipeline.images.listing`."""
    extend: bool
    """Whether images, draws or resolutions that the cache does not have are added to it."""
    run: RunConfig
    """How the work is carried out."""
    say: Say
    """Takes lines for the user."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredViews:
    """What a cache holds of the views that are requested, as it was read at one moment."""

    committed: CommittedViews | None
    """The manifest and the commit records; None before any view was cut."""
    complete: bool
    """Whether every shard that the manifest names is committed, with the details that the teachers need."""

    @property
    def manifest(self) -> ViewsManifest | None:
        """The manifest of the views; None before any view was cut."""
        return None if self.committed is None else self.committed.manifest

    def has_plan_of(self, other: "StoredViews") -> bool:
        """Say whether the plan that was made from another reading still holds: it depends on nothing else."""
        return (self.manifest, self.complete) == (other.manifest, other.complete)


def plan_missing_views(cache: Cache, request: ViewsRequest, stored: StoredViews) -> ViewsPlan | None:
    """Return the plan of the views, or None when nothing is to be written.

    The images are listed only where they are needed: views are missing, the recipe extends the cache's, or DATA is
    given, which may hold more images than the cache.

    Args:
        cache: the cache.
        request: what is asked for.
        stored: what the cache holds of it.

    Raises:
        MissingError: there are no images, or one cannot be read.
        IdentityError: the cache was made from other images.
        SettingError: the cache is an export, and views are missing.
    """
    manifest = stored.manifest
    if manifest is not None and manifest.exported:
        if not stored.complete:
            refuse_export(cache, "is an export, and canvases or details of a teacher are missing", "cut them in")
        return None
    if manifest is not None and stored.complete and not request.data and _drawn_by(manifest, request.recipe):
        return None
    plan = _plan_views_of_data(cache, request, manifest)
    if manifest is None:
        require_as_committed(cache, plan.manifest)
    return None if stored.complete and plan.manifest == manifest else plan


def details_to_cut(request: ViewsRequest, stored: StoredViews, plan: ViewsPlan) -> Details:
    """Return the details that the teachers of a request need. Views that are added need those of the whole recipe."""
    specs = {spec.name: spec for spec in request.specs}
    if stored.manifest is not None and stored.manifest != plan.manifest:
        specs = {spec.name: spec for spec in map(teacher_spec, request.recipe.teachers)} | specs
    return details_of(plan.manifest, specs.values())


def refuse_export(cache: Cache, found: str, action: str) -> None:
    """Refuse to write views into an export.

    Args:
        cache: the export.
        found: what is wrong.
        action: what the user can do in the cache that it was exported from.

    Raises:
        SettingError: always.
    """
    fix = (
        f"{action} the cache that it was exported from, and export that again; `{export_command(cache)}` completes an "
        "export that was interrupted"
    )
    raise SettingError("views", [Problem(place=cache.store.uri, found=found, fix=fix)])


def _drawn_by(manifest: ViewsManifest, recipe: Recipe) -> bool:
    return stored_config(manifest.generations[-1].views) == recipe.views


def _plan_views_of_data(cache: Cache, request: ViewsRequest, manifest: ViewsManifest | None) -> ViewsPlan:
    """List the images, match them with those of the cache, find copies where they are left out, draw the views."""
    passed_over = PassedOver()
    listed = list_images(request.data, request.recipe.views, cache.store.retries, request.say, passed_over)
    matched = match_images(cache, manifest, listed, request.data, extend=request.extend)
    drop = request.recipe.views.duplicates == "drop" and matched.compared
    copies = find_copies(matched.compared, cache.store.retries, request.run, request.say) if drop else {}
    return plan_views(request.recipe, divide(matched, copies), manifest, passed_over.by_kind())
