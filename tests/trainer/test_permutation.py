"""Keyed permutations: every order is one, it is the same whoever asks for which part of it, and orders are random."""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from trainer.data.permutation import ROUNDS, Permutation, mixed, round_keys, shuffled_places, uniform_at
from trainer.data.permuted_epoch import Blocks, PermutedEpoch

LEVEL = 1e-3
"""Probability that a χ² test refuses an order that is random. Keys are fixed: a test that passes once always does."""
Orders = Callable[[int], np.ndarray]
"""The order of an epoch, by its number."""


def permutation(size: int, *key: int | str) -> Permutation:
    return Permutation(size=size, keys=round_keys(key, ROUNDS))


def epoch(views: int, size: int, window: int, number: int = 0) -> PermutedEpoch:
    blocks = Blocks(views=views, size=size)
    return PermutedEpoch(blocks=blocks, window=window, key=("tests", views, size, window, number))


def whole(order: PermutedEpoch) -> np.ndarray:
    """The order of an epoch, window by window."""
    windows = [order.views_of_window(window) for window in range(-(-order.blocks.count // order.window))]
    first, within = order.window_at(0)
    return np.roll(np.concatenate(windows), -sum(map(len, windows[:first])) - within)


def test_the_numbers_of_a_stream_are_those_of_splitmix64() -> None:
    # the first outputs of the generator with the seed 1234567, as other implementations have them
    assert mixed(np.uint64(1234567), np.arange(5)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert 0 <= uniform_at(np.uint64(5), np.arange(1000)).min() < 0.01
    assert abs(uniform_at(np.uint64(5), np.arange(1000)).mean() - 0.5) < 0.05


@settings(max_examples=30)
@given(size=st.one_of(st.integers(1, 40), st.integers(1, 1000)), key=st.integers(0, 9))
def test_every_order_has_each_item_once_and_is_undone(size: int, key: int) -> None:
    order = permutation(size, key)
    items = order.at(np.arange(size))
    assert sorted(items.tolist()) == list(range(size))
    assert order.place_of(items).tolist() == list(range(size))


@given(size=st.integers(2**20, 2**62), first=st.integers(0, 2**20 - 5))
@settings(max_examples=30)
def test_an_order_of_any_length_is_computed_in_place_and_undone(size: int, first: int) -> None:
    order, places = permutation(size, "long"), np.arange(first, first + 5)
    items = order.at(places)
    assert ((items >= 0) & (items < size)).all()
    assert len(set(items.tolist())) == 5
    assert order.place_of(items).tolist() == places.tolist()


@settings(max_examples=25)
@given(views=st.integers(1, 70), size=st.integers(1, 9), window=st.integers(1, 4))
def test_an_epoch_has_every_view_once_in_windows_that_the_places_name(views: int, size: int, window: int) -> None:
    order = epoch(views, size, window)
    expected = whole(order)
    assert sorted(expected.tolist()) == list(range(views))
    for place in range(0, views, 5):
        number, within = order.window_at(place)
        assert order.views_of_window(number)[within] == expected[place]


def test_the_order_of_a_key_never_changes() -> None:
    assert whole(epoch(10, 4, 2)).tolist() == EXPECTED
    assert permutation(10**9, "pinned").at(np.array([0, 1, 10**9 - 1])).tolist() == PINNED


EXPECTED = [8, 1, 2, 6, 4, 5, 7, 0, 9, 3]
PINNED = [827918655, 668119938, 218517249]


def likelihood(counts: np.ndarray) -> float:
    """How likely counts as uneven as these are, where all cells of each row are equally likely.

    It is that of the most uneven row, times the number of rows.
    """
    expected = counts.sum(axis=1, keepdims=True) / counts.shape[1]
    statistics = ((counts - expected) ** 2 / expected).sum(axis=1)
    return float(chi2.sf(statistics.max(), counts.shape[1] - 1) * len(counts))


def counted(orders: Orders, views: int, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Count how often each view is at each place, and the first two views at each pair of places."""
    places, pairs = np.zeros((views, views)), np.zeros((views, views))
    for number in range(epochs):
        places_of_views = np.argsort(orders(number))
        places[np.arange(views), places_of_views] += 1
        pairs[places_of_views[0], places_of_views[1]] += 1
    return places, pairs[~np.eye(views, dtype=bool)].reshape(1, -1)


def random_orders() -> Iterator[tuple[str, int, Orders]]:
    """Orders in which any two views are as far from one another as chance has it: a name, how many views, the order."""
    for views in (2, 3, 5, 7):
        yield (
            f"permutation of {views}",
            views,
            lambda number, views=views: permutation(views, "pairs", number).at(np.arange(views)),
        )
    yield "shuffle of 6", 6, lambda number: shuffled_places(round_keys(("window", number), 1)[0], 6)
    yield "one window of 6", 6, lambda number: whole(epoch(6, 3, 2, number))


def orders_of_windows() -> Iterator[tuple[str, int, Orders]]:
    """Orders of several windows: views of one window stay near one another, as they are meant to."""
    yield "three blocks, the last one short", 10, lambda number: whole(epoch(10, 4, 1, number))
    yield "windows of two blocks", 11, lambda number: whole(epoch(11, 2, 2, number))


def cases(orders: Iterator[tuple[str, int, Orders]], fast: str) -> list[Any]:
    """Every case for many epochs, and one of them for a few."""
    found = list(orders)
    few = [pytest.param(views, order, 200, id=f"{name}, few") for name, views, order in found if name == fast]
    return few + [pytest.param(views, order, 100_000, marks=pytest.mark.slow, id=name) for name, views, order in found]


@pytest.mark.parametrize(("views", "orders", "epochs"), cases(random_orders(), "permutation of 5"))
def test_every_view_and_every_pair_of_views_comes_equally_often_at_every_place(
    views: int, orders: Orders, epochs: int
) -> None:
    places, pairs = counted(orders, views, epochs)
    print(f"{likelihood(places):.3f} of places, {likelihood(pairs):.3f} of pairs")
    assert likelihood(places) > LEVEL
    assert likelihood(pairs) > LEVEL


@pytest.mark.parametrize(("views", "orders", "epochs"), cases(orders_of_windows(), "three blocks, the last one short"))
def test_every_view_comes_equally_often_at_every_place_where_there_are_windows(
    views: int, orders: Orders, epochs: int
) -> None:
    places, _ = counted(orders, views, epochs)
    print(f"{likelihood(places):.3f} of places")
    assert likelihood(places) > LEVEL


def met(images: np.ndarray, epochs: int, batch: int = 4) -> float:
    """How often two draws of one image are in one batch: 4 images have 3 draws each, in shards of 4 views.

    Args:
        images: image of each view, in the order of the row slots.
        epochs: how many epochs are counted.
        batch: views in a batch.
    """
    pairs = [(first, second) for first, second in combinations(range(12), 2) if images[first] == images[second]]
    together = 0
    for number in range(epochs):
        batches = np.argsort(whole(epoch(12, 4, 1, number))) // batch
        together += sum(int(batches[first] == batches[second]) for first, second in pairs)
    return together / (len(pairs) * epochs)


@pytest.mark.parametrize("epochs", [100, pytest.param(20_000, marks=pytest.mark.slow)])
def test_draws_of_an_image_meet_in_a_batch_no_more_often_than_chance(epochs: int) -> None:
    chance = 3 / 11  # of the other 11 views, 3 are in the batch of the first
    deviation = (chance * (1 - chance) / (4 * epochs)) ** 0.5  # the three pairs of an image are taken for one
    assert met(np.arange(12) % 4, epochs) < chance + 3 * deviation  # as `views` lays them out: each in another shard
    assert met(np.arange(12) // 3, epochs) > chance + 3 * deviation  # neighbours would come together
