"""The format `huggingface`: a folder that transformers' `AutoModel` and timm load, with a model card.

transformers has every timm model as `TimmWrapperModel`, so a backbone as timm builds it needs no code of ours.
"""

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import timm
from torch import Tensor

from storage_schemas.format.errors import ContractError, Problem, SettingError
from trainer.portable.libraries import require_installed
from trainer.portable.model_card import model_card
from trainer.portable.outputs import difference, largest
from trainer.portable.portable_format import ExportTask, random_images
from trainer.student.student import Student
from trainer.student.vit.backbone import VitBackbone

TOLERANCE = 1e-5
"""Largest difference from the student: the same operations on the same weights."""
KEPT = (
    "input_size",
    "fixed_input_size",
    "pool_size",
    "interpolation",
    "crop_pct",
    "crop_mode",
    "first_conv",
    "classifier",
)
"""What of timm's own configuration of a model still holds for a student."""


def write_huggingface(task: ExportTask) -> dict[str, float]:
    """Write config, weights and card, load the folder with `AutoModel`, and compare the outputs at two sizes.

    A backbone that takes one size only is compared at that size.

    Raises:
        SettingError: the backbone is none that transformers knows.
        MissingError: transformers is not installed.
        ContractError: transformers leaves weights out, or makes others up.
    """
    student = task.student.student
    if isinstance(student.backbone, VitBackbone):
        found = "has RADIO's additions, which only RadioModel of transformers knows"
        fix = "choose the format radio; for other sizes than C-RADIO's, torch or onnx"
        raise SettingError("format huggingface", [Problem(place=task.name, found=found, fix=fix)])
    require_installed("transformers", ("transformers",), extra="huggingface")
    images = _images(student)
    config = _config(student)
    state = {name: value.contiguous() for name, value in student.backbone.state_dict().items()}
    task.path.joinpath("config.json").write_text(json.dumps(config, indent=2) + "\n")
    task.path.joinpath("model.safetensors").write_bytes(safetensors.torch.save(state, metadata={"format": "pt"}))
    expected = [_outputs(student.backbone, pixels) for pixels in images]
    card = model_card(task.student.card, "transformers", _usage(student, images[0], expected[0]))
    task.path.joinpath("README.md").write_text(card)
    reloaded = _reload(task)
    found_outputs = [reloaded(pixels) for pixels in images]
    return largest(
        *(
            {name: difference(output, getattr(found, name)) for name, output in outputs.items()}
            for outputs, found in zip(expected, found_outputs, strict=True)
        )
    )


def _config(student: Student) -> dict[str, Any]:
    """Return the config from which transformers and timm build the backbone."""
    own: Mapping[str, Any] = student.backbone.pretrained_cfg
    mean, std = (values.flatten().tolist() for values in (student.mean, student.std))
    kept = {name: own[name] for name in KEPT if name in own} | {"input_size": [3, *_own_size(student)]}
    return {
        "architectures": ["TimmWrapperModel"],
        "model_type": "timm_wrapper",
        "architecture": student.name,
        "do_pooling": True,
        "num_classes": 0,
        "model_args": _model_args(student),
        "pretrained_cfg": {**kept, "mean": mean, "std": std, "num_classes": 0},
    }


def _model_args(student: Student) -> dict[str, Any]:
    """Return settings that build the backbone, with its size where it takes one: timm has a default of its own."""
    sized: dict[str, Any] = {"img_size": _own_size(student)[0]}
    dynamic = {"dynamic_img_size": True}  # students are built with it where it exists; see `build_timm`
    shapes = {name: value.shape for name, value in student.backbone.state_dict().items()}
    for settings in ({**dynamic, **sized}, dynamic, sized):
        try:
            built = timm.create_model(student.name, pretrained=False, num_classes=0, **settings)
        except TypeError:  # a family without one of these settings
            continue
        if {name: value.shape for name, value in built.state_dict().items()} == shapes:
            return settings
    return {}


def _own_size(student: Student) -> tuple[int, int]:
    """Return the height and width that the backbone is built for (pixels)."""
    if student.image_size is not None:
        return student.image_size, student.image_size
    _, height, width = student.backbone.pretrained_cfg["input_size"]
    return height, width


def _images(student: Student) -> list[Tensor]:
    """Return normalised random images of the backbone's own size, and of a wider one where it takes that."""
    height, width = (
        (student.image_size,) * 2 if student.image_size else student.backbone.pretrained_cfg["input_size"][1:]
    )
    images = [random_images(1, height, width), random_images(2, height, width + student.stride)]
    normal = [(pixels - student.mean) / student.std for pixels in images]
    try:
        _outputs(student.backbone, normal[1])
    except Exception:  # each backbone has its own way to reject a size
        return normal[:1]
    return normal


def _outputs(backbone: Any, normal: Tensor) -> dict[str, Tensor]:
    """Return what `TimmWrapperModel` calls a backbone's outputs."""
    last = backbone.forward_features(normal)
    return {"last_hidden_state": last, "pooler_output": backbone.forward_head(last)}


def _reload(task: ExportTask) -> Any:
    from transformers import AutoModel

    try:
        reloaded, loading = AutoModel.from_pretrained(task.path, output_loading_info=True)
    except Exception as error:  # each family has its own way to fail
        found = f"transformers cannot load it: {type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
        problem = Problem(place=task.name, found=found, fix="choose another --format")
        raise SettingError("format huggingface", [problem]) from error
    if wrong := {kind: sorted(map(str, names)) for kind, names in loading.items() if names}:
        problems = [Problem(place=kind, found=", ".join(names)) for kind, names in wrong.items()]
        raise ContractError("format huggingface", problems)
    return reloaded.eval()


def _usage(student: Student, images: Tensor, outputs: Mapping[str, Tensor]) -> str:
    """Return how the folder is used, with the shapes at the backbone's own size."""
    mean, std = ([round(value, 8) for value in values.flatten().tolist()] for values in (student.mean, student.std))
    height, width = images.shape[2:]
    rows, columns = height // student.stride, width // student.stride
    shapes = {name: list(output.shape) for name, output in outputs.items()}
    prefix = getattr(student.backbone, "num_prefix_tokens", 0)
    is_list = outputs["last_hidden_state"].shape[1:-1] == (prefix + rows * columns,)
    tokens = f" (prefix tokens: {prefix}, then {rows} × {columns} tokens)" if is_list else ""
    return f"""```python
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained("this folder").eval()
mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in ({mean}, {std}))
with torch.no_grad():
    output = model((pixels - mean) / std)  # pixels: RGB in [0, 1], [batch, 3, height, width]
```

For an image of {height} × {width} px `output.last_hidden_state` is {shapes["last_hidden_state"]}{tokens}, and
`output.pooler_output` {shapes["pooler_output"]}. One token covers {student.stride} × {student.stride} px.
`timm.create_model("local-dir:this folder", pretrained=True)` builds the same backbone.

This is the backbone alone. The heads that map its features to those of the teachers are in Stillhouse's own export, and
in the formats `torch` and `onnx`."""
