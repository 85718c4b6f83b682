"""Depth and surface normals: a linear head or a narrow DPT on frozen tokens, scored over the pixels of images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import normalize

from storage_schemas.format.errors import Problem, SettingError
from trainer.downstream.dense_head import apply_head, build_head, fit_head
from trainer.downstream.dense_settings import DenseHeadSettings, DepthSettings, NormalsSettings
from trainer.downstream.dense_views import ImageParts, image_size, part_images, tokens_of
from trainer.downstream.depth_maps import find_maps
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.measured import Measured
from trainer.downstream.pixel_grid import cut, put_together

BALANCE = 0.5
"""λ of the loss for depth."""
ANGLES = (11.25, 22.5, 30.0)
"""Angles below which a normal counts as found (degrees)."""
DELTA = 1.25
"""δ₁ counts depths that are wrong by less than this factor."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DepthScore:
    """How well the predicted depths of one image agree with its map."""

    rmse: float
    """Root of the mean squared error (m)."""
    delta_1: float
    """Share of the pixels whose predicted depth is wrong by less than a factor of 1.25."""
    abs_rel: float
    """Mean of |predicted − true| / true."""


def score_depth(predicted: Float64[np.ndarray, " pixels"], true: Float64[np.ndarray, " pixels"]) -> DepthScore:
    """Return the scores of an image's depths.

        RMSE = √mean (d̂ − d)²,   δ₁ = share of max(d̂ / d, d / d̂) < 1.25,   AbsRel = mean |d̂ − d| / d

    Source: Eigen et al. 2014, arXiv:1406.2283.

    Args:
        predicted: depths (m).
        true: depths (m) of the same pixels.
    """
    ratio = np.maximum(predicted / true, true / predicted)
    return DepthScore(
        rmse=float(np.sqrt(np.mean((predicted - true) ** 2))),
        delta_1=float(np.mean(ratio < DELTA)),
        abs_rel=float(np.mean(np.abs(predicted - true) / true)),
    )


def align_scale(
    predicted: Float64[np.ndarray, " pixels"], true: Float64[np.ndarray, " pixels"]
) -> Float64[np.ndarray, " pixels"]:
    """Return predicted depths times the factor that gives them the median of the true ones."""
    return predicted * (np.median(true) / np.median(predicted))


def angles_between(
    predicted: Float64[np.ndarray, "pixels 3"], true: Float64[np.ndarray, "pixels 3"]
) -> Float64[np.ndarray, " pixels"]:
    """Return the angle between vectors of any length (degrees).

    θ = atan2(|a × b|, a · b), which keeps its precision for equal and for opposite vectors, where that of arccos is
    lost. A predicted vector of zeros counts as 90°: it has no direction.
    """
    across, along = np.linalg.norm(np.cross(predicted, true), axis=1), np.sum(predicted * true, axis=1)
    return np.where((across == 0) & (along == 0), 90.0, np.degrees(np.arctan2(across, along)))


def measure_depth(
    features: EvaluationFeatures,
    maps_at: DepthSettings,
    settings: DenseHeadSettings,
    parts: ImageParts,
    device: str = "cpu",
) -> Measured:
    """Train a head for depth on the views of the training images, and score it on the pixels of the test images.

    The head predicts the logarithm of the depth. With g = log d̂ − log d, its loss is Eigen's:

        L = mean g² − λ (mean g)²,   λ = ½

    Every score is computed for each image, and averaged over images. `rmse`, `delta_1` and `abs_rel` compare metres as
    they are; those with `_scaled` first give each image's prediction the median of its map, and so ignore its scale.
    Where views overlap, their logarithms are averaged. Pixels without a depth, or in no view, do not count.

    Args:
        features: tokens of one view set.
        maps_at: where the maps are, their unit, and which depths count.
        settings: the head, and how it is trained.
        parts: how images are divided.
        device: where the head runs.

    Raises:
        MissingError: an image has no map.
        SettingError: maps of another size or kind, an empty part, or no pixel that counts.
    """
    images = part_images("depth", features, parts)
    files = find_maps("depth", maps_at.maps, maps_at.format, images.sizes)

    def depths(key: str) -> np.ndarray:
        return files.depth(key, maps_at)

    head = build_head(settings.head, features.shape[2], 1, settings)
    fit_head(head, images.train, _example(features, depths), depth_loss, settings, device)
    plain, scaled, pixels = [], [], 0
    for values, truth in _test_pixels(features, head, images.test, depths, device):
        predicted, true = np.exp(values[:, 0]), truth
        plain.append(score_depth(predicted, true))
        scaled.append(score_depth(align_scale(predicted, true), true))
        pixels += len(true)
    _require_pixels("depth", pixels)
    names = ("rmse", "delta_1", "abs_rel")
    scores = {name: float(np.mean([getattr(score, name) for score in plain])) for name in names}
    scores |= {f"{name}_scaled": float(np.mean([getattr(score, name) for score in scaled])) for name in names}
    return Measured(scores=scores, counts={**images.counts, "scored_images": len(plain), "pixels": pixels})


def measure_normals(
    features: EvaluationFeatures,
    maps_at: NormalsSettings,
    settings: DenseHeadSettings,
    parts: ImageParts,
    device: str = "cpu",
) -> Measured:
    """Train a head for surface normals on the views of the training images, and score it on those of the test images.

    The loss is 1 − cos θ. The scores are about all pixels of the test images together: the mean angle, its root mean
    square, and the shares of angles below 11.25°, 22.5° and 30°.

    Source of the measure: Fouhey et al. 2013, doi:10.1109/ICCV.2013.421.

    Args:
        features: tokens of one view set.
        maps_at: where the maps are.
        settings: the head, and how it is trained.
        parts: how images are divided.
        device: where the head runs.

    Raises:
        MissingError: an image has no map.
        SettingError: maps of another size or kind, an empty part, or no pixel that counts.
    """
    images = part_images("normals", features, parts)
    files = find_maps("normals", maps_at.maps, maps_at.format, images.sizes)
    head = build_head(settings.head, features.shape[2], 3, settings)
    fit_head(head, images.train, _example(features, files.normals), normals_loss, settings, device)
    sums, scored = np.zeros(3 + len(ANGLES)), 0
    for values, truth in _test_pixels(features, head, images.test, files.normals, device):
        angles = angles_between(values, truth)
        below = [(angles < limit).sum() for limit in ANGLES]
        sums += [len(angles), angles.sum(), np.sum(angles**2), *below]
        scored += 1
    _require_pixels("normals", int(sums[0]))
    mean, square, *shares = sums[1:] / sums[0]
    scores = {"mean_angle": float(mean), "rms_angle": float(np.sqrt(square))}
    scores |= {f"below_{limit:g}": float(share) for limit, share in zip(ANGLES, shares, strict=True)}
    return Measured(scores=scores, counts={**images.counts, "scored_images": scored, "pixels": int(sums[0])})


def depth_loss(values: Tensor, target: Tensor) -> Tensor:
    """Return Eigen's loss of log-depths `[batch, 1, side, side]` over pixels that are not NaN; 0 if there are none."""
    counted = target.isfinite()
    gaps = (values[:, 0] - torch.where(counted, target, 1).log()) * counted
    # each view has a scale of its own
    pixels = counted.sum(dim=(1, 2)).clamp(min=1)
    means, squares = gaps.sum(dim=(1, 2)) / pixels, gaps.square().sum(dim=(1, 2)) / pixels
    return (squares - BALANCE * means.square()).mean()


def normals_loss(values: Tensor, target: Tensor) -> Tensor:
    """Return 1 − cos θ of vectors `[batch, 3, side, side]`, over the pixels that are not NaN; 0 if there are none."""
    counted = target.isfinite().all(dim=3)
    cosines = (normalize(values, dim=1).permute(0, 2, 3, 1) * torch.where(counted[..., None], target, 0)).sum(dim=3)
    return ((1 - cosines) * counted).sum() / counted.sum().clamp(min=1)


ReadMap = Callable[[str], np.ndarray]
"""Takes an image's key; returns its map, NaN where it does not count."""


def _example(features: EvaluationFeatures, read: ReadMap) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    side = features.view_set.resolution
    return lambda view: (tokens_of(features, view), cut(read(features.keys[view]), features.boxes[view], side))


def _test_pixels(
    features: EvaluationFeatures,
    head: torch.nn.Module,
    views: Mapping[str, Sequence[int]],
    read: ReadMap,
    device: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the head's values `[pixels, outputs]` and the truth `[pixels, …]` of each image, where they count."""
    for key, of_image in views.items():
        truth, tokens = read(key), np.stack([tokens_of(features, view) for view in of_image])
        grids = [grid.cpu().double() for grid in apply_head(head, tokens, device)]
        boxes = [features.boxes[view] for view in of_image]
        counted = np.asarray(np.isfinite(truth.reshape(*truth.shape[:2], -1)).all(axis=2))
        values, kept = [], []
        for band, of_band, count in put_together(grids, boxes, image_size(features, of_image[0])):
            here = counted[band.start : band.stop] & (count > 0)
            values.append(of_band.numpy()[here])
            kept.append(truth[band.start : band.stop][here])
        if any(map(len, kept)):
            yield np.concatenate(values), np.concatenate(kept).astype(np.float64)


def _require_pixels(task: str, pixels: int) -> None:
    if not pixels:
        found = "hold no value at any pixel that a view covers"
        raise SettingError(task, [Problem(place="maps of the test part", found=found)])
