"""Keys, recipe names and claims with escape sequences and newlines: no command sends them to a terminal."""

import shutil
from pathlib import Path

import pytest
from stage_runs import write_colours

from pipeline.__main__ import main
from storage_schemas.command_line import say

NASTY = "\x1b]0;owned\x07\x1b[2J\nerror: all lost\r\u202e"
VIEWS = [
    "--views.low",
    "128",
    "--views.high",
    "--views.high-share",
    "0",
    "--views.canvas-tokens",
    "0",
    "--run.executor",
    "local",
]


def test_no_command_sends_escapes_or_newlines_of_names_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, cache = write_colours(tmp_path / "images", 6), ["--cache", str(tmp_path / "cache")]
    shutil.copy(data / "000.png", data / f"copy{NASTY}.png")
    (data / f"bad{NASTY}.png").write_bytes(b"no image")
    cut = ["views", "--recipe", "demo", *cache, "--data", str(data), *VIEWS]
    expected = [
        (cut, 2),
        ([*cut, "--run.max-rejected", "0.5"], 0),
        (["views", "--recipe", NASTY, *cache, *VIEWS], 2),
        (["inspect", *cache], 0),
        (["inspect", *cache, "--json"], 0),
        *((["inspect", *cache, "--view", f"low-128/{row}"], 0) for row in range(7)),
        (["plan", "--recipe", "demo", *cache, "--data", str(data), *VIEWS[:-2]], 0),
        (["extract", "--recipe", "demo", *cache, "--teacher", NASTY, *VIEWS], 2),
        (["verify", *cache, "--run.executor", "local", "--quick"], 0),
        (["gc", "--recipe", "demo", *cache], 0),
        (["drop", "--teacher", NASTY, *cache], 2),
    ]
    assert [main(command) for command, _ in expected] == [status for _, status in expected]
    said = "".join(capsys.readouterr())
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(said)
    assert "\nerror: all lost" not in said
    assert r"bad\u001b]0;owned\u0007\u001b[2J\nerror: all lost\r\u202e.png: not an image" in said
    assert r"copy\u001b]0;owned" in said


def test_the_trainer_says_its_lines_by_the_same_rule() -> None:
    import trainer.__main__ as trainer

    assert trainer.say is say
