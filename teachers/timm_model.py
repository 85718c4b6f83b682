"""Any model of timm as a teacher, `timm:<model.tag>`: its spec is read from timm's own configuration of the model."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from storage_schemas.format.errors import ContractError, Problem, SettingError
from storage_schemas.format.teacher import Precision, SizeRule, SummaryKind, TeacherSpec
from teachers.library_model import LibraryModel
from teachers.library_teacher import AbstractLibraryTeacher
from teachers.output import TeacherOutput
from teachers.publication import SAFETENSORS, Publication
from teachers.sizes import token_grid
from teachers.timm_weights import filled, weights_path

COLOURS = 3
"""Channels of an input."""


@final
class TimmTeacher(AbstractLibraryTeacher):
    """Map: the last of timm's `forward_intermediates`, with the model's final norm where the norm fits the map.

    Summary: the model's own pooling (`forward_head(…, pre_logits=True)`), its class token, the mean of its map, or no
    summary.
    """

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> TeacherOutput:
        """Run the network."""
        last = len(self.model.alike) - 1
        wanted = sorted({*self.layers, last})
        tokens, maps = _intermediates(self.network, images, wanted, normed=self.model.normed)
        by_block = {block: map_.permute(0, 2, 3, 1) for block, map_ in zip(wanted, maps, strict=True)}
        return TeacherOutput(
            summary=_summary(self.network, tokens, by_block[last], self.model.summary),
            spatial=by_block[last],
            layers={block: by_block[block] for block in self.layers},
        )


def described(model: str, summary: SummaryKind, size_rule: SizeRule | None) -> LibraryModel:
    """Describe a model of timm; see `library_model`."""
    options: Mapping[str, Any] = {}
    network = _skeleton(model, options, "meta")
    own = _own_rule(network)
    if size_rule == "any" and own == "fixed":
        options = {"dynamic_img_size": True}
        network = _skeleton(model, options, "meta")
    rule, config = size_rule or own, network.pretrained_cfg
    _refuse_input(model, config["input_size"])
    declared = _feature_info(network)
    channels, stride = declared[-1]
    side = config["input_size"][-1]
    native = side - side % stride if own == "any" else side
    normed, output, prefix = _tried(model, options, network, native, declared[-1], summary)
    if rule == "any":
        _refuse_other_sizes(model, options, network, native + stride, declared[-1], normed)
    summary_dim = None if output.summary is None else output.summary.shape[-1]
    if rule == "canvas" and summary_dim is not None:
        found = f"{summary!r}, but a summary of a mosaic belongs to no single view"
        raise SettingError(f"teacher timm:{model}", [Problem(place="summary", found=found, fix="set it to 'none'")])
    spec = TeacherSpec(
        name="timm",
        model=_full_name(config),
        dim=channels,
        summary_dim=summary_dim,
        patch=stride,
        size_rule=rule,
        native=native,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        licence=config.get("license") or "unstated",
    )
    return LibraryModel(
        spec=spec,
        summary=summary,
        pooling=_pooling(network, summary),
        normed=normed,
        alike=tuple(shape == declared[-1] for shape in declared),
        prefix_tokens=prefix,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        publication=_publication(config, spec),
        options=options,
    )


def loaded(model: LibraryModel, weights: str, precision: Precision) -> nn.Module:
    """Build a described model with its weights, on the CPU; see `timm_weights.filled`."""
    path = weights_path(model.publication, weights)
    network = _skeleton(model.spec.model, model.options, "cpu")
    whole = _skeleton(model.spec.model, model.options, "meta", whole=True)
    return filled(network, whole, model.spec.model, weights if path is None else path, precision)


def counted_flop(model: LibraryModel, side: int) -> int:
    """Return the floating-point operations of one square input; see `library_flop`."""
    token_grid(model.spec, side, side)
    counter, network = FlopCounterMode(display=False), _skeleton(model.spec.model, model.options, "meta")
    with counter:
        _final_and_map(network, side, normed=model.normed)
    return int(counter.get_total_flops())


TEACHER = TimmTeacher


def _skeleton(model: str, options: Mapping[str, Any], device: str, *, whole: bool = False) -> Any:
    """Build a network without trained weights; `whole` keeps its classifier."""
    classes: dict[str, Any] = {} if whole else {"num_classes": 0}
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return timm.create_model(model, pretrained=False, **classes, **options).eval()
    except TypeError as error:
        found, fix = f"the model takes no {', '.join(options)}: {error}", "leave size_rule to the model's own rule"
        raise SettingError(f"teacher timm:{model}", [Problem(place="size_rule", found=found, fix=fix)]) from error
    except (RuntimeError, ValueError) as error:
        raise _no_such_model(model, error) from error


def _no_such_model(model: str, error: Exception) -> SettingError:
    architecture, _, tag = model.partition(".")
    if timm.is_model(architecture):
        tags = timm.list_models(f"{architecture}.*", pretrained=True)
        known = [name for name in tags if name.startswith(f"{architecture}.")]
        found = f"timm {timm.__version__} has no weights {tag!r} of {architecture}" if tag else str(error)
        fix = f"it has {', '.join(known) or 'none'}; without a tag give WEIGHTS a path"
    else:
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.6)
        found = f"timm {timm.__version__} has no model {architecture!r}"
        fix = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() names its models"
    return SettingError(f"teacher timm:{model}", [Problem(place="source", found=found, fix=fix)])


def _full_name(config: Mapping[str, Any]) -> str:
    return ".".join(part for part in (config["architecture"], config.get("tag")) if part)


def _own_rule(network: Any) -> SizeRule:
    """Return which sizes a model takes by its configuration.

    `fixed_input_size` says that a pretrained table of positions has one size; a network built with `dynamic_img_size`
    interpolates or computes its positions, and takes any size all the same.
    """
    fixed = network.pretrained_cfg.get("fixed_input_size", False)
    return "fixed" if fixed and not getattr(network, "dynamic_img_size", False) else "any"


def _refuse_input(model: str, size: tuple[int, int, int]) -> None:
    if size[0] != COLOURS or size[1] != size[2]:
        found = f"{' × '.join(map(str, size))} (channels × height × width), expected 3 channels and a square"
        raise SettingError(f"teacher timm:{model}", [Problem(place="input_size", found=found)])


def _feature_info(network: Any) -> list[tuple[int, int]]:
    """Return the channels and the stride that timm declares for the map of each block."""
    info = network.feature_info
    entries = info.info if hasattr(info, "info") else info
    return [(entry["num_chs"], int(entry["reduction"])) for entry in entries]


def _intermediates(
    network: Any, images: Tensor, blocks: list[int], *, normed: bool
) -> tuple[Any, list[Float[Tensor, "batch channels rows cols"]]]:
    """Return the final features, and the maps of some blocks."""
    # NCHW: the only layout of maps that all of timm's models support
    final, maps = network.forward_intermediates(images, indices=blocks, norm=normed, output_fmt="NCHW")
    return final, maps


def _tried(
    model: str, options: Mapping[str, Any], network: Any, side: int, declared: tuple[int, int], summary: SummaryKind
) -> tuple[bool, TeacherOutput, int]:
    """Run a model once; return whether its norm fits its map, the shapes of its output, and its prefix tokens."""
    normed, (final, map_) = _run(model, options, network, side, declared, None)
    if problems := _map_problems(final, map_, network, side, declared):
        raise ContractError(f"teacher timm:{model}", problems)
    prefix = final.shape[1] - map_.shape[2] * map_.shape[3] if final.ndim == 3 else 0
    if summary == "class-token" and not (prefix and _has_class_token(network)):
        found = "'class-token', and the model has none"
        raise SettingError(f"teacher timm:{model}", [Problem(place="summary", found=found, fix="own, mean or none")])
    spatial = map_.permute(0, 2, 3, 1)
    pooled = _summary(network if final.is_meta else _skeleton(model, options, "cpu"), final, spatial, summary)
    if pooled is not None and pooled.ndim != 2:
        found = f"its own pooling gives {tuple(pooled.shape)}, expected one vector per image"
        raise SettingError(f"teacher timm:{model}", [Problem(place="summary", found=found, fix="mean or none")])
    return normed, TeacherOutput(summary=pooled, spatial=spatial), prefix


def _has_class_token(network: Any) -> bool:
    """Whether the first token is a class token, and not a register."""
    return any(getattr(part, "cls_token", None) is not None for part in (network, getattr(network, "embeds", None)))


def _run(
    model: str,
    options: Mapping[str, Any],
    network: Any,
    side: int,
    declared: tuple[int, int],
    normed: bool | None,
    fix: str = "",
) -> tuple[bool, tuple[Any, Tensor]]:
    """Run a model on one input: with its final norm or without, or as fits where `normed` is None."""
    try:
        try:
            return _normed_or_not(network, side, declared, normed)
        except (RuntimeError, NotImplementedError) as error:
            if "meta" not in str(error):
                raise
            # code that reads values cannot run on the meta device, which has none
            return _normed_or_not(_skeleton(model, options, "cpu"), side, declared, normed)
    except Exception as error:  # timm's models refuse sizes with many kinds of errors
        found = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split())[:300])))
        problem = Problem(place=f"{side} × {side} px", found=found, fix=fix)
        raise ContractError(f"teacher timm:{model}", [problem]) from error


def _normed_or_not(
    network: Any, side: int, declared: tuple[int, int], normed: bool | None
) -> tuple[bool, tuple[Any, Tensor]]:
    """Return the final features and the last map: with the final norm, unless the model cannot apply it to maps."""
    if normed is not False:
        try:
            final, map_ = _final_and_map(network, side, normed=True)
            if normed or map_.shape[1] == declared[0]:
                return True, (final, map_)
        except AssertionError as error:
            if normed or "norm" not in str(error):
                raise
    return False, _final_and_map(network, side, normed=False)


def _final_and_map(network: Any, side: int, *, normed: bool) -> tuple[Any, Tensor]:
    images = torch.zeros(1, COLOURS, side, side, device=next(network.parameters()).device)
    with torch.no_grad():
        final, [map_] = _intermediates(network, images, [len(_feature_info(network)) - 1], normed=normed)
    return final, map_


def _map_problems(final: Any, map_: Tensor, network: Any, side: int, declared: tuple[int, int]) -> list[Problem]:
    channels, stride = declared
    if not isinstance(final, Tensor):
        shapes = ", ".join(str(tuple(part.shape)) for part in final)
        found = f"a {type(final).__name__} of {len(final)} maps, {shapes}; expected one map or one row of tokens"
        return [Problem(place="forward_features", found=found, fix="write a class of your own that chooses one map")]
    rows, cols = map_.shape[2:]
    problems = []
    if map_.shape[1] != channels:
        problems.append(Problem(place="map", found=f"has {map_.shape[1]} channels, and declares {channels}"))
    if (rows * stride, cols * stride) != (side, side):
        found = f"has {rows} × {cols} tokens for {side} × {side} px, and declares one for each {stride} × {stride} px"
        problems.append(Problem(place="map", found=found))
    width = final.shape[-1] if final.ndim == 3 or getattr(network, "output_fmt", "") == "NHWC" else final.shape[1]
    if width != network.num_features:
        found = f"has {width} channels, and num_features declares {network.num_features}"
        problems.append(Problem(place="forward_features", found=found))
    prefix = getattr(network, "num_prefix_tokens", int(_has_class_token(network)))
    if final.ndim == 3 and final.shape[1] != prefix + rows * cols:
        found = f"gives {final.shape[1]} tokens, expected {prefix} and the {rows * cols} of the map"
        fix = "write a class of your own that takes its map" if final.shape[1] < rows * cols else ""
        problems.append(Problem(place="forward_features", found=found, fix=fix))
    return problems


def _refuse_other_sizes(
    model: str, options: Mapping[str, Any], network: Any, side: int, declared: tuple[int, int], normed: bool
) -> None:
    """Refuse a model that is to take any size, and does not give the right map at another size than its own."""
    fix = "set size_rule to 'fixed'"
    _, (final, map_) = _run(model, options, network, side, declared, normed, fix)
    if problems := _map_problems(final, map_, network, side, declared):
        fixed = [replace(problem, fix=fix) for problem in problems]
        raise ContractError(f"teacher timm:{model}", fixed)


def _summary(network: Any, final: Tensor, spatial: Tensor, summary: SummaryKind) -> Tensor | None:
    if summary == "none":
        return None
    if summary == "mean":
        return spatial.mean(dim=(1, 2))
    if summary == "class-token":
        return final[:, 0]
    pooled: Tensor = network.forward_head(final, pre_logits=True)
    return pooled


def _pooling(network: Any, summary: SummaryKind) -> str:
    if summary != "own":
        return summary
    kind = getattr(network, "global_pool", None)
    kind = kind if isinstance(kind, str) else getattr(getattr(network, "head", None), "global_pool", kind)
    kind = kind if isinstance(kind, str) else getattr(kind, "pool_type", None)
    return f"own pooling ({kind})" if kind else "own pooling"


def _publication(config: Mapping[str, Any], spec: TeacherSpec) -> Publication:
    file = config.get("hf_hub_filename")
    return Publication(
        name=f"timm:{spec.model}",
        model=spec.model,
        licence=spec.licence,
        hub=config.get("hf_hub_id") or None,
        also=config.get("url") or "",
        files=(file,) if file else SAFETENSORS,
    )
