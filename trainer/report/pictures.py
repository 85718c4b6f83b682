"""The pictures of each view, placed so that a point of the scene is at the same place in every picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from storage_schemas.format.geometry import CanvasGeometry
from trainer.data.source import Source
from trainer.report.pca import Projection, fit_projection
from trainer.report.png import error_picture, picture
from trainer.report.student import Prediction
from trainer.report.views import PicturedView, TeacherWindow

CANVAS_SIDE = 256
"""Side that a larger canvas is shrunk to (pixels)."""

Predictions = Sequence[Mapping[str, Prediction]]
"""For each view, by teacher."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Position of a window in its canvas (percent of the canvas's side)."""

    left: float
    top: float
    side: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudentPictures:
    """One student's features of a view in one teacher's space, and their error: data URIs with one pixel per token."""

    features: str
    error: str
    mean_error: float
    """Mean of the error (PHI-S units squared)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherPictures:
    """One teacher's features of a view, and each student's features in the teacher's space."""

    teacher: str
    colour: int
    frame: Frame
    """Position of the teacher's window. The students get the same window."""
    features: str
    """Data URI, one pixel per token: the page enlarges it."""
    students: tuple[StudentPictures | None, ...]
    """One for each run; None for a run without a prediction for this view and teacher."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPictures:
    """All pictures of one view."""

    view: PicturedView
    canvas: str
    """Data URI."""
    teachers: tuple[TeacherPictures, ...]


def make_pictures(
    source: Source, views: Sequence[PicturedView], predictions: Sequence[Predictions], colours: Mapping[str, int]
) -> list[ViewPictures]:
    """Draw every view.

    Args:
        source: the cache.
        views: the views.
        predictions: for each run, the predictions for each view.
        colours: number of each teacher's colour.
    """
    projections = {name: fit_projection(features) for name in colours if (features := _features(views, name))}
    return [
        ViewPictures(
            view=view,
            canvas=picture(view.canvas, CANVAS_SIDE),
            teachers=tuple(
                _teacher(
                    name,
                    colours[name],
                    projections[name],
                    window,
                    [run[place].get(name) for run in predictions],
                    source.sets[view.view_set].geometry,
                )
                for name, window in view.teachers.items()
            ),
        )
        for place, view in enumerate(views)
    ]


def _features(views: Sequence[PicturedView], teacher: str) -> list[Float[np.ndarray, "_ _ channels"]]:
    return [view.teachers[teacher].features for view in views if teacher in view.teachers]


def _teacher(
    name: str,
    colour: int,
    projection: Projection,
    window: TeacherWindow,
    predictions: Sequence[Prediction | None],
    geometry: CanvasGeometry,
) -> TeacherPictures:
    return TeacherPictures(
        teacher=name,
        colour=colour,
        frame=_frame(window, geometry),
        features=picture(projection.colours(window.features)),
        students=tuple(None if found is None else _student(found, projection) for found in predictions),
    )


def _student(prediction: Prediction, projection: Projection) -> StudentPictures:
    return StudentPictures(
        features=picture(projection.colours(prediction.features)),
        error=error_picture(prediction.error),
        mean_error=float(prediction.error.mean()),
    )


def _frame(window: TeacherWindow, geometry: CanvasGeometry) -> Frame:
    row, col = window.start
    share = 100 / (geometry.span + geometry.margin)
    return Frame(left=round(col * share, 3), top=round(row * share, 3), side=round(geometry.span * share, 3))
