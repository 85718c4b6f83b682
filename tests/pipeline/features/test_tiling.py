"""Tiles: cut, laid beside each other again, and the window shrunk as Pillow shrinks it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from pipeline.config import TeacherChoice
from pipeline.features.teacher import run_teacher
from pipeline.features.tiling import cut_tiles, fixed_features, shrunk, stitch_tiles
from teachers.upsamplers import AbstractUpsampler, SeenWindows, load_weights


class Brightened(AbstractUpsampler):
    """Repeats the whole window's tokens, and adds the mean of the window's pixels, times a parameter."""

    def __init__(self, *, device: torch.device, weights: str) -> None:
        self.network = torch.nn.Linear(1, 1, bias=False)
        self.weights_sha256 = load_weights(self.network.to(device), weights)

    def upsample(self, seen: SeenWindows) -> torch.Tensor:
        """Compute it."""
        repeated = seen.whole.repeat_interleave(seen.tiles, dim=1).repeat_interleave(seen.tiles, dim=2)
        return repeated + self.network(seen.pixels.mean(dim=(1, 2, 3))[:, None])[:, None, None]


def test_a_trained_upsampler_gets_the_path_of_its_weights_and_pixels_without_the_teachers_normalisation(
    tmp_path: Path,
) -> None:
    digests, pixels = [], torch.full((1, 3, 384, 384), 0.25)
    for share in (1.0, 3.0):
        torch.save({"weight": torch.tensor([[share]])}, tmp_path / "w.pth")
        choice = TeacherChoice(
            name="tiny",
            source="siglip2-tiny",
            weights="random:1",
            tiles=2,
            upsampler=f"{__name__}:Brightened",
            upsampler_weights=str(tmp_path / "w.pth"),
        )
        running = run_teacher(choice, "cpu")
        mean, std = (torch.tensor(values)[:, None, None] for values in (running.spec.mean, running.spec.std))
        plain = fixed_features(running, shrunk((pixels - mean) / std, 192), 1).maps[None]
        fine = fixed_features(running, (pixels - mean) / std, 2).maps[None]
        torch.testing.assert_close(fine[:, ::2, ::2] - plain, torch.full_like(plain, 0.25 * share), rtol=0, atol=1e-4)
        digests.append(running.weights_sha256)
    assert len(set(digests)) == 2


def test_tiles_are_cut_row_by_row() -> None:
    windows = torch.arange(2 * 3 * 12 * 12, dtype=torch.float32).reshape(2, 3, 12, 12)
    tiles = cut_tiles(windows, 3)
    assert tiles.shape == (18, 3, 4, 4)
    for number, tile in enumerate(tiles):
        view, down, right = number // 9, number % 9 // 3, number % 3
        assert torch.equal(tile, windows[view, :, 4 * down : 4 * down + 4, 4 * right : 4 * right + 4])


def test_tokens_of_tiles_lie_where_the_tiles_were_cut() -> None:
    windows = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    tokens = cut_tiles(windows, 3).permute(0, 2, 3, 1)  # each pixel a token
    assert torch.equal(stitch_tiles(tokens, 3).permute(0, 3, 1, 2), windows)


def test_a_window_is_shrunk_by_the_filter_that_views_are_cut_with() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    by_pillow = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float32)
    ours = shrunk(torch.from_numpy(pixels).float().permute(2, 0, 1)[None], 32)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - by_pillow).max() < 1  # Pillow rounds to whole values, twice


def pictures() -> Iterator[tuple[str, np.ndarray]]:
    """Pictures without and with hard contrasts, 384 × 384."""
    draws, places = np.random.default_rng(0), np.indices((384, 384))
    yield "noise", draws.integers(0, 256, (384, 384, 3), dtype=np.uint8)
    yield "black and white noise", draws.integers(0, 2, (384, 384, 3), dtype=np.uint8) * 255
    yield "checkerboard", np.repeat((places.sum(axis=0) // 7 % 2 * 255).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.mark.parametrize("side", [96, 128, 200])
@pytest.mark.parametrize(("name", "pixels"), list(pictures()))
def test_torch_resizes_whole_numbers_as_pillow_does_and_floats_otherwise(
    name: str, pixels: np.ndarray, side: int
) -> None:
    by_pillow = torch.from_numpy(np.array(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)))
    windows = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    whole = interpolate(windows, size=(side, side), mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    assert (whole.int() - by_pillow.int()).abs().max() <= 1
    differences = (shrunk(windows.float(), side)[0].permute(1, 2, 0) - by_pillow).abs()
    if name != "noise":
        assert differences.max() > 4  # as the pages say: it is not the same
    if side == 128:  # three tiles along a side
        assert differences.max() < (1 if name == "noise" else 24)
