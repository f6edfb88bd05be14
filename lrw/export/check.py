"""Whether a built library gives what torch gives."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lrw.layers import evaluating

if TYPE_CHECKING:
    import numpy.typing as npt

    from lrw_kernels.aot import Artifacts

LIMITS = {"float32": 0.01, "float16": 0.1}
"""By the numbers of the Winograd domain: errors over the largest output beyond which something else was computed."""


def compare(built: "Artifacts", net: nn.Module, example_input: Any) -> tuple[str, float]:
    """(how the library ran here, its largest difference from `net` in eval mode on `example_input`, over the largest
    output; of several outputs that where it is worst).

    example_input is as in `export`, and stays as it is. Where all of an output is 0 the error is 0 or infinite; where
    either's outputs hold NaN it is NaN. Raises RuntimeError where tools to run the library are missing or the run
    fails.
    """
    from lrw_kernels.aot import run_network

    with torch.inference_mode(), evaluating(net):
        args = pytree.tree_map_only(Tensor, Tensor.clone, example_input)
        expected = _tensors(net(*(args if isinstance(args, tuple) else (args,))))
    given = zip(_tensors(example_input), built.inputs, strict=True)
    inputs = [x.detach().movedim(1, -1).reshape(port.size).contiguous().numpy() for x, port in given]
    found = zip(run_network(built, *inputs), expected, strict=True)
    how = "ran natively" if built.target.is_host else "ran under emulation"
    return how, float(np.max([_error(np.moveaxis(y, -1, 1).reshape(of.shape), of.numpy()) for y, of in found]))


def check_tools(target: str, name: str) -> None:
    """Raises ValueError, starting with `name`, where a library for `target` cannot be run here."""
    from lrw_kernels.aot import missing_tools

    lacking = missing_tools(target)
    if lacking:
        raise ValueError(f"{name}: running a library for {target} here needs {', '.join(lacking)}")


def _tensors(tree: Any) -> list[Tensor]:
    """Those that a network takes or gives, in whatever tuples and dictionaries."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _error(given: "npt.NDArray[np.float32]", expected: "npt.NDArray[np.float32]") -> float:
    """The largest difference over the largest of `expected`."""
    with np.errstate(invalid="ignore"):  # of two infinities
        difference = float(np.abs(given.astype(np.float64) - expected).max())
    largest = float(np.abs(expected).max())
    if largest == 0:
        return 0.0 if difference == 0 else difference * float("inf")
    return difference / largest
