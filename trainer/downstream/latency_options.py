"""The command line of `latency`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import tyro

from storage_schemas.format.errors import Problem, SettingError

Precision = Literal["float32", "bfloat16", "float16"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyOptions:
    """Measure the speed and the memory of students and of timm models, over resolutions and attention windows."""

    models: tuple[str, ...] = ()
    """What is compared: folders of finished runs, presets, timm models (`vit_base_patch16_224`, `timm:resnet50`), or
    timm vision transformers with RADIO's additions (`radio_vit_base_patch16_224`). Models that are given by name have
    random weights: speed does not depend on them."""
    resolutions: tuple[int, ...] = (256, 512)
    """Sides of the images (pixels)."""
    windows: tuple[int, ...] = (0,)
    """Sides of the attention windows (tokens); 0 for global attention. Models without windows are measured once."""
    batch: int = 1
    """Images at a time."""
    device: str = "cpu"
    """Where the models run: cpu, or cuda."""
    precision: Precision = "float32"
    """Type of weights and pixels."""
    heads: bool = False
    """Run the heads of finished students too, not the backbone alone."""
    rounds: int = 10
    """How often each case is timed."""
    warm_up: int = 2
    """How often each case runs before it is timed."""
    to: Path | None = None
    """JSON file for the results. None: a table only."""


def latency_options(arguments: Sequence[str]) -> LatencyOptions:
    """Read the command line of `latency`. An invalid one ends the process with a message and status 2.

    Raises:
        SettingError: no model is given, or a number is not possible.
    """
    options = tyro.cli(
        LatencyOptions,
        prog="python -m trainer latency",
        args=list(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    problems = []
    if not options.models:
        problems.append(Problem(place="--models", found="is not given", fix="--models runs/… vit_base_patch16_224"))
    for name in ("models", "resolutions", "windows"):
        if len(set(getattr(options, name))) < len(getattr(options, name)):
            problems.append(Problem(place=f"--{name}", found="names something twice"))
    for name in ("resolutions", "windows"):
        if not getattr(options, name):
            problems.append(Problem(place=f"--{name}", found="is empty"))
    least = {"resolutions": 1, "windows": 0, "batch": 1, "rounds": 1, "warm_up": 1}
    for name, bound in least.items():
        values = getattr(options, name)
        if min(values if isinstance(values, tuple) else (values,), default=bound) < bound:
            problems.append(Problem(place=f"--{name.replace('_', '-')}", found=f"must be at least {bound}"))
    if problems:
        raise SettingError("latency", problems)
    return options
