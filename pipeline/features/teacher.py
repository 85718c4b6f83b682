"""Building a recipe's teacher: the model on its device, with its upsampler and batch size."""

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.config import TeacherChoice
from pipeline.features.failures import errors_of
from pipeline.inventory.teacher_maps import map_specs
from pipeline.workers.allocator import keep_freed_memory
from storage_schemas.format.computed_by import ComputedBy
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.teacher import TeacherSpec
from teachers.base import AbstractTeacher
from teachers.build import build_teacher
from teachers.computed_by import computed_by
from teachers.output import TeacherOutput, first_of
from teachers.source import is_own
from teachers.upsamplers import AbstractUpsampler, build_upsampler


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunningTeacher:
    """A model that is ready to run, and the specs of its maps."""

    teacher: AbstractTeacher
    maps: tuple[TeacherSpec, ...]
    """Specs of its feature maps in the cache: the last block's first."""
    upsampler: AbstractUpsampler | None
    """Makes the fine grid of a tiled teacher; None for others."""
    batch: int
    """Inputs in one forward."""

    @property
    def spec(self) -> TeacherSpec:
        """Spec of the last block's map."""
        return self.maps[0]

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the teacher's weights; for a trained upsampler, of both digests."""
        trained = "" if self.upsampler is None else self.upsampler.weights_sha256
        if not trained:
            return self.teacher.weights_sha256
        return hashlib.sha256(f"{self.teacher.weights_sha256} {trained}".encode()).hexdigest()

    def encode(self, images: Float[Tensor, "inputs 3 height width"]) -> TeacherOutput:
        """Return the teacher's features of normalised images, at most `batch`; see `AbstractTeacher.encode`.

        A compiled teacher always gets a whole batch: the last one of a shard is filled up, and the outputs of what was
        added are dropped. Else each number of images would need a program of its own, which takes minutes to compile.

        Raises:
            SettingError: the teacher's code raised an error; with the line that raised it.
        """
        with errors_of(f"teacher {self.spec.forward_of}"):
            missing = self.batch - len(images)
            if not self.teacher.compiled or missing <= 0:
                return self.teacher.encode(images)
            filled = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])
            return first_of(self.teacher.encode(filled), len(images))

    @property
    def computed_by(self) -> ComputedBy:
        """The code and the libraries of the teacher and of its upsampler."""
        return computed_by(self.teacher, self.upsampler)


def run_teacher(choice: TeacherChoice, device: str, *, compiled: bool = False) -> RunningTeacher:
    """Build a recipe's teacher, ready to run.

    Args:
        choice: the teacher of the recipe.
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.
        compiled: whether it runs through `torch.compile`.

    Raises:
        SettingError, MissingError, ContractError: as `build_teacher`; or there is no such device or upsampler.
    """
    maps, place = map_specs(choice), _found(device)
    if place == "cpu":
        keep_freed_memory()
    with errors_of(f"teacher {choice.name}") if is_own(choice.source) else nullcontext():
        teacher = build_teacher(
            choice.source,
            name=choice.name,
            weights=choice.weights,
            precision=choice.precision,
            device=place,
            layers=choice.layers,
            compiled=compiled,
            summary=choice.summary,
            size_rule=choice.size_rule,
        )
    source, upsampler = maps[0].upsampler, None
    if source is not None:
        with errors_of(f"upsampler {source}"):
            upsampler = build_upsampler(source, teacher.device, choice.upsampler_weights)
    return RunningTeacher(teacher=teacher, maps=maps, upsampler=upsampler, batch=choice.batch)


def _found(device: str) -> str:
    """Return the device that a setting stands for on this machine."""
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        fix = "use --run.device cpu; under ray give --run.gpus, or its workers see no GPU"
        raise SettingError("device", [Problem(place="--run.device cuda", found="torch finds no GPU", fix=fix)])
    return ("cuda" if has_gpu else "cpu") if device == "auto" else device
