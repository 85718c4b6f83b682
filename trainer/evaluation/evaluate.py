"""How well a student matches its teachers on held-out views, and what its own features are like."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.stats import effective_rank
from trainer.data.batch import ViewBatch, unit_pixels
from trainer.evaluation.feature_spectrum import FeatureSums, first_shares, observe_features, variances
from trainer.evaluation.fidelity import FidelitySums, fidelity, observe_fidelity
from trainer.evaluation.scale_variance import at_sizes, scale_variance
from trainer.objective.losses import angles
from trainer.objective.objective import TokenMaps
from trainer.student.model import DistilledModel


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherScore:
    """How a student matches one teacher."""

    fidelity: float
    """F of v2.5 eq 8 over all view sets together; above 1, the student knows more than the teacher's mean."""
    sets: Mapping[str, float]
    """F for each view set with held-out views."""
    angle: float | None
    """Mean squared angle of summaries over the teacher's dispersion: at 1, the mean direction would do as well. None
    for a teacher without a summary."""

    def attributes(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"fidelity": self.fidelity, "sets": dict(self.sets), "angle": self.angle}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudentScore:
    """What a student's own features are like."""

    effective_rank: float
    """Directions that their variance is spread over; at most the student's channels."""
    shares: Mapping[str, float]
    """Share of the variance in the first 1, 2, 4, … directions."""
    scale_variance: float | None
    """σ²_scale of v2.5 eq 14: 0 for features that do not mind the size of a picture. None for a run of one resolution,
    or without held-out views of the largest."""

    def attributes(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"effective_rank": self.effective_rank, "shares": dict(self.shares), "scale": self.scale_variance}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Everything that one evaluation found."""

    teachers: Mapping[str, TeacherScore]
    student: StudentScore


@final
@dataclass(slots=True, kw_only=True, eq=False)
class Observations:
    """What evaluation counts, on the CPU."""

    spatial: dict[tuple[str, str], list[FidelitySums]] = field(default_factory=dict)
    """By teacher and view set."""
    squares: dict[str, list[Float[Tensor, " batch"]]] = field(default_factory=dict)
    """Squared angles of summaries (rad²), by teacher."""
    features: list[FeatureSums] = field(default_factory=list)
    scales: list[Float[Tensor, " batch"]] = field(default_factory=list)
    """σ²_scale of each view of the largest view set."""


@torch.no_grad()
def observe(
    model: DistilledModel, maps: TokenMaps, batches: Iterable[list[ViewBatch]], sizes: Sequence[int]
) -> Observations:
    """Look at held-out views. The model's mode is left as it was.

    Args:
        model: student and heads, on the batches' device.
        maps: token maps of the run, there too.
        batches: held-out views.
        sizes: every resolution of the run (pixels); at the largest, views are shown at all of them.
    """
    seen = Observations()
    with _evaluating(model):
        for batch in (part for parts in batches for part in parts):
            pixels = unit_pixels(batch.pixels)
            output = model(pixels, batch.targets)
            seen.features.append(observe_features(output.student.spatial))
            for name, target in batch.targets.items():
                sums = observe_fidelity(*maps(output.spatial[name], batch, name)).cpu()
                seen.spatial.setdefault((name, batch.view_set.name), []).append(sums)
                if target.summary is not None:
                    square = angles(output.summary[name], target.summary).square().cpu()
                    seen.squares.setdefault(name, []).append(square)
            if len(sizes) > 1 and batch.view_set.resolution == max(sizes):
                shown = [model(one, []).student.spatial.float() for one in at_sizes(pixels, sizes)]
                seen.scales.append(scale_variance(shown).cpu())
    return seen


def score(observations: Sequence[Observations], teachers: Iterable[str], dispersions: Mapping[str, float]) -> Scores:
    """Return the scores of a student.

    Args:
        observations: of all processes, which shared the held-out views.
        teachers: names of the teachers to score.
        dispersions: Disp(Θ_y) (rad²) of every teacher with a summary.

    Raises:
        ContractError: a teacher has no held-out view.
    """
    return Scores(
        teachers={name: _score(name, observations, dispersions.get(name)) for name in teachers},
        student=_own_score(observations),
    )


def _score(name: str, observations: Sequence[Observations], dispersion: float | None) -> TeacherScore:
    parts: dict[str, list[FidelitySums]] = {}
    for seen in observations:
        for (teacher, held), sums in seen.spatial.items():
            if teacher == name:
                parts.setdefault(held, []).extend(sums)
    if not parts:
        fix = "cut views of more images, or choose a larger held-out share"
        raise ContractError("evaluation", [Problem(place=name, found="has seen no held-out view", fix=fix)])
    by_set = {held: reduce(add, parts[held]) for held in sorted(parts)}
    squares = [square for seen in observations for square in seen.squares.get(name, [])]
    return TeacherScore(
        fidelity=fidelity(reduce(add, by_set.values()), name),
        sets={held: fidelity(sums, f"{name} on {held}") for held, sums in by_set.items()},
        angle=None if dispersion is None else float(torch.cat(squares).mean()) / dispersion,
    )


def _own_score(observations: Sequence[Observations]) -> StudentScore:
    shares = variances(reduce(add, [sums for seen in observations for sums in seen.features]))
    scales = [scale for seen in observations for scale in seen.scales]
    return StudentScore(
        effective_rank=effective_rank(shares.numpy()),
        shares=first_shares(shares),
        scale_variance=float(torch.cat(scales).mean()) if scales else None,
    )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    yield
    module.train(training)
