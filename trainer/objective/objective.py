"""The objective of one batch: every teacher's terms, weighted and added."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.views import ViewSet
from trainer.data.batch import Look, ViewBatch
from trainer.data.source import Source
from trainer.objective.losses import (
    balanced_angle,
    cosine_distance,
    spatial_cosine,
    spatial_mse,
    spatial_smooth,
    unit_tokens,
)
from trainer.objective.token_map import TokenMap
from trainer.settings.learning import LossSettings, SummaryLoss
from trainer.student.model import ModelOutput
from trainer.student.shape import StudentShape

SPATIAL = {"mse": spatial_mse, "cosine": spatial_cosine, "smooth": spatial_smooth}


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

        self.own = nn.ModuleDict(
            {
                view_set.name: TokenMap(one.geometry, *[shape.tokens[view_set.resolution]] * 2)
                for view_set, one in source.sets.items()
            }
        )

    def forward(
        self, spatial: Float[Tensor, "batch rows cols channels"], batch: ViewBatch, teacher: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return F_{S→T}[x], ŷ beside it, and Ω, for the head of one teacher; see `TokenMap`."""
        target = batch.targets[teacher]
        return self.maps[_map_name(batch.view_set, teacher)](spatial, target.spatial, target.start - batch.start)

    def between_own(
        self,
        student: Float[Tensor, "batch rows cols channels"],
        average: Float[Tensor, "batch rows cols channels"],
        batch: ViewBatch,
        second: Look,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return F_{S→S̃}[x], x̃ beside it, and Ω, for a student and its moving average in their two windows."""
        return self.own[batch.view_set.name](student, average, second.start - batch.start)


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


def mesa(
    student: Float[Tensor, "batch rows cols channels"],
    average: Float[Tensor, "batch rows cols channels"],
    batch: ViewBatch,
    second: Look,
    maps: TokenMaps,
) -> Float[Tensor, ""]:
    """Squared distance of a student to its moving average in another window of the same views.

        L_mesa = 1/|Ω| Σ_{u∈Ω} (F_{S→S̃}[LN(x)]_u − LN(x̃)_u)²

    A mean over channels and views, as in `spatial_mse`. Source: v4 eq 2.

    Args:
        student: x, tokens of the backbone.
        average: x̃, tokens of the average's backbone; no gradient flows there.
        batch: with the student's window.
        second: the average's window.
        maps: of the run.
    """
    return spatial_mse(*maps.between_own(unit_tokens(student), unit_tokens(average.detach()), batch, second))


def _summary(student: Tensor, teacher: Tensor, dispersion: float, kind: SummaryLoss) -> Tensor:
    return cosine_distance(student, teacher) if kind == "cosine" else balanced_angle(student, teacher, dispersion)


def _map_name(view_set: ViewSet, teacher: str) -> str:
    return f"{view_set.name}/{teacher}"
