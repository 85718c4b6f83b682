"""Intermediate blocks: which may be asked for."""

from storage_schemas.format.errors import Problem, SettingError


def refuse_layers(name: str, layers: tuple[int, ...], blocks: int | None = None) -> tuple[int, ...]:
    """Return `layers` when they are distinct, ascending and, where the number of blocks is known, exist.

    Raises:
        SettingError: they are not.
    """
    problems = []
    if list(layers) != sorted(set(layers)):
        problems.append(
            Problem(place="layers", found=f"{layers} does not ascend", fix="name each block once, in order")
        )
    last = None if blocks is None else blocks - 1
    for layer in layers:
        if layer < 0 or (last is not None and layer > last):
            there = "0 or more" if last is None else f"0 to {last}"
            problems.append(Problem(place="layers", found=f"there is no block {layer}", fix=f"blocks are {there}"))
    if problems:
        raise SettingError(f"teacher {name!r}", problems)
    return layers
