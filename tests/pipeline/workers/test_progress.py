"""Progress: on standard error, by the line where there is no terminal; and in a report."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.workers import progress as module
from pipeline.workers.progress import progress
from storage_schemas.format.errors import SettingError


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    with progress("views", done=10, total=40) as bar:
        bar.add(20, tokens=80, size=2_000_000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("views: 30/40 views, ")
    assert captured.err.endswith(" s left\n")
    assert " views/s, " in captured.err
    assert " tokens/s, " in captured.err
    assert " MB/s, " in captured.err
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


def stages(where: Path) -> dict[str, Any]:
    """What a report holds."""
    return json.loads(where.read_text())["stages"]


def test_a_report_tells_how_a_stage_goes_and_ended(tmp_path: Path) -> None:
    where = tmp_path / "new folder" / "run.json"
    with progress("views", done=10, total=40, report=str(where)) as bar:
        assert (stages(where)["views"]["state"], stages(where)["views"]["seconds_left"]) == ("running", None)
        bar.add(30, size=6_000_000)
    views = stages(where)["views"]
    assert (views["state"], views["views_done"], views["views"], views["seconds_left"]) == ("done", 40, 30, 0)
    assert (views["mb_written"], views["tokens"], views["share_of_peak"]) == (6, None, None)
    assert views["views_per_second"] == pytest.approx(30 / views["seconds"])


def test_a_stage_that_fails_or_ends_early_is_stopped_and_the_figures_of_others_stay(tmp_path: Path) -> None:
    where = tmp_path / "run.json"
    with progress("views", done=0, total=9, report=str(where)):
        pass
    with pytest.raises(ZeroDivisionError), progress("extract a", done=0, total=9, report=str(where)):
        _ = 1 / 0
    states = {name: figures["state"] for name, figures in stages(where).items()}
    assert states == {"views": "stopped", "extract a": "stopped"}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_report_never_replaces_another_file(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[1, 2]")
    with pytest.raises(SettingError) as caught, progress("views", done=0, total=9, report=f"{tmp_path}/run.json"):
        pass
    assert str(caught.value) == (
        f"run report cannot be used:\n  {tmp_path}/run.json: exists, and is not a run report "
        "(give --run.report another place)"
    )
