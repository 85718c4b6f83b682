"""Correspondence: whether the token nearest to a source keypoint's features lies at the target keypoint (PCK)."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float, Float64

from storage_schemas.format.errors import MissingError, Problem, SettingError, first_problems
from trainer.downstream.dense_settings import CorrespondenceSettings
from trainer.downstream.dense_views import image_size, tokens_of, views_by_image
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.measured import Measured
from trainer.downstream.pixel_grid import bilinear_weights

POINTS = ("source_x", "source_y", "target_x", "target_y")
BOX = ("target_left", "target_top", "target_right", "target_bottom")
COLUMNS = ("source", "target", *POINTS)
CENTRE = 0.5
"""Keypoints count pixels from the centre of the first one, views from its outer edge (pixels)."""

DECIMALS = 12
"""Decimals of a cosine that count."""

Point = Float64[np.ndarray, "2"]
"""x and y (pixels)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeypointPair:
    """A point of one image, and the point that it is in another."""

    source: str
    """Key of the source image."""
    target: str
    """Key of the target image."""
    at_source: Point
    """From the outer edge of the image."""
    at_target: Point
    """From the outer edge of the image."""
    larger_side: float
    """Larger side of the object's box in the target image (pixels); NaN without a box."""


def read_pairs(path: Path, *, boxes: bool) -> list[KeypointPair]:
    """Read the CSV file of keypoint pairs.

    Args:
        path: the file.
        boxes: whether every pair must have a box.

    Raises:
        SettingError: it is no CSV file, there are no pairs, a column is missing, or a value is no finite number.
        MissingError: there is no such file.
    """
    if not path.is_file():
        raise MissingError("keypoints", [Problem(place=str(path), found="is no file")])
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        lines, names = list(reader), reader.fieldnames or ()
    except (UnicodeDecodeError, csv.Error) as error:
        problem = Problem(place=str(path), found=f"is not a CSV file in UTF-8: {error}")
        raise SettingError("keypoints", [problem]) from error
    wanted = (*COLUMNS, *(BOX if boxes else ()))
    if missing := [name for name in wanted if name not in names]:
        fix = "without boxes, choose distances with `pixels` and no `alphas`" if set(missing) <= set(BOX) else ""
        found = f"has no column {', '.join(missing)}"
        raise SettingError("keypoints", [Problem(place=str(path), found=found, fix=fix)])
    if not lines:
        raise SettingError("keypoints", [Problem(place=str(path), found="has no line of keypoints")])
    pairs, problems = [], []
    for number, line in enumerate(lines, start=2):
        try:
            pairs.append(_pair(line, boxes=boxes))
        except ValueError as error:
            problems.append(Problem(place=f"{path}, line {number}", found=str(error)))
    if problems:
        raise SettingError("keypoints", first_problems(problems))
    return pairs


def sample(
    grid: Float[np.ndarray, "rows cols channels"], box: Float64[np.ndarray, "4"], at: Point
) -> Float64[np.ndarray, " channels"]:
    """Return a view's features at a point of its image, interpolated bilinearly between the tokens' centres."""
    rows, cols = grid.shape[:2]
    down = bilinear_weights((at[1:] - box[1]) / box[3] * rows, rows)[0]
    across = bilinear_weights((at[:1] - box[0]) / box[2] * cols, cols)[0]
    return np.einsum("r,c,rcd->d", down, across, grid.astype(np.float64))


def centres_of(box: Float64[np.ndarray, "4"], rows: int, cols: int) -> Float64[np.ndarray, "tokens 2"]:
    """Return x and y of the centre of every token of a view, row by row (pixels of the image)."""
    y, x = np.meshgrid(
        box[1] + (np.arange(rows) + 0.5) / rows * box[3],
        box[0] + (np.arange(cols) + 0.5) / cols * box[2],
        indexing="ij",
    )
    return np.stack([x.ravel(), y.ravel()], axis=1)


def nearest(query: Float64[np.ndarray, " channels"], tokens: Float[np.ndarray, "tokens channels"]) -> int:
    """Return the token with the highest cosine to some features: the first one of several with the same."""
    lengths = np.linalg.norm(tokens, axis=1)
    # a token of zeros has no direction, and is never the nearest while there is another
    cosines = np.where(lengths > 0, tokens @ query / np.where(lengths > 0, lengths, 1), -np.inf)
    # equal tokens have equal cosines; a matrix product may give them different last bits
    return int(np.round(cosines / (np.linalg.norm(query) or 1), DECIMALS).argmax())


def measure_correspondence(features: EvaluationFeatures, settings: CorrespondenceSettings) -> Measured:
    """Find the target of each keypoint among the tokens of the target image, and return the shares that are found.

        found: |predicted − target| ≤ α · max(width, height) of the target's box      (SPair's measure)
               |predicted − target| ≤ t pixels                                        (NAVI's measure)

    The source's features are interpolated at the keypoint, in the view that holds it farthest from its border; the
    prediction is the centre of the token with the highest cosine among all views of the target image. A keypoint that
    lies in no view of its image is counted and left out. `PCK` is the share of all keypoints; `PCK_per_pair` is its
    mean over pairs of images, as SPair's paper counts it.

    Source: Min et al. 2019, arXiv:1908.10543 (SPair-71k); Jampani et al. 2023, arXiv:2306.09109 (NAVI).

    Args:
        features: tokens of one view set.
        settings: keypoints and distances.

    Raises:
        MissingError: no file, or an image that the view set does not have.
        SettingError: keypoints that cannot be read, lie outside their image, or all lie outside the views.
    """
    pairs = read_pairs(settings.pairs, boxes=bool(settings.alphas))
    views = views_by_image(features, {key for pair in pairs for key in (pair.source, pair.target)})
    _require_images(pairs, views, features, settings.pairs)
    seen = [pair for pair in pairs if _seen(pair, views, features)]
    if not seen:
        raise SettingError("keypoints", [Problem(place=str(settings.pairs), found="none lies in a view of its image")])
    distances = np.array(list(_distances(seen, views, features)))
    return Measured(
        scores=dict(_shares(seen, distances, settings)),
        counts={
            "keypoints": len(seen),
            "keypoints_outside_views": len(pairs) - len(seen),
            "image_pairs": len({(pair.source, pair.target) for pair in seen}),
        },
    )


def require_keypoints(settings: CorrespondenceSettings) -> None:
    """Refuse settings that are not possible, before any feature is computed.

    Raises:
        MissingError: there is no file of keypoints.
        SettingError: no file is given, no distance, a distance that is not above 0, or keypoints that cannot be read.
    """
    problems = []
    if settings.pairs == Path():
        problems.append(Problem(place="pairs", found="no file of keypoints is given"))
    if not settings.alphas and not settings.pixels:
        problems.append(Problem(place="alphas, pixels", found="no distance is given"))
    wrong = [value for value in (*settings.alphas, *settings.pixels) if not 0 < value < np.inf]
    problems += [Problem(place="alphas, pixels", found=f"{value} is not a number above 0") for value in wrong]
    if problems:
        raise SettingError("keypoints", problems)
    read_pairs(settings.pairs, boxes=bool(settings.alphas))


def _pair(line: Mapping[str, str | None], *, boxes: bool) -> KeypointPair:
    numbers = {name: _number(line, name) for name in (*POINTS, *(BOX if boxes else ()))}
    side = np.nan
    if boxes:
        side = max(numbers["target_right"] - numbers["target_left"], numbers["target_bottom"] - numbers["target_top"])
        if side <= 0:
            raise ValueError("the target's box has no extent")
    if not line["source"] or not line["target"]:
        raise ValueError("has no key of the source or target image")
    return KeypointPair(
        source=line["source"],
        target=line["target"],
        at_source=np.array([numbers["source_x"], numbers["source_y"]]) + CENTRE,
        at_target=np.array([numbers["target_x"], numbers["target_y"]]) + CENTRE,
        larger_side=side,
    )


def _number(line: Mapping[str, str | None], name: str) -> float:
    try:
        value = float(line[name] or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(f"{name} is {line[name]!r}, not a finite number")
    return value


def _require_images(
    pairs: Sequence[KeypointPair], views: Mapping[str, Sequence[int]], features: EvaluationFeatures, path: Path
) -> None:
    missing = sorted({key for pair in pairs for key in (pair.source, pair.target)} - set(views))
    if missing:
        fix = f"{path} must name images by their keys in the cache"
        found = f"is no image of {features.view_set.name}"
        raise MissingError("keypoints", first_problems([Problem(place=key, found=found, fix=fix) for key in missing]))
    problems = [
        Problem(place=key, found=f"the keypoint {(at - CENTRE).tolist()} lies outside its {width} × {height} pixels")
        for pair in pairs
        for key, at in ((pair.source, pair.at_source), (pair.target, pair.at_target))
        for height, width in [image_size(features, views[key][0])]
        if not (0 <= at[0] <= width and 0 <= at[1] <= height)
    ]
    if problems:
        raise SettingError("keypoints", first_problems(problems))


def _depth_inside(at: Point, box: Float64[np.ndarray, "4"]) -> float:
    """Return how far a point lies from the nearest border of a view (pixels); less than 0 outside."""
    return float(min(at[0] - box[0], box[0] + box[2] - at[0], at[1] - box[1], box[1] + box[3] - at[1]))


def _seen(pair: KeypointPair, views: Mapping[str, Sequence[int]], features: EvaluationFeatures) -> bool:
    points = ((pair.source, pair.at_source), (pair.target, pair.at_target))
    return all(any(_depth_inside(at, features.boxes[view]) >= 0 for view in views[key]) for key, at in points)


def _distances(
    pairs: Iterable[KeypointPair], views: Mapping[str, Sequence[int]], features: EvaluationFeatures
) -> Iterator[float]:
    """Yield the distance of each prediction from its target (pixels)."""
    target, tokens, centres = "", np.zeros((0, 0)), np.zeros((0, 2))
    rows, cols, channels = features.shape
    for pair in pairs:
        if pair.target != target:  # pairs of the same images stand together, so their tokens are read once
            target, of_image = pair.target, views[pair.target]
            grids = [tokens_of(features, view).reshape(-1, channels) for view in of_image]
            tokens = np.concatenate(grids).astype(np.float64)
            centres = np.concatenate([centres_of(features.boxes[view], rows, cols) for view in of_image])
        view = max(views[pair.source], key=lambda number: _depth_inside(pair.at_source, features.boxes[number]))
        query = sample(tokens_of(features, view), features.boxes[view], pair.at_source)
        yield float(np.linalg.norm(centres[nearest(query, tokens)] - pair.at_target))


def _shares(
    pairs: Sequence[KeypointPair], distances: Float64[np.ndarray, " keypoints"], settings: CorrespondenceSettings
) -> Iterator[tuple[str, float]]:
    sides = np.array([pair.larger_side for pair in pairs])
    limits = {f"@{alpha:g}": alpha * sides for alpha in settings.alphas}
    limits |= {f"@{pixels:g}px": np.full(len(pairs), pixels) for pixels in settings.pixels}
    groups: dict[tuple[str, str], list[int]] = {}
    for number, pair in enumerate(pairs):
        groups.setdefault((pair.source, pair.target), []).append(number)
    for name, limit in limits.items():
        found = distances <= limit
        yield f"PCK{name}", float(found.mean())
        yield f"PCK_per_pair{name}", float(np.mean([found[numbers].mean() for numbers in groups.values()]))
