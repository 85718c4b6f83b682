"""Errors of the system are no damage: one message that names them, and no advice to delete anything."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from storage_schemas.format.seeds import generator
from storage_schemas.objects import local_files

CALLS = ("open", "preadv", "pread", "scandir", "stat")
"""Functions of `os` through which our readers meet a disk."""
ERRNOS = ("EMFILE", "ENFILE", "EACCES", "EPERM", "EIO", "ESTALE", "ENOMEM", "ELOOP", "ENAMETOOLONG", "ETIMEDOUT")
COMMANDS: dict[str, tuple[str, ...]] = {
    "verify": ("--run.executor", "local"),
    "verify --quick": ("--run.executor", "local"),
    "verify --quick --independent 1": ("--run.executor", "local"),
    "gc": (),
    "gc --delete": (),
    "inspect": (),
    "export": ("--run.executor", "local", "--to", "OUT"),
}


READING = [command for command in COMMANDS if command != "gc --delete"]


@contextmanager
def failing(cache: Path, first: float, number: int) -> Iterator[list[str]]:
    """From one call on, let every call about files of a cache fail; yield the names of the calls that were made."""
    made: list[str] = []
    opened: set[int] = set()

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **settings: Any) -> Any:
            ours = path in opened if isinstance(path, int) else str(path).startswith(str(cache))
            if ours:
                made.append(name)
                if len(made) > first:
                    raise OSError(number, os.strerror(number), path if isinstance(path, str) else None)
            result = real(path, *arguments, **settings)
            if name == "open":
                (opened.add if ours else opened.discard)(result)
            return result

        return call

    local_files.open_file.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrapped(name, getattr(os, name)))
        yield made


def run(command: str, cache: Path, out: Path) -> int:
    options = [option.replace("OUT", str(out)) for option in COMMANDS[command]]
    return main([*command.split(), "--cache", str(cache), *options])


@pytest.mark.parametrize("tries", [1, pytest.param(12, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
@pytest.mark.parametrize("command", READING)
def test_an_error_of_the_system_ends_a_command_in_one_message_and_nothing_is_called_damaged(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, tries: int
) -> None:
    with failing(copied, float("inf"), 0) as made:
        assert run(command, copied, tmp_path / "whole") == 0
    capsys.readouterr()
    for name in ERRNOS:
        draws = generator(("system errors", command, name))
        for attempt, first in enumerate(draws.integers(0, len(made), tries).tolist()):
            with failing(copied, first, getattr(errno, name)):
                status = run(command, copied, tmp_path / f"{name}-{attempt}")
            said = capsys.readouterr().err.replace(str(tmp_path), "")
            strerror = os.strerror(getattr(errno, name))
            assert status == 2, (name, first)
            assert said.startswith("error: storage failed:\n"), said
            assert strerror in said
            assert said.count("\n") == 2, said
            for word in ("delete", "damaged", "missing", "writes it again", "Traceback"):
                assert word not in said, said


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_works_where_few_files_may_be_open(copied: Path, tmp_path: Path, command: str) -> None:
    options = [option.replace("OUT", str(tmp_path / "out")) for option in COMMANDS[command]]
    line = [sys.executable, "-m", "pipeline", *command.split(), "--cache", str(copied), *options]
    few = 64 if "zarr" not in command else 256

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))

    done = subprocess.run(line, capture_output=True, text=True, preexec_fn=limited, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("allowed", "kept"), [(3, 1), (256, 64), (1024, 256), (2**20, 256), (resource.RLIM_INFINITY, 256)]
)
def test_a_quarter_of_the_files_that_may_be_open_is_kept_open(
    allowed: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (allowed, allowed))
    assert local_files._kept_open() == kept


def test_files_that_are_only_kept_open_are_closed_when_no_other_can_be_opened(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}").write_bytes(b"x")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    local_files.open_file.cache_clear()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 12, hard))
        for number in range(40):
            found = bytearray(1)
            local_files.open_file(str(tmp_path / f"{number}"), tmp_path).fill(0, found)
            assert found == b"x"
        assert local_files.read_whole(str(tmp_path / "0"), 1) == b"x"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        local_files.open_file.cache_clear()
