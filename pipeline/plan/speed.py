"""How fast a worker was when it was measured, and how long a whole plan takes at that speed. Nothing here runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from pipeline.plan.plan import TeacherPlan


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSpeed:
    """What `plan --probe` measured of one worker."""

    device: str
    """What torch calls the device that the teacher ran on; `cpu` for a CPU."""
    seconds: Mapping[int, float]
    """For one input, by its side (pixels)."""
    written: int
    """Size of the shard (bytes)."""
    writing: float
    """How long writing took, until the shard was durable (seconds)."""

    @property
    def bytes_per_second(self) -> float:
        """How fast features are written."""
        return self.written / self.writing


Speeds = Mapping[str, TeacherSpeed]
"""What was measured, by teacher."""
NOTHING_MEASURED: Speeds = MappingProxyType({})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedHours:
    """How long one worker needs for a teacher's features. It writes while the teacher runs: the slower one limits."""

    forwards: float
    writing: float

    @property
    def longest(self) -> float:
        """What the worker needs in all."""
        return max(self.forwards, self.writing)

    @property
    def limit(self) -> str:
        """Which of both limits it."""
        return "writing" if self.writing > self.forwards else "forwards"


def probed_hours(teacher: TeacherPlan, speed: TeacherSpeed) -> ProbedHours:
    """Return the hours of a whole plan at the speeds measured."""
    seconds = sum(count * speed.seconds[side] for side, count in teacher.inputs.items())
    writing = teacher.bytes(teacher.choice.encoding) / speed.bytes_per_second
    return ProbedHours(forwards=seconds / 3600, writing=writing / 3600)
