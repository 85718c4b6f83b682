"""Compiling a teacher: one program for each shape of its input, which depends on no other shape."""

from collections.abc import Callable

import torch
from torch import Tensor

from storage_schemas.format.errors import Problem, SettingError
from teachers.output import TeacherOutput

LARGEST_COUNT = 64
"""Most programs of a function. PyTorch allows 8 and runs further shapes uncompiled, after one warning; `c_radio_v4` has
ten resolutions."""

Features = Callable[[Tensor], TeacherOutput]


def compiled_by_shape(features: Features, backend: str | Callable[..., object] = "inductor") -> Features:
    """Compile a function of images, so that each shape of images has a program of its own.

    By default PyTorch compiles a second shape into a program for any shape. How numbers are rounded would then depend
    on the shapes that the process met before: on the order of shards, and on where a resumed run begins.

    Args:
        features: the function.
        backend: of `torch.compile`.

    Returns:
        The compiled function. Where a shape cannot be compiled, it raises an error instead of running uncompiled.
    """
    program = torch.compile(features, dynamic=False, backend=backend)

    def run(images: Tensor) -> TeacherOutput:
        with torch._dynamo.config.patch(recompile_limit=LARGEST_COUNT, fail_on_recompile_limit_hit=True):
            try:
                return program(images)
            except torch._dynamo.exc.FailOnRecompileLimitHit as error:
                found = f"needs more than {LARGEST_COUNT} programs, the last for images of {tuple(images.shape)}"
                fix = "drop --run.compiled"
                raise SettingError(
                    "compiled teacher", [Problem(place="torch.compile", found=found, fix=fix)]
                ) from error

    return run
