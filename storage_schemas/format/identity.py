"""Identities: what a result was computed from, as a JSON object; the digest of it; and how two of them differ."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from storage_schemas.format.errors import ContractError, IdentityError, Problem

Identity = Mapping[str, Any]
"""JSON-ready values by name, nested to any depth."""


def digest(identity: Identity) -> str:
    """Return the SHA-256 (hexadecimal) of an identity's canonical JSON: keys sorted as text, no spaces.

    An identity has the same digest before it is stored and after it is read.

    Raises:
        ContractError: it holds NaN, infinity, or a value that JSON does not have.
    """
    text = json.dumps(_as_stored(identity), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(stored: Identity, current: Identity, holder: str = "the cache") -> list[Problem]:
    """Return one problem for every value in which two identities differ, with both values.

    Args:
        stored: the identity that is there already.
        current: the identity of this run.
        holder: what holds `stored`, for the message.
    """
    before, now = dict(_leaves(_as_stored(stored))), dict(_leaves(_as_stored(current)))
    absent = "nothing"
    return [
        Problem(
            place=".".join(path),
            found=f"{holder} has {before.get(path, absent)}, this run has {now.get(path, absent)}",
        )
        for path in sorted(before.keys() | now.keys())
        if before.get(path) != now.get(path)
    ]


def require_same(subject: str, stored: Identity, current: Identity, fix: str) -> None:
    """Refuse to go on where two identities differ.

    Args:
        subject: what is compared, for the message.
        stored: the identity in the cache.
        current: the identity of this run.
        fix: what the user can do.

    Raises:
        IdentityError: they differ; it names every value that does.
    """
    if problems := differences(stored, current):
        raise IdentityError(subject, [*problems, Problem(place="what to do", found=fix)])


def _as_stored(identity: Identity) -> dict[str, Any]:
    # JSON turns keys into text and tuples into lists: {2: …, 10: …} sorts differently before it is stored and after
    try:
        return json.loads(json.dumps(identity, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ContractError("identity", [Problem(place="identity", found=str(error))]) from error


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict) and (value or not path):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    else:
        yield path, json.dumps(value, ensure_ascii=False, sort_keys=True)
