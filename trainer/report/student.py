"""The features that a run's student predicts, in the teachers' own windows."""

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
from trainer.report.views import PicturedView, TeacherWindow
from trainer.run.checkpoint import read_checkpoint
from trainer.settings.student import HeadSettings, read_vit_settings
from trainer.student.model import DistilledModel, TeacherShape, summarised
from trainer.student.shape import measure_student
from trainer.student.student import Student

Predict = Callable[[Tensor, str], np.ndarray]
"""A function of one window `[1, 3, side, side]`, RGB in [0, 1], and a teacher's name: it gives the student's tokens
`[rows, columns, channels]` in that teacher's PHI-S units."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """A student's features of one view, in one teacher's space and window."""

    features: Float32[np.ndarray, "rows cols channels"]
    """The student's tokens, on its own grid (PHI-S units)."""
    error: Float64[np.ndarray, "common_rows common_cols"]
    """Squared distance to the teacher at the common positions, a mean over channels (PHI-S units squared)."""


def predict(result: RunResult, source: Source, views: Sequence[PicturedView]) -> list[Mapping[str, Prediction]]:
    """Run a run's student on views.

    Args:
        result: the run.
        source: the cache.
        views: the views.

    Returns:
        For each view, predictions by teacher, without view sets and teachers that the run does not use. They are empty
        if the run has no weights yet.
    """
    sets = _sets(result, source)
    student = _exported(result, source) if result.finished else _from_checkpoint(result, source, sets)
    if student is None:
        return [{} for _ in views]
    return [
        {
            name: _prediction(student, name, view, window, source.sets[view.view_set].geometry)
            for name, window in view.teachers.items()
            if name in result.teachers and view.view_set in sets
        }
        for view in views
    ]


def _sets(result: RunResult, source: Source) -> list[ViewSet]:
    named = result.recipe["data"]["proportions"]
    return [view_set for view_set in source.sets if not named or view_set.name in named]


def _exported(result: RunResult, source: Source) -> Predict:
    student = load(result.run.path)
    return lambda pixels, name: to_stored(source.teachers[name].phi_s, student(pixels).spatial[name][0].numpy())


def _from_checkpoint(result: RunResult, source: Source, sets: Sequence[ViewSet]) -> Predict | None:
    if not result.run.checkpoint.exists():
        return None
    model = _build(result, source, sets)
    state = read_checkpoint(result.run.checkpoint)["state_dict"]
    # the page shows the model that evaluation scores: the moving average if there is one
    prefix = "model." if result.recipe["average"]["decay"] is None else "average."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    model.load_state_dict(weights)
    model.eval()
    return lambda pixels, name: model(pixels, [name]).spatial[name][0].numpy()


def _build(result: RunResult, source: Source, sets: Sequence[ViewSet]) -> DistilledModel:
    recipe: Mapping[str, Any] = result.recipe
    specs = {name: source.teachers[name].manifest.spec for name in result.teachers}
    teachers = {name: TeacherShape(dim=spec.dim, summary_dim=spec.summary_dim) for name, spec in specs.items()}
    student = Student(recipe["student"], recipe["image_size"], read_vit_settings(recipe["vit"]), summarised(teachers))
    shape = measure_student(student, [view_set.resolution for view_set in sets])
    return DistilledModel(student, shape, teachers, HeadSettings(**recipe["heads"]))


@torch.no_grad()
def _prediction(
    student: Predict, teacher: str, view: PicturedView, window: TeacherWindow, geometry: CanvasGeometry
) -> Prediction:
    # the student gets the teacher's own window: nothing is shifted, and every token has a common position
    start = np.array([window.start], dtype=np.int64)
    pixels = cut_windows(view.canvas[None], geometry, start, channels_first=True)
    features = student(unit_pixels(torch.from_numpy(pixels)), teacher)
    token_map = TokenMap(geometry, len(features), len(window.features))
    stored = torch.from_numpy(window.features.astype(np.float32))
    no_shift = torch.zeros(1, 2, dtype=torch.int64)
    predicted, target, _ = token_map(torch.from_numpy(features)[None], stored[None], no_shift)
    error = (predicted.double() - target.double()).square().mean(dim=3)
    return Prediction(features=features, error=error[0].numpy())
