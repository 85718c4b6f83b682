"""The linters would find an undefined name, wherever it stands: shapes in signatures leave no hole."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
SHAPED = '''
"""A module."""

import numpy as np
from jaxtyping import Float32


def step(tokens: Float32[np.ndarray, "rows cols channels"], mean: Float32[np.ndarray, " channels"]) -> None:
    """Take a step."""
    {body}
'''


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("print(tokens, mean)", ""),
        ("raise NotImportedError(tokens, mean)", "F821"),
        ("tokens: NotDefined = mean; print(tokens)", "F821"),
    ],
)
def test_an_undefined_name_is_found_beside_the_names_of_axes(body: str, found: str) -> None:
    line = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "--stdin-filename"]
    line += ["storage_schemas/x.py", "-"]
    source = SHAPED.format(body=body).lstrip()
    done = subprocess.run(line, input=source, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (found in done.stdout, "F821" in done.stdout) == (True, bool(found)), done.stdout


def test_no_linter_is_told_to_pass_over_undefined_names() -> None:
    ignored = SETTINGS["ruff"]["lint"]["ignore"] + [
        code for codes in SETTINGS["ruff"]["lint"]["per-file-ignores"].values() for code in codes
    ]
    assert not {"F", "F8", "F82", "F821"} & set(ignored)
    assert SETTINGS["mypy"].get("disable_error_code", []) == []
    assert all("disable_error_code" not in override for override in SETTINGS["mypy"]["overrides"])
