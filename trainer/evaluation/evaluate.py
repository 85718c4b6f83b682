"""Scores of a student on held-out views: how well it matches its teachers, and statistics of its own features."""

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
from trainer.evaluation.fidelity import FidelitySums, fidelity, observe_fidelity, phi_fidelity
from trainer.evaluation.scale_variance import at_sizes, scale_variance
from trainer.objective.losses import angles
from trainer.objective.token_maps import TokenMaps
from trainer.student.model import DistilledModel


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherScore:
    """How well a student matches one teacher."""

    fidelity: float
    """F of v2.5 eq 8 over all view sets together, as Var / MSE over Ω. Above 1, the student predicts better than the
    teacher's mean does."""
    phi_fidelity: float
    """The same as φ² / MSE, the form of the papers' tables."""
    sets: Mapping[str, float]
    """F for each view set with held-out views."""
    angle: float | None
    """Mean squared angle between summaries over the teacher's dispersion. At 1, the student predicts no better than the
    teacher's mean direction does. None for a teacher without a summary."""

    def attributes(self) -> dict[str, Any]:
        """Return the score as JSON-ready values."""
        fidelities = {"fidelity": self.fidelity, "phi_fidelity": self.phi_fidelity, "sets": dict(self.sets)}
        return {**fidelities, "angle": self.angle}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudentScore:
    """Statistics of a student's own features."""

    effective_rank: float
    """Number of directions over which their variance is spread; at most the student's channels."""
    shares: Mapping[str, float]
    """Share of the variance in the first 1, 2, 4, … directions."""
    scale_variance: float | None
    """σ²_scale of v2.5 eq 14: 0 if the features do not depend on the size of the image. None for a run with a single
    resolution, without held-out views of the largest, or where no channel varies over an image."""

    def attributes(self) -> dict[str, Any]:
        """Return the score as JSON-ready values."""
        return {"effective_rank": self.effective_rank, "shares": dict(self.shares), "scale": self.scale_variance}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The result of one evaluation."""

    teachers: Mapping[str, TeacherScore]
    student: StudentScore


@final
@dataclass(slots=True, kw_only=True, eq=False)
class Observations:
    """The sums that scores are computed from, on the CPU."""

    spatial: dict[tuple[str, str], list[FidelitySums]] = field(default_factory=dict)
    """By teacher and view set."""
    squares: dict[str, list[Float[Tensor, " batch"]]] = field(default_factory=dict)
    """Squared angles of summaries (rad²), by teacher."""
    features: list[FeatureSums] = field(default_factory=list)
    scales: list[Float[Tensor, " batch"]] = field(default_factory=list)
    """σ²_scale of each view of the largest view set."""


@torch.no_grad()
def observe(
    model: DistilledModel, token_maps: TokenMaps, batches: Iterable[list[ViewBatch]], sizes: Sequence[int]
) -> Observations:
    """Run a model on held-out views and collect what its scores need. The model's training mode does not change.

    Args:
        model: student and heads, on the device of the batches.
        token_maps: token maps of the run, on the same device.
        batches: held-out views.
        sizes: every resolution of the run (pixels). The student sees the views of the largest at all of these sizes.
    """
    observations = Observations()
    with evaluating(model):
        for batch in (part for parts in batches for part in parts):
            pixels = unit_pixels(batch.pixels)
            output = model(pixels, batch.targets)
            observations.features.append(observe_features(output.student.spatial))
            for name, target in batch.targets.items():
                sums = observe_fidelity(*token_maps(output.spatial[name], batch, name)).cpu()
                observations.spatial.setdefault((name, batch.view_set.name), []).append(sums)
                if target.summary is not None:
                    square = angles(output.summary[name], target.summary).square().cpu()
                    observations.squares.setdefault(name, []).append(square)
            if len(sizes) > 1 and batch.view_set.resolution == max(sizes):
                features = [model(resized, []).student.spatial.float() for resized in at_sizes(pixels, sizes)]
                observations.scales.append(scale_variance(features).cpu())
    return observations


def score(observations: Sequence[Observations], teachers: Iterable[str], dispersions: Mapping[str, float]) -> Scores:
    """Return the scores of a student.

    Args:
        observations: one from each process; the processes shared the held-out views.
        teachers: names of the teachers to score.
        dispersions: Disp(Θ_y) (rad²) of every teacher with a summary.

    Raises:
        ContractError: there is no held-out view with features of a teacher.
    """
    return Scores(
        teachers={name: _score(name, observations, dispersions.get(name)) for name in teachers},
        student=_own_score(observations),
    )


def _score(name: str, observations: Sequence[Observations], dispersion: float | None) -> TeacherScore:
    parts: dict[str, list[FidelitySums]] = {}
    for observed in observations:
        for (teacher, set_name), sums in observed.spatial.items():
            if teacher == name:
                parts.setdefault(set_name, []).extend(sums)
    if not parts:
        fix = "cut views of more images, or choose a larger held-out share"
        raise ContractError("evaluation", [Problem(place=name, found="has no held-out view", fix=fix)])
    by_set = {set_name: reduce(add, parts[set_name]) for set_name in sorted(parts)}
    squares = [square for observed in observations for square in observed.squares.get(name, [])]
    return TeacherScore(
        fidelity=fidelity(reduce(add, by_set.values()), name),
        phi_fidelity=phi_fidelity(reduce(add, by_set.values()), name),
        sets={set_name: fidelity(sums, f"{name} on {set_name}") for set_name, sums in by_set.items()},
        angle=None if dispersion is None else float(torch.cat(squares).mean()) / dispersion,
    )


def _own_score(observations: Sequence[Observations]) -> StudentScore:
    shares = variances(reduce(add, [sums for observed in observations for sums in observed.features]))
    scales = torch.cat([torch.empty(0), *(scale for observed in observations for scale in observed.scales)])
    scales = scales[~scales.isnan()]  # images of which every channel is constant
    return StudentScore(
        effective_rank=effective_rank(shares.numpy()),
        shares=first_shares(shares),
        scale_variance=float(scales.mean()) if len(scales) else None,
    )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Keep a module in evaluation mode while the block runs; then it has its mode of before."""
    training = module.training
    module.eval()
    yield
    module.train(training)
