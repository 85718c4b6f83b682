"""Randomness from content: every draw is a function of what is drawn for, never of order, worker or machine.

A draw is keyed by a tuple such as `(recipe seed, image key, draw, "offset", teacher)`. The key's SHA-256 seeds it, so
two runs that meet the same view in another order, or on another machine, draw the same crop, shift and cell.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

Key = tuple[int | str, ...]
"""What a draw is for. The parts are joined without ambiguity: ("a", "bc") and ("ab", "c") draw differently."""


Choice = TypeVar("Choice", int, str)


def digest_of(key: Key) -> bytes:
    """Return the SHA-256 (32 bytes) of a key, written as canonical JSON."""
    return hashlib.sha256(json.dumps(key, ensure_ascii=False, separators=(",", ":")).encode()).digest()


def generator(key: Key) -> np.random.Generator:
    """Return a NumPy generator (PCG64) seeded by the key alone."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest_of(key), "little")))


def unit_interval(key: Key) -> float:
    """Return a number drawn uniformly from [0, 1): the first 53 bits of the key's digest."""
    return (int.from_bytes(digest_of(key)[:8], "big") >> 11) * 2.0**-53


def pick(proportions: Mapping[Choice, float], key: Key) -> Choice:
    """Choose one of `proportions`' keys, each as often as its (positive, not necessarily normalised) weight says.

    Args:
        proportions: choice → weight (unitless), in an order that is part of the recipe.
        key: what the choice is for.
    """
    edges = np.cumsum(np.fromiter(proportions.values(), dtype=np.float64))
    chosen = int(np.searchsorted(edges, unit_interval(key) * edges[-1], side="right"))
    return list(proportions)[min(chosen, len(proportions) - 1)]


def hash_order(keys: Sequence[Key]) -> list[int]:
    """Return the order (indices into `keys`) of a shuffle that depends on the keys alone, not on how they came."""
    return sorted(range(len(keys)), key=lambda index: digest_of(keys[index]))
