#!/usr/bin/env bash
# transformers 5.23.0: RadioModel drops the LayerScale of files in NVlabs' layout.
#
# C-RADIOv3-B and -L have LayerScale, and NVlabs' files name it `ls1.grandma` and `ls2.grandma`: timm's conversion of these files renames it to
# `gamma`, and timm builds its radio_v3 base and large with it.
#
# Expected: `RadioModel.from_pretrained`, which renames all other names of that layout, loads LayerScale too, or fails.
# Seen: its mapping of names lacks LayerScale, and its list of names that may be missing holds it. So the model runs with a scale of 1 in place
# of the stored one; the load report lists the stored tensors as "UNEXPECTED … can be ignored". Here the features of a small model with scales
# of 0.1 are more than 1 % off.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 transformers==5.23.0 timm==1.0.31
"$work/venv/bin/python" - "$work" <<'PYTHON'
import inspect
import sys

import safetensors.torch
import torch
import transformers
from timm.models.vision_transformer import _convert_radio
from transformers import RadioConfig, RadioModel

assert "grandma" in inspect.getsource(_convert_radio)
folder = f"{sys.argv[1]}/model"
torch.manual_seed(0)
model = RadioModel(RadioConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, max_img_size=128)).eval()
with torch.no_grad():
    for layer in model.encoder.layer:
        layer.layer_scale1.lambda1.fill_(0.1)
        layer.layer_scale2.lambda1.fill_(0.1)
model.save_pretrained(folder)
names = {"layer_scale1.lambda1": "ls1.grandma", "layer_scale2.lambda1": "ls2.grandma"}
tensors = safetensors.torch.load_file(f"{folder}/model.safetensors")
for ours, nvlabs in names.items():
    tensors = {name.replace(ours, nvlabs): value for name, value in tensors.items()}
safetensors.torch.save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
loaded, report = RadioModel.from_pretrained(folder, output_loading_info=True)
pixels = torch.rand(1, 3, 64, 64)
with torch.no_grad():
    right, found = model(pixels).features, loaded.eval()(pixels).features
off = float((right - found).norm() / right.norm())
scale = float(loaded.encoder.layer[0].layer_scale1.lambda1[0])
print(f"transformers {transformers.__version__}: scale {scale} in place of 0.1, features {off:.1%} off, missing {report['missing_keys']}")
seen = scale == 1.0 and off > 0.01 and not report["missing_keys"]
print("as before" if seen else "CHANGED")
sys.exit(not seen)
PYTHON
