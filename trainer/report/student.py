"""A run's student, looking through the teachers' own windows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from storage_schemas.format.geometry import CanvasGeometry, cut_windows
from storage_schemas.format.phi_s import to_stored
from storage_schemas.format.views import ViewSet
from trainer.data.batch import unit_pixels
from trainer.data.source import Source
from trainer.export import load
from trainer.objective.token_map import TokenMap
from trainer.report.results import RunResult
from trainer.report.views import PicturedView, SeenWindow
from trainer.run.checkpoint import read_checkpoint
from trainer.settings.student import HeadSettings, read_vit_settings
from trainer.student.model import DistilledModel, TeacherShape, summarised
from trainer.student.shape import measure_student
from trainer.student.student import Student

Look = Callable[[Tensor, str], np.ndarray]
"""From one window `[1, 3, side, side]`, RGB in [0, 1], and a teacher's name to tokens in that teacher's PHI-S units."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What a student makes of one view, in one teacher's space and through that teacher's window."""

    features: Float32[np.ndarray, "rows cols channels"]
    """Its tokens, on its own grid (PHI-S units)."""
    error: Float64[np.ndarray, "common_rows common_cols"]
    """Squared distance to the teacher where their tokens meet, a mean over channels (PHI-S units squared)."""


def predict(one: RunResult, source: Source, views: Sequence[PicturedView]) -> list[Mapping[str, Prediction]]:
    """Show views to a run's student.

    Args:
        one: the run.
        source: the cache.
        views: what is pictured.

    Returns:
        For each view, predictions by teacher; none for a view set or a teacher that the run leaves out, and none at all
        for a run that has left no weights yet.
    """
    sets = _sets(one, source)
    look = _exported(one, source) if one.finished else _checkpointed(one, source, sets)
    if look is None:
        return [{} for _ in views]
    return [
        {
            name: _prediction(look, name, view, seen, source.sets[view.view_set].geometry)
            for name, seen in view.seen.items()
            if name in one.teachers and view.view_set in sets
        }
        for view in views
    ]


def _sets(one: RunResult, source: Source) -> list[ViewSet]:
    named = one.recipe["data"]["proportions"]
    return [view_set for view_set in source.sets if not named or view_set.name in named]


def _exported(one: RunResult, source: Source) -> Look:
    student = load(one.run.path)
    return lambda pixels, name: to_stored(source.teachers[name].phi_s, student(pixels).spatial[name][0].numpy())


def _checkpointed(one: RunResult, source: Source, sets: Sequence[ViewSet]) -> Look | None:
    if not one.run.checkpoint.exists():
        return None
    model = _build(one, source, sets)
    state = read_checkpoint(one.run.checkpoint)["state_dict"]
    # what is scored is what is shown: the moving average where there is one
    prefix = "model." if one.recipe["average"]["decay"] is None else "average."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    model.load_state_dict(weights)
    model.eval()
    return lambda pixels, name: model(pixels, [name]).spatial[name][0].numpy()


def _build(one: RunResult, source: Source, sets: Sequence[ViewSet]) -> DistilledModel:
    recipe: Mapping[str, Any] = one.recipe
    specs = {name: source.teachers[name].manifest.spec for name in one.teachers}
    teachers = {name: TeacherShape(dim=spec.dim, summary_dim=spec.summary_dim) for name, spec in specs.items()}
    student = Student(recipe["student"], recipe["image_size"], read_vit_settings(recipe["vit"]), summarised(teachers))
    shape = measure_student(student, [view_set.resolution for view_set in sets])
    return DistilledModel(student, shape, teachers, HeadSettings(**recipe["heads"]))


@torch.no_grad()
def _prediction(look: Look, teacher: str, view: PicturedView, seen: SeenWindow, geometry: CanvasGeometry) -> Prediction:
    # the teacher's own window: nothing is shifted, and every token meets one
    start = np.array([seen.start], dtype=np.int64)
    window = cut_windows(view.canvas[None], geometry, start, channels_first=True)
    features = look(unit_pixels(torch.from_numpy(window)), teacher)
    meet = TokenMap(geometry, len(features), len(seen.features))
    said = torch.from_numpy(seen.features.astype(np.float32))
    student, target, _ = meet(torch.from_numpy(features)[None], said[None], torch.zeros(1, 2, dtype=torch.int64))
    error = (student.double() - target.double()).square().mean(dim=3)
    return Prediction(features=features, error=error[0].numpy())
