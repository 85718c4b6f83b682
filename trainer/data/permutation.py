"""Keyed permutations: where each place of a random order leads, computed from the place alone, without a table.

`Permutation` is a Feistel network over the pairs (left, right) of Z_a × Z_b with a = ⌈√n⌉ and b = ⌈n/a⌉:

    left ← left + F_k(right) mod a,   then   right ← right + F_k(left) mod b,   and so on

It permutes a·b numbers, hardly more than n; a result from n on is permuted again until it is below n, which permutes
the n numbers (cycle walking). F_k is SplitMix64 with a key for each round.

Sources: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", sections 4 and 5 (cycle walking, generalised
Feistel network); Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64).
"""

import hashlib
import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int64, UInt64

from storage_schemas.format.seeds import Key, canonical

ROUNDS = 16
"""For three items or more, each further round takes at least half of what is left of the dependence between two."""
_HALF = np.uint64(32)
_STEP, _FIRST, _SECOND = (np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def round_keys(key: Key, count: int) -> UInt64[np.ndarray, " count"]:
    """Return 64-bit keys: the SHAKE-256 stream of a key."""
    return np.frombuffer(hashlib.shake_256(canonical(key)).digest(8 * count), dtype=">u8").astype(np.uint64)


def mixed(key: np.uint64, counters: np.ndarray) -> np.ndarray:
    """Return the numbers (uint64) of a SplitMix64 generator at some places of its stream, counted from 0.

    Different places of one stream have different numbers.
    """
    state = (counters.astype(np.uint64) + np.uint64(1)) * _STEP + key
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


def uniform_at(key: np.uint64, counters: np.ndarray) -> np.ndarray:
    """Return numbers drawn uniformly from [0, 1) at some places of a stream: 53 bits each."""
    return (mixed(key, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def shuffled_places(key: np.uint64, size: int) -> Int64[np.ndarray, " size"]:
    """Return a random order of 0 … size − 1, for sizes that fit in memory: the order of their numbers in a stream."""
    return np.argsort(mixed(key, np.arange(size)))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Permutation:
    """A random order of 0 … size − 1 that is computed place by place, in constant time and memory."""

    size: int
    """Number of items, up to 2⁶²."""
    keys: UInt64[np.ndarray, " rounds"]
    """A key for each round."""

    def at(self, places: Int64[np.ndarray, " places"]) -> Int64[np.ndarray, " places"]:
        """Return the items at some places of the order.

        Args:
            places: 0 … size − 1.
        """
        return self._walk(places, range(len(self.keys)), 1)

    def place_of(self, items: Int64[np.ndarray, " items"]) -> Int64[np.ndarray, " items"]:
        """Return the places of some items in the order: the reverse of `at`."""
        return self._walk(items, range(len(self.keys))[::-1], -1)

    def _walk(self, numbers: np.ndarray, rounds: range, sign: int) -> np.ndarray:
        numbers = self._permuted(numbers, rounds, sign)
        while (beyond := np.flatnonzero(numbers >= self.size)).size:
            numbers[beyond] = self._permuted(numbers[beyond], rounds, sign)
        return numbers

    def _permuted(self, numbers: np.ndarray, rounds: range, sign: int) -> np.ndarray:
        high = math.isqrt(max(self.size - 1, 0)) + 1
        low = -(-self.size // high)
        left, right = np.divmod(numbers, low)
        for number in rounds:
            fixed, bound = (left, low) if number % 2 else (right, high)
            # a number below the bound, each with the same probability to 2⁻³²: sides have at most 32 bits
            shift = ((mixed(self.keys[number], fixed) >> _HALF) * np.uint64(bound) >> _HALF).astype(np.int64)
            if number % 2:
                right = (right + sign * shift) % low
            else:
                left = (left + sign * shift) % high
        return left * low + right
