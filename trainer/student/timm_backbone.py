"""Any timm backbone as timm builds it: its last feature map, and the vector that it would give to a classifier."""

from typing import Any

import timm
from jaxtyping import Float
from timm.models.crossvit import CrossVit
from torch import Tensor

from storage_schemas.format.errors import Problem, SettingError
from trainer.student.vit.names import require_timm


def build_timm(name: str, image_size: int | None) -> tuple[Any, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Build a timm model without its classifier, from random weights.

    Args:
        name: a timm model.
        image_size: image side (pixels) that its position table is made for; None for timm's default.

    Returns:
        The model, and the mean and standard deviation of each colour (in [0, 1]) for normalising its pixels.

    Raises:
        SettingError: timm has no such model, it takes no image size, or it is of a family whose tokens fit no window.
    """
    require_timm(name)
    sized = {} if image_size is None else {"img_size": image_size}
    try:
        # vision transformers resample position tables to each window; other families do not have this setting
        backbone = _build(name, dynamic_img_size=True, **sized)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise _cannot_build(name, error) from error
        backbone = _sized(name, sized)
    if isinstance(backbone, CrossVit):
        found = "has two token grids, of different sizes, and no single map of its tokens"
        raise SettingError("student", [Problem(place=name, found=found, fix="choose another family")])
    return backbone, (backbone.pretrained_cfg["mean"], backbone.pretrained_cfg["std"])


def timm_output(
    backbone: Any, pixels: Float[Tensor, "batch 3 height width"]
) -> tuple[Float[Tensor, "batch rows cols channels"], Tensor]:
    """Return a backbone's last feature map, and the vector that it would give to a classifier.

    Args:
        backbone: a timm model.
        pixels: normalised.
    """
    last, [spatial] = _last_map(backbone, pixels)
    return spatial.permute(0, 2, 3, 1), backbone.forward_head(last, pre_logits=True)


def _last_map(backbone: Any, pixels: Float[Tensor, "batch 3 height width"]) -> tuple[Any, list[Tensor]]:
    settings: dict[str, Any] = {"indices": 1, "output_fmt": "NCHW"}
    try:
        return backbone.forward_intermediates(pixels, norm=True, **settings)
    except AssertionError as error:
        if "norm" not in str(error):
            raise
        # some families, such as Hiera, normalise in the classifier only: their last map has no norm of its own
        return backbone.forward_intermediates(pixels, norm=False, **settings)


def _sized(name: str, sized: dict[str, int]) -> Any:
    try:
        return _build(name, **sized)
    except TypeError as error:
        raise _cannot_build(name, error) from error


def _build(name: str, **settings: Any) -> Any:
    return timm.create_model(name, pretrained=False, num_classes=0, **settings)


def _cannot_build(name: str, error: TypeError) -> SettingError:
    return SettingError("student", [Problem(place=name, found=f"cannot be built: {error}", fix="drop image_size")])
