"""The format `radio`: a folder for `RadioModel` of transformers and, for the sizes of C-RADIO, a file for timm."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from timm.models.naflexvit import checkpoint_filter_fn
from torch import Tensor

from storage_schemas.format.errors import MissingError, Problem, SettingError
from trainer.export import ExportedStudent
from trainer.portable.libraries import require_installed
from trainer.portable.outputs import difference, largest
from trainer.portable.portable_format import ExportTask
from trainer.portable.trial import with_trial_weights
from trainer.student.student import Student
from trainer.student.vit.backbone import VitBackbone
from trainer.weights.radio_layout import not_radio, radio_config, radio_tensors, timm_model, timm_tensors

WEIGHTS, CONFIG, PIXELS, FOR_TIMM = "model.safetensors", "config.json", "preprocessor_config.json", "timm.safetensors"
TOLERANCE = 1e-5
"""Largest difference from the student, relative to the largest value of an output."""
PREPROCESSING = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_resize": False,
    "do_center_crop": False,
    "do_normalize": False,
}
"""How transformers prepares images: RGB in [0, 1], no more, because the model normalises them itself."""

Outputs = Sequence[Tensor]
"""Tokens `[batch, tokens, channels]`, and summaries `[batch, summaries × channels]`."""


def write_radio(task: ExportTask) -> dict[str, float]:
    """Write the backbone as C-RADIO, load it with transformers and timm, and compare tokens and summaries.

    This is done with weights for a trial first, because a student that is trained little hides wrong positions. All is
    written in float32: bfloat16 would round the means of the pixels, which are stored as tensors.

    Raises:
        SettingError: a backbone that C-RADIO's layout cannot hold, or attention windows.
        MissingError: transformers is not installed, or has no `RadioModel`.
    """
    backbone = task.student.student.backbone
    if problems := not_radio(backbone):
        raise SettingError("format radio", problems)
    if task.size.window is not None:
        found, fix = "RadioModel has no attention windows", "leave --window out: the weights are the same"
        raise SettingError("format radio", [Problem(place="--window", found=found, fix=fix)])
    load = _loader()
    tried = _write(with_trial_weights(task.student), task, load)
    return largest(tried, _write(task.student, task, load))


def _loader() -> Any:
    require_installed("RadioModel", ("transformers",), "radio")
    import transformers

    model = getattr(transformers, "RadioModel", None)
    if model is None:
        found = f"version {transformers.__version__} of it has no RadioModel"
        fix = "pip install 'transformers>=5.23'"
        raise MissingError("RadioModel", [Problem(place="transformers", found=found, fix=fix)])
    return model


def _write(exported: ExportedStudent, task: ExportTask, radio_model: Any) -> dict[str, float]:
    student, folder, examples = exported.student, task.path, task.examples()
    tensors = radio_tensors(student.backbone, student.mean, student.std)
    _save(tensors, folder / WEIGHTS)
    for name, values in (
        (CONFIG, radio_config(student.backbone, student.mean, student.std)),
        (PIXELS, PREPROCESSING),
    ):
        folder.joinpath(name).write_text(json.dumps(values, indent=2) + "\n")
    model = radio_model.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()

    def run(pixels: Tensor) -> Outputs:
        output = model(pixels)
        return output.features, output.summary

    differences = [_compare(student, examples, run)]
    if isinstance(student.backbone, VitBackbone) and (timms := timm_model(student.backbone)) is not None:
        _save(timm_tensors(student.backbone, scaled=timms.scaled), folder / FOR_TIMM)
        differences.append(_compare(student, examples, _timm_program(timms.name, student, folder / FOR_TIMM)))
    return largest(*differences)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    # `save_file` makes files that only their owner can read
    path.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))


def _timm_program(name: str, student: Student, weights: Path) -> Callable[[Tensor], Outputs]:
    model: Any = timm.create_model(name, pretrained=False, num_classes=0).eval()
    timm.models.load_checkpoint(model, str(weights), filter_fn=checkpoint_filter_fn)
    backbone = student.backbone
    ahead = len(backbone.class_tokens) + len(backbone.registers)

    def run(pixels: Tensor) -> Outputs:
        tokens = model.forward_features((pixels - student.mean) / student.std)
        return tokens[:, ahead:], tokens[:, : backbone.summaries].flatten(1)

    return run


def _compare(student: Student, examples: Sequence[Tensor], program: Callable[[Tensor], Outputs]) -> dict[str, float]:
    found = []
    for pixels in examples:
        output, (tokens, summaries) = student(pixels), program(pixels)
        differences = {"spatial": difference(output.spatial.flatten(1, 2), tokens)}
        if summaries.numel():
            differences["summaries"] = difference(output.summaries.flatten(1), summaries)
        found.append(differences)
    return largest(*found)
