"""Recording what is flushed, renamed and made, in order, and judging whether a power cut at any moment is harmless."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import pytest


@final
@dataclass(frozen=True, kw_only=True)
class DiskSteps:
    """Steps by name, relative to a folder: `flush a/b`, `rename a/b`, `mkdir a`. Temporary names are final names."""

    root: Path
    steps: list[str] = field(default_factory=list)

    def name(self, path: Any) -> str:
        """A path below the root, without what makes a name temporary; `.` for the root itself."""
        inside = os.path.relpath(path, self.root)
        folder, _, file = inside.rpartition("/")
        stem, _, rest = file.partition(".partial")[0].rpartition(".")
        is_temporary = file.endswith(".partial") and len(rest) == 32
        return f"{folder}/{stem}".lstrip("/") if is_temporary else inside

    def renamed(self) -> list[str]:
        """Names of what got its name."""
        return [step.removeprefix("rename ") for step in self.steps if step.startswith("rename ")]

    def require_durable(self) -> None:
        """Every file is flushed before it gets its name; then its folder is, and the folder above each new one."""
        assert self.renamed()
        for at, step in enumerate(self.steps):
            kind, _, name = step.partition(" ")
            if kind != "rename" or name.endswith(".partial"):  # nothing reads a temporary name
                continue
            earlier = [place for place, past in enumerate(self.steps[:at]) if past == step]
            since = self.steps[max(earlier, default=-1) + 1 : at]
            assert f"flush {name}" in since, f"{name} has its name before its bytes are on the disk"
            while name != ".":
                above = os.path.dirname(name) or "."
                made = [place for place, past in enumerate(self.steps[:at]) if past == f"mkdir {name}"]
                for since in [at] if f"rename {name}" == step else made[-1:]:
                    assert f"flush {above}" in self.steps[since:], f"the name {name} is not on the disk"
                name = above


def recorded(monkeypatch: pytest.MonkeyPatch, root: Path) -> DiskSteps:
    """Record flushes, renames and new folders below a folder from now on."""
    found, real = DiskSteps(root=root.resolve()), {name: getattr(os, name) for name in ("replace", "rename", "mkdir")}

    def flush(descriptor: int) -> None:
        _note("flush", os.readlink(f"/proc/self/fd/{descriptor}"))

    def rename(source: Any, target: Any, *rest: Any, **settings: Any) -> None:
        real["replace"](source, target, *rest, **settings)
        earlier = [place for place, step in enumerate(found.steps) if step == f"flush {found.name(source)}"]
        if earlier and found.name(source) != found.name(target):  # flushed under another temporary name
            found.steps[earlier[-1]] = f"flush {found.name(target)}"
        _note("rename", target)

    def mkdir(path: Any, *rest: Any, **settings: Any) -> None:
        real["mkdir"](path, *rest, **settings)
        _note("mkdir", path)

    def _note(kind: str, path: Any) -> None:
        if os.path.abspath(path).startswith(str(found.root)):
            found.steps.append(f"{kind} {found.name(os.path.abspath(path))}")

    monkeypatch.setattr(os, "fsync", flush)
    for name, step in {"replace": rename, "rename": rename, "mkdir": mkdir}.items():
        monkeypatch.setattr(os, name, step)
    return found
