"""The tree is the same whatever order its leaves come in, and holds few parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.workers.ordered import TreeReduction
from storage_schemas.format.errors import ContractError


def bracketed(left: str, right: str) -> str:
    """A merge whose result shows its whole history."""
    return f"({left}{right})"


def reduced(order: list[int]) -> str:
    tree = TreeReduction(leaves=len(order), merge=bracketed)
    for leaf in order:
        tree.add(leaf, chr(ord("a") + leaf))
    return tree.result()


@pytest.mark.parametrize(
    ("leaves", "expected"),
    [
        (1, "a"),
        (2, "(ab)"),
        (3, "((ab)c)"),
        (5, "(((ab)(cd))e)"),
        (6, "(((ab)(cd))(ef))"),
        (7, "(((ab)(cd))((ef)g))"),
    ],
)
def test_neighbours_merge_level_by_level_and_an_odd_last_part_moves_up(leaves: int, expected: str) -> None:
    assert reduced(list(range(leaves))) == expected


@given(st.integers(1, 26).flatmap(lambda leaves: st.permutations(range(leaves))))
def test_the_tree_is_the_same_in_any_order(order: list[int]) -> None:
    assert reduced(order) == reduced(sorted(order))


@pytest.mark.parametrize("late", [0, 1, 500, 1023])
def test_one_late_leaf_leaves_no_more_parts_waiting_than_twice_the_height_of_the_tree(late: int) -> None:
    tree, most = TreeReduction(leaves=1024, merge=lambda left, right: left + right), 0
    for leaf in range(1024):
        if leaf != late:
            tree.add(leaf, leaf)
            most = max(most, tree.waiting)
    assert most <= 20
    tree.add(late, late)
    assert tree.result() == sum(range(1024))


@pytest.mark.parametrize(("leaves", "added", "left"), [(0, [], 0), (3, [0, 1], 1), (1, [0, 0], 2)])
def test_leaves_that_are_missing_or_twice_there_are_refused(leaves: int, added: list[int], left: int) -> None:
    tree = TreeReduction(leaves=leaves, merge=bracketed)
    for leaf in added:
        tree.add(leaf, "x")
    with pytest.raises(ContractError) as refusal:
        tree.result()
    assert str(refusal.value) == (
        "tree reduction breaks the storage contract:\n"
        f"  leaves: {left} parts remain after merging {leaves} leaves, expected 1"
    )
