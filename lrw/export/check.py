"""Whether a built library gives what torch gives."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lrw.layers import evaluating

if TYPE_CHECKING:
    import numpy.typing as npt

    from lrw_kernels.aot import Artifacts

LIMITS = {"float32": 0.01, "float16": 0.1}
"""By the numbers of the Winograd domain: errors over the largest output beyond which something else was computed."""


def compare(built: "Artifacts", net: nn.Module, x: Tensor) -> tuple[str, float]:
    """(how the library ran here, its largest difference from `net` in eval mode on `x`, over the largest output).

    x is in torch's order, float32, and stays as it is. Where all of the net's outputs are 0 the error is 0 or infinite;
    where either's outputs hold NaN it is NaN. Raises RuntimeError where tools to run the library are missing or the run
    fails.
    """
    from lrw_kernels.aot import run_network

    with torch.inference_mode(), evaluating(net):
        (expected,) = tree_leaves(net(x.clone()))  # the one tensor, in whatever tuple or dictionary
    channels_last = x.movedim(1, -1).reshape(built.input_size)
    y = run_network(built, np.ascontiguousarray(channels_last.numpy()))
    how = "ran natively" if built.target.is_host else "ran under emulation"
    return how, _error(np.moveaxis(y, -1, 1).reshape(expected.shape), expected.numpy())


def _error(given: "npt.NDArray[np.float32]", expected: "npt.NDArray[np.float32]") -> float:
    """The largest difference over the largest of `expected`."""
    with np.errstate(invalid="ignore"):  # of two infinities
        difference = float(np.abs(given.astype(np.float64) - expected).max())
    largest = float(np.abs(expected).max())
    if largest == 0:
        return 0.0 if difference == 0 else difference * float("inf")
    return difference / largest
