"""A compiled teacher has one program for each shape of images, the same in whatever order the shapes come."""

import subprocess
import sys

# in a process of its own: the checks of shapes and types that tests switch on cannot be traced
PROGRAM = """
import torch
from storage_schemas.format.errors import SettingError
from teachers import compiled
from teachers.build import build_teacher

class Compiler:
    def __init__(self):
        self.programs = []
    def __call__(self, graph, inputs):
        assert not [size for tensor in inputs if hasattr(tensor, "shape") for size in tensor.shape
                    if isinstance(size, torch.SymInt)]
        self.programs.append(graph.code)
        return graph.forward

def images(count, side):
    return torch.linspace(-2, 2, count * 3 * side * side).reshape(count, 3, side, side)

def programs(sides):
    torch._dynamo.reset()
    compiler, found = Compiler(), {}
    run = compiled.compiled_by_shape(teacher.features, compiler)
    with torch.inference_mode():
        for side in sides:
            before = len(compiler.programs)
            output = run(images(2, side))
            assert torch.equal(output.spatial, teacher.features(images(2, side)).spatial)
            found.setdefault(side, []).extend(compiler.programs[before:])
    return found

teacher = build_teacher("teachers.quarter_mean:QuarterMean", weights="own")
sides = [32 + 16 * index for index in range(9)]
first = programs([*sides, 32])
assert [len(found) for found in first.values()] == [1] * 9, first.keys()
order = [96, 32, 160, 64]
assert programs(order) == {side: first[side] for side in order}
compiled.LARGEST_COUNT = 3
try:
    programs(sides)
except SettingError as error:
    print(error)
"""


def test_each_shape_has_one_program_in_any_order_and_none_runs_uncompiled() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "compiled teacher cannot be used:",
        "  torch.compile: needs more than 3 programs, the last for images of (2, 3, 80, 80) (drop --run.compiled)",
    ]
