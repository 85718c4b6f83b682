"""The student with its adaptor heads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from trainer.settings.student import HeadSettings
from trainer.student.heads import AdaptorHead, TokenHead
from trainer.student.shape import StudentShape
from trainer.student.student import Student, StudentOutput


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherShape:
    """Sizes of a teacher's outputs, which its heads must have too."""

    dim: int
    """Channels of a token."""
    summary_dim: int | None
    """Channels of the summary; None for a teacher without one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelOutput:
    """The student's own features of a batch, and its features in the space of each teacher."""

    student: StudentOutput
    spatial: Mapping[str, Float[Tensor, "batch rows cols _"]]
    """Tokens by teacher: PHI-S units in training, raw teacher units once exported."""
    summary: Mapping[str, Float[Tensor, "batch _"]]
    """Summaries by teacher (raw teacher units), without teachers that have no summary."""


@final
class DistilledModel(nn.Module):
    """A student, and for each teacher one head for tokens and, if the teacher has a summary, one for the summary."""

    def __init__(
        self, student: Student, shape: StudentShape, teachers: Mapping[str, TeacherShape], settings: HeadSettings
    ) -> None:
        """Add new heads to a student.

        Args:
            student: the student.
            shape: sizes of its outputs, from `measure_student`.
            teachers: sizes of each teacher's outputs, by name.
            settings: settings of the heads.
        """
        super().__init__()
        self.student = student
        self.heads = nn.ModuleDict()
        for name, teacher in teachers.items():
            self.heads[spatial_head(name)] = TokenHead(shape.channels, teacher.dim, settings)
            if teacher.summary_dim is not None:
                self.heads[summary_head(name)] = AdaptorHead(shape.summary_channels, teacher.summary_dim, settings)

    def forward(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        teachers: Iterable[str],
        *,
        window: int | None = None,
        uniforms: Float[Tensor, "batch uniforms"] | None = None,
    ) -> ModelOutput:
        """Run the student and the heads of some teachers.

        Args:
            pixels: RGB in [0, 1].
            teachers: names of teachers that the model has heads for.
            window: side of the attention windows (tokens); see `Student`.
            uniforms: for training, as in `ViewBatch`; see `Student`.
        """
        names, student = list(teachers), self.student(pixels, window=window, uniforms=uniforms)
        summarised = [name for name in names if summary_head(name) in self.heads]
        return ModelOutput(
            student=student,
            spatial={name: self.heads[spatial_head(name)](student.spatial) for name in names},
            summary={name: self.heads[summary_head(name)](self._summary(student, name)) for name in summarised},
        )

    def _summary(self, student: StudentOutput, teacher: str) -> Float[Tensor, "batch channels"]:
        return student.summaries[:, self.student.summary_slot(teacher)]


def summarised(teachers: Mapping[str, TeacherShape]) -> list[str]:
    """Return the names of the teachers with a summary, in the order of their class tokens."""
    return sorted(name for name, teacher in teachers.items() if teacher.summary_dim is not None)


def feature_head(model: DistilledModel, teacher: str) -> AdaptorHead:
    """Return the last part of a teacher's head for tokens, which maps each token by itself."""
    head = model.heads[spatial_head(teacher)]
    assert isinstance(head, TokenHead)
    return head.adaptor


def spatial_head(teacher: str) -> str:
    """Return the name of a teacher's head for tokens. The suffix prevents a clash with a module's own attributes."""
    return f"{teacher}_spatial"


def summary_head(teacher: str) -> str:
    """Return the name of a teacher's head for the summary."""
    return f"{teacher}_summary"
