"""The objective of one batch: every teacher's terms, weighted and added."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.views import ViewSet
from trainer.batch import ViewBatch
from trainer.config import LossSettings, SummaryLoss
from trainer.losses import balanced_angle, cosine_distance, spatial_cosine, spatial_mse
from trainer.model import ModelOutput
from trainer.source import Source
from trainer.student_shape import StudentShape
from trainer.token_map import TokenMap

SPATIAL = {"mse": spatial_mse, "cosine": spatial_cosine}


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """The loss of one batch, and what it is made of."""

    total: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""]]
    """`<teacher>/spatial` and `<teacher>/summary`, without weights."""


@final
class TokenMaps(nn.Module):
    """The token map of every view set and teacher of a run."""

    def __init__(self, source: Source, shape: StudentShape) -> None:
        super().__init__()
        self.maps = nn.ModuleDict(
            {
                _map_name(view_set, teacher): TokenMap(one.geometry, shape.tokens[view_set.resolution], seen.tokens)
                for view_set, one in source.sets.items()
                for teacher, seen in one.features.items()
            }
        )

    def forward(
        self, spatial: Float[Tensor, "batch rows cols channels"], batch: ViewBatch, teacher: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return F_{S→T}[x], ŷ beside it, and Ω, for the head of one teacher; see `TokenMap`."""
        target = batch.targets[teacher]
        return self.maps[_map_name(batch.view_set, teacher)](spatial, target.spatial, target.start - batch.start)


def objective(
    output: ModelOutput,
    batch: ViewBatch,
    maps: TokenMaps,
    dispersions: Mapping[str, float],
    settings: LossSettings,
) -> Terms:
    """Return the loss of one batch.

        L = Σ_teachers w_teacher (w_spatial L_spatial + w_summary L_summary)

    Each student head is brought to the teacher's space first and mapped to its tokens after. A teacher that has not
    seen the batch's view set has no term.

    Args:
        output: of the model, for the batch's teachers.
        batch: views and targets.
        maps: of the run.
        dispersions: Disp(Θ_y) (rad²) of every teacher with a summary.
        settings: kinds and weights.
    """
    parts: dict[str, Tensor] = {}
    total = output.student.spatial.new_zeros(()).float()
    for name, target in batch.targets.items():
        terms = {"spatial": SPATIAL[settings.spatial](*maps(output.spatial[name], batch, name))}
        if target.summary is not None:
            terms["summary"] = _summary(output.summary[name], target.summary, dispersions[name], settings.summary)
        weights = {"spatial": settings.spatial_weight, "summary": settings.summary_weight}
        factor = settings.teacher_weights.get(name, 1.0)
        total = total + sum(factor * weights[kind] * term for kind, term in terms.items())
        parts |= {f"{name}/{kind}": term.detach() for kind, term in terms.items()}
    return Terms(total=total, parts=parts)


def _summary(student: Tensor, teacher: Tensor, dispersion: float, kind: SummaryLoss) -> Tensor:
    return cosine_distance(student, teacher) if kind == "cosine" else balanced_angle(student, teacher, dispersion)


def _map_name(view_set: ViewSet, teacher: str) -> str:
    return f"{view_set.name}/{teacher}"
