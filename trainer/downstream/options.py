"""The command line of `evaluate`."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """Measure what the features of a student or a teacher are good for, on the views of a cache."""
