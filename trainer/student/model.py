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
    """Sizes of a teacher's outputs: what its heads must match."""

    dim: int
    """Channels of a token."""
    summary_dim: int | None
    """Channels of the summary; None for a teacher without one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelOutput:
    """The student's own view of a batch, and the same in the space of every teacher asked for."""

    student: StudentOutput
    spatial: Mapping[str, Float[Tensor, "batch rows cols _"]]
    """Tokens by teacher: PHI-S units in training, raw teacher units once exported."""
    summary: Mapping[str, Float[Tensor, "batch _"]]
    """Summaries by teacher (raw teacher units); a teacher without a summary is not there."""


@final
class DistilledModel(nn.Module):
    """A student, and for each teacher one head for tokens and, where the teacher has a summary, one for that."""

    def __init__(
        self, student: Student, shape: StudentShape, teachers: Mapping[str, TeacherShape], settings: HeadSettings
    ) -> None:
        """Put fresh heads on a student.

        Args:
            student: the backbone.
            shape: sizes of its outputs.
            teachers: sizes of each teacher's outputs, by name.
            settings: of the heads.
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
        draws: Float[Tensor, "batch draws"] | None = None,
    ) -> ModelOutput:
        """Look at windows through the heads of the teachers named.

        Args:
            pixels: RGB in [0, 1].
            teachers: names of teachers; each has heads here.
            window: attention windows (tokens); see `Student`.
            draws: each view's own, in training; see `Student`.
        """
        names, student = list(teachers), self.student(pixels, window=window, draws=draws)
        summarised = [name for name in names if summary_head(name) in self.heads]
        return ModelOutput(
            student=student,
            spatial={name: self.heads[spatial_head(name)](student.spatial) for name in names},
            summary={name: self.heads[summary_head(name)](self._summary(student, name)) for name in summarised},
        )

    def _summary(self, student: StudentOutput, teacher: str) -> Float[Tensor, "batch channels"]:
        return student.summaries[:, self.student.summary_slot(teacher)]


def summarised(teachers: Mapping[str, TeacherShape]) -> list[str]:
    """Name the teachers with a summary, in the order of their class tokens."""
    return sorted(name for name, teacher in teachers.items() if teacher.summary_dim is not None)


def feature_head(model: DistilledModel, teacher: str) -> AdaptorHead:
    """Return what maps a teacher's tokens one by one, last in its head."""
    head = model.heads[spatial_head(teacher)]
    assert isinstance(head, TokenHead)
    return head.adaptor


def spatial_head(teacher: str) -> str:
    """Name of the head for a teacher's tokens. The ending keeps any teacher's name clear of a module's own names."""
    return f"{teacher}_spatial"


def summary_head(teacher: str) -> str:
    """Name of the head for a teacher's summary."""
    return f"{teacher}_summary"
