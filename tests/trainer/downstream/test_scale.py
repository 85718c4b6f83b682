"""Robustness of scale: the same view at several resolutions, compared place by place."""

import numpy as np
import pytest
import torch
from downstream.drawn_scenes import centre, noise, views_of, windows
from torch.nn.functional import interpolate

from storage_schemas.format.errors import AbstractStillhouseError
from trainer.downstream.options import EvaluateOptions
from trainer.downstream.scale import measure_scale

SIZES = {"a.jpg": (48, 96), "b.jpg": (48, 48)}


def smooth(_key: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Features of the place alone, whatever the resolution is."""
    return np.stack([x / 10, 5 - y / 10, np.ones_like(x)], axis=-1)


def test_features_of_the_place_alone_agree_at_all_resolutions_even_where_views_are_mirrored() -> None:
    sets = [views_of(SIZES, smooth, resolution=side, flips=[side == 96, False, True]) for side in (48, 96, 192)]
    measured = measure_scale(sets, EvaluateOptions())
    assert measured.scores["cosine"] == pytest.approx(1, abs=1e-6)
    assert measured.scores["scale_variance"] == pytest.approx(0, abs=1e-6)
    assert measured.counts == {"views": 3, "smallest": "low-48", "resolutions": 3}


def test_the_scores_equal_an_independent_computation() -> None:
    sets = [views_of(SIZES, noise(4, side), resolution=side) for side in (48, 96, 192)]
    grids = [of_set.tokens(slice(None)).astype(np.float64) for of_set in sets]
    resized = [
        interpolate(torch.from_numpy(grid).permute(0, 3, 1, 2), size=(6, 6), mode="bilinear")
        .permute(0, 2, 3, 1)
        .numpy()
        for grid in grids
    ]
    mean, width = grids[0].mean(axis=(1, 2), keepdims=True), grids[0].std(axis=(1, 2), ddof=1, keepdims=True)
    variance = np.var([(grid - mean) / width for grid in resized], axis=0, ddof=1).mean()
    lengths = np.linalg.norm(resized[0], axis=3) * np.linalg.norm(resized[2], axis=3)
    cosine = np.mean(np.sum(resized[0] * resized[2], axis=3) / lengths)
    measured = measure_scale(sets, EvaluateOptions())
    assert measured.scores["scale_variance"] == pytest.approx(variance, abs=1e-6)
    assert measured.scores["cosine"] == pytest.approx(cosine, abs=1e-6)
    assert abs(cosine) < 4 / np.sqrt(4 * 3 * 36)  # independent features


def test_views_of_other_places_and_constant_features_are_refused() -> None:
    other = views_of(SIZES, smooth, cut=lambda _size: [(8, 8, 24, 24)], resolution=96)
    with pytest.raises(AbstractStillhouseError, match="low-48, low-96: have no view of the same box in common"):
        measure_scale([views_of(SIZES, smooth, cut=windows), other], EvaluateOptions())
    flat = [views_of(SIZES, lambda _key, x, _y: np.ones((*x.shape, 2)), cut=centre, resolution=s) for s in (48, 96)]
    with pytest.raises(AbstractStillhouseError, match="drawn: no channel varies within a view"):
        measure_scale(flat, EvaluateOptions())
