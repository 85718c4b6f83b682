"""Text vectors: what a text tower gives for class names or captions, in the space of a teacher's summaries."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import safetensors.numpy
from jaxtyping import Float32, Float64
from tqdm import tqdm

from pipeline.labels.labelled import read_names
from pipeline.labels.options import TextVectorsOptions
from pipeline.workers.progress import Say
from storage_schemas.format.errors import ContractError, MissingError, Problem, SettingError, first_few
from storage_schemas.objects.publish import write_whole
from teachers.source import spec_of
from teachers.text_tower import TextTower, embed_texts, read_text_tower

TEMPLATE = "This is a photo of {}."
"""The sentence that a class is put into, where no file of templates is given."""
BATCH = 64
"""Sentences in one forward pass."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What is to be embedded."""

    names: tuple[str, ...]
    """Class names, or captions."""
    keys: tuple[str, ...]
    """For captions, the image key of each."""
    templates: tuple[str, ...]
    """Sentences with `{}` in the place of the name."""


def write_text_vectors(options: TextVectorsOptions, say: Say) -> None:
    """Write the vectors of class names or captions to a `.safetensors` file.

    Args:
        options: the texts, the text tower, and where to write.
        say: takes a line that says what was written.

    Raises:
        SettingError: the texts or the templates cannot be used, or the teacher has another number of channels.
        MissingError: a file or the folder of the tower is not there.
        ContractError: the tower cannot be used, or gave a vector without a direction.
    """
    texts, spec = _texts_of(options), spec_of(options.teacher)
    tower = read_text_tower(options.tower, options.device)
    if tower.channels != spec.summary_dim:
        found = f"gives vectors of {tower.channels}, and the summary of {options.teacher} has {spec.summary_dim}"
        problem = Problem(place=str(options.tower), found=found, fix="give the text tower of the same model")
        raise SettingError("text tower", [problem])
    vectors = _class_vectors(tower, texts)
    about = {
        "model": spec.model,
        "names": texts.names,
        "keys": texts.keys,
        "templates": texts.templates,
        "weights_sha256": tower.weights_sha256,
    }
    body = safetensors.numpy.save({"vectors": vectors}, {"stillhouse": json.dumps(about)})
    write_whole(options.to, body)
    size = f"{len(texts.names)} vectors of {tower.channels}"
    say(f"text-vectors: {size}, each of {len(texts.templates)} sentences, for {spec.model}, written to {options.to}")


def _class_vectors(tower: TextTower, texts: Texts) -> Float32[np.ndarray, "texts channels"]:
    """Return a vector of length 1 for each text: the mean over templates of vectors of length 1, at length 1.

    Source: CLIP (Radford et al. 2021, arXiv:2103.00020, section 3.1.4).
    """
    sentences = [template.replace("{}", name) for name in texts.names for template in texts.templates]
    starts = range(0, len(sentences), BATCH)
    bar = tqdm(starts, "text-vectors", unit=" batches", leave=False, disable=not sys.stderr.isatty())
    parts = [_at_length_1(embed_texts(tower, sentences[start : start + BATCH])) for start in bar]
    of_classes = np.concatenate(parts).reshape(len(texts.names), len(texts.templates), -1)
    return _at_length_1(of_classes.mean(axis=1)).astype(np.float32)


def _at_length_1(vectors: np.ndarray) -> Float64[np.ndarray, "texts channels"]:
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        found = "gave a vector that is zero or not finite"
        raise ContractError("text tower", [Problem(place="vectors", found=found, fix="check its weights")])
    return vectors / lengths


def _texts_of(options: TextVectorsOptions) -> Texts:
    if (options.classes == Path()) == (options.captions == Path()):
        found = "both are given" if options.classes != Path() else "neither is given"
        raise SettingError("texts", [Problem(place="--classes, --captions", found=found, fix="give one of them")])
    if options.captions != Path():
        if options.templates != Path():
            raise SettingError("texts", [Problem(place="--templates", found="captions are whole sentences")])
        captions = _captions(options.captions)
        return Texts(
            names=tuple(caption for _, caption in captions), keys=tuple(key for key, _ in captions), templates=("{}",)
        )
    names = tuple(read_names(options.classes).values())
    _require_texts(options.classes, names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        found = f"names classes twice: {', '.join(first_few(twice, 3))}"
        raise SettingError("texts", [Problem(place=str(options.classes), found=found)])
    return Texts(names=names, keys=(), templates=_templates(options.templates))


def _templates(path: Path) -> tuple[str, ...]:
    if path == Path():
        return (TEMPLATE,)
    templates = tuple(read_names(path).values())
    _require_texts(path, templates)
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong:
        found = f"{wrong[0]!r} does not have {{}} once, where the name goes"
        raise SettingError("templates", [Problem(place=str(path), found=found)])
    return templates


def _captions(path: Path) -> list[tuple[str, str]]:
    """Read keys and captions; an image may have several."""
    if not path.is_file():
        raise MissingError("captions", [Problem(place=str(path), found="there is no such file")])
    try:
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingError("captions", [Problem(place=str(path), found=f"is not CSV in UTF-8: {error}")]) from error
    wrong = [number for number, row in enumerate(rows, start=1) if len(row) != 2 or not all(row)]
    if not rows or rows[0] != ["key", "caption"] or wrong:
        found = f"row {wrong[0]} is not a key and a caption" if wrong else "its first row is not key,caption"
        raise SettingError("captions", [Problem(place=str(path), found=found)])
    _require_texts(path, rows[1:])
    return [(key, caption) for key, caption in rows[1:]]


def _require_texts(path: Path, texts: Sequence[object]) -> None:
    if not texts:
        raise SettingError("texts", [Problem(place=str(path), found="has no text")])
