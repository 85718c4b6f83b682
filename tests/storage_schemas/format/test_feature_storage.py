"""How features are stored: identities of the first caches keep their values, and newer ones say what differs."""

import pytest

from pipeline.config import TeacherChoice
from storage_schemas.format.encodings import INT8_STEP
from storage_schemas.format.errors import SettingError
from storage_schemas.format.feature_storage import STORAGE_FIELDS, FeatureStorage


def test_what_the_first_caches_did_not_record_is_not_recorded_at_its_old_value() -> None:
    old = {"encoding": "int8", "compression": "zstd"}
    storage = FeatureStorage.of_identity(old)
    assert (storage.step, storage.level, storage.latents) == (8 / 127, 3, None)
    assert storage.identity() == old
    floats = FeatureStorage(encoding="float16", compression="none", step=0.5, level=1)
    assert floats.identity() == {"encoding": "float16", "compression": "none"}


@pytest.mark.parametrize("choice", [{"fidelity": 100.0}, {"step": 0.25, "compression": "zstd"}])
def test_an_identity_is_read_back(choice: dict) -> None:
    storage = TeacherChoice(name="t", source="s", encoding="int8", **choice).storage
    identity = storage.identity()
    assert identity.keys() <= STORAGE_FIELDS
    assert identity["step"] == choice.get("step", 0.12**0.5)
    read = FeatureStorage.of_identity(identity)
    assert (read.encoding, read.compression, read.step) == (storage.encoding, storage.compression, storage.step)
    assert storage.compression == "none" or read.level == storage.level == 1


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"encoding": "float16", "fidelity": 100.0}, "fidelity: has no effect on float16"),
        ({"encoding": "int8", "fidelity": 100.0, "step": 0.1}, "step, fidelity: both choose the step"),
        ({"encoding": "int8", "fidelity": 3100.0}, "fidelity: 3100 is too fine: int8 would saturate numbers within 8"),
        ({"encoding": "int8", "step": 0.06}, "step: 0.06 is too fine"),
        (
            {"encoding": "pca8", "fidelity": 701.0},
            "fidelity: 701 is more than 700, the most that latents",
        ),
        ({"encoding": "pca8", "step": 0.3}, "step: has no effect on pca8"),
        ({"encoding": "int8", "fidelity": 1.0}, "fidelity: 1.0 is less than 2"),
        ({"encoding": "int8", "step": float("nan")}, "step: nan is not a positive number"),
        ({"compression_level": 5}, "compression_level: has no effect without compression"),
        ({"compression": "zstd", "compression_level": 20}, "compression_level: 20 is not from 1 to 19"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(settings: dict, problem: str) -> None:
    with pytest.raises(SettingError, match=problem.replace("(", r"\(")):
        TeacherChoice(name="t", source="s", **settings)


def test_the_finest_step_is_allowed() -> None:
    assert TeacherChoice(name="t", source="s", encoding="int8", step=INT8_STEP).storage.identity() == {
        "encoding": "int8",
        "compression": "none",
    }
