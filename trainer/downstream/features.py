"""Features of the views of one set, as tasks take them: the same type for a student and for a teacher."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.views import ViewSet

Tokens = Callable[[slice], Float32[np.ndarray, "views rows cols channels"]]
"""Reads the tokens of consecutive views."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationFeatures:
    """Features of N views of one set, in raw units. Entry i of every field belongs to the same view."""

    origin: str
    """What gave the features, for tables and messages: `dinov3`, or `runs/small: backbone`."""
    model: str | None
    """Name of the teacher's model whose space the features are in; None for a student's own features."""
    digest: str
    """Digest of everything that the features depend on: weights, view set and rows, precision."""
    view_set: ViewSet
    rows: Int64[np.ndarray, " views"]
    """Row slots in the view set, ascending."""
    keys: tuple[str, ...]
    """Key of each view's source image. An image may have several views."""
    boxes: Float64[np.ndarray, "views 4"]
    """Which part of the upright source image the features cover: left, top, width, height (source pixels). It is the
    window that the model was given, not the whole canvas of a cache with a margin."""
    flips: Bool[np.ndarray, " views"]
    """Whether the view was mirrored left to right after the cut. Column 0 of the tokens is then at the box's right."""
    image_sizes: Int64[np.ndarray, "views 2"]
    """Height and width of the upright source image (pixels)."""
    summary: Float32[np.ndarray, "views summary_channels"] | None
    """One vector for each view; None where the model has no summary."""
    shape: tuple[int, int, int]
    """Rows, columns and channels of a view's tokens."""
    tokens: Tokens
    """Tokens of consecutive views: `tokens(slice(0, 64))` is `[64, rows, columns, channels]`, row by row from the top
    left of the window. They are read when this is called, so a task should go over the views in parts."""
    mean: Float32[np.ndarray, "views channels"] | None = None
    """Mean of each view's tokens, where it is stored. `mean_tokens` gives it in any case."""

    def __len__(self) -> int:
        return len(self.keys)


def require_summary(features: EvaluationFeatures) -> Float32[np.ndarray, "views channels"]:
    """Return the summaries.

    Raises:
        SettingError: the model has none.
    """
    if features.summary is None:
        fix = "choose tasks on tokens, or another teacher or output"
        raise SettingError("features", [Problem(place=features.origin, found="has no summary", fix=fix)])
    return features.summary


def mean_tokens(features: EvaluationFeatures, views_at_a_time: int = 64) -> Float32[np.ndarray, "views channels"]:
    """Return the mean of each view's tokens: as it is stored, else from the tokens, summed in float64."""
    if features.mean is not None:
        return features.mean
    firsts = range(0, len(features), views_at_a_time)
    # a generator: the tokens of all views may not fit into memory
    parts = (features.tokens(slice(first, min(first + views_at_a_time, len(features)))) for first in firsts)
    return np.concatenate([part.mean(axis=(1, 2), dtype=np.float64).astype(np.float32) for part in parts])
