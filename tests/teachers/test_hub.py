"""Weights from the hub's cache, and the messages where they cannot be found. Nothing here uses a network."""

import os
import subprocess
import sys

import pytest
from safetensors.torch import save_file

from storage_schemas.format.errors import SettingError
from teachers.build import build_teacher

LOCAL = "WEIGHTS=/path/to/file-or-folder with make, or --choice.weights; --weights for plan and verify"
OFFLINE = "not in the hub's cache on this machine, and the hub cannot be reached (or HF_HUB_OFFLINE is set)"
SCRIPT = """
from dataclasses import replace
from storage_schemas.format.errors import MissingError
from teachers.build import loaded_network
from teachers.catalogue import CATALOGUE
from teachers.digest import weights_digest
from teachers.hub import fetch_weights
for name in ("dinov3-7b", "sam3"):
    try:
        fetch_weights(CATALOGUE[name])
    except MissingError as error:
        print(error)
for repository in ("someone/whole", "someone/config-alone"):
    tiny = replace(CATALOGUE["dinov3-tiny"], hub=repository)
    try:
        print(weights_digest(loaded_network(tiny, "hub", "fp32").state_dict()))
    except MissingError as error:
        print(error)
"""


def cached(home, repository, files):
    """Lay out a snapshot as the hub's client keeps it."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for name, tensors in files.items():
        save_file(tensors, snapshot / name)
    return snapshot


def test_offline_the_cache_is_read_and_what_it_lacks_is_named_with_its_licence_and_the_setting(tmp_path):
    tiny = build_teacher("dinov3-tiny", weights="random:1")
    cached(tmp_path, "someone/whole", {"model.safetensors": tiny.network.state_dict()})
    (cached(tmp_path, "someone/config-alone", {}) / "config.json").write_text("{}")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_CACHE", None)
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, capture_output=True, text=True)
    assert run.stdout == (
        "a copy of the weights of dinov3-7b (vit_7b_patch16_dinov3) is missing:\n"
        f"  https://huggingface.co/timm/vit_7b_patch16_dinov3.lvd1689m: {OFFLINE}\n"
        "  also published as: facebook/dinov3-vit7b16-pretrain-lvd1689m (gated), or Meta's own .pth\n"
        "  licence: DINOv3 License\n"
        f"  local copy: none was given ({LOCAL})\n"
        "a copy of the weights of sam3 (Sam3ViTModel) is missing:\n"
        f"  https://huggingface.co/facebook/sam3: {OFFLINE}; "
        "accept its licence on that page first, and use a token (HF_TOKEN)\n"
        "  also published as: Meta's own sam3.pt, in the same repository\n"
        "  licence: SAM License\n"
        f"  local copy: none was given ({LOCAL})\n"
        f"{tiny.weights_sha256}\n"
        "a copy of the weights of dinov3-tiny (vit_small_patch16_dinov3_qkvb) is missing:\n"
        "  https://huggingface.co/someone/config-alone: the cached copy contains no weights\n"
        "  also published as: nothing else\n"
        "  licence: none: seeded noise\n"
        f"  local copy: none was given ({LOCAL})\n"
    )


def test_a_tiny_model_has_no_weights_on_the_hub():
    with pytest.raises(SettingError) as refusal:
        build_teacher("siglip2-tiny", weights="hub")
    assert str(refusal.value) == (
        "weights 'hub' for siglip2-tiny cannot be used:\n"
        "  hub: this model has no published weights (WEIGHTS=random:<seed>, or a path)"
    )
