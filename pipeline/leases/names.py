"""What leases are on, and what the objects that speak of them are called.

CACHE/leases/<lease>.<number>.claim     a claim on a lease, for as long as it is held
CACHE/leases/<lease>.<number>.alive     on an object store: when its holder last gave a sign of life
"""

import uuid

from storage_schemas.format.teacher import forward_of

LEASES = "leases"
"""The folder of who is at work, relative to the cache."""
VIEWS_LEASE = "views"
"""The lease on the views with their details, and on what the whole cache says of itself."""
WHOLE_LEASE = "cache"
"""The lease on everything: to delete."""
_CLAIM, _SIGN = ".claim", ".alive"


def teacher_lease(teacher: str) -> str:
    """The lease on all that one teacher's forward gives: PHI-S, features and statistics of each of its maps."""
    return f"teachers/{forward_of(teacher)}"


def conflict(one: str, other: str) -> bool:
    """Say whether two leases may not be held at once."""
    return one == other or WHOLE_LEASE in (one, other)


def claim_name(lease: str) -> str:
    """A new claim on a lease, relative to the cache."""
    return f"{LEASES}/{lease.replace('/', '.')}.{uuid.uuid4().hex}{_CLAIM}"


def is_claim(name: str) -> bool:
    """Say whether an object is a claim on a lease."""
    return name.endswith(_CLAIM)


def claimed_lease(claim: str) -> str:
    """The lease that a claim is on."""
    return claim.removeprefix(f"{LEASES}/").removesuffix(_CLAIM).rpartition(".")[0].replace(".", "/")


def sign_of(claim: str) -> str:
    """The object that is written again and again while a claim's holder lives."""
    return claim.removesuffix(_CLAIM) + _SIGN


def is_sign(name: str) -> bool:
    """Say whether an object is a sign of life."""
    return name.endswith(_SIGN)
