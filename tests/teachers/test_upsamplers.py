"""Upsamplers: the plain ones by hand, one of the user's own by its name, and what is refused of any."""

import re
import runpy
import sys
from pathlib import Path
from types import ModuleType
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
    given = {"images": torch.zeros(2, 3, 64, 64), "whole": whole, "tiled": tiled, "tiles": 2}
    return SeenWindows(**given | {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.5, 1.0)} | more)


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


@pytest.fixture
def anyup(monkeypatch: pytest.MonkeyPatch) -> type[AbstractUpsampler]:
    """The class in `docs/adding_a_teacher.md`, around a network of AnyUp's interface."""
    folder = Path(__file__).parent
    stand_in = runpy.run_path(str(folder / "anyup_stand_in.py"))["AnyUp"]
    for name in ("anyup", "anyup.model"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["anyup.model"], "AnyUp", stand_in, raising=False)
    page = (folder.parents[1] / "docs" / "adding_a_teacher.md").read_text()
    [block] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "AnyUpsampler" in block]
    code = [line for line in block.partition("class ")[2].splitlines() if line.strip()]
    assert len(code) <= 15
    module = ModuleType("anyup_of_the_page")
    exec(block, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.AnyUpsampler


def test_the_adapter_of_the_page_runs_a_network_with_anyups_interface(anyup: type, tmp_path: Path) -> None:
    torch.save({"share": torch.tensor([2.0])}, tmp_path / "anyup.pth")
    built = build_upsampler("anyup_of_the_page:AnyUpsampler", CPU, str(tmp_path / "anyup.pth"))
    assert isinstance(built, anyup)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.5, 0.4, 0.3), (0.25, 0.5, 1.0)))
    windows = seen(images=(pixels - mean) / std)
    torch.testing.assert_close(windows.pixels, pixels)
    fine = upsampled(built, windows)
    imagenet = [torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    normal = (pixels - imagenet[0]) / imagenet[1]
    for down, right in ((0, 0), (3, 1), (2, 3)):
        bright = normal[:, :, 16 * down : 16 * down + 16, 16 * right : 16 * right + 16].mean(dim=(1, 2, 3))
        expected = windows.whole[:, down // 2, right // 2] + 2 * bright[:, None]
        torch.testing.assert_close(fine[:, down, right], expected, rtol=1e-4, atol=1e-5)


def test_an_upsamplers_weights_are_read_strictly_and_known_by_their_digest(anyup: type, tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        torch.save({"share": torch.tensor([float(number)])}, tmp_path / "w.pth")
        digests.add(anyup(device=CPU, weights=str(tmp_path / "w.pth")).weights_sha256)
    assert len(digests) == 2
    for tensors, said in (({"shares": torch.zeros(1)}, "share: missing"), ({"share": torch.zeros(2)}, "shape (2,)")):
        torch.save(tensors, tmp_path / "w.pth")
        with pytest.raises(ContractError) as refusal:
            anyup(device=CPU, weights=str(tmp_path / "w.pth"))
        assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "weights", "said"),
    [
        ("bilinear", "w.pth", "'w.pth', but it has no parameters"),
        (f"{__name__}:Mixed", "w.pth", "takes no weights"),
        ("anyup_of_the_page:AnyUpsampler", "", "weights: is not given, and the class requires it"),
    ],
)
@pytest.mark.usefixtures("anyup")
def test_weights_that_an_upsampler_does_not_take_or_lacks_are_refused(source: str, weights: str, said: str) -> None:
    with pytest.raises(SettingError) as refusal:
        build_upsampler(source, CPU, weights)
    assert said in str(refusal.value)


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
