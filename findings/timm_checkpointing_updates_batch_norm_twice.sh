#!/usr/bin/env bash
# timm 1.0.31: with `set_grad_checkpointing`, a step updates the running statistics of batch norm twice.
#
# Expected: activation checkpointing changes the memory of a step and nothing that is learnt: after one training step of a ResNet the
# running means and variances, and the number of tracked batches, are those of a step without it.
# Seen: the repeated forward pass updates them again. `num_batches_tracked` is 2, and the running mean has moved by 1 − 0.9² instead of 0.1
# of the way. The weights' gradients are right; what a model is evaluated with, is not. No warning is given.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet timm==1.0.31
cd "$work" && "$work/venv/bin/python" - <<'PYTHON'
import sys

import timm
import torch


def after_one_step(checkpointing):
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0).train()
    model.set_grad_checkpointing(checkpointing)
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    return dict(model.named_buffers())


plain, twice = after_one_step(False), after_one_step(True)
counts = {int(value) for name, value in twice.items() if name.endswith("num_batches_tracked")}
moved = [float(twice[name].norm() / plain[name].norm()) for name in plain if name.endswith("bn1.running_mean") and "layer" in name]
print(f"timm {timm.__version__}, torch {torch.__version__}: batches tracked {sorted(counts)}, running means {moved[0]:.3f} times as far")
print("as before: counted twice" if 2 in counts else "CHANGED: counted once")
sys.exit(2 not in counts)
PYTHON
