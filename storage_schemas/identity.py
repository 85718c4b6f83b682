"""Identity: what a thing was computed from, as a JSON object; its digest; and how two of them differ."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from storage_schemas.errors import IdentityError, Problem

Identity = Mapping[str, Any]
"""JSON-ready values by name, nested as they come."""


def digest(identity: Identity) -> str:
    """Return the SHA-256 (hexadecimal) of an identity's canonical JSON."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(stored: Identity, current: Identity, holder: str = "the cache") -> list[Problem]:
    """Name every value in which two identities differ, with both values and whose they are.

    Args:
        stored: what is there.
        current: this run's.
        holder: where `stored` is, for the message.
    """
    before, now = _flat("", stored), _flat("", current)
    absent = "nothing"
    return [
        Problem(place=name, found=f"{holder} has {before.get(name, absent)}, this run has {now.get(name, absent)}")
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def require_same(subject: str, stored: Identity, current: Identity, fix: str) -> None:
    """Refuse to go on when two identities differ.

    Args:
        subject: what is compared, for the message.
        stored: the cache's.
        current: this run's.
        fix: what the user can do about it.

    Raises:
        IdentityError: they differ; every value that does is named.
    """
    if problems := differences(stored, current):
        raise IdentityError(subject, [*problems, Problem(place="what to do", found=fix)])


def _flat(prefix: str, value: Any) -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        parts = (_flat(f"{prefix}.{name}" if prefix else str(name), inner) for name, inner in value.items())
        return {name: text for part in parts for name, text in part.items()}
    return {prefix: json.dumps(value, ensure_ascii=False)}
