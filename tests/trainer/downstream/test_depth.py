"""Depth and normals: their measures, perfect and hopeless cases with both heads, the kinds of maps, and refusals."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from downstream.drawn_scenes import centre, noise, pixel_centres, views_of, windows
from PIL import Image
from sklearn.metrics import mean_absolute_percentage_error, root_mean_squared_error

from storage_schemas.format.errors import AbstractStillhouseError
from trainer.downstream.dense_head import build_head, require_possible
from trainer.downstream.dense_settings import DenseHeadSettings, DepthSettings, NormalsSettings
from trainer.downstream.dense_views import ImageParts
from trainer.downstream.depth import (
    align_scale,
    angles_between,
    depth_loss,
    measure_depth,
    measure_normals,
    normals_loss,
    score_depth,
)
from trainer.downstream.depth_maps import find_maps, require_depth, require_normals

SIZES = {f"{part}/{number}.jpg": size for part in ("train", "val") for number, size in enumerate([(48, 96), (96, 48)])}
QUICK = DenseHeadSettings(steps=80, batch=4, learning_rate=0.1)
NAMES = ["mean_angle", "rms_angle", "below_11.25", "below_22.5", "below_30"]


def depth_of(_key: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A slope: 2 m at the corner, and its logarithm rises evenly."""
    return 2 * np.exp((x + 2 * y) / 500)


def normal_of(_key: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A surface that bends evenly, as a cylinder does."""
    angle = (x - y) / 300
    return np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], axis=-1)


def write_maps(folder: Path, describe: Callable[..., np.ndarray], suffix: str = ".npy") -> Path:
    for key, size in SIZES.items():
        path = (folder / key).with_suffix(suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = describe(key, *pixel_centres(size))
        if suffix == ".npy":
            np.save(path, stored)
        elif stored.ndim == 2:
            Image.fromarray(np.round(stored * 1000).astype(np.uint16)).save(path)
        else:
            Image.fromarray(np.round((stored + 1) * 127.5).astype(np.uint8)).save(path)
    return folder


def test_depths_are_scored_as_an_independent_computation_does() -> None:
    generator = np.random.default_rng(0)
    true = generator.uniform(1, 5, 400)
    predicted = true * np.exp(generator.normal(0, 0.3, 400))
    predicted[:3] = true[:3] * [1.25, 1 / 1.25, 1.0]  # exactly at the limit does not count
    score = score_depth(predicted, true)
    assert score.rmse == pytest.approx(root_mean_squared_error(true, predicted), abs=1e-12)
    assert score.abs_rel == pytest.approx(mean_absolute_percentage_error(true, predicted), abs=1e-12)
    near = sum(1 for p, t in zip(predicted.tolist(), true.tolist(), strict=True) if t / 1.25 < p < t * 1.25)
    assert score.delta_1 == pytest.approx(near / 400, abs=1e-12)
    assert score_depth(align_scale(7 * true, true), true).rmse == pytest.approx(0, abs=1e-12)


def test_angles_have_their_closed_form_even_where_they_are_tiny_or_straight() -> None:
    angles = np.array([0.0, 1e-6, 11.25, 45, 90, 135, 180 - 1e-6, 180])
    turned = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles)), np.zeros(8)], axis=1)
    found = angles_between(3 * turned, np.tile([1.0, 0, 0], (8, 1)))
    np.testing.assert_allclose(found, angles, rtol=0, atol=1e-9)
    assert angles_between(np.zeros((1, 3)), np.ones((1, 3))).tolist() == [90]


def test_losses_are_their_equations_over_the_pixels_that_count() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2, 1, 3, 3))
    target = generator.uniform(1, 3, (2, 3, 3))
    target[0, 0] = np.nan
    gaps = [
        values[view, 0][np.isfinite(target[view])] - np.log(target[view][np.isfinite(target[view])]) for view in (0, 1)
    ]
    expected = np.mean([np.mean(gap**2) - 0.5 * np.mean(gap) ** 2 for gap in gaps])
    assert depth_loss(torch.from_numpy(values), torch.from_numpy(target)).item() == pytest.approx(expected, abs=1e-12)
    vectors, normals = generator.normal(size=(2, 3, 4, 4)), generator.normal(size=(2, 4, 4, 3))
    normals /= np.linalg.norm(normals, axis=3, keepdims=True)
    normals[1] = np.nan
    angles = angles_between(vectors[0].reshape(3, -1).T, normals[0].reshape(-1, 3))
    loss = normals_loss(torch.from_numpy(vectors), torch.from_numpy(normals))
    assert loss.item() == pytest.approx(np.mean(1 - np.cos(np.radians(angles))), abs=1e-6)
    assert normals_loss(torch.from_numpy(vectors), torch.full((2, 4, 4, 3), torch.nan)).item() == 0
    assert depth_loss(torch.from_numpy(values), torch.full((2, 3, 3), torch.nan)).item() == 0


@pytest.mark.parametrize(
    ("cut", "resolution", "suffix", "head"),
    [
        (windows, 48, ".png", "linear"),
        pytest.param(windows, 96, ".npy", "linear", marks=pytest.mark.slow),
        pytest.param(centre, 48, ".npy", "dpt", marks=pytest.mark.slow),
    ],
)
def test_tokens_that_hold_depth_or_normal_leave_almost_no_error(
    tmp_path: Path, cut: Callable[..., object], resolution: int, suffix: str, head: str
) -> None:
    trained = {"linear": {"steps": 220, "learning_rate": 0.1}, "dpt": {"steps": 400, "learning_rate": 0.01}}
    settings = DenseHeadSettings(head=head, width=8, batch=2, **trained[head])

    def describe(*at: object) -> np.ndarray:
        return np.concatenate([np.log(depth_of(*at))[..., None], normal_of(*at)], axis=-1)

    features = views_of(SIZES, describe, cut=cut, resolution=resolution)
    unit = 1.0 if suffix == ".npy" else 0.001
    at_depth = DepthSettings(maps=write_maps(tmp_path / "d", depth_of, suffix), unit=unit, format=suffix[1:])
    at_normals = NormalsSettings(maps=write_maps(tmp_path / "n", normal_of, suffix), format=suffix[1:])
    depth = measure_depth(features, at_depth, settings, ImageParts())
    normals = measure_normals(features, at_normals, settings, ImageParts())
    assert list(normals.scores) == NAMES
    # of 2 to 3 m, and of up to 18°; at the border half a token has no neighbour to interpolate with
    assert depth.scores["rmse"] < 0.05
    assert normals.scores["mean_angle"] < 1
    assert depth.scores["delta_1"] == depth.scores["delta_1_scaled"] == 1
    assert normals.scores["below_11.25"] > 0.95
    pixels = 2 * 48 * (96 if cut is windows else 48)
    assert depth.counts == normals.counts
    assert depth.counts == {
        "train_images": 2, "test_images": 2, "images_in_no_part": 0, "scored_images": 2, "pixels": pixels
    }  # fmt: skip


def test_a_dpt_head_has_four_cells_along_a_token() -> None:
    head = build_head("dpt", 3, 2, DenseHeadSettings(width=8))
    assert head(torch.zeros(2, 3, 5, 7)).shape == (2, 2, 20, 28)
    again = build_head("dpt", 3, 2, DenseHeadSettings(width=8))
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True))


def test_tokens_that_hold_nothing_give_chance(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)

    def any_depth(_key: str, x: np.ndarray, _y: np.ndarray) -> np.ndarray:
        return np.exp(generator.uniform(0, 2, x.shape))

    def any_normal(_key: str, x: np.ndarray, _y: np.ndarray) -> np.ndarray:
        vectors = generator.normal(size=(*x.shape, 3))
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    features = views_of(SIZES, noise(3))
    at_depth = DepthSettings(maps=write_maps(tmp_path / "d", any_depth), unit=1)
    at_normals = NormalsSettings(maps=write_maps(tmp_path / "n", any_normal))
    gentle = DenseHeadSettings(steps=80, batch=4, learning_rate=0.02)
    depth = measure_depth(features, at_depth, gentle, ImageParts()).scores
    normals = measure_normals(features, at_normals, QUICK, ImageParts()).scores
    # log d is uniform over 2: the best constant hits a width of 2 log 1.25 of it
    assert depth["delta_1"] == pytest.approx(np.log(1.25), abs=0.03)
    assert depth["rmse"] > np.std(np.exp(np.linspace(0, 2, 1000)))
    # directions are uniform on the sphere, so whatever is predicted, cos θ is uniform
    pixels = 2 * 48 * 96
    chances = [(1 - np.cos(np.radians(limit))) / 2 for limit in (11.25, 22.5, 30)]
    assert normals["mean_angle"] == pytest.approx(90, abs=4 * 39.2 / np.sqrt(pixels))
    for name, chance in zip(NAMES[2:], chances, strict=True):
        assert normals[name] == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / pixels))


def test_pixels_without_a_value_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([[0, np.nan, np.inf], [500, 1000, 10001]]))
    files = find_maps("depth", tmp_path, "npy", {"a.jpg": (2, 3)})
    read = files.depth("a.jpg", DepthSettings(maps=tmp_path, unit=0.001))
    np.testing.assert_array_equal(read, np.array([[np.nan] * 3, [0.5, 1.0, np.nan]], np.float32))
    np.save(path, np.array([[[0, 0, 0], [0, 0, 2], [np.nan, 0, 0]]], np.float32))
    normals = find_maps("normals", tmp_path, "npy", {"a.jpg": (1, 3)}).normals("a.jpg")
    np.testing.assert_array_equal(normals, [[[np.nan] * 3, [0, 0, 1], [np.nan] * 3]])
    Image.fromarray(np.array([[[0, 0, 0], [255, 128, 128], [128, 128, 128]]], np.uint8)).save(tmp_path / "a.png")
    normals = find_maps("normals", tmp_path, "png", {"a.jpg": (1, 3)}).normals("a.jpg")
    assert np.isnan(normals[0, [0, 2]]).all()
    np.testing.assert_allclose(normals[0, 1], [1, 0, 0], atol=0.01)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "val/0.npy").unlink(), "val/0.jpg: has no map"),
        (lambda folder: np.save(folder / "val/0.npy", np.ones((4, 5))), r"has the shape \(4, 5\), expected \(48, 96\)"),
        (lambda folder: (folder / "val/0.npy").write_bytes(b"no array"), "0.npy: cannot be read"),
        (lambda folder: np.save(folder / "val/0.npy", np.array("text")), "does not hold an array of real numbers"),
        (lambda folder: [np.save(folder / f"val/{n}.npy", np.zeros(s)) for n, s in enumerate([(48, 96), (96, 48)])],
         "maps of the test part: hold no value"),
    ],
)  # fmt: skip
def test_bad_maps_are_refused_by_name(tmp_path: Path, break_it: Callable[[Path], object], message: str) -> None:
    settings = DepthSettings(maps=write_maps(tmp_path, depth_of), unit=1)
    break_it(tmp_path)
    quick = DenseHeadSettings(steps=1, batch=2)
    with pytest.raises(AbstractStillhouseError, match=message) as refusal:
        measure_depth(views_of(SIZES, noise(2)), settings, quick, ImageParts())
    assert len(refusal.value.problems) == 1


def test_a_png_of_another_depth_is_refused(tmp_path: Path) -> None:
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(AbstractStillhouseError, match=r"is a PNG with 8 bits .* expected 16-bit grey"):
        find_maps("depth", tmp_path, "png", {"a.jpg": (2, 3)}).depth("a.jpg", DepthSettings(unit=1))
    with pytest.raises(AbstractStillhouseError, match=r"is a PNG with 8 bits .* expected 8-bit RGB"):
        find_maps("normals", tmp_path, "png", {"a.jpg": (2, 3)}).normals("a.jpg")
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(AbstractStillhouseError, match=r"a.png: cannot be read"):
        find_maps("depth", tmp_path, "png", {"a.jpg": (2, 3)}).depth("a.jpg", DepthSettings(unit=1))


@pytest.mark.parametrize(
    ("require", "settings", "message"),
    [
        (require_depth, DepthSettings(), "no folder of maps is given"),
        (require_normals, NormalsSettings(maps=Path("nowhere")), "nowhere: is no folder"),
        (require_depth, DepthSettings(maps=Path("/")), "unit: 0.0 is not a number above 0"),
        (require_depth, DepthSettings(maps=Path("/"), unit=1, least=3, most=2), "no depth lies from 3 to 2 m"),
        (require_possible, DenseHeadSettings(steps=0), "steps: 0 is less than 1"),
        (require_possible, DenseHeadSettings(learning_rate=float("nan")), "learning-rate: nan is not above 0"),
    ],
)
def test_settings_are_refused_before_any_feature_is_computed(
    require: Callable[[object], None], settings: object, message: str
) -> None:
    with pytest.raises(AbstractStillhouseError, match=message):
        require(settings)
