"""Cosine similarities of features, and what is done about ties."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Float64

from storage_schemas.format.errors import ContractError, Problem, first_few

DECIMALS = 10
"""Similarities are rounded to so many decimals. Equal features then have equal similarities: otherwise their last bits
depend on the order in which a library adds, and so would the order of neighbours."""
AT_A_TIME = 2**25
"""Similarities that are held at a time."""


def unit_features(features: Float[np.ndarray, "rows channels"], place: str) -> Float64[np.ndarray, "rows channels"]:
    """Return features at length 1, in float64.

    Args:
        features: vectors, in any units.
        place: whose they are, for the message.

    Raises:
        ContractError: a vector holds NaN or infinity, or has length 0. A classifier would count it as some class.
    """
    require_finite(features, place)
    wide = features.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if len(zero := np.flatnonzero(lengths[:, 0] == 0)):
        found = f"{len(zero)} of {len(features)} vectors are zero and have no direction: {', '.join(first_few(zero))}"
        raise ContractError("features", [Problem(place=place, found=found)])
    return wide / lengths


def require_finite(features: Float[np.ndarray, "rows channels"], place: str) -> None:
    """Refuse features that hold NaN or infinity.

    Raises:
        ContractError: a vector does; the message names the first ones by their positions.
    """
    if len(broken := np.flatnonzero(~np.isfinite(features).all(axis=1))):
        found = f"{len(broken)} of {len(features)} vectors hold NaN or infinity: {', '.join(first_few(broken))}"
        raise ContractError("features", [Problem(place=place, found=found)])


def similarities(
    queries: Float64[np.ndarray, "queries channels"], others: Float64[np.ndarray, "others channels"]
) -> Iterator[tuple[slice, Float64[np.ndarray, "part others"]]]:
    """Yield the rounded cosine similarities of consecutive queries to all others, part by part.

    Args:
        queries: vectors of length 1.
        others: vectors of length 1.
    """
    step = max(1, AT_A_TIME // len(others))
    for first in range(0, len(queries), step):
        part = slice(first, min(first + step, len(queries)))
        yield part, np.round(queries[part] @ others.T, DECIMALS)


def share_of_best(scores: Float64[np.ndarray, "queries classes"], classes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return for each query the probability that its class is chosen, if one of the highest scores is drawn at random.

    It is 1 where the class has the highest score alone, 1/n where n classes share it, else 0. Scores that differ by
    less than a part in 10⁹ of the highest are the same.
    """
    highest = scores.max(axis=1, keepdims=True)
    best = scores >= highest - 1e-9 * np.abs(highest)
    return best[np.arange(len(scores)), np.asarray(classes)] / best.sum(axis=1)
