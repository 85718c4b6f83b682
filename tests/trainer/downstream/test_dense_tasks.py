"""What the scores of dense tasks depend on: a score is kept until a setting or a file changes."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage_schemas.format.errors import AbstractStillhouseError
from trainer.downstream.dense_settings import (
    CorrespondenceSettings,
    DenseHeadSettings,
    DepthSettings,
    MergingSettings,
    NormalsSettings,
    SegmentationSettings,
)
from trainer.downstream.options import EvaluateOptions
from trainer.downstream.tasks import TASKS

HEADED = ("segmentation", "depth", "normals")


@pytest.fixture
def options(tmp_path: Path) -> EvaluateOptions:
    (tmp_path / "maps").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "maps" / "a.png")
    np.save(tmp_path / "maps" / "a.npy", np.ones((2, 2)))
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("source,target,source_x,source_y,target_x,target_y\na,b,1,1,1,1\n")
    return EvaluateOptions(
        segmentation=SegmentationSettings(masks=tmp_path / "maps", classes=2),
        depth=DepthSettings(maps=tmp_path / "maps", unit=1),
        normals=NormalsSettings(maps=tmp_path / "maps"),
        correspondence=CorrespondenceSettings(pairs=pairs, alphas=(), pixels=(5.0,)),
        merging=MergingSettings(tasks=("depth",)),
    )


@pytest.mark.parametrize("task", [*HEADED, "correspondence", "token-merging", "scale"])
def test_the_same_inputs_give_the_same_settings(options: EvaluateOptions, task: str) -> None:
    assert TASKS[task].settings(options) == TASKS[task].settings(replace(options, batch=3, device="cuda"))


@pytest.mark.parametrize("task", [*HEADED, "token-merging"])
def test_a_score_depends_on_the_maps_the_head_and_the_parts(options: EvaluateOptions, task: str) -> None:
    before = TASKS[task].settings(options)
    seeded = replace(options, dense=DenseHeadSettings(seed=1))
    assert TASKS[task].settings(seeded) != before
    assert TASKS[task].settings(replace(options, parts="hash")) != before
    assert TASKS[task].settings(replace(options, test_share=0.4)) == before  # given parts have no share
    file = options.depth.maps / "a.npy"
    os.utime(file, (1, 1))
    assert TASKS[task].settings(options) != before


def test_a_score_of_correspondence_depends_on_the_file_of_keypoints(options: EvaluateOptions) -> None:
    before = TASKS["correspondence"].settings(options)
    with options.correspondence.pairs.open("a") as file:
        file.write("b,a,1,1,1,1\n")
    assert TASKS["correspondence"].settings(options) != before


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("segmentation", {"dense": DenseHeadSettings(batch=0)}, "batch: 0 is less than 1"),
        ("depth", {"depth": DepthSettings()}, "no folder of maps is given"),
        ("normals", {"normals": NormalsSettings()}, "no folder of maps is given"),
        ("correspondence", {"correspondence": CorrespondenceSettings()}, "no file of keypoints is given"),
        ("token-merging", {"depth": DepthSettings()}, "no folder of maps is given"),
        ("token-merging", {"merging": MergingSettings(ratios=())}, "no ratio is given"),
    ],
)
def test_settings_are_refused(options: EvaluateOptions, task: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(AbstractStillhouseError, match=message):
        TASKS[task].settings(replace(options, **changes))
