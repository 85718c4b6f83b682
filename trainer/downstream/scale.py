"""Robustness of scale: how far the tokens of the same views agree at several resolutions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from storage_schemas.format.errors import Problem, SettingError
from trainer.downstream.dense_views import tokens_of
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.measured import Measured
from trainer.downstream.options import EvaluateOptions
from trainer.evaluation.scale_variance import scale_variance


def measure_scale(features: Sequence[EvaluationFeatures], _options: EvaluateOptions) -> Measured:
    """Compare the tokens of views at some resolutions with those of the same views at the smallest one.

    `cosine` is the mean cosine between a token of the smallest resolution and that at the same place of the largest one
    given, resized bilinearly to its grid. `scale_variance` is σ² of v2.5 eq 14 over all resolutions given. Over a list
    of resolutions both are curves: a model that switches its mode at some resolution has a step there.

    Args:
        features: the same views at two or more resolutions, the smallest first; those of the last one are scored.

    Raises:
        SettingError: the view sets have no view in common, or no channel varies within a view.
    """
    places = [_places(of_set) for of_set in features]
    shared = [place for place in places[0] if all(place in of_set for of_set in places[1:])]
    if not shared:
        names = ", ".join(of_set.view_set.name for of_set in features)
        fix = "cut all resolutions at the same places: --views.placing centre, or windows"
        raise SettingError("scale", [Problem(place=names, found="have no view of the same box in common", fix=fix)])
    variances, cosines = [], []
    for place in shared:
        grids = [
            torch.from_numpy(tokens_of(of_set, of_place[place]))[None].float()
            for of_set, of_place in zip(features, places, strict=True)
        ]
        variances.append(float(scale_variance(grids)))
        cosines.append(_mean_cosine(grids[0], grids[-1]))
    if not np.isfinite(variances).any():
        raise SettingError("scale", [Problem(place=features[0].origin, found="no channel varies within a view")])
    return Measured(
        scores={"cosine": float(np.mean(cosines)), "scale_variance": float(np.nanmean(variances))},
        counts={"views": len(shared), "smallest": features[0].view_set.name, "resolutions": len(features)},
    )


def scale_settings(_options: EvaluateOptions) -> Mapping[str, Any]:
    """Return what `measure_scale` depends on beside the features: nothing."""
    return {}


def _places(features: EvaluationFeatures) -> dict[tuple[str, bytes], int]:
    """Return the view of each box of each image."""
    views = enumerate(zip(features.keys, features.boxes, strict=True))
    return {(key, box.tobytes()): view for view, (key, box) in views}


def _mean_cosine(small: Float[Tensor, "1 rows cols channels"], large: Float[Tensor, "1 _ _ channels"]) -> float:
    size = small.shape[1:3]
    resized = interpolate(large.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
    return float(cosine_similarity(small.permute(0, 3, 1, 2), resized, dim=1).mean())
