"""The losses: one pure function for each equation. All compute in float32, whatever the precision of their inputs."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def mean_over_common(
    values: Float[Tensor, "batch rows cols"], common: Bool[Tensor, "batch rows cols"]
) -> Float[Tensor, ""]:
    """Average over Ω of each view, then over views: every view has the same weight, however large its Ω is.

    Args:
        values: a value for each position.
        common: Ω; every view has at least one common position.
    """
    kept = torch.where(common, values, 0.0).sum(dim=(1, 2))
    return (kept / common.sum(dim=(1, 2))).mean()


def spatial_mse(
    student: Float[Tensor, "batch rows cols channels"],
    teacher: Float[Tensor, "batch rows cols channels"],
    common: Bool[Tensor, "batch rows cols"],
) -> Float[Tensor, ""]:
    """Return the squared distance of spatial tokens, a mean over channels.

        L_spatial = 1/|Ω| Σ_{u∈Ω} (F_{S→T}[x]_u − ŷ_u)²

    Source: v4 eq 1.

    Args:
        student: F_{S→T}[x] (PHI-S units).
        teacher: ŷ (PHI-S units).
        common: Ω; every view has at least one common position.
    """
    # masked before it is squared: outside Ω, a NaN would otherwise have the gradient 0 · NaN
    apart = torch.where(common[..., None], student.float() - teacher.float(), 0.0)
    return mean_over_common(apart.square().mean(dim=3), common)


def spatial_cosine(
    student: Float[Tensor, "batch rows cols channels"],
    teacher: Float[Tensor, "batch rows cols channels"],
    common: Bool[Tensor, "batch rows cols"],
) -> Float[Tensor, ""]:
    """Return the cosine distance of spatial tokens.

        L = 1/|Ω| Σ_{u∈Ω} (1 − cos(F_{S→T}[x]_u, ŷ_u))

    Args:
        student: F_{S→T}[x] (PHI-S units).
        teacher: ŷ (PHI-S units).
        common: Ω; every view has at least one common position.
    """
    alike = nn.functional.cosine_similarity(_masked(student, common), _masked(teacher, common), dim=3)
    return mean_over_common(1 - alike, common)


SMOOTH_SHARE = 0.1
"""Share of smooth L1 in AM-RADIO's spatial loss; the rest is cosine distance."""


def spatial_smooth(
    student: Float[Tensor, "batch rows cols channels"],
    teacher: Float[Tensor, "batch rows cols channels"],
    common: Bool[Tensor, "batch rows cols"],
) -> Float[Tensor, ""]:
    """Return 0.9 times the cosine distance plus 0.1 times smooth L1, a mean over channels.

        L = 0.9 (1 − cos(x, ŷ)) + 0.1 mean_c s(x_c − ŷ_c),   s(d) = d²/2 where |d| < 1, else |d| − 1/2

    Source: AM-RADIO, arXiv:2312.06709, section 3.3, whose features were not in PHI-S units.

    Args:
        student: F_{S→T}[x] (PHI-S units).
        teacher: ŷ (PHI-S units).
        common: Ω; every view has at least one common position.
    """
    apart = nn.functional.smooth_l1_loss(_masked(student, common), _masked(teacher, common), reduction="none")
    smooth = mean_over_common(apart.mean(dim=3), common)
    return (1 - SMOOTH_SHARE) * spatial_cosine(student, teacher, common) + SMOOTH_SHARE * smooth


def unit_tokens(tokens: Float[Tensor, "batch rows cols channels"]) -> Float[Tensor, "batch rows cols channels"]:
    """Return tokens under LayerNorm without affine parameters, in float32: mean 0 and variance 1 over channels.

    Source: v4 eq 2. MESA is `spatial_mse` of F_{S→S̃}[LN(x)] and LN(x̃), for x of the student and x̃ of its average.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        return nn.functional.layer_norm(tokens.float(), tokens.shape[3:])


def angles(x: Float[Tensor, "batch channels"], y: Float[Tensor, "batch channels"]) -> Float[Tensor, " batch"]:
    """Return the angle between vectors (rad).

        Θ(x, y) = arccos(xᵀy / |x||y|) = 2 atan2(|x̂ − ŷ|, |x̂ + ŷ|)

    Source: v4 eqs 3 and 4. The second form has full precision and finite gradients everywhere; the first has neither
    where the vectors have equal or opposite directions.
    """
    unit_x, unit_y = nn.functional.normalize(x.float(), dim=1), nn.functional.normalize(y.float(), dim=1)
    apart = torch.linalg.vector_norm(unit_x - unit_y, dim=1)
    along = torch.linalg.vector_norm(unit_x + unit_y, dim=1)
    return 2 * torch.atan2(apart, along)


def balanced_angle(
    student: Float[Tensor, "batch channels"], teacher: Float[Tensor, "batch channels"], dispersion: float
) -> Float[Tensor, ""]:
    """Return the squared angle over the teacher's dispersion, a mean over views.

        L_angle(x, y) = Θ(x, y)² / Disp(Θ_y)

    Source: v4 eq 7.

    Args:
        student: x (raw teacher units).
        teacher: y (raw teacher units).
        dispersion: Disp(Θ_y) of v4 eq 6 (rad²).
    """
    return angles(student, teacher).square().mean() / dispersion


def cosine_distance(
    student: Float[Tensor, "batch channels"], teacher: Float[Tensor, "batch channels"]
) -> Float[Tensor, ""]:
    """Return 1 − cos(x, y), a mean over views: the summary loss of v2.5 (table A9).

    Args:
        student: x (raw teacher units).
        teacher: y (raw teacher units).
    """
    return (1 - nn.functional.cosine_similarity(student.float(), teacher.float(), dim=1)).mean()


def _masked(tokens: Float[Tensor, "batch rows cols channels"], common: Bool[Tensor, "batch rows cols"]) -> Tensor:
    """Return tokens in float32, with ones outside Ω: whatever is there has no gradient, not even NaN."""
    return torch.where(common[..., None], tokens.float(), 1.0)
