"""Environments that tests install from the package index: each is made once, in a folder of the user's cache."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def installed_environment(name: str, requirements: Sequence[str], constraints: str = "") -> Path:
    """Return the folder of an environment's commands, after making the environment where there is none yet.

    Args:
        name: what the folder is called, before a digest of what is installed.
        requirements: what pip installs.
        constraints: the text of a constraints file for pip; none where it is empty.

    Raises:
        RuntimeError: the package index does not give what is asked for.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    content = json.dumps([sys.version, *requirements, constraints]).encode()
    home = cache / "stillhouse" / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    home.parent.mkdir(parents=True, exist_ok=True)
    done, limits = home / "installed", home / "constraints.txt"
    with open(f"{home}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test sessions may start at once
        if not done.exists():
            _run([sys.executable, "-m", "venv", "--clear", str(home)], name)
            limits.write_text(constraints)
            pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--no-input"]
            _run([*pip, "--constraint", str(limits), *requirements], name)
            done.touch()
    return home / "bin"


def _run(command: list[str], name: str) -> None:
    """Run one step of an installation."""
    step = subprocess.run(command, capture_output=True, text=True, check=False)
    if step.returncode:
        raise RuntimeError(
            f"a test needs the environment {name!r}, and it cannot be installed from the package index:\n"
            f"  {' '.join(command)}\n{step.stdout}{step.stderr}"
        )
