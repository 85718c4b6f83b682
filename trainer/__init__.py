"""The trainer: it distils students from the cache alone.

`python -m trainer` trains, reports and exports. From Python, this package gives the parts of a training loop: the cache
(`open_source`, `ViewDataset`), the student (`Student`, `DistilledModel`), its heads (`AdaptorHead`, `TokenHead`), the
map from student tokens to teacher tokens (`TokenMap`, `TokenMaps`), the losses, and `load` for a finished student:

    source = open_source(Cache.open("out/demo/cache"), sets=["low-128"])   # `Cache` is from storage_schemas
    loader = DataLoader(ViewDataset(source, "low-128"), batch_size=8, shuffle=True, collate_fn=collate_views)
    token_maps = TokenMaps(source, {128: 8})                               # 8 × 8 tokens of a window of 128 px
    for batch in loader:
        tokens = head(backbone(unit_pixels(batch.pixels)))                 # `[batch, rows, columns, channels]`
        loss = spatial_mse(*token_maps(tokens, batch, "dinov3"))

A name is imported when it is first used, so importing the package itself is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.data.batch import TeacherTargets, ViewBatch, collate_views, unit_pixels
    from trainer.data.source import Source, open_source
    from trainer.data.view_dataset import ViewDataset
    from trainer.export import ExportedStudent, load
    from trainer.objective.batch_loss import LossTerms, batch_loss
    from trainer.objective.losses import (
        angles,
        balanced_angle,
        cosine_distance,
        spatial_cosine,
        spatial_mse,
        spatial_smooth,
    )
    from trainer.objective.token_map import TokenMap
    from trainer.objective.token_maps import TokenMaps
    from trainer.settings.learning import LossSettings
    from trainer.settings.student import HeadSettings, VitSettings
    from trainer.student.heads import AdaptorHead, TokenHead
    from trainer.student.model import DistilledModel, ModelOutput, TeacherShape
    from trainer.student.shape import StudentShape, measure_student
    from trainer.student.student import Student, StudentOutput

__all__ = [
    "AdaptorHead",
    "DistilledModel",
    "ExportedStudent",
    "HeadSettings",
    "LossSettings",
    "LossTerms",
    "ModelOutput",
    "Source",
    "Student",
    "StudentOutput",
    "StudentShape",
    "TeacherShape",
    "TeacherTargets",
    "TokenHead",
    "TokenMap",
    "TokenMaps",
    "ViewBatch",
    "ViewDataset",
    "VitSettings",
    "angles",
    "balanced_angle",
    "batch_loss",
    "collate_views",
    "cosine_distance",
    "load",
    "measure_student",
    "open_source",
    "spatial_cosine",
    "spatial_mse",
    "spatial_smooth",
    "unit_pixels",
]
_NAMES = {
    "trainer.data.batch": ("TeacherTargets", "ViewBatch", "collate_views", "unit_pixels"),
    "trainer.data.source": ("Source", "open_source"),
    "trainer.data.view_dataset": ("ViewDataset",),
    "trainer.export": ("ExportedStudent", "load"),
    "trainer.objective.batch_loss": ("LossTerms", "batch_loss"),
    "trainer.objective.losses": (
        "angles",
        "balanced_angle",
        "cosine_distance",
        "spatial_cosine",
        "spatial_mse",
        "spatial_smooth",
    ),
    "trainer.objective.token_map": ("TokenMap",),
    "trainer.objective.token_maps": ("TokenMaps",),
    "trainer.settings.learning": ("LossSettings",),
    "trainer.settings.student": ("HeadSettings", "VitSettings"),
    "trainer.student.heads": ("AdaptorHead", "TokenHead"),
    "trainer.student.model": ("DistilledModel", "ModelOutput", "TeacherShape"),
    "trainer.student.shape": ("StudentShape", "measure_student"),
    "trainer.student.student": ("Student", "StudentOutput"),
}
"""Module → the public names that it defines."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and `python -m trainer --help` does not need it
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
