"""The format `timm`: the weights of a backbone as timm builds it, for timm's own `create_model`."""

import safetensors.torch
import timm

from storage_schemas.format.errors import Problem, SettingError
from trainer.portable.outputs import difference
from trainer.portable.portable_format import ExportTask
from trainer.student.timm_backbone import build_timm, timm_output
from trainer.student.vit.backbone import VitBackbone


def write_timm(task: ExportTask) -> dict[str, float]:
    """Write the backbone's weights, load them with timm, and compare the outputs of the backbone.

    Raises:
        SettingError: the backbone has RADIO's additions, which timm cannot build.
    """
    student = task.student.student
    if isinstance(student.backbone, VitBackbone):
        found, fix = "has RADIO's additions, which timm cannot build", "choose the format torch or onnx"
        raise SettingError("format timm", [Problem(place=task.name, found=found, fix=fix)])
    state = {name: value.contiguous() for name, value in student.backbone.state_dict().items()}
    task.path.write_bytes(safetensors.torch.save(state))  # `save_file` makes files that only their owner can read
    reloaded, _ = build_timm(task.name, student.image_size)
    timm.models.load_checkpoint(reloaded, str(task.path))
    normal = (task.examples()[0] - student.mean) / student.std
    outputs = zip(timm_output(student.backbone, normal), timm_output(reloaded.eval(), normal), strict=True)
    return {name: difference(*pair) for name, pair in zip(("spatial", "summary"), outputs, strict=True)}
