"""Which views a step uses: the same from any start, every view as often as any other, sets in proportion."""

from collections import Counter
from itertools import islice
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_schemas.format.views import ViewSet
from storage_schemas.row_ranges import row_ranges
from trainer.data.order import steps, views_used_before
from trainer.data.order_types import Order, ShuffledSet, StepPart
from trainer.data.shuffled_table import shuffled
from trainer.settings.running import OrderRule

LOW_128 = ViewSet(partition="low", resolution=128)
LOW_192 = ViewSet(partition="low", resolution=192)
HIGH_256 = ViewSet(partition="high", resolution=256)
RULES: tuple[OrderRule, ...] = get_args(OrderRule)


def shuffled_set(
    views: int, *, rows_per_shard: int = 4, proportion: float | None = None, first: int = 0
) -> ShuffledSet:
    return ShuffledSet(
        rows=row_ranges([first], [first + views]),
        rows_per_shard=rows_per_shard,
        proportion=float(views if proportion is None else proportion),
    )


def order(seed: int = 0, **changes: object) -> Order:
    fields = {
        "sets": {LOW_128: shuffled_set(10), LOW_192: shuffled_set(23), HIGH_256: shuffled_set(7, first=3)},
        "batches": {"low": 4, "high": 2},
        "window_shards": 2,
    }
    return Order(seed=seed, **{**fields, **changes})  # type: ignore[arg-type]


def plain(step: tuple[StepPart, ...]) -> list[tuple[str, list[int], list[int]]]:
    return [(part.view_set.name, part.rows.tolist(), part.epochs.tolist()) for part in step]


def test_the_order_of_runs_that_began_with_tables_never_changes() -> None:
    # a run that an earlier version began goes on with the same views: these are the steps of its seed
    assert [plain(step) for step in islice(steps(order(seed=3, rule="table")), 40, 42)] == [
        [("low-192", [9, 2, 1, 3], [4, 4, 4, 4]), ("high-256", [5, 8], [11, 11])],
        [("low-128", [0, 5, 4, 6], [6, 6, 6, 6]), ("high-256", [7, 3], [11, 11])],
    ]


@settings(max_examples=30)
@given(seed=st.integers(0, 5), start=st.integers(0, 60), rule=st.sampled_from(RULES))
def test_a_run_that_starts_at_any_step_uses_what_an_undisturbed_run_uses_from_there(
    seed: int, start: int, rule: OrderRule
) -> None:
    undisturbed = [plain(step) for step in islice(steps(order(seed, rule=rule)), start, start + 12)]
    assert [plain(step) for step in islice(steps(order(seed, rule=rule), start), 12)] == undisturbed


def test_another_seed_draws_the_sets_and_the_rows_anew() -> None:
    first, second = ([plain(step)[0] for step in islice(steps(order(seed)), 40)] for seed in (0, 1))
    assert [view_set for view_set, _, _ in first] != [view_set for view_set, _, _ in second]
    alone = ({LOW_128: shuffled_set(400)}, {"low": 400})
    rows = [next(steps(order(seed, sets=alone[0], batches=alone[1])))[0].rows for seed in (0, 1)]
    assert abs(np.corrcoef(rows)[0, 1]) < 0.2


def test_every_epoch_is_in_an_order_of_its_own() -> None:
    one_set = order(sets={LOW_128: shuffled_set(400)}, batches={"low": 400}, window_shards=100)
    epochs = [step[0] for step in islice(steps(one_set), 4)]
    assert [set(epoch.epochs.tolist()) for epoch in epochs] == [{0}, {1}, {2}, {3}]
    assert all(sorted(epoch.rows.tolist()) == list(range(400)) for epoch in epochs)
    assert np.abs(np.corrcoef([epoch.rows for epoch in epochs]) - np.eye(4)).max() < 0.2


def test_every_step_takes_one_set_of_each_partition_low_first_and_full_batches() -> None:
    for step in islice(steps(order()), 50):
        assert [(part.view_set.partition, len(part.rows)) for part in step] == [("low", 4), ("high", 2)]


def test_a_partition_that_is_not_cached_takes_no_part() -> None:
    lone = order(sets={HIGH_256: shuffled_set(7)}, batches={"high": 2})
    assert [part.view_set for part in next(steps(lone))] == [HIGH_256]


@settings(max_examples=30)
@given(count=st.integers(1, 80), rule=st.sampled_from(RULES))
def test_no_view_of_a_set_is_used_more_than_once_more_than_another(count: int, rule: OrderRule) -> None:
    uses: dict[ViewSet, Counter[int]] = {view_set: Counter() for view_set in order().sets}
    for step in islice(steps(order(rule=rule)), count):
        for part in step:
            uses[part.view_set].update(part.rows.tolist())
    for view_set, counted in uses.items():
        times = [counted[row] for row in order().sets[view_set].rows.tolist()]
        assert sum(times) == counted.total()
        assert max(times) - min(times) <= 1


@pytest.mark.parametrize("rule", RULES)
def test_the_epoch_of_a_row_is_how_often_it_was_used_before(rule: OrderRule) -> None:
    used: Counter[tuple[ViewSet, int]] = Counter()
    for step in islice(steps(order(rule=rule)), 80):
        for part in step:
            for row, epoch in zip(part.rows.tolist(), part.epochs.tolist(), strict=True):
                assert epoch == used[part.view_set, row]
                used[part.view_set, row] += 1


def test_sets_of_a_partition_are_drawn_in_their_proportions() -> None:
    sets = {LOW_128: shuffled_set(10, proportion=1), LOW_192: shuffled_set(10, proportion=3)}
    for rule in RULES:
        used = views_used_before(order(sets=sets, batches={"low": 2}, rule=rule), "low", 4000)
        # a binomial count of 4000 draws at 1/4 lies within 5 standard deviations (137) of its mean
        assert abs(used[LOW_128] / 2 - 1000) < 137
        assert sum(used.values()) == 8000


def test_a_cycle_is_long_enough_for_every_partition() -> None:
    # 33 low views at 4 a step make 9 steps, 7 high views at 2 a step make 4
    assert order().steps_per_cycle == 9


def test_the_shares_of_all_ranks_are_the_step() -> None:
    (part, _) = next(steps(order()))
    shares = [part.share(rank, 2) for rank in range(2)]
    assert sorted(np.concatenate([share.rows for share in shares])) == sorted(part.rows)
    assert [len(share.rows) for share in shares] == [2, 2]
    assert shares[1].epochs.tolist() == part.epochs[1::2].tolist()


@given(views=st.integers(1, 60), window=st.integers(1, 5), number=st.integers(0, 3))
def test_a_shuffle_keeps_every_row_and_opens_a_window_of_shards_at_a_time(views: int, window: int, number: int) -> None:
    rows = shuffled(shuffled_set(views).rows, 4, window, (0, "epoch", number))
    assert sorted(rows) == list(range(views))
    shards = rows // 4
    finished: set[int] = set()
    for position in range(len(shards)):
        remaining = set(shards[position:].tolist())
        started = set(shards[: position + 1].tolist())
        finished = started - remaining
        assert len(started - finished) <= window


def test_rows_of_one_window_mix_and_windows_change_with_the_epoch() -> None:
    first, second = (shuffled(shuffled_set(400).rows, 4, 4, (0, "epoch", number)) for number in (0, 1))
    assert len(set((first[:16] // 4).tolist())) == 4
    assert set(first[:16].tolist()) != set(second[:16].tolist())
    assert (first[:16] // 4).tolist() != sorted((first[:16] // 4).tolist())


@pytest.mark.parametrize("start", [0, 7, 1000])
def test_the_end_of_one_epoch_and_the_start_of_the_next_share_a_batch(start: int) -> None:
    lone = order(sets={LOW_128: shuffled_set(10)}, batches={"low": 4})
    stream = [int(row) for step in islice(steps(lone, start), 20) for row in step[0].rows]
    skipped = -start * 4 % 10
    epochs = [stream[place : place + 10] for place in range(skipped, len(stream) - 9, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
