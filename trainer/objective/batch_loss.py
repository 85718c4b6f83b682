"""The loss of one batch: every teacher's terms, weighted and added; and MESA."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from jaxtyping import Float
from torch import Tensor

from storage_schemas.format.views import ViewSet
from trainer.data.batch import SecondView, ViewBatch
from trainer.objective.losses import (
    balanced_angle,
    cosine_distance,
    spatial_cosine,
    spatial_mse,
    spatial_smooth,
    unit_tokens,
)
from trainer.objective.token_maps import TokenMaps
from trainer.settings.learning import LossSettings, SummaryLoss
from trainer.student.model import ModelOutput

Variances = Mapping[str, Mapping[ViewSet, float]]
"""Teacher → view set → variance of the teacher's stored features there, a mean over channels (PHI-S units squared)."""
NO_VARIANCES: Variances = MappingProxyType({})
SPATIAL = {"mse": spatial_mse, "cosine": spatial_cosine, "smooth": spatial_smooth}


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossTerms:
    """The loss of one batch and its terms."""

    total: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""]]
    """`<teacher>/spatial` and `<teacher>/summary`, without weights and without gradient."""


def batch_loss(
    output: ModelOutput,
    batch: ViewBatch,
    token_maps: TokenMaps,
    dispersions: Mapping[str, float],
    settings: LossSettings,
    variances: Variances = NO_VARIANCES,
) -> LossTerms:
    """Return the loss of one batch.

        L = Σ_teachers w_teacher (w_spatial L_spatial / v + w_summary L_summary)

    v is the variance of the teacher's features in the batch's view set where `variances` holds it, else 1. The squared
    error of features that PHI-S normalises per view set is that of ours over v: the rotation does not change a squared
    error, and a mean is the same for student and teacher. So the term is what NVIDIA TAO computes, which fits PHI-S for
    each resolution.

    A head first takes the student's tokens to the teacher's space; the token map then moves them to the teacher's
    positions. A teacher without features of the batch's view set has no term.

    Args:
        output: the model's output for the batch's teachers.
        batch: views and targets.
        token_maps: token maps of the run.
        dispersions: Disp(Θ_y) (rad²) of every teacher with a summary.
        settings: kinds and weights of the terms.
        variances: what spatial terms are divided by; teachers and view sets that are not named are divided by 1.
    """
    parts: dict[str, Tensor] = {}
    total = output.student.spatial.new_zeros(()).float()
    for name, target in batch.targets.items():
        variance = variances.get(name, {}).get(batch.view_set, 1.0)
        terms = {"spatial": SPATIAL[settings.spatial](*token_maps(output.spatial[name], batch, name)) / variance}
        if target.summary is not None:
            terms["summary"] = _summary(output.summary[name], target.summary, dispersions[name], settings.summary)
        weights = {"spatial": settings.spatial_weight, "summary": settings.summary_weight}
        factor = settings.teacher_weights.get(name, 1.0)
        total = total + sum(factor * weights[kind] * term for kind, term in terms.items())
        parts |= {f"{name}/{kind}": term.detach() for kind, term in terms.items()}
    return LossTerms(total=total, parts=parts)


def mesa(
    student: Float[Tensor, "batch rows cols channels"],
    average: Float[Tensor, "batch rows cols channels"],
    batch: ViewBatch,
    second: SecondView,
    token_maps: TokenMaps,
) -> Float[Tensor, ""]:
    """Return the squared distance between a student and its moving average in another window of the same views.

        L_mesa = 1/|Ω| Σ_{u∈Ω} (F_{S→S̃}[LN(x)]_u − LN(x̃)_u)²

    It is a mean over channels and views, as in `spatial_mse`. Source: v4 eq 2.

    Args:
        student: x, tokens of the backbone.
        average: x̃, tokens of the average's backbone; no gradient reaches it.
        batch: the views, with the student's windows.
        second: the average's windows.
        token_maps: token maps of the run.
    """
    return spatial_mse(*token_maps.between_windows(unit_tokens(student), unit_tokens(average.detach()), batch, second))


def _summary(student: Tensor, teacher: Tensor, dispersion: float, kind: SummaryLoss) -> Tensor:
    return cosine_distance(student, teacher) if kind == "cosine" else balanced_angle(student, teacher, dispersion)
