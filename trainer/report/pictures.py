"""The pictures of each view, laid out so that one place of the scene is at one place of every picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from storage_schemas.format.geometry import CanvasGeometry
from trainer.data.source import Source
from trainer.report.pca import Projection, fit_projection
from trainer.report.png import error_picture, picture
from trainer.report.student import Prediction
from trainer.report.views import PicturedView, SeenWindow

CANVAS_SIDE = 256
"""Side that a larger canvas is shrunk to (pixels)."""

Predictions = Sequence[Mapping[str, Prediction]]
"""For each view, by teacher."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where a window lies in its canvas (percent of the canvas's side)."""

    left: float
    top: float
    side: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudentPictures:
    """What one student makes of a view in one teacher's space. Maps are data URIs with one pixel per token."""

    features: str
    error: str
    mean_error: float
    """Mean of the error (PHI-S units squared)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherPictures:
    """One teacher's features of a view, and what each student makes of it."""

    teacher: str
    colour: int
    frame: Frame
    """Of the teacher's window, which the students were given too."""
    features: str
    """Data URI, one pixel per token: the page enlarges it."""
    students: tuple[StudentPictures | None, ...]
    """One for each run; None where the run has none."""


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
        views: what is pictured.
        predictions: of each run, for each view.
        colours: number of each teacher's colour.
    """
    projections = {name: fit_projection(maps) for name in colours if (maps := _maps(views, name))}
    return [
        ViewPictures(
            view=view,
            canvas=picture(view.canvas, CANVAS_SIDE),
            teachers=tuple(
                _teacher(
                    name,
                    colours[name],
                    projections[name],
                    seen,
                    [run[place].get(name) for run in predictions],
                    source.sets[view.view_set].geometry,
                )
                for name, seen in view.seen.items()
            ),
        )
        for place, view in enumerate(views)
    ]


def _maps(views: Sequence[PicturedView], teacher: str) -> list[np.ndarray]:
    return [view.seen[teacher].features for view in views if teacher in view.seen]


def _teacher(
    name: str,
    colour: int,
    projection: Projection,
    seen: SeenWindow,
    predictions: Sequence[Prediction | None],
    geometry: CanvasGeometry,
) -> TeacherPictures:
    return TeacherPictures(
        teacher=name,
        colour=colour,
        frame=_frame(seen, geometry),
        features=picture(projection.colours(seen.features)),
        students=tuple(None if one is None else _student(one, projection) for one in predictions),
    )


def _student(one: Prediction, projection: Projection) -> StudentPictures:
    return StudentPictures(
        features=picture(projection.colours(one.features)),
        error=error_picture(one.error),
        mean_error=float(one.error.mean()),
    )


def _frame(seen: SeenWindow, geometry: CanvasGeometry) -> Frame:
    row, col = seen.start
    share = 100 / (geometry.span + geometry.margin)
    return Frame(left=round(col * share, 3), top=round(row * share, 3), side=round(geometry.span * share, 3))
