"""The format `torch`: a program of torch.export."""

import torch

from trainer.portable.outputs import compare, flat, largest, traceable, traced
from trainer.portable.portable_format import ExportTask
from trainer.portable.trial import with_trial_weights


def write_torch(task: ExportTask) -> dict[str, float]:
    """Write the student as a program, and compare it with the student: with its own weights, and with trial weights."""
    examples, trial = task.examples(), flat(task, with_trial_weights(task.student))
    shapes = task.size.free(task.student.student.stride)
    program = torch.export.export(traceable(task), traced(examples), dynamic_shapes=shapes)
    tried = program.module()
    # assigned, not copied: the program, and the student itself, share their weights with this module
    tried.load_state_dict(trial.state_dict(), assign=True)
    differences = compare(trial, examples, tried)
    torch.export.save(program, task.path)
    return largest(differences, compare(flat(task, task.student), examples, torch.export.load(task.path).module()))
