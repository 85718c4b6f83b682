"""Names of leases, and of the objects that stand for them.

CACHE/leases/<lease>.<number>.claim     a claim on a lease, as long as a run owns it
CACHE/leases/<lease>.<number>.alive     on an object store: the heartbeat of that claim's owner
"""

import uuid

from storage_schemas.format.teacher import forward_of

LEASES = "leases"
"""The folder of claims and heartbeats, relative to the cache."""
VIEWS_LEASE = "views"
"""The lease on the views with their details, and on the cache's own metadata."""
WHOLE_LEASE = "cache"
"""The lease on the whole cache: to delete."""
_CLAIM, _HEARTBEAT = ".claim", ".alive"


def teacher_lease(teacher: str) -> str:
    """The lease on everything that comes from one teacher's forward: PHI-S, features and statistics of each map."""
    return f"teachers/{forward_of(teacher)}"


def conflict(first: str, second: str) -> bool:
    """Say whether two leases exclude each other."""
    return first == second or WHOLE_LEASE in (first, second)


def claim_name(lease: str) -> str:
    """A new name for a claim on a lease, relative to the cache."""
    return f"{LEASES}/{lease.replace('/', '.')}.{uuid.uuid4().hex}{_CLAIM}"


def is_claim(name: str) -> bool:
    """Say whether an object is a claim."""
    return name.endswith(_CLAIM)


def claimed_lease(claim: str) -> str:
    """The lease that a claim is on."""
    return claim.removeprefix(f"{LEASES}/").removesuffix(_CLAIM).rpartition(".")[0].replace(".", "/")


def heartbeat_name(claim: str) -> str:
    """The object that a claim's owner writes again and again while it lives."""
    return claim.removesuffix(_CLAIM) + _HEARTBEAT


def is_heartbeat(name: str) -> bool:
    """Say whether an object is a heartbeat."""
    return name.endswith(_HEARTBEAT)
