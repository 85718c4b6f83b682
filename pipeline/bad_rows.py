"""Refusing rows that no statistic can be made of, by number, so that a caller can say which views they are."""

import numpy as np
from jaxtyping import Bool

from storage_schemas.errors import ContractError, Problem

NAMED = 8
"""Rows named in a message; the others are counted."""


def refuse_rows(subject: str, bad: Bool[np.ndarray, " rows"], found: str) -> None:
    """Refuse an array of which any row is bad.

    Args:
        subject: whose rows they are; begins the message.
        bad: true for each row that cannot be used.
        found: what is wrong with them.

    Raises:
        ContractError: a row is bad; names the first few, and counts all.
    """
    numbers = np.flatnonzero(bad).tolist()
    if not numbers:
        return
    more = ", …" if len(numbers) > NAMED else ""
    place = f"rows {', '.join(map(str, numbers[:NAMED]))}{more}"
    raise ContractError(subject, [Problem(place=place, found=f"{found} in {len(numbers)} of {bad.size} rows")])
