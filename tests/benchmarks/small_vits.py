"""Two teachers that are trained here, in minutes: one on class labels against text-like vectors, one on masks."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from storage_schemas.format.teacher import Precision, TeacherSpec
from teachers.base import AbstractTeacher
from teachers.output import TeacherOutput
from tests.benchmarks.scenes import CLASSES, PARTS, SIDE, Scene, draw_scene

WIDTH, PATCH, TEXT = 64, 16, 32
"""Channels of the transformers, side of a token (pixels), and channels of the text-like vectors."""
BATCH = 32
FIRST_SEED = 10_000_000
"""The teachers learn from scenes from this seed on, which nothing else sees."""

Loss = Callable[["SmallViT", Tensor, Tensor, list[Scene]], Tensor]
"""Takes the network, its class token, its tokens, and the scenes."""


@final
class SmallViT(nn.Module):
    """Four convolutions, three transformer blocks, and an output for the class token and one for each token."""

    def __init__(self) -> None:
        """Make it with random weights."""
        super().__init__()
        widths = (3, 16, 32, 48, WIDTH)
        stem: list[nn.Module] = []
        for before, after in pairwise(widths):
            stem += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.GELU()]
        self.stem = nn.Sequential(*stem)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (SIDE // PATCH) ** 2, WIDTH))
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH, 4, mlp_ratio=2, qkv_bias=True) for _ in range(3)))
        self.norm = nn.LayerNorm(WIDTH)
        self.text, self.part = nn.Linear(WIDTH, TEXT), nn.Linear(WIDTH, PARTS)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class token `[batch, WIDTH]` and the tokens `[batch, rows, columns, WIDTH]`, after the norm."""
        tokens = self.stem(images).permute(0, 2, 3, 1)
        line = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens.flatten(1, 2)], dim=1)
        line = self.norm(self.blocks(line + self.positions))
        return line[:, 0], line[:, 1:].unflatten(1, tokens.shape[1:3])


def text_vectors() -> np.ndarray:
    """Return a vector of length 1 for each class, as a text tower gives one for its name."""
    vectors = np.random.default_rng(5).normal(size=(len(CLASSES), TEXT))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def loss_of_labels(network: SmallViT, image: Tensor, _tokens: Tensor, scenes: list[Scene]) -> Tensor:
    """Cross-entropy of the cosines between the summary and the text vectors."""
    cosines = normalize(network.text(image)) @ torch.from_numpy(text_vectors()).T
    return cross_entropy(cosines / 0.1, torch.tensor([scene.label for scene in scenes]))


def loss_of_masks(network: SmallViT, _image: Tensor, tokens: Tensor, scenes: list[Scene]) -> Tensor:
    """Cross-entropy between each token's output and the shares of the parts in its cell."""
    cells = SIDE // PATCH
    parts = torch.from_numpy(np.stack([scene.parts for scene in scenes])).long()
    pixels = one_hot(parts, PARTS).float().reshape(-1, cells, PATCH, cells, PATCH, PARTS)
    return cross_entropy(network.part(tokens).flatten(0, 2), pixels.mean(dim=(2, 4)).flatten(0, 2))


LOSSES: dict[str, Loss] = {"labels": loss_of_labels, "masks": loss_of_masks}


def train_network(name: str, path: Path, *, steps: int, seed: int) -> None:
    """Train a network, and write its weights to `path`."""
    torch.manual_seed(seed)
    network = SmallViT().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        first = FIRST_SEED * (1 + seed) + step * BATCH
        scenes = [draw_scene(number) for number in range(first, first + BATCH)]
        image, tokens = network(_pixels(scenes))
        loss = LOSSES[name](network, image, tokens, scenes)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    torch.save(network.state_dict(), path)


def _pixels(scenes: list[Scene]) -> Tensor:
    return torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2) / 127.5 - 1


def _spec(name: str, summary: int) -> TeacherSpec:
    return TeacherSpec(
        name=name,
        model=f"small ViT, {name}",
        dim=WIDTH,
        summary_dim=summary,
        patch=PATCH,
        size_rule="fixed",
        native=SIDE,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


class AbstractSmallViT(AbstractTeacher):
    """Reads the weights that `train_network` wrote."""

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision, weights: str) -> None:
        """Load the file `weights`."""
        network = SmallViT()
        network.load_state_dict(torch.load(weights, weights_only=True))
        super().__init__(spec=spec, network=network, device=device, precision=precision)


@final
class Labels(AbstractSmallViT):
    """Trained on labels: its summary lies in the space of the text vectors."""

    declared: ClassVar[TeacherSpec] = _spec("labels", TEXT)

    def features(self, images: Tensor) -> TeacherOutput:
        """Run the network."""
        network: Any = self.network
        image, tokens = network(images)
        return TeacherOutput(summary=network.text(image), spatial=tokens)


@final
class Masks(AbstractSmallViT):
    """Trained on masks: its summary is the mean of its tokens."""

    declared: ClassVar[TeacherSpec] = _spec("masks", WIDTH)

    def features(self, images: Tensor) -> TeacherOutput:
        """Run the network."""
        _, tokens = self.network(images)
        return TeacherOutput(summary=tokens.mean(dim=(1, 2)), spatial=tokens)
