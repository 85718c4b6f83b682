"""One calm line on how the work goes: views done, how fast, time left; and the same for programs to read."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

from tqdm import tqdm

from pipeline.workers.run_report import State, report_stage
from pipeline.workers.throughput import Throughput

SECONDS_BETWEEN_LINES = 10.0
"""How often progress is said where it is not drawn over itself (a log file, a CI console), and reported."""

Say = Callable[[str], None]
"""Takes a line for the user."""


@final
@dataclass(slots=True, eq=False)
class Progress:
    """Counts what one stage does, and says how it goes: a bar on a terminal, a line now and then in a log."""

    stage: str
    done: int
    """Views that are committed, by this run or an earlier one."""
    total: int
    bar: Any
    """The bar, which draws nothing where standard error is not a terminal."""
    where: str = ""
    """The report."""
    started: float = field(default_factory=time.perf_counter)
    said: float = field(default_factory=time.perf_counter)
    views: int = 0
    """Views that this run committed."""
    tokens: int = 0
    """Spatial tokens of them."""
    tflop: float = 0.0
    """Of the forwards (10¹² floating-point operations)."""
    bytes: int = 0
    """Written."""
    peaks: dict[str, float | None] = field(default_factory=dict)
    """What each device that took part does at best (TFLOP/s), by place."""

    def add(self, views: int, *, tokens: int = 0, tflop: float = 0.0, size: int = 0) -> None:
        """Count what was committed.

        Args:
            views: how many.
            tokens: spatial tokens of them.
            tflop: what they cost (10¹² floating-point operations); 0 where that is not known.
            size: bytes written.
        """
        self.views, self.done = self.views + views, self.done + views
        self.tokens, self.tflop, self.bytes = self.tokens + tokens, self.tflop + tflop, self.bytes + size
        self.bar.set_postfix_str(str(self.figures), refresh=False)
        self.bar.update(views)
        if time.perf_counter() - self.said > SECONDS_BETWEEN_LINES:
            self.said = time.perf_counter()
            self.report("running")
            if self.bar.disable:
                left = self.figures.seconds_left
                ending = "" if left is None else f", {left:.0f} s left"
                print(f"{self.stage}: {self.done}/{self.total} views, {self.figures}{ending}", file=sys.stderr)

    def report(self, state: State) -> None:
        """Report the figures so far."""
        report_stage(self.where, self.stage, state, self.figures)

    @property
    def figures(self) -> Throughput:
        """What was done so far."""
        peaks = list(self.peaks.values())
        known = [peak for peak in peaks if peak is not None]
        return Throughput(
            done=self.done,
            total=self.total,
            seconds=self.seconds,
            views=self.views,
            tokens=self.tokens,
            tflop=self.tflop,
            bytes=self.bytes,
            peak=sum(known) if known and len(known) == len(peaks) else None,
        )

    @property
    def seconds(self) -> float:
        """Time since the stage started (seconds)."""
        return time.perf_counter() - self.started

    @property
    def rate(self) -> str:
        """Time, and how much in a second, so far."""
        return f"{self.seconds:.1f} s, {self.figures}"


@contextmanager
def progress(stage: str, *, done: int, total: int, report: str = "") -> Iterator[Progress]:
    """Show a stage's progress on standard error until the block ends.

    Args:
        stage: what to call it.
        done: views that an earlier run committed.
        total: views in all.
        report: where figures are kept for programs to read; empty for nowhere. See `pipeline.workers.run_report`.
    """
    quiet = not sys.stderr.isatty()
    form = "{desc}: {n_fmt}/{total_fmt} views{postfix}, {remaining} left"
    with tqdm(desc=stage, initial=done, total=total, unit=" views", bar_format=form, leave=False, disable=quiet) as bar:
        shown = Progress(stage=stage, done=done, total=total, bar=bar, where=report)
        shown.report("running")
        try:
            yield shown
        except BaseException:
            shown.report("stopped")
            raise
        shown.report("done" if shown.done == shown.total else "stopped")
