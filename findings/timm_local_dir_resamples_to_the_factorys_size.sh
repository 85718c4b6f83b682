#!/usr/bin/env bash
# timm 1.0.31: a model from `local-dir:` is built at the size of the factory, not at the `input_size` of the folder's own config.
#
# Expected: `create_model("local-dir:FOLDER", pretrained=True)` gives the model that was saved: its config says 160 px, and the position
# table in its weights is that of 160 px.
# Seen: the model is built at the factory's size (224 px for this one), the table is resampled to it without a word, and features of the
# same 160 px image differ. `img_size` in the config's `model_args` is what is obeyed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet timm==1.0.31 torch==2.15.0 torchvision==0.29.2 safetensors
cd "$work" && "$work/venv/bin/python" - <<'PYTHON'
import json
import sys
from pathlib import Path

import safetensors.torch
import timm
import torch

torch.manual_seed(0)
saved = timm.create_model("test_vit", img_size=160, num_classes=0).eval()
torch.nn.init.normal_(saved.pos_embed)
image = torch.randn(1, 3, 160, 160)


def loaded(**arguments):
    folder = Path("saved")
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(saved.state_dict(), folder / "model.safetensors")
    config = {"architecture": "test_vit", "num_classes": 0, "pretrained_cfg": {"input_size": [3, 160, 160], "num_classes": 0}}
    (folder / "config.json").write_text(json.dumps({**config, **({"model_args": arguments} if arguments else {})}))
    return timm.create_model("local-dir:saved", pretrained=True).eval()


with torch.no_grad():
    plain, named = loaded(), loaded(img_size=160)
    same = torch.allclose(named.forward_features(image), saved.forward_features(image), atol=1e-5)
print(f"timm {timm.__version__}: positions of the saved model {tuple(saved.pos_embed.shape)}, loaded {tuple(plain.pos_embed.shape)},")
print(f"with img_size in model_args {tuple(named.pos_embed.shape)}, equal features: {same}")
as_before = plain.pos_embed.shape != saved.pos_embed.shape and named.pos_embed.shape == saved.pos_embed.shape and same
print("as before" if as_before else "CHANGED")
sys.exit(not as_before)
PYTHON
