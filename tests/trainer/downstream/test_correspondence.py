"""Correspondence: PCK equals ten lines of numpy, a perfect and a hopeless case, and what is refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
from downstream.drawn_scenes import CELL, centre, noise, views_of, windows

from storage_schemas.format.errors import AbstractStillhouseError
from trainer.downstream.correspondence import measure_correspondence, require_keypoints
from trainer.downstream.dense_settings import CorrespondenceSettings
from trainer.downstream.features import EvaluationFeatures

SIZE = (48, 96)
SIZES = {"a.jpg": SIZE, "b.jpg": SIZE, "c.jpg": SIZE}
SHIFTS = {"a.jpg": 0.0, "b.jpg": 16.0, "c.jpg": 24.0}
"""How far the object is to the right."""
BOX = {"target_left": 10, "target_top": 0, "target_right": 50, "target_bottom": 20}


def place_code(key: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Features that name the point of the object: no two points share a direction."""
    x = x - SHIFTS[key]
    angles = np.stack([x / 40, y / 20], axis=-1)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)


def write_pairs(path: Path, points: list[tuple[str, str, float, float]], **changes: object) -> Path:
    """Write pairs whose points are given on the object (pixel numbers)."""
    with path.open("w", newline="") as file:
        names = ["source", "target", "source_x", "source_y", "target_x", "target_y", *BOX]
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for source, target, x, y in points:
            places = {"source_x": x + SHIFTS[source], "target_x": x + SHIFTS[target], "source_y": y, "target_y": y}
            writer.writerow({"source": source, "target": target, **places, **BOX, **changes})
    return path


def simple_distances(features: EvaluationFeatures, pairs: Path) -> np.ndarray:
    """PCK's distances in ten lines, for one view per image that begins at its left edge."""
    tokens, found = features.tokens(slice(None)).astype(np.float64), []
    cells, cell = features.shape[0], features.boxes[0, 2] / features.shape[0]
    for line in csv.DictReader(pairs.read_text().splitlines()):
        source, target = (tokens[features.keys.index(line[name])] for name in ("source", "target"))
        u, v = ((float(line[f"source_{axis}"]) + 0.5) / cell - 0.5 for axis in "xy")
        i, j = min(int(v), cells - 2), min(int(u), cells - 2)
        corners = [source[i + a, j + b] * (1 - abs(v - i - a)) * (1 - abs(u - j - b)) for a in (0, 1) for b in (0, 1)]
        query = np.sum(corners, axis=0)
        cosine = target @ query / np.linalg.norm(target, axis=2)
        row, col = np.unravel_index(cosine.argmax(), cosine.shape)
        at = np.array([(col + 0.5) * cell - 0.5, (row + 0.5) * cell - 0.5])
        found.append(np.linalg.norm(at - [float(line["target_x"]), float(line["target_y"])]))
    return np.array(found)


@pytest.mark.parametrize("resolution", [48, 64])
def test_the_measure_equals_ten_lines_of_numpy_ties_included(tmp_path: Path, resolution: int) -> None:
    generator = np.random.default_rng(0)
    names = [("a.jpg", "b.jpg"), ("a.jpg", "b.jpg"), ("b.jpg", "a.jpg"), ("b.jpg", "a.jpg"), ("a.jpg", "b.jpg")]
    # far enough inside for four neighbours
    points = [(*names[n % 5], *generator.integers(6, 24, size=2).tolist()) for n in range(40)]
    pairs = write_pairs(tmp_path / "pairs.csv", points)
    rough = noise(4, 1)

    def describe(key: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        tokens = place_code(key, x, y) + 0.1 * rough(key, x, y)
        tokens[3:] = tokens[:1]  # many tokens of the same features
        return tokens

    features = views_of(SIZES, describe, cut=lambda size: [(0, 0, size[0], size[0])], resolution=resolution)
    distances = simple_distances(features, pairs)
    alphas, pixels = (0.1, 0.2), (float(np.median(distances)), 25.0)  # the median is a distance that occurs
    settings = CorrespondenceSettings(pairs=pairs, alphas=alphas, pixels=pixels)
    measured = measure_correspondence(features, settings)
    limits = [0.1 * 40, 0.2 * 40, *pixels]
    by_pair = [[n for n in range(40) if points[n][0] == name] for name in ("a.jpg", "b.jpg")]
    expected = [
        share
        for limit in limits
        for share in (np.mean(distances <= limit), np.mean([np.mean(distances[n] <= limit) for n in by_pair]))
    ]
    np.testing.assert_allclose(list(measured.scores.values()), expected, rtol=0, atol=1e-6)
    assert 0 < measured.scores["PCK@0.1"] < measured.scores["PCK@0.2"] < 1
    assert list(measured.scores)[:3] == ["PCK@0.1", "PCK_per_pair@0.1", "PCK@0.2"]
    assert measured.counts == {"keypoints": 40, "keypoints_outside_views": 0, "image_pairs": 2}


@pytest.mark.parametrize(("cut", "resolution"), [(windows, 48), (windows, 96), (centre, 96)])
def test_tokens_that_name_their_place_find_every_keypoint(tmp_path: Path, cut: object, resolution: int) -> None:
    # the centres of tokens lie 4 px from the edges of views of 48 px, 2 px from those of 96 px
    x, y = (35.5, 19.5) if resolution == 48 else (33.5, 17.5)
    points = [("a.jpg", "b.jpg", x + 8 * n, y) for n in range(3)]
    settings = CorrespondenceSettings(pairs=write_pairs(tmp_path / "pairs.csv", points), alphas=(0.001,), pixels=(0.1,))
    measured = measure_correspondence(views_of(SIZES, place_code, cut=cut, resolution=resolution), settings)
    assert set(measured.scores.values()) == {1.0}


def test_tokens_that_name_nothing_find_keypoints_by_chance(tmp_path: Path) -> None:
    points = [("a.jpg", "b.jpg", x, y) for x in range(0, 70, 4) for y in range(4, 44, 8)]
    pairs = write_pairs(tmp_path / "pairs.csv", points)
    settings = CorrespondenceSettings(pairs=pairs, alphas=(), pixels=(12.0,))
    many = [measure_correspondence(views_of(SIZES, noise(16, seed)), settings).scores["PCK@12px"] for seed in range(4)]
    tokens = [(x, y) for x in np.arange(3.5, 96, CELL) for y in np.arange(3.5, 48, CELL)]
    chances = [np.mean([np.hypot(x + 16 - u, y - v) <= 12 for u, v in tokens]) for _, _, x, y in points]
    spread = np.sqrt(np.mean(chances) * (1 - np.mean(chances)) / (4 * len(points)))
    assert np.mean(many) == pytest.approx(np.mean(chances), abs=4 * spread)


def test_keypoints_outside_the_views_are_counted_and_left_out(tmp_path: Path) -> None:
    points = [("a.jpg", "b.jpg", 35.5, 19.5), ("a.jpg", "b.jpg", 3, 20), ("a.jpg", "b.jpg", 66, 20)]
    settings = CorrespondenceSettings(pairs=write_pairs(tmp_path / "pairs.csv", points))
    measured = measure_correspondence(views_of(SIZES, place_code, cut=centre), settings)
    assert measured.counts == {"keypoints": 1, "keypoints_outside_views": 2, "image_pairs": 1}
    assert measured.scores["PCK@0.1"] == 1
    outside = CorrespondenceSettings(pairs=write_pairs(tmp_path / "pairs.csv", points[1:]))
    with pytest.raises(AbstractStillhouseError, match="none lies in a view of its image"):
        measure_correspondence(views_of(SIZES, place_code, cut=centre), outside)


def test_mirrored_views_are_mirrored_back(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.csv", [("a.jpg", "b.jpg", 11.5, 19.5), ("b.jpg", "c.jpg", 19.5, 11.5)])
    settings = CorrespondenceSettings(pairs=pairs, alphas=(), pixels=(0.1,))
    features = views_of(SIZES, place_code, flips=[True, False, False, True, True, False])
    assert measure_correspondence(features, settings).scores["PCK@0.1px"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "d.jpg"}, "d.jpg: is no image of low-48"),
        ({"target": ""}, "line 2: has no key"),
        ({"source_x": "left"}, "line 2: source_x is 'left', not a finite number"),
        ({"source_x": "nan"}, "line 2: source_x is 'nan', not a finite number"),
        ({"target_y": 60}, r"b.jpg: the keypoint \[36.0, 60.0\] lies outside its 96 × 48 pixels"),
        ({"target_right": 10, "target_bottom": 0}, "line 2: the target's box has no extent"),
    ],
)
def test_bad_keypoints_are_refused_by_name(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    pairs = write_pairs(tmp_path / "pairs.csv", [("a.jpg", "b.jpg", 20, 20)], **changes)
    with pytest.raises(AbstractStillhouseError, match=message) as refusal:
        measure_correspondence(views_of(SIZES, place_code), CorrespondenceSettings(pairs=pairs))
    assert len(refusal.value.problems) == 1


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("", {}, "has no column source, target"),
        ("source,target,source_x,source_y,target_x,target_y\n", {}, "has no column target_left"),
        ("source,target,source_x,source_y,target_x,target_y\n", {"alphas": (), "pixels": (5.0,)}, "has no line"),
        ("\udcff", {}, "is not a CSV file in UTF-8"),
        ('"a', {}, "is not a CSV file in UTF-8: unexpected end of data"),
        ("", {"alphas": ()}, "alphas, pixels: no distance is given"),
        ("", {"alphas": (0.0,)}, "0.0 is not a number above 0"),
        ("", {"pairs": Path()}, "no file of keypoints is given"),
        ("", {"pairs": Path("nowhere.csv")}, "nowhere.csv: is no file"),
    ],
)
def test_settings_are_refused_before_any_feature_is_computed(
    tmp_path: Path, text: str, changes: dict[str, object], message: str
) -> None:
    file = tmp_path / "pairs.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(AbstractStillhouseError, match=message):
        require_keypoints(CorrespondenceSettings(**{"pairs": file, **changes}))
