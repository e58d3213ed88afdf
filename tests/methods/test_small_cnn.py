"""P4's network: its Table 3 grid and its padding."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from fer_bench.methods import count_parameters
from fer_bench.methods.small_cnn import SamePad, SmallCNN


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("layers", [2, 3, 4, 5, 6, 7])
def test_every_cell_of_table_3_builds(layers: int, kernel: int) -> None:
    """All 24 networks of Table 3 have the parameters that their layer list gives, counted by hand here."""
    network = SmallCNN(7, layers, kernel)
    widths = [1, *(32 * 2**i for i in range(layers))]
    side = max(1, 48 // 2 ** (layers - 1))
    convolutions = sum(a * b * kernel**2 + b for a, b in pairwise(widths))
    dense = widths[-1] * side**2 * 512 + 512 + 2 * (512 * 512 + 512) + 512 * 7 + 7
    assert count_parameters(network) == convolutions + dense
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 1, 48, 48)).shape == (1, 7)


@pytest.mark.parametrize(("layers", "kernel"), [(1, 2), (8, 2), (6, 1), (6, 6)])
def test_cells_outside_table_3_are_refused(layers: int, kernel: int) -> None:
    """A layer or kernel outside the table raises ValueError."""
    with pytest.raises(ValueError, match=r"2\.\.7"):
        SmallCNN(7, layers, kernel)


@pytest.mark.filterwarnings("ignore:Using padding")
@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_the_pad_equals_padding_same(kernel: int) -> None:
    """SamePad and an unpadded convolution give what padding="same" gives."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 9, 9), torch.randn(4, 3, kernel, kernel)
    torch.testing.assert_close(F.conv2d(SamePad(kernel)(x), weight), F.conv2d(x, weight, padding="same"))
