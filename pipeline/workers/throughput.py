"""The figures of a stage: work done so far, rates, and time left."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Figures of one stage. All but `done` and `total` count the work of this run alone."""

    done: int
    """Views committed by this run and earlier ones; those whose image was rejected count too."""
    total: int
    """All views of the stage."""
    seconds: float
    """Time since the stage began."""
    views: int
    """Views committed by this run."""
    tokens: int
    """Spatial tokens of the last block's map; 0 for a stage that has none."""
    tflop: float
    """Cost of the forward passes (10¹² floating-point operations); 0 where it is not known."""
    bytes: int
    """Bytes written."""
    peak: float | None
    """Peak rate of all devices that took part together (TFLOP/s); None where it is not known."""

    @property
    def views_per_second(self) -> float:
        """Views per second."""
        return self.views / self._seconds

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second."""
        return self.tokens / self._seconds

    @property
    def tflop_per_second(self) -> float:
        """TFLOP/s."""
        return self.tflop / self._seconds

    @property
    def mb_per_second(self) -> float:
        """10⁶ bytes written per second."""
        return self.bytes / 1e6 / self._seconds

    @property
    def share_of_peak(self) -> float | None:
        """TFLOP/s as a share of the devices' peak rate."""
        return self.tflop_per_second / self.peak if self.peak and self.tflop else None

    @property
    def seconds_left(self) -> float | None:
        """Time left (seconds) at the rate so far; None before the first view."""
        return (self.total - self.done) / self.views_per_second if self.views else None

    @property
    def _seconds(self) -> float:
        return max(self.seconds, 1e-9)

    def __str__(self) -> str:
        return ", ".join(self._rates())

    def _rates(self) -> Iterator[str]:
        yield f"{self.views_per_second:.1f} views/s"
        if self.tokens:
            yield f"{self.tokens_per_second:.0f} tokens/s"
        if self.tflop:
            share = self.share_of_peak
            yield f"{self.tflop_per_second:.3g} TFLOP/s" + ("" if share is None else f" ({share:.0%} of peak)")
        if self.bytes:
            yield f"{self.mb_per_second:.1f} MB/s"


def as_record(figures: Throughput) -> dict[str, float | int | None]:
    """Return the figures as a JSON object; unknown figures are null."""
    return {
        "views_done": figures.done,
        "views_total": figures.total,
        "seconds": figures.seconds,
        "seconds_left": figures.seconds_left,
        "views": figures.views,
        "views_per_second": figures.views_per_second,
        "tokens": figures.tokens or None,
        "tokens_per_second": figures.tokens_per_second or None,
        "tflop": figures.tflop or None,
        "tflop_per_second": figures.tflop_per_second or None,
        "share_of_peak": figures.share_of_peak,
        "mb_written": figures.bytes / 1e6,
        "mb_per_second": figures.mb_per_second,
    }
