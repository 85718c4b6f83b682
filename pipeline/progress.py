"""One calm line on how the work goes: views done, views per second, time left."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
"""How often progress is said where it is not drawn over itself (a log file, a CI console)."""

Say = Callable[[str], None]
"""Takes a line for the user."""


@final
@dataclass(slots=True, eq=False)
class Progress:
    """Counts views of one stage, and says how it goes: a bar on a terminal, a line now and then in a log."""

    stage: str
    done: int
    """Views that are committed, by this run or an earlier one."""
    total: int
    bar: Any
    """The bar, which draws nothing where standard error is not a terminal."""
    started: float = field(default_factory=time.perf_counter)
    said: float = field(default_factory=time.perf_counter)
    views: int = 0
    """Views that this run committed."""

    def add(self, views: int) -> None:
        """Count views that were committed."""
        self.views += views
        self.done += views
        self.bar.update(views)
        if self.bar.disable and time.perf_counter() - self.said > SECONDS_BETWEEN_LINES:
            self.said = time.perf_counter()
            left = (self.total - self.done) / max(self.views, 1) * self.seconds
            print(f"{self.stage}: {self.done}/{self.total} views, {self.rate}, {left:.0f} s left", file=sys.stderr)

    @property
    def seconds(self) -> float:
        """Time since the stage started (seconds)."""
        return time.perf_counter() - self.started

    @property
    def rate(self) -> str:
        """Time, and views per second, so far."""
        return f"{self.seconds:.1f} s, {self.views / max(self.seconds, 1e-9):.1f} views/s"


@contextmanager
def progress(stage: str, *, done: int, total: int) -> Iterator[Progress]:
    """Show a stage's progress on standard error until the block ends.

    Args:
        stage: what to call it.
        done: views that an earlier run committed.
        total: views in all.
    """
    quiet = not sys.stderr.isatty()
    form = "{desc}: {n_fmt}/{total_fmt} views, {rate_fmt}, {remaining} left"
    with tqdm(desc=stage, initial=done, total=total, unit=" views", bar_format=form, leave=False, disable=quiet) as bar:
        yield Progress(stage=stage, done=done, total=total, bar=bar)
