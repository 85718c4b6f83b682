"""Weights from the Hugging Face hub, or from its cache on this machine."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from storage_schemas.format.errors import MissingError, Problem, SettingError
from teachers.entry import CatalogueEntry

_FILES = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
LOCAL_COPY = "WEIGHTS=/path/to/file-or-folder on the make command line, or --weights"


def fetch_weights(entry: CatalogueEntry) -> Path:
    """Return the folder of an entry's weights in the hub's cache, downloading what is not there.

    Raises:
        SettingError: the entry has no weights anywhere.
        MissingError: they are not cached, and the hub refuses or cannot be reached.
    """
    name = entry.spec.name
    if entry.hub is None:
        problem = Problem(place="hub", found="no weights exist for it", fix="WEIGHTS=random:<seed>, or a path")
        raise SettingError(f"weights 'hub' for {name}", [problem])
    try:
        folder = Path(snapshot_download(entry.hub, allow_patterns=_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise _nowhere(entry, _reason(error)) from error
    if not any(folder.glob("*.safetensors")):
        raise _nowhere(entry, "what is cached of it holds no weights")
    return folder


def _nowhere(entry: CatalogueEntry, reason: str) -> MissingError:
    gate = "; its page asks for the licence to be accepted first, and for a token" if entry.gated else ""
    problems = [
        Problem(place=f"https://huggingface.co/{entry.hub}", found=reason + gate),
        Problem(place="also", found=entry.also or "nowhere else"),
        Problem(place="licence", found=entry.spec.licence),
        Problem(place="local copy", found="none was given", fix=LOCAL_COPY),
    ]
    return MissingError(f"a copy of the weights of {entry.spec.name} ({entry.spec.model})", problems)


def _reason(error: Exception) -> str:
    if isinstance(error, LocalEntryNotFoundError):
        return "not in the hub's cache on this machine, and the hub is not to be reached (or HF_HUB_OFFLINE is set)"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
