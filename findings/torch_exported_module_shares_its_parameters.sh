#!/usr/bin/env bash
# torch 2.15.0: ExportedProgram.module() hands out the parameters of the module that was traced, not copies.
#
# Expected: the callable that a program gives is a module of its own; loading other weights into it, to try the program, changes neither
# the program nor the module that was traced.
# Seen: all three share storage, so `load_state_dict` into the one overwrites all. A check that tries a program with other weights and
# compares it with the traced module then compares the trial with itself, passes, and the program that is saved holds the trial weights.
# `load_state_dict(…, assign=True)` replaces the parameters of the callable alone.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 numpy
"$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch import nn


def after(assign):
    traced = nn.Linear(2, 2)
    program = torch.export.export(traced, (torch.ones(1, 2),))
    trial = {name: torch.full_like(value, 7.0) for name, value in traced.state_dict().items()}
    program.module().load_state_dict(trial, assign=assign)
    return [bool((weight == 7).all()) for weight in (traced.weight, program.state_dict["weight"])]


copied, assigned = after(False), after(True)
print(f"torch {torch.__version__}: overwritten traced module, program: {copied} (assign=True: {assigned})")
same = copied == [True, True] and assigned == [False, False]
print("as before" if same else "CHANGED")
sys.exit(not same)
PYTHON
