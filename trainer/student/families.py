"""Trying a model of each family of timm as a student: at which image sizes it gives tokens and learns, or why not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import timm
import torch
from timm.models import get_pretrained_cfg

from storage_schemas.format.errors import SettingError
from trainer.student.shape import measure_student
from trainer.student.student import Student

SIZES = (128, 256)
"""Sides of the images at which every family is tried, besides its own (pixels)."""
LARGEST = 200_000_000
"""Parameters beyond which a model is tried without weights, on torch's meta device: its shapes alone."""
LONGEST_REASON = 160
"""Characters of a reason."""
MODELS: Mapping[str, str] = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet_h1",
    "byobnet": "repvgg_a0",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_atto",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "efficientnet_b0",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "mambaout_femto",
    "maxxvit": "coatnet_pico_rw_224",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "lcnet_035",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "eca_nfnet_l0",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "resnet10t",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "vit_tiny_patch16_224",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "vit_relpos_small_patch16_224",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p",
    "xcit": "xcit_nano_12_p8_224",
}
"""Family of timm 1.0.31 → its model with the fewest parameters; a small published model where that is one for tests."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyTrial:
    """What became of a model of a family."""

    family: str
    """timm's module."""
    model: str
    """The model that was tried."""
    own_size: int
    """Image side for which timm publishes it (pixels)."""
    any_size: tuple[int, ...]
    """Sides at which it works as it is built by default (pixels)."""
    built_size: tuple[int, ...]
    """Sides at which it works if `image_size` is set to them (pixels)."""
    stride: int | None
    """Side of a token (pixels); None if it could not be built."""
    meta: bool
    """Whether only its shapes were tried."""
    reason: str
    """Why it does not work at the other sides; empty if it works at all."""


def families() -> list[str]:
    """Return timm's families: the modules that its models are in."""
    return sorted(module for module in timm.list_modules() if timm.list_models(module=module))


def model_of(family: str) -> str:
    """Return the model that stands for a family; for one that timm has added since, that with the fewest parameters."""
    names = timm.list_models(module=family)
    return MODELS[family] if MODELS.get(family) in names else min(names, key=_parameters)


def try_family(family: str, model: str) -> FamilyTrial:
    """Try a model as a student: at 128 and 256 px and at its own size, by default and built for the size.

    At a size that works the student gives square tokens and a summary; at the smallest it also learns: the gradient of
    both reaches its weights and is finite. A model of more than `LARGEST` parameters is tried on the meta device, where
    only shapes are computed.

    Args:
        family: timm's module.
        model: a model of it.
    """
    meta = _parameters(model) > LARGEST
    published: Any = get_pretrained_cfg(model)
    own = int(published.input_size[1])
    sizes = sorted({*SIZES, own})
    student = _build(model, None, meta)
    found = {size: _measure(student, size, meta) for size in sizes}
    built, students = dict[int, Student](), {size: student for size, stride in found.items() if isinstance(stride, int)}
    for size in (size for size, reason in found.items() if isinstance(reason, str)):
        candidate = _build(model, size, meta)
        if isinstance(candidate, Student) and isinstance(_measure(candidate, size, meta), int):
            built[size] = candidate
    working = {size: tried for size, tried in {**students, **built}.items() if isinstance(tried, Student)}
    reasons = [f"{size} px: {reason}" for size, reason in found.items() if size not in working]
    if working and not meta and (problem := _learning_problem(working[min(working)], min(working))):
        reasons, working = [f"{min(working)} px: {problem}"], {}
    return FamilyTrial(
        family=family,
        model=model,
        own_size=own,
        any_size=tuple(size for size in sizes if size in students and size in working),
        built_size=tuple(size for size in sizes if size in built and size in working),
        stride=working[min(working)].stride if working else None,
        meta=meta,
        reason=_one_line(reasons),
    )


def _parameters(model: str) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in timm.create_model(model, pretrained=False).parameters())


def _build(model: str, image_size: int | None, meta: bool) -> Student | str:
    """Return a student, or why it cannot be built."""
    try:
        with torch.device("meta" if meta else "cpu"), torch.random.fork_rng():
            torch.manual_seed(0)
            return Student(model, image_size)
    except Exception as error:  # each family has its own way to reject a size
        return _why(error)


def _measure(student: Student | str, size: int, meta: bool) -> int | str:
    """Return the side of a student's tokens at a size, or why it gives none."""
    if isinstance(student, str):
        return student
    try:
        with torch.device("meta" if meta else "cpu"):
            measure_student(student, [size])
    except SettingError as error:
        return error.problems[0].found
    return student.stride


def _learning_problem(student: Student, size: int) -> str:
    """Return why a student does not learn at a size; nothing if it does."""
    try:
        output = student.train()(torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)))
        (output.spatial.square().mean() + output.summaries.square().mean()).backward()
    except Exception as error:  # each family has its own way to fail
        return f"it does not learn: {_why(error)}"
    gradients = [weight.grad for weight in student.parameters() if weight.grad is not None]
    finite = bool(gradients) and all(bool(gradient.isfinite().all()) for gradient in gradients)
    return "" if finite else "it does not learn: no gradient, or one that is not finite"


def _why(error: Exception) -> str:
    if isinstance(error, SettingError):
        return error.problems[0].found
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _one_line(reasons: list[str]) -> str:
    if not reasons:
        return ""
    return reasons[0] if len(reasons[0]) <= LONGEST_REASON else f"{reasons[0][:LONGEST_REASON]}…"
