#!/usr/bin/env bash
# torchmetrics 1.9.0: per class, the IoU of a class that occurs in neither masks nor predictions is 0, though `average="macro"` leaves it out.
#
# Expected: `MulticlassJaccardIndex(average=None)` gives NaN for such a class, as 0 / 0 is not a score, or anything from which the mean is
# that of `average="macro"`: tables of segmentation print both, each class and mIoU.
# Seen: it gives 0.0, which cannot be told from a class that every prediction misses. The mean over classes is then lower than the macro
# average of the same metric on the same pixels.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torchmetrics==1.9.0 torch==2.15.0 numpy
cd "$work" && "$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
import torchmetrics
from torchmetrics.classification import MulticlassJaccardIndex

masks = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
predictions = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])  # class 2 occurs in neither
each = MulticlassJaccardIndex(num_classes=3, average=None)(predictions, masks)
macro = MulticlassJaccardIndex(num_classes=3, average="macro")(predictions, masks)
print(f"torchmetrics {torchmetrics.__version__}: each {each.tolist()}, their mean {each.mean():.3f}, macro {macro:.3f}")
same = each[2] == 0 and abs(macro - 0.6) < 1e-6 and abs(each.mean() - 0.4) < 1e-6
print("as before: 0 for a class that is not there" if same else "CHANGED")
sys.exit(not same)
PYTHON
