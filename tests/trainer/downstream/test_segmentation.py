"""Linear segmentation: its measure, a perfect and a hopeless case, the layouts of masks, and what it refuses."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from downstream.drawn_scenes import CELL, Scene, centre, noise, pixel_centres, views_of, windows
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score

from storage_schemas.format.errors import AbstractStillhouseError
from trainer.downstream.dense_settings import DenseHeadSettings, Layout, SegmentationSettings
from trainer.downstream.dense_views import ImageParts, part_images
from trainer.downstream.masks import LAYOUTS, find_masks, listed_parts, require_masks
from trainer.downstream.segmentation import count_confusions, measure_segmentation, score_confusions

SHAPES = ((48, 96), (96, 48))
SIZES = {f"{split}/{number}.jpg": size for split in ("train", "val") for number, size in enumerate(SHAPES)}
QUICK = DenseHeadSettings(steps=40, batch=4, learning_rate=0.1)


def write_masks(folder: Path, sizes: Mapping[str, tuple[int, int]] = SIZES) -> SegmentationSettings:
    for key, size in sizes.items():
        path = (folder / key).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(Scene(size).labels(*pixel_centres(size)).astype(np.uint8)).save(path)
    return SegmentationSettings(masks=folder, classes=3)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def oracle(key: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.eye(3)[Scene(SIZES[key]).labels(x, y)]


def test_the_measure_equals_an_independent_one_over_the_pooled_pixels() -> None:
    generator = np.random.default_rng(0)
    truth = generator.choice([0, 1, 2, 4, 255], size=500)  # class 3 occurs nowhere, class 4 is never predicted
    predicted = np.where(generator.random(500) < 0.5, np.minimum(truth, 2), generator.choice([0, 1, 2], size=500))
    confusions = count_confusions(truth[:200], predicted[:200], 5) + count_confusions(truth[200:], predicted[200:], 5)
    kept = truth != 255
    assert (confusions == confusion_matrix(truth[kept], predicted[kept], labels=range(5))).all()
    score = score_confusions(confusions)
    expected = jaccard_score(truth[kept], predicted[kept], labels=[0, 1, 2, 4], average=None)
    np.testing.assert_allclose(score.by_class[[0, 1, 2, 4]], expected, rtol=0, atol=1e-12)
    assert np.isnan(score.by_class[3])
    assert score.miou == pytest.approx(expected.mean(), abs=1e-12)
    assert score.accuracy == pytest.approx((truth == predicted)[kept].mean(), abs=1e-12)


@pytest.mark.parametrize(("cut", "resolution"), [(windows, 48), (windows, 96), (centre, 48)])
def test_tokens_that_hold_the_label_give_every_pixel(tmp_path: Path, cut: object, resolution: int) -> None:
    features = views_of(SIZES, oracle, cut=cut, resolution=resolution)
    measured = measure_segmentation(features, write_masks(tmp_path), QUICK, ImageParts())
    assert measured.scores == {"mIoU": 1.0, "accuracy": 1.0}
    assert [measured.counts[f"iou_{number}"] for number in range(3)] == [1.0, 1.0, 1.0]
    assert measured.counts["pixels"] == 2 * 48 * (96 if cut is windows else 48)
    assert measured.counts["pixels_share"] == (1.0 if cut is windows else 0.5)


def test_tokens_of_mirrored_views_are_mirrored_back(tmp_path: Path) -> None:
    features = views_of(SIZES, oracle, flips=[True, False] * 4)
    assert measure_segmentation(features, write_masks(tmp_path), QUICK, ImageParts()).scores["mIoU"] == 1.0


def test_tokens_without_the_label_give_chance(tmp_path: Path) -> None:
    sizes = {f"{split}/{number}.jpg": (48, 96) for split in ("train", "val") for number in range(12)}
    features = views_of(sizes, noise(4))
    measured = measure_segmentation(features, write_masks(tmp_path, sizes), QUICK, ImageParts())
    # the stripes have equal shares, so whatever is predicted is right for a third of the tokens
    tokens = 12 * 48 * 96 // CELL**2
    assert measured.scores["accuracy"] == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / tokens))
    assert measured.scores["mIoU"] < 0.25


def test_the_same_seed_gives_the_same_score(tmp_path: Path) -> None:
    settings, noisy = write_masks(tmp_path), views_of(SIZES, lambda *at: oracle(*at) + noise(3, 5)(*at))
    first, again = (measure_segmentation(noisy, settings, QUICK, ImageParts()).scores for _ in range(2))
    assert first == again
    assert 0.2 < first["mIoU"] < 1
    other = DenseHeadSettings(steps=40, batch=4, learning_rate=0.1, seed=1, optimiser="sgd")
    assert measure_segmentation(noisy, settings, other, ImageParts()).scores != first


@pytest.mark.parametrize(
    ("layout", "key", "path", "values", "classes"),
    [
        ("ade20k", "training/ADE_1.jpg", "training/ADE_1.png", [0, 1, 150], [255, 0, 149]),
        ("voc", "2007_1.jpg", "2007_1.png", [0, 20, 255], [0, 20, 255]),
        (
            "cityscapes",
            "val/ulm/ulm_1_2_leftImg8bit.png",
            "val/ulm/ulm_1_2_gtFine_labelIds.png",
            [6, 7, 33],
            [255, 0, 18],
        ),
    ],
)
def test_the_masks_of_datasets_are_found_and_read(
    tmp_path: Path, layout: Layout, key: str, path: str, values: list[int], classes: list[int]
) -> None:
    file = tmp_path / "masks" / path
    file.parent.mkdir(parents=True)
    image = Image.fromarray(np.array([values], np.uint8))
    image.putpalette(list(range(256)) * 3)  # VOC and ADE20K have masks of both kinds
    image.save(file)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_2\n")
    (lists / "val.txt").write_text("2007_1\n")
    settings = SegmentationSettings(masks=tmp_path / "masks", layout=layout)
    require_masks(settings)
    masks = find_masks(settings, {key: (1, 3)})
    listed = listed_parts(settings, [key, "2007_3.jpg"])
    assert listed == ({key: "test"} if layout == "voc" else None)
    assert masks.read(key).tolist() == [classes]
    assert masks.classes == LAYOUTS[layout].classes


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "val/0.png").unlink(), "val/0.jpg: has no mask"),
        (lambda folder: (folder / "val/0.png").write_bytes(b"no picture"), "is no PNG file that can be read"),
        (lambda folder: cut_short(folder / "val/0.png"), "val/0.png: cannot be read"),
        (lambda folder: Image.new("L", (4, 5)).save(folder / "val/0.png"), "has 5 × 4 pixels, but its image val/0.jpg"),
        (lambda folder: Image.new("RGB", (96, 48)).save(folder / "val/0.png"), "has the mode RGB of Pillow"),
        (lambda folder: Image.new("L", (96, 48), 3).save(folder / "val/0.png"), "holds the value 3, which is none"),
        (
            lambda folder: [Image.new("L", SHAPES[1 - n], 1).save(folder / f"train/{n}.png") for n in (0, 1)],
            "hold the single class 1",
        ),
    ],
)
def test_bad_masks_are_refused_by_name(tmp_path: Path, break_it: object, message: str) -> None:
    settings = write_masks(tmp_path)
    break_it(tmp_path)
    with pytest.raises(AbstractStillhouseError) as refusal:
        measure_segmentation(views_of(SIZES, oracle), settings, QUICK, ImageParts())
    assert message in str(refusal.value)
    assert len(refusal.value.problems) == 1


def test_equal_views_of_an_image_count_once() -> None:
    # a narrow image has equal windows at its end
    features = views_of(
        dict.fromkeys(["train/a", "val/b"], (48, 96)), noise(1), cut=lambda size: [*windows(size), *windows(size)[1:]]
    )
    images = part_images("depth", features, ImageParts())
    assert (images.train, images.test) == ([0, 1], {"val/b": [3, 4]})


@pytest.mark.parametrize(
    ("keys", "listed", "test", "in_none"),
    [
        (["train/a", "val/b", "test/c"], None, ["val/b"], 1),  # as in Cityscapes, whose test images have no masks
        (["training/a", "test/c", "more/d"], None, ["test/c"], 1),
        (["a", "b", "c"], {"a": "train", "c": "test"}, ["c"], 1),
    ],
)
def test_images_are_divided_by_folders_or_lists(
    keys: list[str], listed: dict[str, str] | None, test: list[str], in_none: int
) -> None:
    features = views_of(dict.fromkeys(keys, (48, 96)), noise(1))
    images = part_images("depth", features, ImageParts(), listed)
    assert (list(images.test), images.train) == (test, [0, 1])
    assert images.counts == {"train_images": 1, "test_images": 1, "images_in_no_part": in_none}


def test_images_are_divided_by_a_hash_of_their_keys() -> None:
    features = views_of({f"{number}.jpg": (48, 48) for number in range(200)}, noise(1))
    images = part_images("depth", features, ImageParts(rule="hash", test_share=0.3))
    assert 40 < len(images.test) < 80
    assert len(images.test) + len(images.train) == 200


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    sizes = {key: size for key, size in SIZES.items() if key.startswith("train")}
    with pytest.raises(AbstractStillhouseError, match="part test: none of the 2 images is in it"):
        measure_segmentation(views_of(sizes, oracle), write_masks(tmp_path), QUICK, ImageParts())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SegmentationSettings(), "no folder of masks is given"),
        (SegmentationSettings(masks=Path("nowhere")), "nowhere: is no folder"),
        (SegmentationSettings(masks=Path("/")), "classes: 0 is not from 2 to 255"),
        (SegmentationSettings(masks=Path("/"), layout="ade20k", classes=9), "9 has no effect"),
        (SegmentationSettings(masks=Path("/"), layout="voc"), "ImageSets/Segmentation/train.txt: does not exist"),
    ],
)
def test_settings_of_masks_are_refused_before_any_feature_is_computed(
    settings: SegmentationSettings, message: str
) -> None:
    with pytest.raises(AbstractStillhouseError, match=message):
        require_masks(settings)
