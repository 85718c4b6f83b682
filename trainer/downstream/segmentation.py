"""Linear segmentation: BatchNorm and a 1 × 1 convolution on frozen tokens, scored by mIoU over the pixels of images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from storage_schemas.format.errors import Problem, SettingError
from trainer.downstream.dense_head import apply_head, build_head, fit_head
from trainer.downstream.dense_settings import DenseHeadSettings, SegmentationSettings
from trainer.downstream.dense_views import ImageParts, PartedViews, image_size, part_images, tokens_of
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.masks import IGNORED, Masks, find_masks, listed_parts
from trainer.downstream.measured import Measured
from trainer.downstream.pixel_grid import cut, put_together


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentationScore:
    """How well predicted classes agree with masks, over all pixels of a test part together."""

    miou: float
    """Mean of the intersection over union of the classes that occur in masks or predictions."""
    accuracy: float
    """Share of the pixels with the right class."""
    by_class: Float64[np.ndarray, " classes"]
    """Intersection over union of each class; NaN for one that occurs nowhere."""


def count_confusions(
    truth: Int64[np.ndarray, " pixels"], predicted: Int64[np.ndarray, " pixels"], classes: int
) -> Int64[np.ndarray, "classes classes"]:
    """Count the pixels of every pair of true class (row) and predicted class (column), without those of `IGNORED`."""
    counted = truth != IGNORED
    pairs = truth[counted] * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def score_confusions(confusions: Int64[np.ndarray, "classes classes"]) -> SegmentationScore:
    """Return the scores of confusions that were summed over a whole test part.

        IoU_c = TP_c / (TP_c + FP_c + FN_c),   mIoU = mean of IoU_c over the classes that occur

    Pooled in this way, every pixel counts the same; a mean over images would count a class that fills one pixel of an
    image as much as one that fills it. It is the measure of ADE20K, VOC and Cityscapes.

    Args:
        confusions: pixels by true class (row) and predicted class (column).
    """
    right = np.diag(confusions)
    union = confusions.sum(axis=0) + confusions.sum(axis=1) - right
    by_class = np.where(union > 0, right / np.maximum(union, 1), np.nan)
    return SegmentationScore(
        miou=float(np.nanmean(by_class)), accuracy=float(right.sum() / confusions.sum()), by_class=by_class
    )


def measure_segmentation(
    features: EvaluationFeatures,
    masks_at: SegmentationSettings,
    settings: DenseHeadSettings,
    parts: ImageParts,
    device: str = "cpu",
) -> Measured:
    """Train the linear head on the views of the training images, and score it on the pixels of the test images.

    The head's logits are interpolated bilinearly at the centres of the image's own pixels, so scores at several
    resolutions are about the same pixels. Where views overlap, their logits are averaged. Pixels that no view covers do
    not count.

    Args:
        features: tokens of one view set.
        masks_at: where the masks are.
        settings: how the head is trained.
        parts: how images are divided.
        device: where the head runs.

    Raises:
        MissingError: an image has no mask.
        SettingError: masks of another size or with other values, a single class, or an empty part.
    """
    images = part_images("segmentation", features, parts, listed_parts(masks_at, features.keys))
    masks = find_masks(masks_at, images.sizes)
    _require_several_classes(masks, images.sizes.keys() - images.test.keys())

    def example(view: int) -> tuple[np.ndarray, np.ndarray]:
        target = cut(masks.read(features.keys[view]), features.boxes[view], features.view_set.resolution)
        return tokens_of(features, view), target

    head = build_head("linear", features.shape[2], masks.classes, settings)
    fit_head(head, images.train, example, _loss, settings, device)
    confusions = sum(_confusions(features, head, masks, images.test, device))
    return _measured(confusions, masks, images)


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    # the sum over no pixel is 0, where the mean would be NaN: a batch may show nothing but ignored pixels
    counted = (target != IGNORED).sum().clamp(min=1)
    return cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum") / counted


def _confusions(
    features: EvaluationFeatures, head: nn.Module, masks: Masks, views: Mapping[str, Sequence[int]], device: str
) -> Iterator[Int64[np.ndarray, "classes classes"]]:
    for key, of_image in views.items():
        truth, tokens = masks.read(key), np.stack([tokens_of(features, view) for view in of_image])
        boxes = [features.boxes[view] for view in of_image]
        logits = [grid.cpu() for grid in apply_head(head, tokens, device)]
        for band, values, count in put_together(logits, boxes, image_size(features, of_image[0])):
            seen = count > 0
            # of classes with the same logit, numpy takes the first; torch promises no order
            predicted = values.numpy().argmax(axis=2)
            yield count_confusions(truth[band.start : band.stop][seen], predicted[seen], masks.classes)


def _require_several_classes(masks: Masks, keys: Iterable[str]) -> None:
    found = set[int]()
    for key in keys:
        found |= set(np.unique(masks.read(key)).tolist()) - {IGNORED}
        if len(found) > 1:
            return
    shown = f"hold the single class {found.pop()}" if found else "hold no class"
    raise SettingError("segmentation", [Problem(place="training masks", found=f"{shown}: nothing can be learned")])


def _measured(confusions: Int64[np.ndarray, "classes classes"] | int, masks: Masks, images: PartedViews) -> Measured:
    if isinstance(confusions, int) or not confusions.sum():
        raise SettingError("segmentation", [Problem(place="test masks", found="the views cover no pixel of a class")])
    score = score_confusions(confusions)
    classes = {f"iou_{number}": value for number, value in enumerate(score.by_class.tolist()) if not np.isnan(value)}
    pixels = sum(height * width for height, width in (images.sizes[key] for key in images.test))
    counts = {
        "classes": masks.classes,
        "pixels": int(confusions.sum()),
        "pixels_share": float(confusions.sum() / pixels),
    }
    return Measured(
        scores={"mIoU": score.miou, "accuracy": score.accuracy}, counts={**images.counts, **counts, **classes}
    )
