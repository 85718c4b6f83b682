"""The teacher whose features can be checked by eye."""

import pytest
import torch

from storage_schemas.format.errors import SettingError
from teachers.base import normalise
from teachers.build import build_teacher
from teachers.source import spec_of


def own(name):
    return build_teacher(f"teachers.quarter_mean:{name}", weights="own")


def test_each_channel_is_the_mean_of_one_colour_over_one_quarter_of_one_patch():
    teacher = own("QuarterMean")
    pixels = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    output = teacher.encode(normalise(pixels, teacher.spec))
    assert output.spatial.shape == (2, 2, 3, 12)
    for row, col in ((0, 0), (1, 2)):
        for quarter, (down, across) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8)]):
            top, left = 16 * row + down, 16 * col + across
            expected = pixels[1, top : top + 8, left : left + 8].double().mean(dim=(0, 1)) / 255
            found = output.spatial[1, row, col, 3 * quarter : 3 * quarter + 3]
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(output.summary[1], output.spatial[1].reshape(6, 12).mean(dim=0))


def test_a_flip_changes_its_features():
    teacher = own("QuarterMean")
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(teacher.encode(image).spatial, teacher.encode(image.flip(-1)).spatial, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "rule", "side", "tokens"),
    [("QuarterMeanFixed", "fixed", 192, 12), ("QuarterMeanCanvas", "canvas", 336, 24)],
)
def test_there_is_one_for_each_size_rule(name, rule, side, tokens):
    teacher = own(name)
    assert teacher.spec.size_rule == rule
    output = teacher.encode(torch.rand(1, 3, side, side))
    assert output.spatial.shape == (1, tokens, tokens, 12)
    assert (output.summary is None) == (rule == "canvas")
    with pytest.raises(SettingError, match=f"it accepts only {side} × {side} px"):
        teacher.encode(torch.rand(1, 3, side // 2, side // 2))


def test_it_has_no_weights_and_the_digest_of_nothing():
    assert own("QuarterMean").weights_sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert spec_of("teachers.quarter_mean:QuarterMean", name="oracle").name == "oracle"
