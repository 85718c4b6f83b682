"""Text vectors: what a text tower gives for class names or captions, as a `.safetensors` file.

The file holds one tensor, `vectors`: `[texts, channels]`, or `[texts, templates, channels]` where each class was put
into several sentences. Its metadata holds, under `stillhouse`, a JSON object: `model`, the name of the model that the
text tower belongs to, as the teacher of the cache names it; `names`, one for each text; and for captions `keys`, the
image key of each text.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import final

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float32, Float64

from storage_schemas.format.errors import IdentityError, MissingError, Problem, SettingError, first_few
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.similarity import unit_features


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextVectors:
    """The contents of a file of text vectors."""

    path: Path
    model: str
    """Name of the model whose text tower gave them."""
    names: tuple[str, ...]
    """Class names, or captions."""
    keys: tuple[str, ...]
    """For captions, the image key of each; empty for classes."""
    vectors: Float32[np.ndarray, "texts templates channels"]
    sha256: str
    """Of the file."""

    def require_space(self, features: EvaluationFeatures) -> None:
        """Refuse features that are not in the space of the text tower: the nearest text would mean nothing.

        Raises:
            IdentityError: they are of another model, or have another number of channels.
        """
        if features.model != self.model:
            is_own = "are a student's own" if features.model is None else f"are in the space of {features.model}"
            found = f"is of the text tower of {self.model}, and the features of {features.origin} {is_own}"
            fix = "choose the teacher of that model with --teacher, or with --outputs the student's head for it"
            raise IdentityError("text vectors", [Problem(place=str(self.path), found=found, fix=fix)])
        channels = 0 if features.summary is None else features.summary.shape[1]
        if channels != self.vectors.shape[2]:
            found = f"has {self.vectors.shape[2]} channels, a summary of {features.origin} has {channels}"
            raise IdentityError("text vectors", [Problem(place=str(self.path), found=found)])


def read_text_vectors(path: Path) -> TextVectors:
    """Read a file of text vectors.

    Raises:
        MissingError: no file is given, or it is not there.
        SettingError: it is not a file of text vectors, or its names and vectors do not fit.
    """
    if not path.is_file():
        found = "is not given" if path == Path() else "there is no such file"
        fix = "give a .safetensors file of text vectors: --classes for zero-shot, --captions for image-text"
        raise MissingError("text vectors", [Problem(place=str(path), found=found, fix=fix)])
    body = path.read_bytes()
    try:
        vectors = safetensors.numpy.load(body)["vectors"].astype(np.float32)
        with safetensors.safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {})["stillhouse"])
        model, names, keys = str(about["model"]), list(about["names"]), list(about.get("keys", []))
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        found, fix = f"is not a file of text vectors ({error})", "docs/evaluation.md describes the format"
        raise SettingError("text vectors", [Problem(place=str(path), found=found, fix=fix)]) from error
    if vectors.ndim == 2:
        vectors = vectors[:, None]
    _require_fit(path, vectors, names, keys)
    return TextVectors(
        path=path, model=model, names=tuple(names), keys=tuple(keys), vectors=vectors, sha256=sha256(body).hexdigest()
    )


def class_vectors(texts: TextVectors) -> Float64[np.ndarray, "texts channels"]:
    """Return one vector of length 1 for each text: the mean over templates of vectors of length 1, at length 1.

    Source: CLIP (Radford et al. 2021, arXiv:2103.00020, section 3.1.4).
    """
    count, templates, channels = texts.vectors.shape
    units = unit_features(texts.vectors.reshape(-1, channels), str(texts.path))
    return unit_features(units.reshape(count, templates, channels).mean(axis=1), str(texts.path))


def _require_fit(path: Path, vectors: np.ndarray, names: list[str], keys: list[str]) -> None:
    problems = []
    if vectors.ndim != 3 or not vectors.size:
        problems.append(f"the shape of vectors is {list(vectors.shape)}, expected [texts, templates, channels]")
    elif len(vectors) != len(names):
        problems.append(f"has {len(names)} names for {len(vectors)} vectors")
    if keys and len(keys) != len(names):
        problems.append(f"has {len(keys)} keys for {len(names)} names")
    if not keys and (twice := sorted({name for name in names if names.count(name) > 1})):
        problems.append(f"names classes twice: {', '.join(first_few(twice, 3))}")
    if problems:
        raise SettingError("text vectors", [Problem(place=str(path), found=found) for found in problems])
