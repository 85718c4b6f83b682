"""Which views PHI-S is fitted on: of every view set alike, from shards spread over it; and when it is not fitted."""

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
"""Shards of a view set that are read at most, evenly spaced: rows are shuffled, so any shard is a sample."""

NAMED = 8
"""Channels, and shards of a set, that a message names; the others are counted."""

TrainingViews = Callable[[ViewSet, int], int]
"""Says how many training views a shard holds: they are its first."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationShard:
    """The first views of one shard."""

    view_set: ViewSet
    shard: int
    views: int
    """How many of them."""


def calibration_sample(
    sets: Mapping[ViewSet, ViewSetManifest],
    tokens: Mapping[ViewSet, int],
    training: TrainingViews,
    config: CalibrationConfig,
    channels: int,
) -> list[CalibrationShard]:
    """Choose training views: as many as the settings ask for, and that hold as many tokens; all where there are fewer.

    A shard stands for as many training views of its set as the shards that were passed over for it hold on average.
    Of these, every shard gives the same share, as far as it has them.

    Args:
        sets: every view set's shape.
        tokens: along one side of a window, as the teacher sees it.
        training: counts training views.
        config: how many are wanted.
        channels: the teacher's.
    """
    shards = [one for view_set, shape in sets.items() for one in _spread(view_set, shape, training)]
    stands_for = [one.views * _passed_over(sets[one.view_set]) for one in shards]
    views = sum(stands_for)
    held = sum(count * tokens[one.view_set] ** 2 for one, count in zip(shards, stands_for, strict=True))
    share = max(config.views / max(views, 1), config.tokens_per_channel * channels / max(held, 1))
    return [
        CalibrationShard(view_set=one.view_set, shard=one.shard, views=min(one.views, math.ceil(share * count)))
        for one, count in zip(shards, stands_for, strict=True)
    ]


def require_tokens(
    sample: list[CalibrationShard], tokens: Mapping[ViewSet, int], config: CalibrationConfig, channels: int
) -> None:
    """Refuse a sample that is too small for a covariance.

    Raises:
        SettingError: it has fewer tokens for each channel than the settings ask for.
    """
    drawn = sum(one.views * tokens[one.view_set] ** 2 for one in sample)
    if drawn < config.tokens_per_channel * channels:
        found = f"{drawn} tokens for {channels} channels, fewer than {config.tokens_per_channel} for each"
        fix = "add images or draws, or accept a rougher fit with --calibration.tokens-per-channel"
        raise SettingError("PHI-S calibration", [Problem(place="training views", found=found, fix=fix)])


def require_varying(measured: Mapping[str, Moments], sample: Sequence[CalibrationShard]) -> None:
    """Refuse a teacher with channels that never change: a scatter of exactly 0, see `Moments`.

    Such a channel tells no two images apart. Weights that were not loaded into it, or a broken forward, are likelier
    than a teacher that means it; the rotation of PHI-S would spread it over all channels, where nobody sees it again.

    Args:
        measured: moments of the sample (raw teacher units), by the name of the teacher or of the map.
        sample: the views that were measured.

    Raises:
        ContractError: there are some; names them, and the views.
    """
    for name, moments in measured.items():
        dead = np.flatnonzero(np.diagonal(moments.scatter) == 0).tolist()
        if dead:
            found = f"a variance of zero in {len(dead)} of {moments.mean.size} channels over {moments.count} tokens"
            fix = "check its weights and its forward; nothing of it was stored"
            problems = [Problem(place=f"spatial, channels {_some(dead)}", found=found, fix=fix)]
            raise ContractError(f"output of teacher {name!r}", [*problems, *_views_of(sample)])


def _views_of(sample: Sequence[CalibrationShard]) -> Iterator[Problem]:
    for view_set, group in groupby(sample, key=lambda one: one.view_set):
        drawn = list(group)
        views, shards = sum(one.views for one in drawn), _some([one.shard for one in drawn])
        yield Problem(place=f"views of {view_set.name}", found=f"{views} training views, the first of shards {shards}")


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:NAMED])) + (", …" if len(numbers) > NAMED else "")


def _spread(view_set: ViewSet, shape: ViewSetManifest, training: TrainingViews) -> Iterator[CalibrationShard]:
    for shard in _shards(shape):
        if views := training(view_set, shard):
            yield CalibrationShard(view_set=view_set, shard=shard, views=views)


def _passed_over(shape: ViewSetManifest) -> float:
    return shape.grid.shards / len(_shards(shape))


def _shards(shape: ViewSetManifest) -> range:
    return range(0, shape.grid.shards, -(-shape.grid.shards // SHARDS))
