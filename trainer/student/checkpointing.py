"""Activation checkpointing of a student's backbone and heads; and the students that it would change."""

from torch import nn

from storage_schemas.format.errors import Problem, SettingError
from trainer.student.heads import TokenHead
from trainer.student.model import DistilledModel


def checkpoint_activations(model: DistilledModel) -> None:
    """Compute the activations of all transformer blocks again in the backward pass, instead of keeping them.

    A backbone as timm builds it does so in its own way: stage by stage, or block by block.

    Args:
        model: student and heads, changed in place.

    Raises:
        SettingError: timm's backbone has no activation checkpointing, or it has batch norm.
    """
    require_no_batch_norm(model, "running.checkpointing", "a repeated forward pass updates its statistics twice")
    try:
        model.student.backbone.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:  # timm asserts
        found = f"timm has no activation checkpointing for {model.student.name}"
        fix = "set it to False; --running.accumulate saves memory for every student without batch norm"
        raise SettingError("student", [Problem(place="running.checkpointing", found=found, fix=fix)]) from error
    for head in model.heads.values():
        if isinstance(head, TokenHead):
            head.checkpointing = True


def require_no_batch_norm(model: DistilledModel, setting: str, why: str) -> None:
    """Refuse a setting that would change what a student with batch norm learns.

    Args:
        model: student and heads.
        setting: full name of the setting.
        why: what it does to batch norm.

    Raises:
        SettingError: the student has batch norm.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if names:
        found = f"{model.student.name} has batch norm ({names[0]} and {len(names) - 1} others): {why}"
        fix = "leave it at its default, or choose a student without batch norm"
        raise SettingError("student", [Problem(place=setting, found=found, fix=fix)])
