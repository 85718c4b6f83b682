"""The format `onnx`: an ONNX graph with named outputs."""

from dataclasses import replace

import torch
from torch import Tensor

from trainer.portable.libraries import require_installed
from trainer.portable.outputs import compare, flat, largest, traceable, traced
from trainer.portable.portable_format import ExportTask
from trainer.portable.trial import with_trial_weights


def write_onnx(task: ExportTask) -> dict[str, float]:
    """Write the student as a graph, and compare it with the student: with its own weights, and with trial weights.

    Raises:
        MissingError: ONNX is not installed.
    """
    require_installed("ONNX", ("onnx", "onnxscript", "onnxruntime"), extra="onnx")
    # a graph has its weights inside, so the trial is a graph of its own
    differences = _write_graph(replace(task, student=with_trial_weights(task.student)))
    return largest(differences, _write_graph(task))


def _write_graph(task: ExportTask) -> dict[str, float]:
    import onnxruntime

    examples, student = task.examples(), flat(task, task.student)
    names = list(student.named(examples[0]))
    torch.onnx.export(
        traceable(task),
        traced(examples),
        task.path,
        input_names=["pixels"],
        output_names=names,
        dynamic_shapes=task.size.free(task.student.student.stride),
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(task.path, providers=["CPUExecutionProvider"])

    def run(pixels: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(names, {"pixels": pixels.numpy()})]

    return compare(student, examples, run)
