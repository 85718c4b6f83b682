"""What each map of a teacher is in a cache, by its recipe's choice, without a model being built."""

from pipeline.config import TeacherChoice
from storage_schemas.format.teacher import TeacherSpec
from teachers.source import specs_of


def map_specs(choice: TeacherChoice) -> tuple[TeacherSpec, ...]:
    """Return what each map of a recipe's teacher is in the cache: the last block's first.

    Raises:
        SettingError: no such source, no such block in it, or tiles for a teacher that is not fixed.
    """
    return specs_of(
        choice.source,
        name=choice.name,
        random_weights=choice.weights.startswith("random:"),
        layers=choice.layers,
        tiles=choice.tiles,
        upsampler=choice.upsampler if choice.tiles > 1 else None,
    )


def teacher_spec(choice: TeacherChoice) -> TeacherSpec:
    """Return what a recipe's teacher is, by its last block's map.

    Raises:
        SettingError: no such source, no such block in it, or tiles for a teacher that is not fixed.
    """
    return map_specs(choice)[0]
