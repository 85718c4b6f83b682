"""How well a student matches its teachers on held-out views."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from storage_schemas.errors import ContractError, Problem
from trainer.batch import ViewBatch, unit_pixels
from trainer.fidelity import FidelitySums, fidelity, observe_fidelity
from trainer.losses import angles
from trainer.model import DistilledModel
from trainer.objective import TokenMaps


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


@torch.no_grad()
def evaluate(
    model: DistilledModel,
    maps: TokenMaps,
    batches: Iterable[list[ViewBatch]],
    teachers: Iterable[str],
    dispersions: Mapping[str, float],
    device: torch.device,
) -> dict[str, TeacherScore]:
    """Score a student on held-out views. The model's mode is left as it was.

    Args:
        model: student and heads, on the device.
        maps: token maps of the run, on the device.
        batches: every held-out view once.
        teachers: names of the teachers to score.
        dispersions: Disp(Θ_y) (rad²) of every teacher with a summary.
        device: where to compute.

    Raises:
        ContractError: a teacher has no held-out view.
    """
    spatial: dict[str, dict[str, FidelitySums]] = {name: {} for name in teachers}
    squares: dict[str, list[torch.Tensor]] = {name: [] for name in spatial}
    with _evaluating(model):
        for batch in (part.to(device) for parts in batches for part in parts):
            output = model(unit_pixels(batch.pixels), batch.targets)
            for name, target in batch.targets.items():
                sums = observe_fidelity(*maps(output.spatial[name], batch, name))
                before, held = spatial[name], batch.view_set.name
                before[held] = before[held] + sums if held in before else sums
                if target.summary is not None:
                    squares[name].append(angles(output.summary[name], target.summary).square())
    return {name: _score(name, spatial[name], squares[name], dispersions.get(name)) for name in spatial}


def _score(
    name: str, sets: Mapping[str, FidelitySums], squares: list[torch.Tensor], dispersion: float | None
) -> TeacherScore:
    if not sets:
        fix = "cut views of more images, or choose a larger held-out share"
        raise ContractError("evaluation", [Problem(place=name, found="has seen no held-out view", fix=fix)])
    pooled, *others = sets.values()
    for other in others:
        pooled = pooled + other
    return TeacherScore(
        fidelity=fidelity(pooled, name),
        sets={held: fidelity(sums, f"{name} on {held}") for held, sums in sets.items()},
        angle=None if dispersion is None else float(torch.cat(squares).mean()) / dispersion,
    )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    yield
    module.train(training)
