"""Where starting weights come from: the files of a setting, and their digest. Nothing here needs torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from storage_schemas.format.errors import MissingError, Problem, SettingError
from trainer.run_folder import RunFolder
from trainer.weights.file_names import CONFIG, PICKLED, PIXELS, SAFETENSORS, STANDARD

_CHUNK = 1 << 24


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a student's starting weights come from."""

    setting: str
    """The setting `student.weights`."""
    sha256: str
    """SHA-256 of the file; of several files, of their names and digests."""
    files: tuple[Path, ...] = ()
    """The files. None: the run has a checkpoint already, so nothing is loaded from them."""
    timm_model: str = ""
    """The timm model with its tag, if the weights are those that timm publishes for it."""


def find_weights(setting: str, student: str, begun: Mapping[str, Any] | None) -> Origin | None:
    """Return where a student's starting weights come from; None for random weights.

    Args:
        setting: the setting `student.weights`.
        student: name of the student.
        begun: `run.json` of a run that has a checkpoint or a student; None for a run that has to load the weights.

    Raises:
        MissingError: there are no such weights, or the hub cannot be reached.
        SettingError: a setting that names no weights, or a folder with several files of weights.
    """
    if not setting:
        return None
    known = (begun or {}).get("start")
    same = known is not None and known["weights"] == setting
    if Path(setting).exists():
        files = local_files(Path(setting))
        return Origin(setting=setting, sha256=digest_of(files), files=files)
    if known is not None and same:  # what a checkpoint holds needs no starting weights
        return Origin(setting=setting, sha256=known["sha256"])
    if _names_a_path(setting):
        fix = "give --student.weights a file, a folder, or the folder of a finished run"
        raise MissingError("starting weights", [Problem(place=setting, found="no such file or folder", fix=fix)])
    from trainer.weights.hub import published_files  # timm and torch take seconds to import

    model, files = published_files(setting, student)
    return Origin(setting=setting, sha256=digest_of(files), files=files, timm_model=model)


def local_files(path: Path) -> tuple[Path, ...]:
    """Return the files of local weights: those with tensors, and those that say what the model is.

    Raises:
        MissingError: a folder without weights, or with a part of them.
        SettingError: a file of another kind, or a folder with several files of weights.
    """
    run = RunFolder(path=path)
    if path.is_file():
        if path.suffix not in (SAFETENSORS, *PICKLED):
            found = f"has the ending {path.suffix!r}"
            fix = f"files of weights end in {SAFETENSORS}, {', '.join(PICKLED)}"
            raise SettingError("starting weights", [Problem(place=str(path), found=found, fix=fix)])
        return (path,)
    if run.card.exists():
        return (run.card, run.weights)
    if run.identity.exists():
        fix = "finish that run: repeat its `make train` command, and it resumes"
        raise MissingError("student", [Problem(place=str(path), found="is a run without a student yet", fix=fix)])
    about = (file for file in (path / CONFIG, path / PIXELS) if file.exists())
    return (*about, *_of_folder(path))


def digest_of(files: tuple[Path, ...]) -> str:
    """Return the SHA-256 of a file; of several files, of their names and digests."""
    digests = []
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as body:
            while part := body.read(_CHUNK):
                digest.update(part)
        digests.append(digest.hexdigest())
    if len(files) == 1:
        return digests[0]
    named = "".join(f"{file.name} {digest}\n" for file, digest in zip(files, digests, strict=True))
    return hashlib.sha256(named.encode()).hexdigest()


def _names_a_path(setting: str) -> bool:
    return "/" in setting or setting.endswith((SAFETENSORS, *PICKLED))


def _of_folder(folder: Path) -> tuple[Path, ...]:
    for name in STANDARD:
        file, index = folder / name, folder / f"{name}.index.json"
        if file.exists() and index.exists():
            raise _several(folder, [file, index])
        if file.exists():
            return (file,)
        if index.exists():
            return _shards(index)
    others = sorted(file for file in folder.iterdir() if file.suffix in (SAFETENSORS, *PICKLED))
    if not others:
        raise MissingError("starting weights", [Problem(place=str(folder), found="no file of weights in this folder")])
    if len(others) > 1:
        raise _several(folder, others)
    return (others[0],)


def _shards(index: Path) -> tuple[Path, ...]:
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    files = [index.parent / Path(name).name for name in names]
    if lost := [Problem(place=str(file), found=f"{index.name} lists it") for file in files if not file.exists()]:
        raise MissingError("starting weights", lost)
    return tuple(files)


def _several(folder: Path, files: list[Path]) -> SettingError:
    names = ", ".join(file.name for file in files)
    found, fix = f"several files of weights: {names}", "give the path of one of them"
    return SettingError("starting weights", [Problem(place=str(folder), found=found, fix=fix)])
