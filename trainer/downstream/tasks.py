"""The table of tasks: name → what measures it, and what it needs.

A task is a plain function of features and options. To add one, write the function in a module of its own, put its
settings into a frozen dataclass that `trainer.downstream.options.EvaluateOptions` holds, and add a line to `TASKS`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from trainer.downstream.classification import (
    knn_settings,
    linear_settings,
    measure_knn,
    measure_linear,
    measure_linear_mean,
    measure_zero_shot,
    zero_shot_settings,
)
from trainer.downstream.dense_tasks import (
    correspond,
    correspondence_settings,
    depth_settings,
    estimate_depth,
    estimate_normals,
    merge,
    merging_settings,
    normals_settings,
    segment,
    segmentation_settings,
)
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.measured import Measured
from trainer.downstream.options import EvaluateOptions
from trainer.downstream.retrieval import (
    image_text_settings,
    measure_image_text,
    measure_retrieval,
    retrieval_settings,
)
from trainer.downstream.scale import measure_scale, scale_settings

Part = Literal["summary", "mean", "tokens"]
"""A part of the features: summaries, means over tokens, or the tokens themselves."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task."""

    about: str
    """What it measures, in half a line, for the help text."""
    needs: tuple[Part, ...]
    """Parts of the features that it reads. A student's tokens are stored only where a task reads them."""
    measure: Callable[[EvaluationFeatures, EvaluateOptions], Measured]
    """Takes the features of one view set and the options of `evaluate`; returns the scores."""
    settings: Callable[[EvaluateOptions], Mapping[str, Any]]
    """Takes the options of `evaluate`; returns all that the scores depend on beside the features, JSON-ready: settings,
    and digests of files. It refuses what is wrong with them, before any feature is computed. A score is kept until one
    of these values changes."""
    lower_is_better: Collection[str] = ()
    """Scores of which the lowest is the best; of all others the highest is."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One task that compares a view set with all smaller ones. The smallest view set has no score."""

    about: str
    """What it measures, in half a line, for the help text."""
    needs: tuple[Part, ...]
    """Parts of the features that it reads."""
    compare: Callable[[Sequence[EvaluationFeatures], EvaluateOptions], Measured]
    """Takes the features of view sets, the smallest first, and the options of `evaluate`; returns the scores of the
    last one."""
    settings: Callable[[EvaluateOptions], Mapping[str, Any]]
    """As for `Task`."""
    lower_is_better: Collection[str] = ()
    """As for `Task`."""


TASKS: Mapping[str, Task | Comparison] = {
    "knn": Task(
        about="classes of images by the votes of nearest neighbours (summaries)",
        needs=("summary",),
        measure=measure_knn,
        settings=knn_settings,
    ),
    "linear": Task(
        about="classes of images by logistic regression on summaries",
        needs=("summary",),
        measure=measure_linear,
        settings=linear_settings,
    ),
    "linear-mean": Task(
        about="classes of images by logistic regression on mean tokens",
        needs=("mean",),
        measure=measure_linear_mean,
        settings=linear_settings,
    ),
    "zero-shot": Task(
        about="classes of images by the nearest text vector (summaries in the space of a text tower)",
        needs=("summary",),
        measure=measure_zero_shot,
        settings=zero_shot_settings,
    ),
    "retrieval": Task(
        about="images of the same class by an image (summaries)",
        needs=("summary",),
        measure=measure_retrieval,
        settings=retrieval_settings,
    ),
    "image-text": Task(
        about="captions by an image, and images by a caption (summaries in the space of a text tower)",
        needs=("summary",),
        measure=measure_image_text,
        settings=image_text_settings,
    ),
    "segmentation": Task(
        about="classes of pixels by a linear head on tokens",
        needs=("tokens",),
        measure=segment,
        settings=segmentation_settings,
    ),
    "depth": Task(
        about="depth of pixels by a linear head or a narrow DPT on tokens",
        needs=("tokens",),
        measure=estimate_depth,
        settings=depth_settings,
        lower_is_better=("rmse", "abs_rel", "rmse_scaled", "abs_rel_scaled"),
    ),
    "normals": Task(
        about="surface normals of pixels by a linear head or a narrow DPT on tokens",
        needs=("tokens",),
        measure=estimate_normals,
        settings=normals_settings,
        lower_is_better=("mean_angle", "rms_angle"),
    ),
    "correspondence": Task(
        about="keypoints of one image in another by the nearest token",
        needs=("tokens",),
        measure=correspond,
        settings=correspondence_settings,
    ),
    "token-merging": Task(
        about="what is lost when similar tokens are merged, over the share of merged tokens",
        needs=("tokens",),
        measure=merge,
        settings=merging_settings,
    ),
    "scale": Comparison(
        about="how far tokens agree with those of the same view at smaller resolutions",
        needs=("tokens",),
        compare=measure_scale,
        settings=scale_settings,
        lower_is_better=("scale_variance",),
    ),
}
"""Every task, by the name that `--tasks` takes."""
