"""A student's features of the views of a cache: the student is run on the cached pixels, and what it gives is kept.

They lie in a folder for each view set, in parts of consecutive views, so that a run that was interrupted goes on with
the next part:

    features/<digest of the views>/<view set>-<choice>/about.json
    …/<output>.pooled.<part>.safetensors     summary and mean of the tokens, float32
    …/<output>.tokens.<part>.npy             the tokens, where a task reads them
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Float32, Int64
from tqdm import tqdm

from storage_schemas.format.errors import ContractError, CorruptionError, Problem, SettingError, cause_text
from storage_schemas.format.geometry import cut_windows
from storage_schemas.format.identity import digest, require_same
from storage_schemas.objects.publish import write_whole
from trainer.data.batch import unit_pixels
from trainer.downstream.chosen_views import ChosenViews
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.options import BACKBONE, EvaluateOptions
from trainer.export import ExportedStudent
from trainer.run_folder import read_json, write_json
from trainer.student.student import StudentOutput

VERSION = 1
"""Version of the stored features."""
PART_BYTES = 2**26
"""Tokens of one output that a part holds at most (bytes), where it holds more than one view."""
MOST_VIEWS = 512
"""Views that a part holds at most."""
Pooled = dict[str, Float32[np.ndarray, "views _"]]
"""`mean`, and `summary` where there is one."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class StudentFeatures:
    """The features of one student for some views of one set, in a folder."""

    student: ExportedStudent
    """In evaluation mode, on the device that it runs on."""
    name: str
    """Of the student, for tables and messages."""
    views: ChosenViews
    folder: Path
    options: EvaluateOptions

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the stored features depend on, as JSON-ready values."""
        settings = {"window": self.options.window, "stored": self.options.stored}
        student = {"student": self.student.card["weights_sha256"]}
        return {"version": VERSION, **student, **self.views.identity, **settings}

    def digest(self, output: str) -> str:
        """Return the digest of everything that the features of an output depend on."""
        return digest({"output": output, **self.identity})

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, int, int]]:
        """Rows, columns and channels of the tokens, by output. The student is run once, on a black image.

        Raises:
            SettingError: it does not support this resolution.
        """
        side = self.views.view_set.resolution
        try:
            with torch.inference_mode():
                found = self._run(torch.zeros(1, 3, side, side), [*self.student.card["teachers"]])
        except Exception as error:  # each backbone has its own way to reject a size
            place, fix = f"{self.name} at {side} px", "leave the set out with --sets"
            raise SettingError("student", [Problem(place=place, found=cause_text(error), fix=fix)]) from error
        sizes = {output: tokens.shape[1:] for output, (_, tokens) in found.items()}
        return {output: (rows, columns, channels) for output, (rows, columns, channels) in sizes.items()}

    def compute(self, outputs: Sequence[str], *, tokens: bool) -> None:
        """Run the student on the views of which something is missing, and write what it gives.

        Args:
            outputs: `backbone`, or names of teachers.
            tokens: whether tokens are wanted; else summaries and means alone.

        Raises:
            IdentityError: the folder holds features of another student, of other views, or with other settings.
            ContractError: a feature is NaN or infinite, or too large for float16.
            SettingError: the student cannot run on these views.
        """
        self.require_own_folder()
        parts = list(self._parts())
        bar = tqdm(total=len(self.views.rows), desc=f"{self.name} on {self.views.view_set.name}", disable=None)
        with bar:
            for number, part in enumerate(parts):
                missing = [output for output in outputs if not self._is_there(output, number, tokens=tokens)]
                if missing:
                    self._write(missing, number, self.views.rows[part], tokens=tokens)
                bar.update(part.stop - part.start)

    def require_own_folder(self) -> None:
        """Refuse a folder of other features; mark a new one as that of these.

        Raises:
            IdentityError: the folder holds features of another student, of other views, or with other settings.
        """
        about = self.folder / "about.json"
        if about.exists():
            fix = f"delete {self.folder}, or give another folder: --to"
            require_same(f"features in {self.folder}", read_json(about), self.identity, fix)
        else:
            write_json(about, self.identity)

    def read(self, output: str) -> EvaluationFeatures:
        """Return the features of an output, which `compute` has written.

        Raises:
            CorruptionError: a file is damaged.
        """
        pooled = [self._read_pooled(output, number) for number, _ in enumerate(self._parts())]
        of_teacher = None if output == BACKBONE else self.student.card["teachers"][output]["model"]
        return EvaluationFeatures(
            **self.views.facts(self._starts(len(self.views.rows))),
            origin=f"{self.name}: {output}",
            model=of_teacher,
            digest=self.digest(output),
            summary=np.concatenate([part["summary"] for part in pooled]) if "summary" in pooled[0] else None,
            mean=np.concatenate([part["mean"] for part in pooled]),
            shape=self.shapes[output],
            tokens=lambda wanted: self._read_tokens(output, wanted),
        )

    def _starts(self, count: int) -> Int64[np.ndarray, "views 2"]:
        """Return where the student's windows start: in the middle of the margin, if the canvas has one."""
        return np.full((count, 2), self.views.reader.geometry.margin // 2, dtype=np.int64)

    def _parts(self) -> Iterator[slice]:
        largest = max(rows * columns * channels for rows, columns, channels in self.shapes.values())
        size = largest * np.dtype(self.options.stored).itemsize
        step = min(MOST_VIEWS, max(1, PART_BYTES // size))
        for first in range(0, len(self.views.rows), step):
            yield slice(first, min(first + step, len(self.views.rows)))

    def _is_there(self, output: str, part: int, *, tokens: bool) -> bool:
        return self._pooled(output, part).exists() and (not tokens or self._tokens(output, part).exists())

    def _write(self, outputs: Sequence[str], number: int, rows: Int64[np.ndarray, " part"], *, tokens: bool) -> None:
        found: dict[str, list[tuple[np.ndarray | None, np.ndarray]]] = {output: [] for output in outputs}
        for first in range(0, len(rows), self.options.batch):
            for output, (summary, maps) in self._on_views(rows[first : first + self.options.batch], outputs).items():
                found[output].append((summary, maps))
        for output, batches in found.items():
            maps = np.concatenate([batch for _, batch in batches])
            pooled: Pooled = {"mean": maps.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)}
            if batches[0][0] is not None:
                pooled["summary"] = np.concatenate([summary for summary, _ in batches if summary is not None])
            place = f"{self.name}: {output}, {self.views.view_set.name}"
            for values in pooled.values():
                _require_numbers(values, place)
            if tokens:
                self._write_tokens(self._tokens(output, number), maps, place)
            write_whole(self._pooled(output, number), safetensors.numpy.save(pooled))

    def _write_tokens(self, path: Path, maps: np.ndarray, place: str) -> None:
        with np.errstate(over="ignore"):  # an overflow becomes infinity, which is refused
            stored = maps.astype(self.options.stored)
        _require_numbers(stored, place)
        body = io.BytesIO()
        np.save(body, stored)
        write_whole(path, body.getvalue())

    def _on_views(
        self, rows: Int64[np.ndarray, " batch"], outputs: Sequence[str]
    ) -> dict[str, tuple[np.ndarray | None, np.ndarray]]:
        reader = self.views.reader
        canvases = reader.pixels.read(rows.tolist())
        windows = cut_windows(canvases, reader.geometry, self._starts(len(rows)), channels_first=True)
        with torch.inference_mode():
            found = self._run(unit_pixels(torch.from_numpy(windows)), [name for name in outputs if name != BACKBONE])
        as_numpy = {
            output: (_numpy(summary), tokens.float().cpu().numpy()) for output, (summary, tokens) in found.items()
        }
        return {output: as_numpy[output] for output in outputs}

    def _run(
        self, pixels: torch.Tensor, teachers: Sequence[str]
    ) -> dict[str, tuple[torch.Tensor | None, torch.Tensor]]:
        """Return summary and tokens of each output."""
        device = self.student.student.mean.device
        output = self.student.model(pixels.to(device), teachers, window=self.options.window or None)
        return {BACKBONE: (own_summary(output.student), output.student.spatial)} | {
            name: (output.summary.get(name), output.spatial[name]) for name in teachers
        }

    def _pooled(self, output: str, part: int) -> Path:
        return self.folder / f"{output}.pooled.{part}.safetensors"

    def _tokens(self, output: str, part: int) -> Path:
        return self.folder / f"{output}.tokens.{part}.npy"

    def _read_pooled(self, output: str, part: int) -> Pooled:
        path = self._pooled(output, part)
        try:
            return safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise _damaged(path, error) from error

    def _read_tokens(self, output: str, wanted: slice) -> Float32[np.ndarray, "views rows cols channels"]:
        first, last, _ = wanted.indices(len(self.views.rows))
        found = []
        for number, part in enumerate(self._parts()):
            start, stop = max(first, part.start), min(last, part.stop)
            if start < stop:
                path = self._tokens(output, number)
                try:
                    stored = np.load(path, mmap_mode="r", allow_pickle=False)
                except ValueError as error:
                    raise _damaged(path, error) from error
                found.append(stored[start - part.start : stop - part.start].astype(np.float32))
        return np.concatenate(found) if found else np.empty((0, *self.shapes[output]), dtype=np.float32)


def own_summary(output: StudentOutput) -> Float32[torch.Tensor, "batch summary_channels"] | None:
    """Return a student's own summary: its class tokens one behind the other, as RADIO's is; None where it has none."""
    summaries = output.summaries.flatten(1)
    return summaries if summaries.shape[1] else None


def require_outputs(student: ExportedStudent, outputs: Sequence[str]) -> None:
    """Refuse outputs that a student does not have.

    Raises:
        SettingError: there are some; it names all of them.
    """
    known = [BACKBONE, *student.card["teachers"]]
    if unknown := [output for output in outputs if output not in known]:
        fix = f"the student's outputs are {', '.join(known)}"
        problems = [Problem(place=output, found="is not an output of the student", fix=fix) for output in unknown]
        raise SettingError("--outputs", problems)


def _numpy(summary: torch.Tensor | None) -> np.ndarray | None:
    return None if summary is None else summary.float().cpu().numpy()


def _require_numbers(values: np.ndarray, place: str) -> None:
    if not np.isfinite(values).all():
        found, fix = f"a feature is NaN, infinite or too large for {values.dtype}", "for float16, use --stored float32"
        raise ContractError("features", [Problem(place=place, found=found, fix=fix)])


def _damaged(path: Path, error: Exception) -> CorruptionError:
    fix = "delete it, and repeat the command"
    return CorruptionError("features", [Problem(place=str(path), found=f"cannot be read: {error}", fix=fix)])
