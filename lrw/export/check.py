"""Whether a built library gives what torch gives."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from lrw.layers import evaluating

if TYPE_CHECKING:
    from lrw_kernels.aarch64 import Artifacts


def compare(built: "Artifacts", net: nn.Module, x: Tensor) -> tuple[str, float]:
    """(how the library ran here, its largest difference from `net` in eval mode on `x`, over the largest output).

    x is in torch's order, float32. Raises RuntimeError where tools to run it are missing or the run fails.
    """
    from lrw_kernels.aarch64 import run_network

    with torch.inference_mode(), evaluating(net):
        expected = net(x).numpy()
    channels_last = x.movedim(1, -1).reshape(built.input_size)
    y = run_network(built, np.ascontiguousarray(channels_last.numpy()))
    given = np.moveaxis(y, -1, 1).reshape(expected.shape)
    how = "ran natively" if built.target.is_host else "ran under emulation"
    return how, float(np.abs(given - expected).max() / np.abs(expected).max())
