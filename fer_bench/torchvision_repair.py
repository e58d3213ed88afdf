"""Take torchvision from here (`from fer_bench.torchvision_repair import torchvision`): it imports beside CPU torch too.

torchvision's wheel is built for CUDA torch; beside a CPU torch its compiled operators cannot load and the import raises
`RuntimeError: operator torchvision::nms does not exist`. Declaring the two schemas first mends that for models,
transforms and datasets; the compiled operators themselves (`ops.nms`, `io.decode_image`) stay unusable.
"""

from __future__ import annotations

import torch

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    _BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    torch.library.define("torchvision::nms", _BOXES)
    torch.library.define("torchvision::qnms", _BOXES)
    import torchvision

__all__ = ["torchvision"]
