"""Upsamplers: the plain ones by hand, one of the user's own by its name, and what is refused of any."""

from typing import Any, final

import pytest
import torch
from torch import Tensor

from storage_schemas.format.errors import ContractError, SettingError
from teachers.upsamplers import (
    AbstractUpsampler,
    Bilinear,
    SeenWindows,
    Tiles,
    build_upsampler,
    upsampled,
)

CPU = torch.device("cpu")


def seen(**more: Any) -> SeenWindows:
    """Two windows of 2 × 2 tokens, and of 4 × 4 tiled ones."""
    made = torch.Generator().manual_seed(1)
    whole, tiled = (torch.randn(2, side, side, 3, generator=made) for side in (2, 4))
    return SeenWindows(**{"images": torch.zeros(2, 3, 64, 64), "whole": whole, "tiled": tiled, "tiles": 2} | more)


@final
class Mixed(AbstractUpsampler):
    """An upsampler of the user's own, with a parameter."""

    weights_sha256 = "5" * 64

    def __init__(self, *, device: torch.device) -> None:
        self.share = torch.tensor(0.25, device=device)

    def upsample(self, seen: SeenWindows) -> Tensor:
        """Mix both maps."""
        assert seen.tiled is not None
        repeated = seen.whole.repeat_interleave(seen.tiles, dim=1).repeat_interleave(seen.tiles, dim=2)
        return self.share * repeated + (1 - self.share) * seen.tiled


@final
class Broken(AbstractUpsampler):
    """Returns a given grid, however wrong."""

    def __init__(self, given: Tensor) -> None:
        self.given = given

    def upsample(self, seen: SeenWindows) -> Tensor:
        """Return it."""
        return self.given.to(seen.whole.dtype)


def test_tiles_are_used_as_they_are() -> None:
    windows = seen()
    assert torch.equal(upsampled(build_upsampler("tiles", CPU), windows), windows.tiled)


def test_tiles_without_tiled_tokens_are_refused() -> None:
    with pytest.raises(ContractError, match="tiled: is None: the teacher saw no tiles"):
        upsampled(Tiles(), seen(tiled=None))


def test_bilinear_keeps_a_linear_ramp_and_moves_no_token() -> None:
    centres = (torch.arange(6) + 0.5) / 6
    finer = (torch.arange(18) + 0.5) / 18
    plane = (centres[:, None] + 2 * centres[None, :])[None, :, :, None]
    expected = (finer[:, None] + 2 * finer[None, :])[None, :, :, None]
    fine = upsampled(
        build_upsampler("bilinear", CPU), seen(images=torch.zeros(1, 3, 64, 64), whole=plane, tiled=None, tiles=3)
    )
    inner = slice(1, -1)  # beyond the outermost centres, it repeats their values
    torch.testing.assert_close(fine[:, inner, inner], expected[:, inner, inner])
    torch.testing.assert_close(fine[:, 1::3, 1::3], plane)


def test_an_upsampler_of_the_users_own_is_named_and_gets_the_device() -> None:
    windows, own = seen(), build_upsampler(f"{__name__}:Mixed", CPU)
    fine = upsampled(own, windows)
    assert own.weights_sha256 == "5" * 64
    for down, right in ((0, 0), (3, 1), (2, 3)):
        mixed = 0.25 * windows.whole[:, down // 2, right // 2] + 0.75 * windows.tiled[:, down, right]
        torch.testing.assert_close(fine[:, down, right], mixed)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("jafar", "there are tiles, bilinear; for a class of your own give module:Class"),
        ("no.such.module:Class", "No module named 'no'"),
        (f"{__name__}:NoSuch", "has no attribute 'NoSuch'"),
        (
            "storage_schemas.format.teacher:TeacherSpec",
            "class: is not an upsampler (derive it from teachers.upsamplers.",
        ),
    ],
)
def test_what_is_not_an_upsampler_is_refused(source: str, message: str) -> None:
    with pytest.raises(SettingError) as refusal:
        build_upsampler(source, CPU)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (torch.zeros(2, 4, 5, 3), "shape: expected (2, 4, 4, 3), is (2, 4, 5, 3)"),
        (torch.full((2, 4, 4, 3), torch.nan), "values: NaN or infinity"),
    ],
)
def test_a_grid_of_another_shape_or_without_numbers_is_refused(given: Tensor, problem: str) -> None:
    with pytest.raises(ContractError) as refusal:
        upsampled(Broken(given), seen())
    assert str(refusal.value).endswith(problem)
    assert "output of upsampler Broken" in str(refusal.value)


def test_bilinear_needs_no_tiles() -> None:
    assert upsampled(Bilinear(), seen(tiled=None)).shape == (2, 4, 4, 3)
