"""From a torch network to an ahead-of-time compiled library with a C header."""

import os
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lrw.export.trace import trace
from lrw.ops import TileLike
from lrw_kernels.aarch64.targets import find_target

if TYPE_CHECKING:
    from lrw_kernels.aarch64 import Artifacts


def export(
    net: nn.Module,
    example_input: Tensor,
    out: str | os.PathLike[str],
    *,
    target: str = "aarch64-linux-gnu",
    name: str = "net",
    threads: int = 1,
    tile: TileLike | str = "auto",
) -> "Artifacts":
    """Compile `net`, as it is in eval mode, to a library in folder `out`: code, header, weights, manifest, example.

    example_input [N, C, D, H, W] or [N, C] float32 gives the sizes the library will take, as [N, D, H, W, C]; `name`, a
    C identifier, becomes part of its functions; `threads` can run it at most, and share its one workspace. Layers keep
    their tiles and kept columns; plain convolutions get the tile lrw would choose, or `tile`. Raises ValueError for
    arguments that are not accepted and for operators that cannot be exported, each with its place in the network, and
    RuntimeError with the compiler's message where lowering or linking fails; then nothing is written.
    """
    from lrw_kernels.aarch64 import build_network

    find_target(target)  # refused before the network is traced
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads: {threads!r}; accepted are integers from 1")
    return build_network(trace(net, example_input, name, tile=tile), out, target=target, threads=threads)
