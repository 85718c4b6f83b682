"""A split that has no view is said before anything is paid."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.config import ViewsConfig
from pipeline.images.listing import SourceImage
from pipeline.plan.forecast import drawn_views
from pipeline.views.sampling import draw_views
from pipeline.views.split import counts_of, split_lines
from storage_schemas.format.views import ViewSet

NO_HELDOUT = (
    "views: NO VIEW IS HELD OUT: --views.heldout is 0, so no student can be scored. Raise it or add images now: the "
    "setting cannot be changed once views are cut"
)
LOW, HIGH = (ViewSet(partition=partition, resolution=256) for partition in ("low", "high"))


@pytest.mark.parametrize("command", ["plan", "views"])
def test_plan_and_views_say_that_nothing_is_held_out(
    command: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--views.low", "64", "--views.high", "--views.high-share", "0", "--views.canvas-tokens", "0"]
    run = [command, "--data", str(images), "--cache", str(tmp_path / "cache"), *sizes, "--run.executor", "local"]
    run += ["--calibration.tokens-per-channel", "1"] if command == "plan" else []
    assert main([*run, "--views.heldout", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.count(NO_HELDOUT) == 1
    if command == "views":
        assert lines.index(NO_HELDOUT) < next(number for number, line in enumerate(lines) if "views: cut" in line)
    else:
        assert main([*run, "--views.heldout", "0.5"]) == 0
        assert "HELD OUT" not in capsys.readouterr().out


@pytest.fixture
def images(small_run: Any) -> Path:
    """A folder of eight images."""
    return small_run.data


def test_what_is_said_is_what_is_lacking() -> None:
    assert list(split_lines({LOW: (9, 1), HIGH: (3, 1)}, ViewsConfig(heldout=0.1))) == []
    assert list(split_lines({LOW: (9, 1), HIGH: (3, 0)}, ViewsConfig(heldout=0.1))) == [
        "no view is held out of high-256: students are not scored at these resolutions"
    ]
    [said] = split_lines({LOW: (9, 0), HIGH: (3, 0)}, ViewsConfig(heldout=0.02))
    assert said.startswith("NO VIEW IS HELD OUT: --views.heldout is 0.02, ")
    [said] = split_lines({LOW: (0, 9)}, ViewsConfig(heldout=1))
    assert said.startswith("NO VIEW IS TRAINED ON: --views.heldout is 1, ")


@given(st.integers(1, 40), st.sampled_from([0, 0.02, 0.05, 0.5, 1]), st.integers(0, 5))
def test_plan_counts_the_split_that_views_draws(count: int, heldout: float, seed: int) -> None:
    config = replace(ViewsConfig(low=(64, 128), high=(256,)), heldout=heldout, seed=seed)
    listed = [SourceImage(key=f"{number}.png", uri=f"/{number}.png") for number in range(count)]
    counts = counts_of(draw_views(listed, config))
    assert counts == drawn_views(listed, config).split_counts
    assert sum(map(sum, counts.values())) == count * config.draws
