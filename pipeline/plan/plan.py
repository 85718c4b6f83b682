"""Planning: what a run would make and cost, computed from the recipe and the list of images. Nothing is written."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import final, get_args

from pipeline.config import Recipe, TeacherChoice
from pipeline.features.calibration import CalibrationShard, calibration_sample, require_tokens
from pipeline.inventory.inputs import input_side, inputs_per_view, views_per_input
from pipeline.inventory.teacher_maps import map_specs
from pipeline.inventory.units import Unit, canvas_unit, detail_unit_of, feature_unit, total_bytes
from pipeline.phi_s.hadamard import construction
from pipeline.plan.forecast import PlannedViews
from storage_schemas.format.encodings import Encoding
from storage_schemas.format.errors import AbstractStillhouseError, ContractError, Problem
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet, detail_side, teacher_tokens
from teachers.cost import tflop_per_input


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherPlan:
    """What one teacher would store and cost. All counts are zero for a teacher that cannot run on these views."""

    choice: TeacherChoice
    maps: tuple[TeacherSpec, ...]
    """Specs of its maps; one forward computes all of them."""
    refusals: tuple[Problem, ...]
    """Why `extract` would refuse the teacher; empty where it would not."""
    features: Mapping[Encoding, tuple[Unit, ...]]
    """Its features in each encoding: a unit for each map and view set."""
    details: tuple[Unit, ...]
    """Its details; only a fixed teacher has any."""
    forwards: int
    """Inputs whose features are stored: windows, or mosaics."""
    calibration: int
    """Inputs that PHI-S is fitted on, before that."""
    inputs: Mapping[int, int]
    """All these inputs, by their side (pixels)."""
    costs: Mapping[int, float]
    """Cost of one input (10¹² floating-point operations), by its side (pixels)."""

    @property
    def tflop(self) -> float:
        """Cost of all inputs (10¹² floating-point operations)."""
        return sum(count * self.costs[side] for side, count in self.inputs.items())

    @property
    def stored(self) -> tuple[Unit, ...]:
        """The units that are stored: features in the recipe's encoding, and details."""
        return (*self.features[self.choice.encoding], *self.details)

    def bytes(self, encoding: Encoding) -> int:
        """Return the bytes of its features in an encoding, with summaries, before compression."""
        return total_bytes(self.features[encoding])


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would make, and cost."""

    recipe: Recipe
    views: PlannedViews
    canvases: tuple[Unit, ...]
    teachers: tuple[TeacherPlan, ...]

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units that would be stored."""
        return (*self.canvases, *(unit for teacher in self.teachers for unit in teacher.stored))


def plan_run(recipe: Recipe, views: PlannedViews) -> Plan:
    """Plan the views and every teacher of a recipe."""
    return Plan(
        recipe=recipe,
        views=views,
        canvases=tuple(canvas_unit(view_set, shape) for view_set, shape in views.shapes.items()),
        teachers=tuple(plan_teacher(choice, recipe, views) for choice in recipe.teachers),
    )


def plan_teacher(choice: TeacherChoice, recipe: Recipe, views: PlannedViews) -> TeacherPlan:
    """Plan one teacher."""
    refusals = _refusals(choice.name, lambda: map_specs(choice))
    if refusals:
        return _refused(choice, map_specs(replace(choice, layers=())), refusals)
    maps = map_specs(choice)
    spec = maps[0]
    tokens, refusals = _tokens(spec, views)
    if refusals:
        return _refused(choice, maps, refusals)
    sample = calibration_sample(views.shapes, tokens, views.training_views, recipe.calibration, spec.dim)
    refusals += _refusals(f"{spec.name}, PHI-S", lambda: construction(spec.dim))
    refusals += _refusals(f"{spec.name}, PHI-S", lambda: require_tokens(sample, tokens, recipe.calibration, spec.dim))
    forwards = {view_set: _forwards(spec, views, view_set) for view_set in views.shapes}
    observed = {view_set: _observed(spec, views, view_set, sample) for view_set in views.shapes}
    inputs = Counter[int]()
    for view_set, shape in views.shapes.items():
        inputs[input_side(spec, shape.geometry)] += forwards[view_set] + observed[view_set]
    return TeacherPlan(
        choice=choice,
        maps=maps,
        refusals=tuple(refusals),
        features={encoding: _features(choice, maps, views, encoding) for encoding in get_args(Encoding)},
        details=_details(spec, views),
        forwards=sum(forwards.values()),
        calibration=sum(observed.values()),
        inputs=inputs,
        costs={side: tflop_per_input(choice.source, side, weights=choice.weights) for side in inputs},
    )


def _tokens(spec: TeacherSpec, views: PlannedViews) -> tuple[dict[ViewSet, int], list[Problem]]:
    tokens, refusals = {}, []
    for view_set, shape in views.shapes.items():
        try:
            tokens[view_set] = teacher_tokens(spec, view_set, shape.geometry)
        except ContractError as error:
            refusals += [
                Problem(place=f"{spec.name}, {view_set.name}", found=problem.found, fix=problem.fix)
                for problem in error.problems
            ]
    return tokens, refusals


def _refused(choice: TeacherChoice, maps: tuple[TeacherSpec, ...], refusals: list[Problem]) -> TeacherPlan:
    return TeacherPlan(
        choice=choice,
        maps=maps,
        refusals=tuple(refusals),
        features=dict.fromkeys(get_args(Encoding), ()),
        details=(),
        forwards=0,
        calibration=0,
        inputs={},
        costs={},
    )


def _features(
    choice: TeacherChoice, maps: Iterable[TeacherSpec], views: PlannedViews, encoding: Encoding
) -> tuple[Unit, ...]:
    storage = replace(choice.storage, encoding=encoding)
    return tuple(
        feature_unit(view_set, shape, spec, storage) for spec in maps for view_set, shape in views.shapes.items()
    )


def _details(spec: TeacherSpec, views: PlannedViews) -> tuple[Unit, ...]:
    if spec.size_rule != "fixed":
        return ()
    sides = {view_set: detail_side(spec, view_set) for view_set in views.shapes}
    return tuple(
        detail_unit_of(view_set, shape, spec.name, sides[view_set]) for view_set, shape in views.shapes.items()
    )


def _refusals(subject: str, check: Callable[[], object]) -> list[Problem]:
    try:
        check()
    except AbstractStillhouseError as error:
        return [
            Problem(place=f"{subject}: {problem.place}", found=problem.found, fix=problem.fix)
            for problem in error.problems
        ]
    return []


def _observed(spec: TeacherSpec, views: PlannedViews, view_set: ViewSet, sample: Iterable[CalibrationShard]) -> int:
    return _inputs(spec, views, view_set, [shard.views for shard in sample if shard.view_set == view_set])


def _forwards(spec: TeacherSpec, views: PlannedViews, view_set: ViewSet) -> int:
    grid = views.shapes[view_set].grid
    return _inputs(spec, views, view_set, (len(grid.slots(shard)) for shard in range(grid.shards)))


def _inputs(spec: TeacherSpec, views: PlannedViews, view_set: ViewSet, counts: Iterable[int]) -> int:
    # a mosaic holds views of one shard only, so the last mosaic of each shard may be partly empty
    capacity = views_per_input(spec, views.shapes[view_set].geometry)
    return sum(-(-count // capacity) for count in counts) * inputs_per_view(spec, view_set)
