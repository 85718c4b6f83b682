"""Fitting the weights of an earlier student: its backbone, and the heads of the teachers that both students have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from torch import Tensor, nn

from storage_schemas.format.errors import Problem
from storage_schemas.format.phi_s import PhiS
from trainer.export import ExportedStudent, unfold
from trainer.student.model import DistilledModel, spatial_head
from trainer.student.student import Student
from trainer.student.vit.backbone import VitBackbone
from trainer.weights.files import Statistics, StoredWeights
from trainer.weights.fitted import FittedWeights, mismatches, shape_of
from trainer.weights.timm_fit import fit_timm
from trainer.weights.vit_fit import fit_vit, resampled_grid


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedHeads:
    """The heads of an earlier student, for those of a new one."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """By their names in `DistilledModel.heads`. The last layers give PHI-S units of the new run."""
    new: tuple[str, ...] = ()
    """Names of the heads that the earlier student does not have like this."""
    lines: tuple[str, ...] = ()
    """What was left out or stays new, and why."""


def fit_earlier(student: Student, earlier: ExportedStudent) -> FittedWeights | list[Problem]:
    """Fit an earlier student's backbone to a new one, or return a problem for every tensor that does not fit."""
    before = earlier.student
    statistics: Statistics = tuple(before.mean.flatten().tolist()), tuple(before.std.flatten().tolist())
    stored = StoredWeights(tensors=before.backbone.state_dict(), statistics=statistics)
    if not isinstance(student.backbone, VitBackbone):
        if isinstance(before.backbone, VitBackbone):
            found = f"has RADIO's additions, and {student.name} has none"
            return [Problem(place=before.name, found=found, fix="start a preset or a radio_ student from it")]
        return fit_timm(student.backbone, stored)
    if isinstance(before.backbone, VitBackbone):
        return _fit_same_kind(student, before, student.backbone, before.backbone, statistics)
    return fit_vit(student.backbone, stored)


def fit_heads(model: DistilledModel, earlier: ExportedStudent, phi_s: Mapping[str, PhiS]) -> FittedHeads:
    """Fit an earlier student's heads to those of a new student.

    A head is taken if both students have it with the same sizes and settings. The inverse of PHI-S that is folded into
    heads for tokens is taken out again.

    Args:
        model: the new student and its heads; it does not change.
        earlier: the earlier student; its last layers are unfolded in place.
        phi_s: PHI-S map of each teacher of the new run.
    """
    tensors, new, lines = dict[str, Tensor](), list[str](), list[str]()
    for teacher, teacher_map in phi_s.items():
        last = f"{spatial_head(teacher)}.adaptor.last"
        if spatial_head(teacher) in earlier.heads and _same(model.heads, earlier.heads, spatial_head(teacher)):
            layer = earlier.heads.get_submodule(last)
            assert isinstance(layer, nn.Linear)
            tensors |= dict(zip((f"{last}.weight", f"{last}.bias"), unfold(layer, teacher_map), strict=True))
    for name, head in model.heads.items():
        if name not in earlier.heads:
            new.append(name)
        elif not _same(model.heads, earlier.heads, name):
            new.append(name)
            lines.append(f"left out: the head {name} (its sizes differ from those of this run's head)")
        else:
            stored = earlier.heads.get_submodule(name).state_dict()
            tensors = {f"{name}.{part}": value for part, value in stored.items()} | tensors
            assert {f"{name}.{part}" for part in head.state_dict()} <= tensors.keys()
    if unused := [name for name in earlier.heads if name not in model.heads]:
        lines.append(f"left out: {', '.join(unused)} (heads of teachers that this run does not have)")
    return FittedHeads(tensors=tensors, new=tuple(new), lines=tuple(lines))


def _same(ours: nn.ModuleDict, theirs: nn.ModuleDict, name: str) -> bool:
    return not mismatches(theirs.get_submodule(name).state_dict(), ours.get_submodule(name).state_dict())


def _fit_same_kind(
    student: Student, before: Student, backbone: VitBackbone, earlier: VitBackbone, statistics: Statistics
) -> FittedWeights | list[Problem]:
    """Fit one vision transformer with RADIO's additions to another. Each teacher's class token stays its own."""
    tensors, lines = dict(earlier.state_dict()), list[str]()
    side = backbone.settings.position_grid
    if earlier.settings.position_grid != side and earlier.channels == backbone.channels:
        lines.append(f"resampled: positions from {shape_of(earlier.positions.grid[0])} to {side} × {side}")
        tensors["positions.grid"] = resampled_grid(earlier.positions.grid.detach(), side)
    own, taken = backbone.class_tokens.detach().clone(), list[str]()
    if earlier.channels == backbone.channels:
        for slot, teacher in enumerate(student.summarised):
            if teacher in before.summarised:
                own[slot] = earlier.class_tokens[before.summarised.index(teacher)]
                taken.append(teacher)
        spare = min(backbone.settings.spare_class_tokens, earlier.settings.spare_class_tokens)
        own[len(student.summarised) :][:spare] = earlier.class_tokens[len(before.summarised) :][:spare]
        tensors["class_tokens"] = own
        if fresh := [teacher for teacher in student.summarised if teacher not in taken]:
            lines.append(f"new: the class tokens of {', '.join(fresh)}")
        if spare < backbone.settings.spare_class_tokens:
            lines.append(f"new: {backbone.settings.spare_class_tokens - spare} spare class tokens")
        unused = [teacher for teacher in before.summarised if teacher not in taken]
        if unused or spare < earlier.settings.spare_class_tokens:
            lines.append(f"left out: class tokens of {', '.join(unused) or 'no teacher'}")
    if problems := mismatches(tensors, backbone.state_dict()):
        return problems
    return FittedWeights(tensors=tensors, lines=tuple(lines), statistics=statistics)
