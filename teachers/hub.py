"""Weights from the Hugging Face hub, or from the hub's cache on this machine."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from storage_schemas.format.errors import MissingError, Problem, SettingError
from teachers.entry import CatalogueEntry

_FILES = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
LOCAL_COPY = "WEIGHTS=/path/to/file-or-folder with make, or --choice.weights; --weights for plan and verify"


def fetch_weights(entry: CatalogueEntry) -> Path:
    """Return the folder of an entry's weights in the hub's cache; files that are not there are downloaded.

    Raises:
        SettingError: the model has no published weights.
        MissingError: the weights are not cached, and the hub refuses or cannot be reached.
    """
    name = entry.spec.name
    if entry.hub is None:
        problem = Problem(
            place="hub", found="this model has no published weights", fix="WEIGHTS=random:<seed>, or a path"
        )
        raise SettingError(f"weights 'hub' for {name}", [problem])
    try:
        folder = Path(snapshot_download(entry.hub, allow_patterns=_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise _not_found(entry, _reason(error)) from error
    if not any(folder.glob("*.safetensors")):
        raise _not_found(entry, "the cached copy contains no weights")
    return folder


def _not_found(entry: CatalogueEntry, reason: str) -> MissingError:
    gate = "; accept its licence on that page first, and use a token (HF_TOKEN)" if entry.gated else ""
    problems = [
        Problem(place=f"https://huggingface.co/{entry.hub}", found=reason + gate),
        Problem(place="also published as", found=entry.also or "nothing else"),
        Problem(place="licence", found=entry.spec.licence),
        Problem(place="local copy", found="none was given", fix=LOCAL_COPY),
    ]
    return MissingError(f"a copy of the weights of {entry.spec.name} ({entry.spec.model})", problems)


def _reason(error: Exception) -> str:
    if isinstance(error, LocalEntryNotFoundError):
        return "not in the hub's cache on this machine, and the hub cannot be reached (or HF_HUB_OFFLINE is set)"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
