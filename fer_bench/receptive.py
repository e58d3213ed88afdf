"""Where in the picture each cell of a layer's feature maps looks: the centre of its receptive field.

A map that is stretched over the picture edge to edge lies where it should only if its cells tile the picture. Padding
on one side alone (kernels of 2), no padding, or a padded stride move a cell by up to its own width, so `explain` draws
a map where its cells look. Source of the arithmetic: Araujo, Norris & Sim, Computing Receptive Fields of Convolutional
Neural Networks, Distill 2019, "Computing receptive field region".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

Pair = tuple[float, float]


@dataclass(frozen=True)
class Cells:
    """The centres of a map's cells, in pixels of the network's input, the centre of the first pixel being 0.

    first: row and column of the first cell's.   step: from one cell to the next, down and to the right.
    """

    first: Pair = (0.0, 0.0)
    step: Pair = (1.0, 1.0)

    def after(self, kernel: Sequence[int], stride: Sequence[int], before: Sequence[int]) -> Cells:
        """The cells of a layer over these, each in the middle of `kernel` of them. before: padding above, to the left.

        kernel: how many cells it spans, gaps of a dilation included.
        """
        first = tuple(
            start + step * ((span - 1) / 2 - pad)
            for start, step, span, pad in zip(self.first, self.step, kernel, before, strict=True)
        )
        return Cells(first, tuple(step * by for step, by in zip(self.step, stride, strict=True)))

    def divided(self, sides: Sequence[int], into: Sequence[int]) -> Cells:
        """As many as `into` over the place of as many as `sides`, edge to edge: adaptive pooling, interpolation."""
        parts = [have / want for have, want in zip(sides, into, strict=True)]
        first = tuple(
            start + step * (part - 1) / 2 for start, step, part in zip(self.first, self.step, parts, strict=True)
        )
        return Cells(first, tuple(step * part for step, part in zip(self.step, parts, strict=True)))


class Located(TorchDispatchMode):
    """While it is open, knows the cells of every feature map that is computed from `inputs` (N, C, H, W).

    A sum or a concatenation is where its first term is. A spatial transformer's output counts as where its input is:
    what it turns and moves differs from picture to picture, and `explain` undoes it.
    """

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self._known = WeakIdKeyDictionary()
        self._known[inputs] = Cells()

    def of(self, maps: Tensor) -> Cells | None:
        """The cells of feature maps (N, C, h, w); None where they cannot be followed from the inputs."""
        return self._known.get(maps)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        made = results[0] if isinstance(results, tuple | list) and results else results
        if isinstance(made, Tensor) and made.ndim == 4 and made not in self._known:
            parts = args[0] if args and isinstance(args[0], tuple | list) else args
            sources = [part for part in parts if isinstance(part, Tensor) and part in self._known]
            if sources:
                cells = _follow(func, self._known[sources[0]], sources[0].shape[2:], made.shape[2:], args)
                if cells is not None:
                    self._known[made] = cells
        return results


def _follow(
    func: Callable[..., Any], cells: Cells, sides: Sequence[int], into: Sequence[int], args: tuple
) -> Cells | None:
    """The cells of an operation's result. sides, into: height and width of its argument and of its result."""
    aten = torch.ops.aten
    name = getattr(func, "overloadpacket", None)
    if name is aten.convolution:
        weight, (stride, padding, dilation, transposed) = args[1], args[3:7]
        if transposed:
            return None
        spans = [reach * (size - 1) + 1 for reach, size in zip(_two(dilation), weight.shape[2:], strict=True)]
        return cells.after(spans, _two(stride), _two(padding))
    if name in (aten.max_pool2d_with_indices, aten.max_pool2d, aten.avg_pool2d):
        kernel = _two(args[1])
        stride = _two(args[2]) if len(args) > 2 and args[2] else kernel
        padding = _two(args[3]) if len(args) > 3 else (0, 0)
        reach = _two(args[4]) if len(args) > 4 and name is not aten.avg_pool2d else (1, 1)
        return cells.after([r * (k - 1) + 1 for r, k in zip(reach, kernel, strict=True)], stride, padding)
    if name in (aten.constant_pad_nd, aten.reflection_pad2d, aten.replication_pad2d):
        left, _, *rest = args[1]
        return cells.after((1, 1), (1, 1), (rest[0] if rest else 0, left))
    if tuple(sides) == tuple(into):
        return cells
    pooled = name in (aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d, aten.mean)
    enlarged = "upsample" in getattr(func, "__name__", "")
    return cells.divided(sides, into) if pooled or enlarged else None


def _two(value: int | Sequence[int]) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[-1])


def spread(maps: np.ndarray, side: int, cells: Cells | None) -> np.ndarray:
    """Maps float32 (N, h, w) as pictures (N, side, side): bilinear between the cells, beyond the outermost as they are.

    cells: None lays the map over the picture edge to edge.
    """
    sides = maps.shape[1:]
    if cells is None:
        cells = Cells().divided((side, side), sides)
    rows, columns = (
        (torch.arange(side, dtype=torch.float32) - start) / step * (2 / max(1, count - 1)) - 1
        for start, step, count in zip(cells.first, cells.step, sides, strict=True)
    )
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None].expand(len(maps), -1, -1, -1)
    values = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))[:, None]
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=True)[:, 0].numpy()
