"""numcodecs beside a release of zfpy whose version it cannot read: nothing that does not compress touches it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage_schemas.format.compressor import numcodecs_imported

MESSAGE = (
    "error: numcodecs is missing:\n  zfpy 1.0.1.post0: numcodecs cannot be imported beside it: invalid literal for "
    "int() with base 10: 'post0' (pip uninstall zfpy (Stillhouse does not use it), or install a release without a "
    "suffix)\n"
)
CALLS = {
    "compress": "from storage_schemas.format.compressor import zstd_codec; zstd_codec()",
    "verify --independent": "from pipeline.verify.independent import require_zarr; require_zarr()",
}


@pytest.fixture(scope="module")
def beside_zfpy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which such a release is installed."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "zfpy-1.0.1.post0.dist-info").mkdir()
    (folder / "zfpy-1.0.1.post0.dist-info" / "METADATA").write_text("Name: zfpy\nVersion: 1.0.1.post0\n")
    (folder / "zfpy.py").touch()
    root = Path(__file__).parents[3]
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(root)])}


def outcome(arguments: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Status of a program, and what it wrote to standard error."""
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("package", ["pipeline", "trainer"])
def test_help_does_not_touch_it(package: str, beside_zfpy: dict[str, str]) -> None:
    assert outcome(["-m", package, "--help"], beside_zfpy) == (0, "")


def test_stages_that_do_not_compress_do_not_touch_it(beside_zfpy: dict[str, str]) -> None:
    modules = ("views", "features", "stats", "export", "verify", "plan")
    script = "; ".join([*(f"import pipeline.{name}.stage" for name in modules), "import trainer.run.train, sys"])
    script += "; sys.exit('numcodecs' in sys.modules)"
    assert outcome(["-c", script], beside_zfpy) == (0, "")


@pytest.mark.parametrize("call", CALLS)
def test_what_needs_it_says_so_in_one_message(call: str, beside_zfpy: dict[str, str]) -> None:
    lines = (
        "import sys",
        "from storage_schemas.command_line import run_command",
        "def call(_):",
        f"    {CALLS[call]}",
        "sys.exit(run_command({'call': call}, '', ['call'], package='pipeline'))",
    )
    assert outcome(["-c", "\n".join(lines)], beside_zfpy) == (2, MESSAGE)


def test_another_error_is_not_taken_for_it() -> None:
    with pytest.raises(ValueError, match="another"), numcodecs_imported():
        raise ValueError("another")
