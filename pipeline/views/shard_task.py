"""What a worker of the views stage is given, and what it reports back."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from pipeline.inventory.arrays import detail_identity, detail_spec, pixels_spec
from pipeline.views.order import DrawnView
from storage_schemas.format.manifest import ViewSetManifest, ViewsManifest
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet, detail_side


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """The windows that one fixed teacher sees of a view set, cut at the teacher's own scale."""

    teacher: str
    side: int
    """Side of a window (pixels)."""
    identity: str
    """Digest of the views and of this detail."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard of a view set, and which of its arrays are to be written."""

    view_set: ViewSet
    manifest: ViewSetManifest
    shard: int
    views: tuple[DrawnView, ...]
    """Views drawn for the shard, in order."""
    identity: str
    """Digest of the views."""
    canvases: bool
    """Whether to write the canvases and their tables. False where these are committed and only details are missing."""
    details: tuple[Detail, ...]
    """Details to write."""

    @property
    def arrays(self) -> list[ArraySpec]:
        """The arrays whose shard is to be written."""
        canvases = [pixels_spec(self.view_set, self.manifest)] if self.canvases else []
        details = [detail_spec(self.view_set, self.manifest, detail.teacher, detail.side) for detail in self.details]
        return canvases + details


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CutTask:
    """Shards that are cut together, so that each of their images is decoded once."""

    shards: tuple[ShardTask, ...]
    """Of one view set or of several."""

    @property
    def views(self) -> int:
        """Views drawn for all shards."""
        return sum(len(shard.views) for shard in self.shards)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CutReport:
    """The result of a task."""

    views: int
    """Views that were cut."""
    rejected: int
    """Views whose image cannot be cut."""
    newly_rejected: int
    """Of these, views of shards whose canvases were not committed before."""
    bytes: int
    """Bytes of the arrays that were written."""


def details_of(manifest: ViewsManifest, specs: Iterable[TeacherSpec]) -> dict[ViewSet, tuple[Detail, ...]]:
    """Return the details of each view set that the fixed teachers among some teachers need."""
    fixed = [spec for spec in specs if spec.size_rule == "fixed"]
    return {view_set: tuple(_detail(manifest, view_set, spec) for spec in fixed) for view_set in manifest.sets}


def _detail(manifest: ViewsManifest, view_set: ViewSet, spec: TeacherSpec) -> Detail:
    side = detail_side(spec, view_set)
    return Detail(teacher=spec.name, side=side, identity=detail_identity(manifest, spec.name, side))
