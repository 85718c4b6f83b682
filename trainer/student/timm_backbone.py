"""Any timm backbone as timm builds it: its feature map, and what it would hand to a classifier."""

import difflib
from typing import Any

import timm
from jaxtyping import Float
from torch import Tensor

from storage_schemas.format.errors import Problem, SettingError
from trainer.student.vit.presets import PRESETS


def build_timm(name: str, image_size: int | None) -> tuple[Any, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Build a timm model without its classifier, from random weights.

    Args:
        name: a timm model.
        image_size: side (pixels) its position table is laid out for; None for its own.

    Returns:
        The model, and the mean and standard deviation of each colour in [0, 1] that it is given pixels with.

    Raises:
        SettingError: timm has no such model, or it takes no image size.
    """
    require_timm(name)
    sized = {} if image_size is None else {"img_size": image_size}
    try:
        # position tables are resampled to each window: a ViT's setting, which other families do not know
        backbone = _build(name, dynamic_img_size=True, **sized)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise _takes_no(name, error) from error
        backbone = _sized(name, sized)
    return backbone, (backbone.pretrained_cfg["mean"], backbone.pretrained_cfg["std"])


def timm_output(
    backbone: Any, pixels: Float[Tensor, "batch 3 height width"]
) -> tuple[Float[Tensor, "batch rows cols channels"], Tensor]:
    """Return a backbone's last feature map, and what it would hand to a classifier.

    Args:
        backbone: a timm model.
        pixels: normalised.
    """
    last, [spatial] = backbone.forward_intermediates(pixels, indices=1, norm=True, output_fmt="NCHW")
    return spatial.permute(0, 2, 3, 1), backbone.forward_head(last, pre_logits=True)


def require_timm(name: str) -> None:
    """Refuse a name that timm has no model of, with the nearest that there are.

    Raises:
        SettingError: there is no such model.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], [*PRESETS, *timm.list_models()], n=3, cutoff=0.5)
        fix = f"nearest: {', '.join(near)}" if near else "`timm.list_models()` lists them"
        raise SettingError("student", [Problem(place=name, found="is no timm model", fix=fix)])


def _sized(name: str, sized: dict[str, int]) -> Any:
    try:
        return _build(name, **sized)
    except TypeError as error:
        raise _takes_no(name, error) from error


def _build(name: str, **settings: Any) -> Any:
    return timm.create_model(name, pretrained=False, num_classes=0, **settings)


def _takes_no(name: str, error: TypeError) -> SettingError:
    return SettingError("student", [Problem(place=name, found=f"cannot be built: {error}", fix="drop image_size")])
