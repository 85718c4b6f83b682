"""Heads on frozen tokens for dense tasks, and how they are trained: seeded, on single views drawn in a random order."""

from collections.abc import Callable, Iterator, Sequence
from math import cos, pi
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from storage_schemas.format.errors import Problem, SettingError
from trainer.downstream.dense_settings import DenseHeadSettings, HeadKind


def require_possible(settings: DenseHeadSettings) -> None:
    """Refuse settings that are not possible.

    Raises:
        SettingError: a number is too small.
    """
    least = {"width": 1, "steps": 1, "batch": 1, "seed": 0}
    problems = [
        Problem(place=name, found=f"{value} is less than {bound}")
        for name, bound in least.items()
        if (value := getattr(settings, name)) < bound
    ]
    if not settings.learning_rate > 0:
        problems.append(Problem(place="learning-rate", found=f"{settings.learning_rate} is not above 0"))
    if not settings.weight_decay >= 0:
        problems.append(Problem(place="weight-decay", found=f"{settings.weight_decay} is less than 0"))
    if problems:
        raise SettingError("dense head", problems)


def linear_head(channels: int, outputs: int) -> nn.Module:
    """Return BatchNorm and a 1 × 1 convolution.

    Source: the linear probe of DINOv2 (arXiv:2304.07193), as in the segmentation tables of RADIOv2.5 and C-RADIOv4.

    Args:
        channels: channels of a token.
        outputs: values for each cell.
    """
    return nn.Sequential(nn.BatchNorm2d(channels), nn.Conv2d(channels, outputs, kernel_size=1))


@final
class DptHead(nn.Module):
    """A narrow decoder of DPT on one token map.

    The map is projected to four scales (4, 2, 1 and ½ times the token grid), and the scales are fused from the coarsest
    to the finest by residual convolutions. The output has four cells along each side of a token.

    Source: Ranftl et al. 2021, arXiv:2103.13413. There the four scales come from four layers; here all come from the
    last one, which is what caches and exported students hold.
    """

    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.scales = nn.ModuleList(nn.Conv2d(channels, width, kernel_size=1) for _ in FACTORS)
        self.fusions = nn.ModuleList(_Residual(width) for _ in FACTORS)
        self.sides = nn.ModuleList(_Residual(width) for _ in FACTORS)
        self.last = nn.Sequential(
            nn.Conv2d(width, width, kernel_size=3, padding=1), nn.ReLU(), nn.Conv2d(width, outputs, kernel_size=1)
        )

    def forward(self, tokens: Float[Tensor, "batch channels rows cols"]) -> Float[Tensor, "batch outputs _ _"]:
        """Return the head's values, for four cells along each side of a token."""
        normal, fused = self.norm(tokens), None
        for factor, project, side, fuse in zip(FACTORS, self.scales, self.sides, self.fusions, strict=True):
            size = [max(1, round(length * factor)) for length in tokens.shape[2:]]
            here = side(interpolate(project(normal), size=size, mode="bilinear", align_corners=False))
            if fused is not None:
                here = here + interpolate(fused, size=size, mode="bilinear", align_corners=False)
            fused = fuse(here)
        return self.last(fused)


FACTORS = (0.5, 1, 2, 4)
"""Scales of a DPT head, in cells along a side of a token, in the order of their fusion."""


class _Residual(nn.Module):
    """Two convolutions with ReLU before each, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(2)]
        self.inner = nn.Sequential(nn.ReLU(), convolutions[0], nn.ReLU(), convolutions[1])

    def forward(self, cells: Tensor) -> Tensor:
        return cells + self.inner(cells)


def build_head(kind: HeadKind, channels: int, outputs: int, settings: DenseHeadSettings) -> nn.Module:
    """Return a head with random weights from the seed of the settings. The state of torch's generator does not change.

    Args:
        kind: which head.
        channels: channels of a token.
        outputs: values for each cell.
        settings: width and seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return linear_head(channels, outputs) if kind == "linear" else DptHead(channels, outputs, settings.width)


Example = Callable[[int], tuple[Float[np.ndarray, "rows cols channels"], np.ndarray]]
"""Takes the number of a view; returns its tokens, and its target `[side, side, …]`."""
Loss = Callable[[Float[Tensor, "batch outputs side side"], Tensor], Tensor]
"""Takes a head's values on the pixels of the views, and the targets `[batch, side, side, …]`."""


def fit_head(
    head: nn.Module, views: Sequence[int], example: Example, loss: Loss, settings: DenseHeadSettings, device: str
) -> nn.Module:
    """Train a head on frozen tokens. Its values are enlarged bilinearly to the pixels of the views before the loss.

    Args:
        head: takes tokens `[batch, channels, rows, columns]`.
        views: numbers of the views to train on.
        example: reads a view.
        loss: what is minimised.
        settings: optimiser, steps, batch and seed.
        device: where the head is trained.

    Returns:
        The head, in evaluation mode.

    Raises:
        SettingError: the loss became NaN or infinite.
    """
    head.to(device).train()
    optimiser = _optimiser(head, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, settings.steps))
    for step, batch in enumerate(_batches(views, settings)):
        tokens, targets = zip(*(example(view) for view in batch), strict=True)
        inputs = torch.from_numpy(np.stack(tokens)).to(device).float().permute(0, 3, 1, 2)
        target = torch.from_numpy(np.stack(targets)).to(device)
        values = interpolate(head(inputs), size=target.shape[1:3], mode="bilinear", align_corners=False)
        value = loss(values, target)
        if not torch.isfinite(value):
            fix = "choose a smaller learning rate"
            raise SettingError("dense head", [Problem(place=f"step {step}", found=f"the loss is {value}", fix=fix)])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
    return head.eval()


@torch.no_grad()
def apply_head(
    head: nn.Module, tokens: Float[np.ndarray, "views rows cols channels"], device: str
) -> list[Float[Tensor, "_ _ outputs"]]:
    """Return a trained head's values for the cells of some views."""
    inputs = torch.from_numpy(tokens).to(device).float().permute(0, 3, 1, 2)
    return list(head(inputs).permute(0, 2, 3, 1))


def _optimiser(head: nn.Module, settings: DenseHeadSettings) -> torch.optim.Optimizer:
    weights, rate, decay = head.parameters(), settings.learning_rate, settings.weight_decay
    if settings.optimiser == "sgd":
        return torch.optim.SGD(weights, lr=rate, momentum=0.9, weight_decay=decay)
    return torch.optim.AdamW(weights, lr=rate, weight_decay=decay)


def _rate(step: int, steps: int) -> float:
    """Return the share of the highest learning rate at a step."""
    warmup = max(1, steps // 10)
    return (step + 1) / warmup if step < warmup else (1 + cos(pi * (step - warmup) / max(1, steps - warmup))) / 2


def _batches(views: Sequence[int], settings: DenseHeadSettings) -> Iterator[list[int]]:
    """Yield the views of each step. Every view comes once before any comes again."""
    generator, waiting = np.random.default_rng(settings.seed), list[int]()
    for _ in range(settings.steps):
        while len(waiting) < settings.batch:
            waiting += [views[place] for place in generator.permutation(len(views))]
        batch, waiting = waiting[: settings.batch], waiting[settings.batch :]
        yield batch
