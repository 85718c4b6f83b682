"""Weights that timm publishes: from the Hugging Face hub, or from its cache on this machine."""

import difflib
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from timm.models import get_pretrained_cfg

from storage_schemas.format.errors import MissingError, Problem, SettingError
from trainer.student.vit.names import EXTENDED
from trainer.student.vit.presets import PRESETS
from trainer.weights.file_names import STANDARD

LOCAL_COPY = "--student.weights /path/to/file-or-folder"
"""The setting for a local copy."""
PRETRAINED = "timm"
"""The setting for the weights that timm publishes for the student's own model."""


def published_files(setting: str, student: str) -> tuple[str, tuple[Path, ...]]:
    """Return the timm model with its tag that a setting names, and the file of its weights; it is downloaded if needed.

    Args:
        setting: `timm` for the default tag of the student's model, a tag of it, or a timm model with or without a tag.
        student: name of the student.

    Raises:
        SettingError: timm publishes no such weights.
        MissingError: the weights are not cached, and the hub refuses or cannot be reached.
    """
    model = _model(setting, student)
    published: Any = get_pretrained_cfg(model)
    repository, _, revision = str(published.hf_hub_id or "").partition("@")
    names = [published.hf_hub_filename] if published.hf_hub_filename else list(STANDARD)
    if not repository:
        raise _not_found(model, published, "timm names no repository for it on the Hugging Face hub")
    for name in names:
        try:
            return model, (Path(hf_hub_download(repository, name, revision=revision or None)),)
        except LocalEntryNotFoundError as error:
            reason = "not in the hub's cache on this machine, and the hub cannot be reached (or HF_HUB_OFFLINE is set)"
            raise _not_found(model, published, reason) from error
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError) as error:
            first_line = next(iter(str(error).strip().splitlines()), "")
            raise _not_found(model, published, f"{type(error).__name__}: {first_line}") from error
    raise _not_found(model, published, f"the repository holds neither {' nor '.join(names)}")


def _model(setting: str, student: str) -> str:
    """Return the timm model with its tag that a setting names."""
    own = student.removeprefix(EXTENDED)
    candidates = [own] if setting == PRETRAINED else [setting, f"{own.partition('.')[0]}.{setting}"]
    for model in candidates:
        if model not in PRESETS and timm.is_model(model) and _is_published(model):
            published: Any = get_pretrained_cfg(model)
            tag = published.tag
            return model if "." in model or not tag else f"{model}.{tag}"
    raise SettingError("starting weights", [_unknown(setting, own)])


def _is_published(model: str) -> bool:
    try:
        published: Any = get_pretrained_cfg(model)
        return bool(published.has_weights)
    except RuntimeError:  # no such tag
        return False


def _unknown(setting: str, own: str) -> Problem:
    if setting == PRETRAINED and own in PRESETS:
        fix = "name the timm model whose weights it takes, such as vit_base_patch16_224.augreg_in21k for `base`"
        return Problem(place=setting, found=f"timm has no model {own}", fix=fix)
    if setting == PRETRAINED:
        return Problem(place=setting, found=f"timm publishes no weights of {own}", fix=f"or {LOCAL_COPY}")
    similar = difflib.get_close_matches(setting, timm.list_models(pretrained=True), n=3, cutoff=0.5)
    tags = [name.partition(".")[2] for name in timm.list_models(f"{own.partition('.')[0]}.*", pretrained=True)]
    known = f"tags of {own}: {', '.join(tags)}" if tags else f"similar names: {', '.join(similar)}" if similar else ""
    found = "is no file, no folder, and no weights that timm publishes"
    return Problem(place=setting, found=found, fix=known or "`timm.list_models(pretrained=True)` lists them")


def _not_found(model: str, published: Any, reason: str) -> MissingError:
    repository = published.hf_hub_id
    problems = [
        Problem(place=f"https://huggingface.co/{repository}" if repository else model, found=reason),
        Problem(place="licence", found=published.license or "not stated by timm"),
        Problem(place="local copy", found="none was given", fix=LOCAL_COPY),
    ]
    if published.origin_url:
        problems.insert(1, Problem(place="first published at", found=published.origin_url))
    return MissingError(f"a copy of the weights of {model}", problems)
