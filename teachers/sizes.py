"""The sizes that a teacher accepts. Others are refused: a library might crop, transpose or pad them silently."""

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.teacher import TeacherSpec


def token_grid(spec: TeacherSpec, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of tokens that a teacher computes for an input.

    Args:
        spec: the teacher; its `size_rule` decides.
        height: of the input (pixels).
        width: of the input (pixels).

    Raises:
        SettingError: a size that the teacher does not accept.
    """
    if spec.size_rule == "any":
        accepted = height > 0 and width > 0 and height % spec.patch == 0 and width % spec.patch == 0
        fix = f"give sides that are multiples of its patch, {spec.patch} px"
    else:
        accepted = height == width == spec.native
        fix = f"it accepts only {spec.native} × {spec.native} px"
    if not accepted:
        found = f"{height} × {width} px (height × width)"
        raise SettingError(f"teacher {spec.name!r}", [Problem(place="input size", found=found, fix=fix)])
    return height // spec.patch, width // spec.patch
