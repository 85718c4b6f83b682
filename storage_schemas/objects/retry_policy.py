"""How long a store behind a network may fail before a run stops."""

from dataclasses import dataclass
from typing import final

RESUMES = "run the same command again when this is fixed: it resumes"
"""What a user does after a store failed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try a request again, and when to give up."""

    outage: float = 60.0
    """A request that fails is tried again until it has failed for this long (seconds); then the run stops."""
    silence: float = 15.0
    """A request without an answer, or whose answer pauses, for this long counts as failed (seconds)."""
    first_wait: float = 0.1
    """Wait before the second attempt (seconds). It doubles with every attempt, and varies at random by up to a half."""
    longest_wait: float = 5.0
    """Longest wait between attempts (seconds)."""
