"""The table of tasks: name → what measures it, and what it needs.

A task is a plain function of features and options. It returns scores by name; the first one is shown in the table.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from trainer.downstream.features import EvaluationFeatures

Part = Literal["summary", "tokens"]
"""A part of the features."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task."""

    about: str
    """What it measures, in half a line, for the help text."""
    needs: Collection[Part]
    """Parts of the features that it reads. Tokens are kept only where a task reads them."""
    measure: Callable[[EvaluationFeatures, Any], Mapping[str, float]]
    """Takes the features of one view set and the options of `evaluate`; returns scores by name."""
    settings: Callable[[Any], Mapping[str, Any]]
    """Takes the options of `evaluate`; returns all that the scores depend on beside the features, JSON-ready: settings,
    and digests of files. A score is kept until one of these changes."""
    best: Literal["highest", "lowest"] = "highest"
    """Which value of its first score is better."""


TASKS: Mapping[str, Task] = {}
"""Every task, by the name that `--tasks` takes."""
