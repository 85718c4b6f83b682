"""The sample of views that PHI-S is fitted on, and samples that are refused. All view sets contribute in proportion."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import final

import numpy as np

from pipeline.config import CalibrationConfig
from pipeline.phi_s.moments import Moments
from storage_schemas.format.errors import ContractError, Problem, SettingError
from storage_schemas.format.manifest import ViewSetManifest
from storage_schemas.format.views import ViewSet

SHARDS = 32
"""Most shards of a view set that are read; they are evenly spaced. Rows are shuffled, so every shard is a sample."""

NAMED = 8
"""Most channels, and most shards of a set, that a message names; the others are counted."""

TrainingViews = Callable[[ViewSet, int], int]
"""Returns how many training views a shard holds: they come first in it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationShard:
    """The views that one shard contributes to the sample."""

    view_set: ViewSet
    shard: int
    views: int
    """How many of the shard's first views."""


def calibration_sample(
    sets: Mapping[ViewSet, ViewSetManifest],
    tokens: Mapping[ViewSet, int],
    training: TrainingViews,
    config: CalibrationConfig,
    channels: int,
) -> list[CalibrationShard]:
    """Choose training views: at least as many views and tokens as the settings ask for; all where there are fewer.

    Where not every shard of a set is read, each shard read represents the training views of several shards. Every shard
    contributes the same share of the views that it represents, but no more than it holds.

    Args:
        sets: shape of every view set.
        tokens: tokens along one side of the teacher's window, by set.
        training: counts the training views of a shard.
        config: how many views and tokens are wanted.
        channels: of the teacher.
    """
    shards = [shard for view_set, shape in sets.items() for shard in _shards_read(view_set, shape, training)]
    represented = [shard.views * _shards_represented(sets[shard.view_set]) for shard in shards]
    views = sum(represented)
    held = sum(count * tokens[shard.view_set] ** 2 for shard, count in zip(shards, represented, strict=True))
    share = max(config.views / max(views, 1), config.tokens_per_channel * channels / max(held, 1))
    return [
        CalibrationShard(view_set=shard.view_set, shard=shard.shard, views=min(shard.views, math.ceil(share * count)))
        for shard, count in zip(shards, represented, strict=True)
    ]


def require_tokens(
    sample: list[CalibrationShard], tokens: Mapping[ViewSet, int], config: CalibrationConfig, channels: int
) -> None:
    """Refuse a sample that is too small to estimate a covariance.

    Raises:
        SettingError: it has fewer tokens for each channel than the settings ask for.
    """
    drawn = sum(shard.views * tokens[shard.view_set] ** 2 for shard in sample)
    if drawn < config.tokens_per_channel * channels:
        found = f"{drawn} tokens for {channels} channels, fewer than {config.tokens_per_channel} for each"
        fix = "add images or draws, or accept a rougher fit with --calibration.tokens-per-channel"
        raise SettingError("PHI-S calibration", [Problem(place="training views", found=found, fix=fix)])


def require_varying(measured: Mapping[str, Moments], sample: Sequence[CalibrationShard]) -> None:
    """Refuse a teacher with channels that never change: their scatter is exactly 0, see `observe_all`.

    Such a channel distinguishes no images. The likely cause is a broken forward, or weights that were not loaded. The
    rotation of PHI-S would hide the fault, because it mixes all channels.

    Args:
        measured: moments of the sample (raw teacher units), by the name of the map.
        sample: the views that were measured.

    Raises:
        ContractError: there are such channels; they and the views are named.
    """
    for name, moments in measured.items():
        dead = np.flatnonzero(np.diagonal(moments.scatter) == 0).tolist()
        if dead:
            found = f"a variance of zero in {len(dead)} of {moments.mean.size} channels over {moments.count} tokens"
            fix = "check its weights and its forward; nothing of it was stored"
            problems = [Problem(place=f"spatial, channels {_some(dead)}", found=found, fix=fix)]
            raise ContractError(f"output of teacher {name!r}", [*problems, *_views_of(sample)])


def _views_of(sample: Sequence[CalibrationShard]) -> Iterator[Problem]:
    for view_set, group in groupby(sample, key=lambda shard: shard.view_set):
        drawn = list(group)
        views, shards = sum(shard.views for shard in drawn), _some([shard.shard for shard in drawn])
        yield Problem(place=f"views of {view_set.name}", found=f"{views} training views, the first of shards {shards}")


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:NAMED])) + (", …" if len(numbers) > NAMED else "")


def _shards_read(view_set: ViewSet, shape: ViewSetManifest, training: TrainingViews) -> Iterator[CalibrationShard]:
    """Yield the shards of a set that are read, each with all of its training views."""
    for shard in _spaced(shape):
        if views := training(view_set, shard):
            yield CalibrationShard(view_set=view_set, shard=shard, views=views)


def _shards_represented(shape: ViewSetManifest) -> float:
    """Return how many shards of its set each shard that is read represents."""
    return shape.grid.shards / len(_spaced(shape))


def _spaced(shape: ViewSetManifest) -> range:
    return range(0, shape.grid.shards, -(-shape.grid.shards // SHARDS))
