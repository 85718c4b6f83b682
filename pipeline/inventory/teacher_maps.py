"""The specs of a teacher's maps, by its recipe's choice. No weights are read."""

from pipeline.config import TeacherChoice
from storage_schemas.format.teacher import TeacherSpec
from teachers.source import specs_of


def map_specs(choice: TeacherChoice) -> tuple[TeacherSpec, ...]:
    """Return the specs of the maps of a recipe's teacher: the last block's first, then those of `choice.layers`.

    Raises:
        SettingError: there is no such source, no such block in it, or it does not take one of the settings.
        ContractError: a library's model gives no map, or not the map that it declares.
    """
    return specs_of(
        choice.source,
        name=choice.name,
        random_weights=choice.weights.startswith("random:"),
        layers=choice.layers,
        tiles=choice.tiles,
        upsampler=choice.upsampler if choice.tiles > 1 else None,
        summary=choice.summary,
        size_rule=choice.size_rule,
    )


def teacher_spec(choice: TeacherChoice) -> TeacherSpec:
    """Return the spec of a recipe's teacher: that of its last block's map.

    Raises:
        SettingError: there is no such source, no such block in it, or tiles are set for a teacher that is not fixed.
    """
    return map_specs(choice)[0]
