"""Vision models of transformers as teachers, `hf:<repository or folder>`, where their output says what it is."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from storage_schemas.format.errors import ContractError, MissingError, Problem, SettingError, first_problems
from storage_schemas.format.teacher import Precision, SizeRule, SummaryKind, TeacherSpec
from teachers.hub import LOCAL_COPY, fetch
from teachers.library_model import LibraryModel
from teachers.library_teacher import AbstractLibraryTeacher
from teachers.output import TeacherOutput
from teachers.publication import Publication
from teachers.random_weights import random_weights, seed_of
from teachers.sizes import token_grid

try:
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging as transformers_logging
except ImportError as error:
    fix = "pip install 'stillhouse[sam3]'"
    problem = Problem(place="transformers", found=f"hf: needs it, and it cannot be imported: {error}", fix=fix)
    raise MissingError("a package", [problem]) from error

COLOURS = 3
"""Channels of an input."""
DESCRIPTION = ("config.json", "preprocessor_config.json", "README.md")
"""Files of a repository that describe its model."""
_CLASS_TOKENS = ("cls_token", "class_embedding", "distillation_token", "dist_token")


@final
class HuggingFaceTeacher(AbstractLibraryTeacher):
    """Map: `last_hidden_state`, without the tokens before the patches. Summary: `pooler_output`, or as chosen."""

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> TeacherOutput:
        """Run the network."""
        output = self.network(pixel_values=images)
        grid = images.shape[-2] // self.spec.patch, images.shape[-1] // self.spec.patch
        spatial = _map(output.last_hidden_state, self.model.prefix_tokens, grid)
        return TeacherOutput(summary=_summary(output, spatial, self.model.summary), spatial=spatial)


def described(model: str, summary: SummaryKind, size_rule: SizeRule | None) -> LibraryModel:
    """Describe a model of transformers; see `library_model`."""
    folder = _folder(model, DESCRIPTION)
    config, pixels = _config(folder, model), _pixels(folder, model)
    network = _skeleton(config, summary, "meta")
    side = _own_side(config, folder, model)
    prefix = _prefix_tokens(network, config)
    stride = _stride(model, network, config, side, prefix)
    fixed = _grid_at(network, side + stride, stride, prefix) is None
    rule: SizeRule = size_rule or ("fixed" if fixed else "any")
    if rule == "any" and fixed:
        found = f"'any', and the model does not give a map of {side + stride} × {side + stride} px"
        raise SettingError(f"teacher hf:{model}", [Problem(place="size_rule", found=found, fix="leave it out")])
    output = _output(network, side)
    spatial = _map(output.last_hidden_state, prefix, (side // stride, side // stride))
    pooled = _checked_summary(model, output, spatial, summary, prefix)
    if rule == "canvas" and pooled is not None:
        found = f"{summary!r}, but a summary of a mosaic belongs to no single view"
        raise SettingError(f"teacher hf:{model}", [Problem(place="summary", found=found, fix="set it to 'none'")])
    spec = TeacherSpec(
        name="hf",
        model=f"{type(network).__name__} of {Path(model).name if Path(model).is_dir() else model}",
        dim=spatial.shape[-1],
        summary_dim=None if pooled is None else pooled.shape[-1],
        patch=stride,
        size_rule=rule,
        native=side,
        mean=pixels[0],
        std=pixels[1],
        licence=_licence(folder),
    )
    return LibraryModel(
        spec=spec,
        summary=summary,
        pooling="pooler_output" if summary == "own" else summary,
        normed=True,
        alike=(),
        prefix_tokens=prefix,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        publication=Publication(name=f"hf:{model}", model=spec.model, licence=spec.licence, hub=model),
        options={"source": model},
    )


def loaded(model: LibraryModel, weights: str, precision: Precision) -> nn.Module:
    """Build a described model with its weights, on the CPU.

    transformers leaves parameters that a file does not have at random values, with no more than a line in its log. Here
    a tensor that is missing, misshapen, not finite, or unexpected in the network's own part of the file is refused.
    `AbstractTeacher` casts parameters where `precision` is `bf16`.
    """
    del precision
    source = model.options["source"]
    config = _config(_folder(source, DESCRIPTION), source)
    if weights.startswith("random:"):
        with torch.random.fork_rng(devices=[]):
            network = _skeleton(config, model.summary, "cpu")
        shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
        drawn = dict(random_weights(shapes, model.spec.model, seed_of(weights)))
        network.load_state_dict(network.state_dict() | drawn, strict=True)
        return network
    if weights == "own":
        problem = Problem(place="weights", found="'own' is only for a class of your own", fix="give 'hub' or a path")
        raise SettingError(f"teacher hf:{source}", [problem])
    if weights == "hub":
        folder = Path(source) if Path(source).is_dir() else fetch(model.publication)
    else:
        folder = Path(weights)
    return _read(folder, config, model)


def counted_flop(model: LibraryModel, side: int) -> int:
    """Return the floating-point operations of one square input; see `library_flop`."""
    token_grid(model.spec, side, side)
    source = model.options["source"]
    counter = FlopCounterMode(display=False)
    network = _skeleton(_config(_folder(source, DESCRIPTION), source), model.summary, "meta")
    with counter:
        _output(network, side)
    return int(counter.get_total_flops())


TEACHER = HuggingFaceTeacher


def _folder(model: str, files: tuple[str, ...]) -> Path:
    if Path(model).is_dir():
        return Path(model)
    name = f"hf:{model}"
    return fetch(
        Publication(name=name, model=model, licence="see its page", hub=model, files=files), needed="config.json"
    )


def _config(folder: Path, model: str) -> Any:
    """Return the configuration of a vision model; of one part, where the model has others beside it."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())[:300]
        fix = "transformers must know the model; code that comes with a repository is never run"
        raise ContractError(f"teacher hf:{model}", [Problem(place="config.json", found=text, fix=fix)]) from error
    return getattr(config, "vision_config", config)


def _pixels(folder: Path, model: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of pixels in [0, 1]."""
    path = folder / "preprocessor_config.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    scale = stored.get("rescale_factor", 1 / 255)
    problems = [
        Problem(place=path.name, found=f"gives no {name}", fix="the model cannot run without it")
        for name in ("image_mean", "image_std")
        if len(stored.get(name) or ()) != COLOURS
    ]
    if abs(scale * 255 - 1) > 1e-6 or not stored.get("do_normalize", True):
        found = f"rescale_factor {scale} and do_normalize {stored.get('do_normalize')}, expected 1/255 and true"
        problems.append(Problem(place=path.name, found=found))
    if problems:
        raise ContractError(f"teacher hf:{model}", problems)
    mean, std = (tuple(map(float, stored[name])) for name in ("image_mean", "image_std"))
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _skeleton(config: Any, summary: SummaryKind, device: str) -> Any:
    with torch.device(device):
        network: Any = AutoModel.from_config(config).eval()
    return _without_pooler(network, summary)


def _without_pooler(network: Any, summary: SummaryKind) -> Any:
    """Drop the layers of a pooler that is not asked for: many checkpoints do not have them."""
    if summary != "own" and isinstance(getattr(network, "pooler", None), nn.Module):
        network.pooler = None
    return network


def _own_side(config: Any, folder: Path, model: str) -> int:
    side = getattr(config, "image_size", None)
    if side is None:
        path = folder / "preprocessor_config.json"
        stored = json.loads(path.read_text()) if path.exists() else {}
        size = stored.get("crop_size") or stored.get("size") or {}
        side = size.get("height") or size.get("shortest_edge")
    if not isinstance(side, int):
        found = f"image_size is {side!r}, expected the side of a square in pixels"
        raise ContractError(f"teacher hf:{model}", [Problem(place="config.json", found=found)])
    return side


def _prefix_tokens(network: nn.Module, config: Any) -> int:
    """Count the tokens before the patches: class tokens, by their parameters, and registers, by the configuration."""
    leaves = [name.rpartition(".")[2] for name, _ in network.named_parameters()]
    return sum(leaf in _CLASS_TOKENS for leaf in leaves) + getattr(config, "num_register_tokens", 0)


def _output(network: Any, side: int) -> Any:
    with torch.no_grad():
        return network(pixel_values=torch.zeros(1, COLOURS, side, side, device=next(network.parameters()).device))


def _map(hidden: Tensor, prefix: int, grid: tuple[int, int]) -> Float[Tensor, "batch rows cols channels"]:
    return hidden.permute(0, 2, 3, 1) if hidden.ndim == 4 else hidden[:, prefix:].unflatten(1, grid)


def _stride(model: str, network: Any, config: Any, side: int, prefix: int) -> int:
    """Return the side of a token in pixels, after checking that the output has these tokens and no others."""
    try:
        hidden = _output(network, side).last_hidden_state
    except Exception as error:  # transformers' models refuse inputs with many kinds of errors
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        fix = "its output must be a last_hidden_state of pixel_values alone"
        raise ContractError(f"teacher hf:{model}", [Problem(place="forward", found=found, fix=fix)]) from error
    problems = []
    rows = hidden.shape[2] if hidden.ndim == 4 else round(max(hidden.shape[1] - prefix, 0) ** 0.5)
    expected = hidden.ndim == 4 or (hidden.ndim == 3 and rows and prefix + rows**2 == hidden.shape[1])
    if not expected or (hidden.ndim == 4 and hidden.shape[2] != hidden.shape[3]):
        found = f"is {tuple(hidden.shape)}, which is no square map after {prefix} class and register tokens"
        problems.append(Problem(place="last_hidden_state", found=found, fix="write a class of your own"))
    elif side % rows:
        found = f"has {rows} × {rows} tokens for {side} × {side} px: {side / rows:.1f} px each"
        problems.append(Problem(place="last_hidden_state", found=found))
    channels = hidden.shape[1] if hidden.ndim == 4 else hidden.shape[-1]
    declared = _declared_channels(config)
    if channels not in declared:
        found = f"has {channels} channels, and the configuration declares {' or '.join(map(str, declared))}"
        problems.append(Problem(place="last_hidden_state", found=found))
    if problems:
        raise ContractError(f"teacher hf:{model}", problems)
    return int(side // rows)


def _declared_channels(config: Any) -> list[int]:
    sizes = getattr(config, "hidden_sizes", None)
    return [sizes[-1]] if sizes else [config.hidden_size]


def _grid_at(network: Any, side: int, stride: int, prefix: int) -> int | None:
    """Return the tokens along a side of another input, or None where the model gives no such map."""
    try:
        hidden = _output(network, side).last_hidden_state
    except Exception:
        return None
    rows = side // stride
    fits = hidden.shape[2:] == (rows, rows) if hidden.ndim == 4 else hidden.shape[1] == prefix + rows**2
    return rows if fits else None


def _summary(output: Any, spatial: Tensor, summary: SummaryKind) -> Tensor | None:
    if summary == "none":
        return None
    if summary == "mean":
        return spatial.mean(dim=(1, 2))
    if summary == "class-token":
        token: Tensor = output.last_hidden_state[:, 0]
        return token
    pooled: Tensor = output.pooler_output
    return pooled.flatten(1)


def _checked_summary(model: str, output: Any, spatial: Tensor, summary: SummaryKind, prefix: int) -> Tensor | None:
    found = ""
    if summary == "own" and getattr(output, "pooler_output", None) is None:
        found = "'own', and its output has no pooler_output"
    if summary == "class-token" and not prefix:
        found = "'class-token', and the model has none"
    if found:
        fix = "class-token, mean or none"
        raise SettingError(f"teacher hf:{model}", [Problem(place="summary", found=found, fix=fix)])
    return _summary(output, spatial, summary)


def _licence(folder: Path) -> str:
    card = folder / "README.md"
    named = re.search(r"\A---\n(?:.*\n)*?license:\s*(\S+)", card.read_text()) if card.exists() else None
    return named[1] if named else "unstated"


def _read(folder: Path, config: Any, model: LibraryModel) -> nn.Module:
    if not folder.is_dir():
        fix = f"give the folder that holds model.safetensors; {LOCAL_COPY}"
        raise MissingError(f"weights {folder}", [Problem(place=str(folder), found="is no folder", fix=fix)])
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # what is missing is refused below, in one message
    transformers_logging.disable_progress_bar()
    try:
        network, info = AutoModel.from_pretrained(
            folder,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            local_files_only=True,
            dtype=torch.float32,
        )
    except (OSError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise ContractError(f"{folder}, as weights of {model.spec.model},", [Problem(place=".", found=text)]) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
    network = _without_pooler(network.eval(), model.summary)
    problems = list(_loading_problems(network, info))
    if problems:
        raise ContractError(f"{folder}, as weights of {model.spec.model},", first_problems(problems, most=12))
    loaded_network: nn.Module = network
    return loaded_network


def _loading_problems(network: Any, info: Mapping[str, Any]) -> Iterator[Problem]:
    tensors = network.state_dict()
    for name in sorted(info["missing_keys"]):
        if name in tensors:
            yield Problem(place=name, found="missing")
    for name, stored, expected in sorted(info["mismatched_keys"]):
        yield Problem(place=name, found=f"shape {tuple(stored)}, expected {tuple(expected)}")
    parts = {name.partition(".")[0] for name in tensors} | {network.base_model_prefix}
    for name in sorted(info["unexpected_keys"]):
        if name.partition(".")[0] in parts and not name.startswith("pooler."):
            yield Problem(place=name, found="unexpected")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            yield Problem(place=name, found="NaN or infinity")
