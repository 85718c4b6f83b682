"""Teachers of timm, end to end: a transformer with registers, a convolutional net, one with channels last."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from quarter_oracle import geometry_of, offset_in, phi_s_of, window_of
from safetensors.torch import save_file
from stage_runs import StageRun, run_stages, write_colours

from pipeline.config import CalibrationConfig, Recipe, TeacherChoice, ViewsConfig
from pipeline.recipes.demo_images import copy_photographs
from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from storage_schemas.format.errors import IdentityError
from storage_schemas.format.phi_s import to_stored

SMALL = {"vit": "test_vit4.r160_in1k", "convnext": "test_convnext.r160_in1k", "mambaout": "test_mambaout"}
FAMILIES = {
    "vit": "vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m",
    "convnext": "convnext_atto.d2_in1k",
    "swin": "swin_tiny_patch4_window7_224.ms_in1k",
}
Run = tuple[StageRun, dict[str, Any]]


def published(model: str, folder: Path) -> tuple[Any, Path]:
    """A network of timm with noise for weights, and its file as timm saves it, with the classifier."""
    torch.manual_seed(5)
    network = timm.create_model(model, pretrained=False).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    path = folder / f"{model}.safetensors"
    save_file({name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()}, path)
    return network, path


def run_of(models: dict[str, str], root: Path, data: Path, summary: Any, **more: Any) -> Run:
    made = {name: published(model, root) for name, model in models.items()}
    choices = [
        TeacherChoice(name=name, source=f"timm:{models[name]}", weights=str(path), batch=5)
        for name, (_, path) in made.items()
    ]
    choices[0] = replace(choices[0], layers=(2,), summary=summary)
    views = ViewsConfig(low=(128,), high=(192,), high_share=0.3, heldout=0.2, tokens_per_shard=1152, **more)
    recipe = Recipe(
        name="demo",
        views=views,
        teachers=tuple(choices),
        calibration=CalibrationConfig(views=40, tokens_per_channel=2),
    )
    return run_stages(recipe, data, root / "cache"), {name: network for name, (network, _) in made.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("timm")
    return run_of(SMALL, root, write_colours(root / "images", 26), "mean", canvas_tokens=0)


def seen(run: StageRun, teacher: str, view_set: str, placement: dict) -> np.ndarray:
    """The pixels that a teacher saw of a view."""
    views, row = run.arrays[f"views/{view_set}"], placement["row"]
    if run.spec(teacher).size_rule == "fixed":
        return np.asarray(views[f"detail/{teacher}"][row])
    return window_of(views["pixels"][row], offset_in(placement), geometry_of(view_set).resolution)


def by_timm(network: Any, pixels: np.ndarray, block: int) -> tuple[np.ndarray, torch.Tensor]:
    """What timm itself gives for pixels: the map of a block with the final norm, and the final features."""
    mean, std = (torch.tensor(network.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    image = (torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255 - mean) / std
    with torch.inference_mode():
        final, [map_] = network.forward_intermediates(image[None], indices=[block], norm=True)
    return map_[0].permute(1, 2, 0).numpy(), final


def differences(run: Run, teacher: str, name: str, block: int) -> list[float]:
    """Largest difference of a view's stored features from timm's, in roundings of float16, for some views."""
    stages, networks = run
    found = []
    for view_set in stages.sets:
        stored = stages.arrays[f"teachers/{name}/{view_set}/spatial"]
        for placement in stages.table("placements", f"{name}/{view_set}")[:6]:
            raw, _ = by_timm(networks[teacher], seen(stages, teacher, view_set, placement), block)
            expected = to_stored(phi_s_of(stages, name), raw).astype(np.float64)
            off = np.abs(stored[placement["row"]].astype(np.float64) - expected)
            found.append(float((off / (2.0**-11 * np.abs(expected) + 2e-5)).max()))
    return found


@pytest.mark.parametrize("teacher", SMALL)
def test_stored_maps_are_those_of_timms_forward_intermediates(small: Run, teacher: str) -> None:
    last = len(small[1][teacher].feature_info) - 1
    assert max(differences(small, teacher, teacher, last)) < 1.5
    assert len(differences(small, teacher, teacher, last)) > 6


def test_a_blocks_map_is_stored_under_its_own_name(small: Run) -> None:
    assert max(differences(small, "vit", "vit-block2", 2)) < 1.5


def test_a_summary_is_the_models_own_pooling_or_what_the_setting_says(small: Run) -> None:
    stages, networks = small
    for teacher, network in networks.items():
        placement = stages.table("placements", f"{teacher}/low-128")[0]
        last = len(network.feature_info) - 1
        map_, final = by_timm(network, seen(stages, teacher, "low-128", placement), last)
        mean = torch.from_numpy(map_.mean(axis=(0, 1)))[None]
        pooled = mean if teacher == "vit" else network.forward_head(final, pre_logits=True)
        stored = stages.arrays[f"teachers/{teacher}/low-128/summary"][placement["row"]]
        np.testing.assert_allclose(stored, pooled[0].detach().numpy(), rtol=1e-4, atol=1e-5)


def test_every_channel_is_normalised_and_directions_spread(small: Run) -> None:
    stages, _ = small
    for teacher in SMALL:
        maps = [stages.arrays[f"teachers/{teacher}/{view_set}/spatial"][...] for view_set in stages.sets]
        tokens = np.concatenate([map_.reshape(-1, map_.shape[-1]) for map_ in maps]).astype(np.float64)
        tokens = tokens[np.isfinite(tokens).all(axis=1)]
        assert 0.5 < np.mean(tokens**2) < 2
        assert 0 < float(stages.arrays[f"teachers/{teacher}/stats/dispersion"][...]) < 2


@pytest.mark.parametrize("teacher", SMALL)
def test_verify_recomputes_the_features_with_the_settings_that_made_them(small: Run, teacher: str) -> None:
    stages, _ = small
    weights = next(choice.weights for choice in stages.recipe.teachers if choice.name == teacher)
    options = VerifyOptions(
        cache=str(stages.where), teacher=teacher, source=f"timm:{SMALL[teacher]}", weights=weights, recompute=4
    )
    verdict = verify_cache(stages.cache, options)
    assert not verdict.problems
    assert [recomputed.views for recomputed in verdict.recomputed] == [4]
    assert verdict.recomputed[0].largest_error < 2**-9


def test_verify_refuses_another_model_of_the_same_shape(small: Run) -> None:
    stages, _ = small
    options = VerifyOptions(
        cache=str(stages.where), teacher="convnext", source="timm:test_convnext", weights="random:3", recompute=1
    )
    with pytest.raises(IdentityError, match="weights_sha256"):
        verify_cache(stages.cache, options)


def test_another_summary_is_another_teacher(small: Run) -> None:
    stages, _ = small
    vit = stages.cache.manifests(["vit", "convnext"]).teachers
    assert vit["vit"].identity["summary"] == "mean"
    assert "summary" not in vit["convnext"].identity


@pytest.mark.slow
def test_three_families_on_photographs_train_a_student(tmp_path: Path) -> None:
    copy_photographs(str(tmp_path / "photographs"))
    run = run_of(FAMILIES, tmp_path, tmp_path / "photographs", "class-token", canvas_tokens=0, draws=2)
    stages, networks = run
    for teacher, network in networks.items():
        assert max(differences(run, teacher, teacher, len(network.feature_info) - 1)) < 1.5
    for choice in stages.recipe.teachers:
        options = VerifyOptions(
            cache=str(stages.where), teacher=choice.name, source=choice.source, weights=choice.weights, recompute=3
        )
        verdict = verify_cache(stages.cache, options)
        assert not verdict.problems
        assert verdict.recomputed[0].largest_error < 2**-9
    command = [sys.executable, "-m", "trainer", "train", "--cache", str(stages.where), "--runs", str(tmp_path / "runs")]
    trained = subprocess.run([*command, "--steps", "20"], capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stderr
    [metrics] = (tmp_path / "runs").glob("*/metrics.json")
    assert {*FAMILIES, "vit-block2"} <= set(json.dumps(json.loads(metrics.read_text())).replace('"', " ").split())
