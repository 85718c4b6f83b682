"""Checks of the blocks whose maps are asked for."""

from storage_schemas.format.errors import Problem, SettingError


def refuse_layers(name: str, layers: tuple[int, ...], blocks: int | None = None) -> tuple[int, ...]:
    """Return `layers` if they are distinct and ascending and, where the number of blocks is known, exist.

    Raises:
        SettingError: they are not.
    """
    problems = []
    if list(layers) != sorted(set(layers)):
        problems.append(
            Problem(place="layers", found=f"{layers} is not ascending", fix="name each block once, in ascending order")
        )
    last = None if blocks is None else blocks - 1
    for layer in layers:
        if layer < 0 or (last is not None and layer > last):
            known = "0 or more" if last is None else f"0 to {last}"
            problems.append(Problem(place="layers", found=f"there is no block {layer}", fix=f"blocks are {known}"))
    if problems:
        raise SettingError(f"teacher {name!r}", problems)
    return layers
