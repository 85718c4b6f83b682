"""A compiled teacher always sees whole batches, and what fills them leaves no trace."""

import pytest
import torch

from pipeline.config import TeacherChoice
from pipeline.features.teacher import run_teacher
from teachers.output import TeacherOutput


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_compiled_teacher_sees_whole_batches(monkeypatch: pytest.MonkeyPatch, compiled: bool, count: int) -> None:
    choice = TeacherChoice(name="t", source="dinov3-tiny", weights="random:1", precision="fp32", layers=(0,), batch=4)
    running, seen = run_teacher(choice, "cpu"), list[int]()
    images = torch.randn(count, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    expected, features = running.teacher.encode(images), running.teacher.features

    def counted(batch: torch.Tensor) -> TeacherOutput:
        seen.append(len(batch))
        return features(batch)

    monkeypatch.setattr(running.teacher, "_features", counted)
    monkeypatch.setattr(running.teacher, "compiled", compiled)
    found = running.encode(images)
    assert seen == [4 if compiled else count]
    assert found.summary is not None
    assert expected.summary is not None
    for output, other in ((found.spatial, expected.spatial), (found.summary, expected.summary)):
        assert torch.allclose(output, other, atol=1e-5)
    assert torch.allclose(found.layers[0], expected.layers[0], atol=1e-5)
