"""Progress: on standard error, by the line where there is no terminal."""

import pytest

from pipeline import progress as module
from pipeline.progress import progress


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    with progress("views", done=10, total=40) as bar:
        bar.add(20)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("views: 30/40 views, ")
    assert captured.err.endswith(" s left\n")
    assert (bar.done, bar.views) == (30, 20)


def test_a_shard_without_a_view_is_no_trouble(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    with progress("extract", done=0, total=9) as bar:
        bar.add(0)
    assert "extract: 0/9 views" in capsys.readouterr().err


def test_a_short_run_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("views", done=0, total=9) as bar:
        bar.add(9)
    assert capsys.readouterr().err == ""
    assert "views/s" in bar.rate
