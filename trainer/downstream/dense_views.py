"""The views of dense tasks: their tokens, the images that they were cut from, and the two parts of these images."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float32

from storage_schemas.format.errors import Problem, SettingError
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.labels import TEST, TRAINING, PartRule, in_share


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageParts:
    """How images are divided into a training part and a test part."""

    rule: PartRule = "given"
    """`given`: by the first folder of the keys, or by a dataset's lists. `hash`: by a hash of the key."""
    test_share: float = 0.2
    """For `hash`, the share of images in the test part."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PartedViews:
    """The views of the images of both parts."""

    train: Sequence[int]
    """Views of the training images."""
    test: Mapping[str, Sequence[int]]
    """Key of each test image → its views."""
    sizes: Mapping[str, tuple[int, int]]
    """Key of each image of both parts → its height and width (pixels)."""
    counts: Mapping[str, int]
    """Numbers of images in each part and in none."""


def tokens_of(features: EvaluationFeatures, view: int) -> Float32[np.ndarray, "rows cols channels"]:
    """Return the tokens of a view as they lie in its image: those of a mirrored view are mirrored back."""
    tokens = features.tokens(slice(view, view + 1))[0]
    return np.ascontiguousarray(tokens[:, ::-1]) if features.flips[view] else tokens


def image_size(features: EvaluationFeatures, view: int) -> tuple[int, int]:
    """Return height and width of the image that a view was cut from (pixels)."""
    height, width = features.image_sizes[view]
    return int(height), int(width)


def views_by_image(features: EvaluationFeatures, keys: Collection[str]) -> dict[str, list[int]]:
    """Return the views of some images, by key, in the order of the view set.

    Of views with the same box the first alone counts: an image that needs fewer windows than others has equal ones.
    """
    views: dict[str, dict[bytes, int]] = {}
    for view, key in enumerate(features.keys):
        if key in keys:
            views.setdefault(key, {}).setdefault(features.boxes[view].tobytes(), view)
    return {key: list(of_image.values()) for key, of_image in views.items()}


def part_images(
    task: str, features: EvaluationFeatures, parts: ImageParts, listed: Mapping[str, str] | None = None
) -> PartedViews:
    """Divide the images of a view set into a training part and a test part.

    By the first folder of the keys, images below `train` or `training` train; those below `val` or `validation` test,
    or else those below `test`, which datasets often publish without maps. Images elsewhere are in neither part.

    Args:
        task: name of the task, for the message.
        features: the view set.
        parts: how images are divided.
        listed: key → `train` or `test`, from a dataset's lists; it counts for the rule `given`.

    Raises:
        SettingError: a part has no image.
    """
    keys = dict.fromkeys(features.keys)
    if parts.rule == "hash":
        named = {key: "test" if in_share(key, parts.test_share, "test part") else "train" for key in keys}
    else:
        named = _by_folder(keys) if listed is None else {key: listed[key] for key in keys if key in listed}
    if empty := [part for part in ("train", "test") if part not in named.values()]:
        found = f"none of the {len(keys)} images is in it"
        fix = "give images in folders train/ and val/, or --parts hash"
        raise SettingError(task, [Problem(place=f"part {empty[0]}", found=found, fix=fix)])
    views = {part: views_by_image(features, {key for key in named if named[key] == part}) for part in ("train", "test")}
    counts = {"train_images": len(views["train"]), "test_images": len(views["test"])}
    return PartedViews(
        train=[view for of_image in views["train"].values() for view in of_image],
        test=views["test"],
        sizes={key: image_size(features, of_image[0]) for part in views.values() for key, of_image in part.items()},
        counts={**counts, "images_in_no_part": len(keys) - len(named)},
    )


def _by_folder(keys: Collection[str]) -> dict[str, str]:
    firsts = {key: key.split("/")[0] for key in keys}
    tests = set(firsts.values()) & {*TEST}
    tested = tests - {"test"} or tests
    parts = dict.fromkeys(TRAINING, "train") | dict.fromkeys(tested, "test")
    return {key: parts[first] for key, first in firsts.items() if first in parts}
