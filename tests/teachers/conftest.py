"""What several of these tests need: tiny teachers, images, and files as publishers write them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from teachers.base import AbstractTeacher
from teachers.build import build_teacher, family_of, loaded_network
from teachers.catalogue import CATALOGUE
from teachers.entry import CatalogueEntry

TINY = ("dinov3-tiny", "siglip2-tiny", "sam3-tiny")


@pytest.fixture(params=TINY)
def tiny(request: pytest.FixtureRequest) -> AbstractTeacher:
    """Each tiny teacher in turn, on the same noise."""
    return build_teacher(request.param, weights="random:7")


@pytest.fixture
def images() -> Callable[..., torch.Tensor]:
    """Normalised images of a size, always the same ones: `images(2, 64, 96)`."""

    def draw(batch: int, height: int, width: int) -> torch.Tensor:
        return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(batch + height * width))

    return draw


@pytest.fixture
def randomised() -> Callable[[nn.Module], nn.Module]:
    """Give every parameter of a network noise; vectors (norms, layer scales, biases) about a half, so none is idle."""

    def randomise(network: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in network.parameters():
                centre = 0.5 if parameter.ndim == 1 else 0.0
                parameter.copy_(centre + 0.1 * torch.randn(parameter.shape, generator=generator))
        return network.eval()

    return randomise


@pytest.fixture
def entry() -> Callable[..., CatalogueEntry]:
    """A catalogue entry of another architecture, or told other things: `entry("dinov3-tiny", "vit_…", depth=3)`."""

    def change(name: str, model: str = "", native: int = 0, patch: int = 0, **options: Any) -> CatalogueEntry:
        spec = CATALOGUE[name].spec
        given = {"model": model, "native": native, "patch": patch}
        spec = replace(spec, **{field: value for field, value in given.items() if value})
        return replace(CATALOGUE[name], spec=spec, options=CATALOGUE[name].options | options)

    return change


@pytest.fixture
def loaded() -> Callable[[CatalogueEntry, Path], AbstractTeacher]:
    """A teacher of an entry, in float32, with weights from a file."""

    def load(entry: CatalogueEntry, path: Path) -> AbstractTeacher:
        network = loaded_network(entry, str(path), "fp32")
        return family_of(entry).teacher(spec=entry.spec, network=network, device="cpu", precision="fp32")

    return load
