"""What a probe measured, as plain text: time and TFLOP/s of each input, MB/s of a shard, hours of a whole plan."""

from collections.abc import Iterator, Sequence

from pipeline.plan.plan import Plan
from pipeline.plan.speed import Speeds, probed_hours
from pipeline.text_table import aligned


def processor_of(speeds: Speeds) -> str:
    """Return whose hours the plan counts: a CPU's where a teacher was measured on one, else a GPU's."""
    return "CPU" if any(speed.device == "cpu" for speed in speeds.values()) else "GPU"


def probe_lines(plan: Plan, speeds: Speeds) -> Iterator[str]:
    """Yield the tables of what was measured; nothing where nothing was."""
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
            yield teacher.choice.name, speed.device, f"{side} px", *numbers


def _limit_rows(plan: Plan, speeds: Speeds) -> Iterator[Sequence[str]]:
    yield "teacher", "hours of forwards", "MB/s written", "hours of writing", "limited by"
    for teacher in plan.teachers:
        speed = speeds[teacher.choice.name]
        hours = probed_hours(teacher, speed)
        rate = f"{speed.bytes_per_second / 1e6:,.4g}"
        yield teacher.choice.name, f"{hours.forwards:,.3g}", rate, f"{hours.writing:,.3g}", hours.limit
