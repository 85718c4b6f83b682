"""Random draws by key: a draw depends on its key alone, never on order, worker or machine.

A key is a tuple such as `(recipe seed, image key, draw, "offset", teacher)`, and the draw is a hash of it. So two runs
that reach the same view in another order, or on another machine, draw the same crop, shift and cell.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import TypeVar

import numpy as np
from jaxtyping import Float64

from storage_schemas.format.errors import Problem, SettingError

Key = tuple[int | str, ...]
"""What a draw is for. Its parts stay apart: ("a", "bc") and ("ab", "c") draw differently."""


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
Choice = TypeVar("Choice", int, str)


def digest_of(key: Key) -> bytes:
    """Return the SHA-256 (32 bytes) of a key, written as canonical JSON."""
    return hashlib.sha256(canonical(key)).digest()


def canonical(key: Key) -> bytes:
    """Return a key as canonical JSON: the bytes that are hashed."""
    return f"[{','.join(map(_canonical_part, key))}]".encode()


def _canonical_part(part: int | str) -> str:
    if type(part) is str:
        return encode_basestring(part)
    return repr(part) if type(part) is int else _ENCODER.encode(part)


def uniforms(key: Key, count: int) -> Float64[np.ndarray, " count"]:
    """Return numbers drawn uniformly from [0, 1): 53 bits each of the SHAKE-256 stream of the key.

    Everything random in a cache is drawn here and not by NumPy's generators, whose streams may change between releases.

    Args:
        key: what the numbers are for.
        count: how many.
    """
    stream = hashlib.shake_256(canonical(key)).digest(8 * count)
    return (np.frombuffer(stream, dtype=">u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53


def unit_interval(key: Key) -> float:
    """Return one number drawn uniformly from [0, 1): the first of `uniforms`."""
    return _uniform(hashlib.shake_256(canonical(key)).digest(8))


def _uniform(stream: bytes) -> float:
    return (int.from_bytes(stream) >> 11) * 2.0**-53


def generator(key: Key) -> "np.random.Generator":
    """Return a NumPy generator (PCG64) seeded by the key alone, for draws that are not stored in a cache."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest_of(key), "little")))


def pick(proportions: Mapping[Choice, float], key: Key) -> Choice:
    """Choose one of several, each with a probability in proportion to its weight.

    Every choice draws its own u, uniform on [0, 1), and the choice with the smallest −ln(1 − u) / weight is taken:
    these are exponential waiting times, and the first to end wins. A choice that is added later draws its own u and
    changes no other, so it takes its share from the others and moves nothing between them.

    Source: weighted rendezvous hashing; Thaler and Ravishankar 1998, doi:10.1109/90.663936, without weights.

    Args:
        proportions: choice → weight (unitless, positive; they need not add up to 1). Their order has no effect.
        key: what the choice is for. Each choice draws for this key with itself appended.

    Raises:
        SettingError: there is nothing to choose from, or a weight is not a positive number.
    """
    if not proportions or not all(math.isfinite(weight) and weight > 0 for weight in proportions.values()):
        found = f"{dict(proportions)} are not positive weights of one choice or more"
        raise SettingError("proportions", [Problem(place=str(key), found=found)])
    return min(
        sorted(proportions), key=lambda choice: -math.log1p(-unit_interval((*key, choice))) / proportions[choice]
    )


def hash_order(keys: Sequence[Key]) -> list[int]:
    """Return a shuffled order (indices into `keys`) that depends on the keys alone, not on the order they come in."""
    return sorted(range(len(keys)), key=lambda index: digest_of(keys[index]))
