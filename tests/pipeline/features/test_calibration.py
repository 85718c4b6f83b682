"""Calibration: as many training views as were asked for, of every view set alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import CalibrationConfig
from pipeline.features.calibration import SHARDS, CalibrationShard, calibration_sample, require_tokens, require_varying
from pipeline.phi_s.moments import Moments
from storage_schemas.format.errors import ContractError, SettingError
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.manifest import ViewSetManifest
from storage_schemas.format.views import ViewSet

SMALL, LARGE = ViewSet(partition="low", resolution=128), ViewSet(partition="low", resolution=256)
TOKENS = {SMALL: 8, LARGE: 16}


def shape_of(view_set: ViewSet, rows: int, rows_per_shard: int) -> ViewSetManifest:
    """A set of so many rows."""
    geometry = CanvasGeometry(resolution=view_set.resolution, patch=16, margin=2)
    return ViewSetManifest(grid=ShardGrid(counts=(rows,), rows_per_shard=rows_per_shard), geometry=geometry)


def sample_of(
    rows: dict[ViewSet, int],
    training: dict[ViewSet, int],
    config: CalibrationConfig,
    channels: int = 12,
    size: int = 10,
) -> list[CalibrationShard]:
    """A sample from sets in whose first rows the training views are."""
    shapes = {view_set: shape_of(view_set, count, size) for view_set, count in rows.items()}

    def count(view_set: ViewSet, shard: int) -> int:
        slots = shapes[view_set].grid.slots(shard)
        return max(0, min(training[view_set], slots.stop) - slots.start)

    return calibration_sample(shapes, TOKENS, count, config, channels)


def views_by_set(sample: list[CalibrationShard]) -> dict[ViewSet, int]:
    """Views drawn from each set."""
    found = dict.fromkeys((SMALL, LARGE), 0)
    for shard in sample:
        found[shard.view_set] += shard.views
    return found


ROWS = st.integers(1, 300)


@given(ROWS, ROWS, st.floats(0, 1), st.integers(1, 400), st.integers(1, 400))
def test_there_are_as_many_views_and_tokens_as_asked_for_or_all_there_are(
    small: int, large: int, trained: float, views: int, tokens: int
) -> None:
    rows = {SMALL: small, LARGE: large}
    training = {view_set: int(trained * count) for view_set, count in rows.items()}
    config = CalibrationConfig(views=views, tokens_per_channel=tokens)
    found = views_by_set(sample_of(rows, training, config))
    enough = sum(found.values()) >= views and 64 * found[SMALL] + 256 * found[LARGE] >= 12 * tokens
    assert enough or found == training
    assert all(found[view_set] <= training[view_set] for view_set in rows)


def test_no_more_is_taken_than_asked_for_but_one_view_a_shard() -> None:
    rows = {SMALL: 300, LARGE: 200}
    sample = sample_of(rows, rows, CalibrationConfig(views=100, tokens_per_channel=1))
    assert 100 <= sum(shard.views for shard in sample) <= 100 + len(sample)


def test_every_set_gives_its_share_however_many_shards_are_read_of_it() -> None:
    rows = {SMALL: 10_000, LARGE: 200}  # 1,000 shards, of which 32 are read; and 20, all of which are
    found = views_by_set(sample_of(rows, rows, CalibrationConfig(views=102, tokens_per_channel=1)))
    assert found[SMALL] / found[LARGE] > 4, "of 50 to 1, rounding each shard up takes 20 from the small set"


def test_the_shards_read_of_a_set_are_few_and_spread_over_it() -> None:
    rows = {SMALL: 10_000, LARGE: 10}
    shards = [part.shard for part in sample_of(rows, rows, CalibrationConfig()) if part.view_set == SMALL]
    assert shards == list(range(0, 1000, 32))
    assert len(shards) <= SHARDS


def test_shards_without_a_training_view_are_left_out() -> None:
    sample = sample_of({SMALL: 30, LARGE: 30}, {SMALL: 15, LARGE: 0}, CalibrationConfig())
    assert sample == [
        CalibrationShard(view_set=SMALL, shard=0, views=10),
        CalibrationShard(view_set=SMALL, shard=1, views=5),
    ]


def test_too_few_tokens_for_the_channels_are_refused() -> None:
    config = CalibrationConfig()
    sample = [CalibrationShard(view_set=SMALL, shard=0, views=3), CalibrationShard(view_set=LARGE, shard=0, views=1)]
    require_tokens(sample, TOKENS, config, channels=22)
    with pytest.raises(SettingError) as caught:
        require_tokens(sample, TOKENS, config, channels=24)
    assert str(caught.value) == (
        "PHI-S calibration cannot be used:\n"
        "  training views: 448 tokens for 24 channels, fewer than 20 for each (add images or draws, or accept a "
        "rougher fit with --calibration.tokens-per-channel)"
    )


def test_no_training_view_at_all_is_too_few_tokens() -> None:
    sample = sample_of({SMALL: 30, LARGE: 30}, {SMALL: 0, LARGE: 0}, CalibrationConfig())
    assert sample == []
    with pytest.raises(SettingError, match="0 tokens for 12 channels"):
        require_tokens(sample, TOKENS, CalibrationConfig(), channels=12)


def test_channels_that_never_change_are_refused_with_the_views_of_every_set() -> None:
    scatter = np.diag(np.where(np.arange(40) % 3, 1e-300, 0.0))
    alive = Moments(count=9, mean=np.zeros(2), scatter=np.eye(2))
    sets = (SMALL, LARGE)
    sample = [CalibrationShard(view_set=view_set, shard=shard, views=2) for view_set in sets for shard in range(9)]
    require_varying({"t": alive}, sample)
    with pytest.raises(ContractError) as refusal:
        require_varying({"t": alive, "t-block3": Moments(count=9, mean=np.ones(40), scatter=scatter)}, sample)
    assert str(refusal.value).splitlines() == [
        "output of teacher 't-block3' breaks the storage contract:",
        "  spatial, channels 0, 3, 6, 9, 12, 15, 18, 21, …: a variance of zero in 14 of 40 channels over 9 tokens "
        "(check its weights and its forward; nothing of it was stored)",
        "  views of low-128: 18 training views, the first of shards 0, 1, 2, 3, 4, 5, 6, 7, …",
        "  views of low-256: 18 training views, the first of shards 0, 1, 2, 3, 4, 5, 6, 7, …",
    ]
