"""The demo's photographs: copied once, and whatever the user did to the folder stays."""

from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.config import ViewsConfig
from pipeline.images.decoding import open_picture
from pipeline.images.listing import list_images
from pipeline.recipes.demo_images import NAMES, copy_photographs


def test_every_photograph_is_copied_and_can_be_decoded(tmp_path: Path) -> None:
    assert copy_photographs(str(tmp_path / "photographs")) == len(NAMES) == 21
    images = list_images(str(tmp_path / "photographs"))
    assert [image.key for image in images] == sorted(NAMES)
    for name in NAMES:
        open_picture((tmp_path / "photographs" / name).read_bytes(), ViewsConfig()).scaled_for((0, 0, 64, 64), 64)


def test_files_that_are_there_stay_and_missing_ones_are_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_photographs(str(tmp_path))
    (tmp_path / "coffee.png").write_bytes(b"mine")
    (tmp_path / "moon.png").unlink()
    assert main(["photographs", "--data", str(tmp_path)]) == 0
    assert main(["photographs", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (f"photographs: 1 copied to {tmp_path}\nphotographs: all there in {tmp_path}\n")
    assert (tmp_path / "coffee.png").read_bytes() == b"mine"
