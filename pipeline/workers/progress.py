"""Progress of a stage: views done, rates and time left, on standard error and in a report for programs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

from tqdm import tqdm

from pipeline.workers.run_report import State, report_stage
from pipeline.workers.throughput import Throughput
from storage_schemas.format.plain_text import one_line

SECONDS_BETWEEN_LINES = 10.0
"""How often a line is printed where there is no terminal (a log file, a CI console), and the report is updated."""

Say = Callable[[str], None]
"""Shows a line to the user."""


@final
@dataclass(slots=True, eq=False)
class Progress:
    """Counts the work of one stage and shows it: a bar on a terminal, a line now and then in a log."""

    stage: str
    done: int
    """Views committed by this run and earlier ones; those whose image was rejected count too."""
    total: int
    bar: Any
    """The progress bar; it draws nothing where standard error is not a terminal."""
    report_uri: str = ""
    """Where the report is; empty for no report."""
    started: float = field(default_factory=time.perf_counter)
    last_line: float = field(default_factory=time.perf_counter)
    views: int = 0
    """Views committed by this run."""
    tokens: int = 0
    """Spatial tokens of these views."""
    tflop: float = 0.0
    """Cost of the forward passes (10¹² floating-point operations)."""
    bytes: int = 0
    """Bytes written."""
    peaks: dict[str, float | None] = field(default_factory=dict)
    """Peak rate of each device that took part (TFLOP/s), by its place."""

    def add(self, views: int, *, rejected: int = 0, tokens: int = 0, tflop: float = 0.0, size: int = 0) -> None:
        """Count committed views.

        Args:
            views: how many.
            rejected: how many views of the same shards were rejected: nothing is left to do for them.
            tokens: their spatial tokens.
            tflop: what they cost (10¹² floating-point operations); 0 where it is not known.
            size: bytes written.
        """
        self.views, self.done = self.views + views, self.done + views + rejected
        self.tokens, self.tflop, self.bytes = self.tokens + tokens, self.tflop + tflop, self.bytes + size
        self.bar.set_postfix_str(str(self.figures), refresh=False)
        self.bar.update(views + rejected)
        if time.perf_counter() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.perf_counter()
            self.report("running")
            if self.bar.disable:
                left = self.figures.seconds_left
                ending = "" if left is None else f", {left:.0f} s left"
                print(
                    f"{one_line(self.stage)}: {self.done}/{self.total} views, {self.figures}{ending}", file=sys.stderr
                )

    def report(self, state: State) -> None:
        """Write the figures so far to the report."""
        report_stage(self.report_uri, self.stage, state, self.figures)

    @property
    def figures(self) -> Throughput:
        """The figures so far."""
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
        """Time and rates so far, for a message."""
        return f"{self.seconds:.1f} s, {self.figures}"


@contextmanager
def progress(stage: str, *, done: int, total: int, report: str = "") -> Iterator[Progress]:
    """Show a stage's progress on standard error until the block ends.

    Args:
        stage: its name in the text and the report.
        done: views committed by earlier runs.
        total: all views of the stage.
        report: URI of the report; empty for no report. See `pipeline.workers.run_report`.
    """
    no_terminal = not sys.stderr.isatty()
    bar_format = "{desc}: {n_fmt}/{total_fmt} views{postfix}, {remaining} left"
    with tqdm(
        desc=one_line(stage),
        initial=done,
        total=total,
        unit=" views",
        bar_format=bar_format,
        leave=False,
        disable=no_terminal,
    ) as bar:
        counter = Progress(stage=stage, done=done, total=total, bar=bar, report_uri=report)
        counter.report("running")
        try:
            yield counter
        except BaseException:
            counter.report("stopped")
            raise
        counter.report("done" if counter.done == counter.total else "stopped")
