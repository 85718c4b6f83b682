"""What a probe measured, as plain text: time and TFLOP/s of each input, MB/s of a shard, hours of a whole plan."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from pipeline.plan.plan import Plan, TeacherPlan
from pipeline.plan.probe import TeacherSpeed
from pipeline.text_table import aligned

Speeds = Mapping[str, TeacherSpeed]
"""What was measured, by teacher."""
NOTHING_MEASURED: Speeds = MappingProxyType({})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedHours:
    """How long one worker takes over a teacher's features. It writes while the teacher runs: the longer one limits."""

    forwards: float
    writing: float

    @property
    def longest(self) -> float:
        """What it takes in all."""
        return max(self.forwards, self.writing)

    @property
    def limit(self) -> str:
        """Which of both it is."""
        return "writing" if self.writing > self.forwards else "forwards"


def probed_hours(teacher: TeacherPlan, speed: TeacherSpeed) -> ProbedHours:
    """Return the hours of a whole plan at the speeds measured."""
    seconds = sum(count * speed.seconds[side] for side, count in teacher.inputs.items())
    writing = teacher.bytes(teacher.choice.encoding) / speed.bytes_per_second
    return ProbedHours(forwards=seconds / 3600, writing=writing / 3600)


def kind_of(speeds: Speeds) -> str:
    """Return what hours are counted of."""
    return "CPU" if any(one.device.name == "cpu" for one in speeds.values()) else "GPU"


def probe_lines(plan: Plan, speeds: Speeds) -> Iterator[str]:
    """Say what was measured; nothing where nothing was."""
    if not speeds:
        return
    yield ""
    yield from aligned(list(_input_rows(plan, speeds)), left=2)
    yield ""
    yield from aligned(list(_limit_rows(plan, speeds)))


def _input_rows(plan: Plan, speeds: Speeds) -> Iterator[Sequence[str]]:
    yield "teacher", "measured on", "input", "inputs", "ms per input", "TFLOP/s"
    for teacher in plan.teachers:
        speed = speeds[teacher.choice.name]
        for side in sorted(teacher.inputs):
            seconds = speed.seconds[side]
            numbers = f"{teacher.inputs[side]:,}", f"{1e3 * seconds:,.4g}", f"{teacher.costs[side] / seconds:,.3g}"
            yield teacher.choice.name, speed.device.name, f"{side} px", *numbers


def _limit_rows(plan: Plan, speeds: Speeds) -> Iterator[Sequence[str]]:
    yield "teacher", "hours of forwards", "MB/s written", "hours of writing", "limited by"
    for teacher in plan.teachers:
        speed = speeds[teacher.choice.name]
        hours = probed_hours(teacher, speed)
        rate = f"{speed.bytes_per_second / 1e6:,.4g}"
        yield teacher.choice.name, f"{hours.forwards:,.3g}", rate, f"{hours.writing:,.3g}", hours.limit
