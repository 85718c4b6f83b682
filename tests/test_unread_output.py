"""Commands whose output nobody reads to its end, as in `… | head`."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "command", ["pipeline", "pipeline teachers", "pipeline gc --help", "trainer", "trainer train --help"]
)
def test_a_command_whose_output_is_no_longer_read_ends_without_a_word(command: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", *command.split(), *([] if " " in command else ["--help"])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (141, "")
