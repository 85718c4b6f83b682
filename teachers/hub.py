"""Weights from the Hugging Face hub, or from the hub's cache on this machine."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from storage_schemas.format.errors import MissingError, Problem, SettingError
from teachers.entry import CatalogueEntry
from teachers.publication import Publication
from teachers.weight_files import WEIGHT_FILES

LOCAL_COPY = "WEIGHTS=/path/to/file-or-folder with make, or --choice.weights; --weights for plan and verify"


def fetch_weights(entry: CatalogueEntry) -> Path:
    """Return the folder of an entry's weights in the hub's cache; files that are not there are downloaded.

    Raises:
        SettingError: the model has no published weights.
        MissingError: the weights are not cached, and the hub refuses or cannot be reached.
    """
    spec = entry.spec
    return fetch(
        Publication(
            name=spec.name,
            model=spec.model,
            licence=spec.licence,
            hub=entry.hub,
            gated=entry.gated,
            also=entry.also,
            files=entry.files,
        )
    )


def fetch(publication: Publication, needed: str = "") -> Path:
    """Return the folder of a model's weights in the hub's cache; files that are not there are downloaded.

    Args:
        publication: where they are.
        needed: the file that must be there; a file with weights when empty.

    Raises:
        SettingError: the model has no weights on the hub.
        MissingError: the weights are not cached, and the hub refuses or cannot be reached.
    """
    if publication.hub is None:
        found, also = "this model has no published weights", publication.also
        found = f"its weights are not on the hub, but at {also}" if also else found
        problem = Problem(place="hub", found=found, fix="WEIGHTS=random:<seed>, or a path")
        raise SettingError(f"weights 'hub' for {publication.name}", [problem])
    try:
        folder = Path(snapshot_download(publication.hub, allow_patterns=list(publication.files)))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise _not_found(publication, _reason(error)) from error
    if not any(file.name == needed if needed else file.suffix in WEIGHT_FILES for file in folder.iterdir()):
        raise _not_found(publication, f"the cached copy contains no {needed or 'weights'}")
    return folder


def _not_found(publication: Publication, reason: str) -> MissingError:
    gate = "; accept its licence on that page first, and use a token (HF_TOKEN)" if publication.gated else ""
    problems = [
        Problem(place=f"https://huggingface.co/{publication.hub}", found=reason + gate),
        Problem(place="also published as", found=publication.also or "nothing else"),
        Problem(place="licence", found=publication.licence),
        Problem(place="local copy", found="none was given", fix=LOCAL_COPY),
    ]
    return MissingError(f"a copy of the weights of {publication.name} ({publication.model})", problems)


def _reason(error: Exception) -> str:
    if isinstance(error, LocalEntryNotFoundError):
        return "not in the hub's cache on this machine, and the hub cannot be reached (or HF_HUB_OFFLINE is set)"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
