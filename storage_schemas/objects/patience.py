"""How long a store behind a network may fail before a run stops."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to go on asking."""

    outage: float = 60.0
    """A request that fails is tried again until it has failed for so long (seconds); then the run stops."""
    silence: float = 15.0
    """An answer that stays away, or pauses, for so long counts as failed (seconds)."""
    first_wait: float = 0.1
    """Wait before the second attempt (seconds); it doubles from attempt to attempt, and varies by up to a half."""
    longest_wait: float = 5.0
    """What the doubling ends at (seconds)."""
