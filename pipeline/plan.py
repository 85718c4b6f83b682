"""Planning: what a run would make and cost, from the recipe and the images' names alone. Nothing is written."""

from dataclasses import dataclass
from typing import final

from pipeline.config import Recipe
from pipeline.plan_teacher import TeacherPlan, plan_teacher
from pipeline.planned_views import PlannedViews
from pipeline.units import Unit, canvas_unit


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would make."""

    recipe: Recipe
    views: PlannedViews
    canvases: tuple[Unit, ...]
    teachers: tuple[TeacherPlan, ...]

    @property
    def units(self) -> tuple[Unit, ...]:
        """Everything that would be stored."""
        return (*self.canvases, *(unit for teacher in self.teachers for unit in teacher.stored))


def plan_run(recipe: Recipe, views: PlannedViews) -> Plan:
    """Plan the views and every teacher of a recipe."""
    return Plan(
        recipe=recipe,
        views=views,
        canvases=tuple(canvas_unit(view_set, shape) for view_set, shape in views.shapes.items()),
        teachers=tuple(plan_teacher(choice, recipe, views) for choice in recipe.teachers),
    )
