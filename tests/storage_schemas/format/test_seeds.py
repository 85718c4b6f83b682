"""Draws depend on their key alone, are the same for ever, and are as spread as they should be."""

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.errors import SettingError
from storage_schemas.format.seeds import digest_of, generator, hash_order, pick, uniforms, unit_interval

KEY = (7, "a/ü.jpg", 0, "offset", "dinov3")
KEYS = [(3, f"{number}.jpg", 0) for number in range(10_000)]
PARTS = st.lists(st.integers() | st.text(st.characters(codec="utf-8"), max_size=3), max_size=4).map(tuple)


def test_a_change_of_the_scheme_would_change_every_cache_so_these_values_stay() -> None:
    assert digest_of(KEY).hex() == "f9998b755050373e2aa1b160dea9fb0fa4b0a94758ec346623ec001811a337de"
    assert uniforms(KEY, 3).tolist() == [0.08497476149086325, 0.03101899095681926, 0.9825941058934434]
    assert generator(KEY).integers(0, 2**32, 3).tolist() == [349604326, 1879632808, 1186018611]
    drawn = [pick({128: 1.0, 192: 2.0, 256: 0.5}, (7, number)) for number in range(12)]
    assert drawn == [128, 128, 192, 128, 192, 192, 192, 192, 128, 192, 128, 128]
    assert hash_order([(number,) for number in range(10)]) == [2, 3, 1, 9, 5, 4, 7, 8, 0, 6]


def test_a_key_is_hashed_as_compact_json() -> None:
    assert digest_of(KEY) == hashlib.sha256('[7,"a/ü.jpg",0,"offset","dinov3"]'.encode()).digest()


@given(PARTS, PARTS)
def test_two_keys_draw_the_same_only_when_they_are_the_same(
    first: tuple[int | str, ...], second: tuple[int | str, ...]
) -> None:
    assert (digest_of(first) == digest_of(second)) == (first == second)
    assert (unit_interval(first) == unit_interval(second)) == (first == second)


def test_parts_are_joined_without_ambiguity() -> None:
    assert digest_of(("a", "bc")) != digest_of(("ab", "c"))
    assert digest_of((1,)) != digest_of(("1",))


def test_more_draws_begin_with_the_fewer() -> None:
    assert uniforms(KEY, 5)[:2].tolist() == uniforms(KEY, 2).tolist()
    assert unit_interval(KEY) == uniforms(KEY, 1)[0]
    assert uniforms(KEY, 0).shape == (0,)


def test_uniforms_are_uniform_over_keys_and_along_a_key() -> None:
    for drawn in (np.array([unit_interval(key) for key in KEYS]), uniforms(KEY, 10_000)):
        assert drawn.min() >= 0
        assert drawn.max() < 1
        gap = np.abs(np.sort(drawn) - (np.arange(10_000) + 0.5) / 10_000).max()
        assert gap < 2.2 / np.sqrt(10_000)  # Kolmogorov and Smirnov: fair draws exceed it once in 8,000 tries


def test_pick_takes_each_choice_as_often_as_its_weight_says() -> None:
    weights = {128: 1.0, 192: 3.0, 224: 0.5, 256: 5.5}
    counts = Counter(pick(weights, key) for key in KEYS)
    for choice, weight in weights.items():
        share = weight / 10
        spread = np.sqrt(10_000 * share * (1 - share))
        assert abs(counts[choice] - 10_000 * share) < 4 * spread


@given(st.dictionaries(st.text(max_size=2), st.floats(1e-6, 1e6), min_size=1, max_size=5), st.integers())
def test_pick_depends_neither_on_the_order_nor_on_the_scale_of_the_weights(
    weights: dict[str, float], number: int
) -> None:
    choice = pick(weights, (number,))
    assert choice in weights
    assert pick(dict(reversed(weights.items())), (number,)) == choice
    assert pick({name: weight * 4 for name, weight in weights.items()}, (number,)) == choice


def test_a_choice_that_is_added_takes_its_share_and_moves_nothing_between_the_others() -> None:
    before, after = {128: 1.0, 192: 3.0}, {128: 1.0, 192: 3.0, 256: 2.0}
    moved = [(pick(before, key), pick(after, key)) for key in KEYS]
    changed = Counter((old, new) for old, new in moved if old != new)
    assert set(changed) == {(128, 256), (192, 256)}
    for old, share in ((128, 1 / 12), (192, 3 / 12)):  # a third of each: 2 of 6
        assert abs(changed[old, 256] - 10_000 * share) < 4 * np.sqrt(10_000 * share * (1 - share))


def test_pick_of_one_is_that_one() -> None:
    assert pick({"only": 0.1}, KEY) == "only"


@pytest.mark.parametrize(
    "weights", [{}, {"a": 0.0}, {"a": 1.0, "b": -1.0}, {"a": float("nan"), "b": 1.0}, {"a": float("inf")}]
)
def test_pick_refuses_weights_that_mean_nothing(weights: dict[str, Any]) -> None:
    with pytest.raises(SettingError) as refusal:
        pick(weights, (1, "x"))
    assert str(refusal.value) == (
        f"proportions cannot be used:\n  (1, 'x'): {weights} are not positive weights of one choice or more"
    )


@given(st.lists(PARTS, unique=True, max_size=8), st.randoms())
def test_a_shuffle_by_hash_depends_on_the_keys_and_not_on_how_they_came(
    keys: list[tuple[int | str, ...]], random: Any
) -> None:
    shuffled = random.sample(keys, len(keys))
    in_order = [keys[index] for index in hash_order(keys)]
    assert sorted(map(digest_of, keys)) == [digest_of(key) for key in in_order]
    assert [shuffled[index] for index in hash_order(shuffled)] == in_order
