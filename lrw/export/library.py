"""From a torch network to an ahead-of-time compiled library with a C header."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lrw.export.check import LIMITS, check_tools, compare
from lrw.ops import TileLike
from lrw.trace import trace
from lrw.typed import typed
from lrw.version import __version__
from lrw_kernels.aot.targets import find_target
from lrw_kernels.choice.convolution import prior
from lrw_kernels.choice.estimate import AUTO_OUTPUTS

if TYPE_CHECKING:
    from lrw_kernels.aot import Artifacts

MOST_THREADS = 256
_LONGEST_NAME = 200  # file names have at most 255 bytes, and more in them than this
MOST_OUTPUTS = {"float32": AUTO_OUTPUTS[-1], "float16": 2}
"""Per axis, of tiles that are chosen: F(4, 3) in three axes errs by percents in half precision, layer by layer."""


@typed
def export(
    net: nn.Module,
    example_input: Any,
    out: str | os.PathLike[str],
    *,
    target: str = "aarch64-linux-gnu",
    name: str = "net",
    threads: int = 1,
    tile: TileLike | str = "auto",
    check: bool = False,
) -> "Artifacts":
    """Compile `net`, as it is in eval mode, to a library in folder `out`: code, header, weights, manifest, example.

    example_input: the tensor `net` is called with, [N, C, D, H, W] or [N, C] float32, or a tuple of all its arguments,
    which may be tuples, lists and dictionaries of such tensors and of numbers. Its tensors give the sizes the library
    will take, as [N, D, H, W, C], each a parameter of its functions; each tensor of the result is one too, in torch's
    order; numbers are constants. `name`, a C identifier, becomes part of the functions' names; `threads`, up to 256,
    can run it at most, and share its one workspace.
    Layers keep their tiles and kept columns; plain convolutions get the tile lrw would choose, with at most two outputs
    per axis where the target computes in half precision, or `tile`. With `check` the library runs on the example (zeros
    would say little), here or under QEMU, and is held against torch. Raises ValueError for arguments that are not
    accepted, among them a folder that cannot be written to and a check that needs tools which are not here, and for
    operators that cannot be exported, each with its place in the network; RuntimeError with the compiler's message
    where lowering or linking fails, and where a library gives other numbers than torch, which then stays where it is.
    Otherwise nothing is written.
    """
    from lrw_kernels.aot import build_network
    from lrw_kernels.aot.abi import check_name

    element = find_target(target).element
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads: {threads!r}; accepted are integers from 1 to {MOST_THREADS}")
    if isinstance(name, str) and len(name) > _LONGEST_NAME:
        raise ValueError(f"name: {len(name)} characters; accepted are up to {_LONGEST_NAME}")
    check_name(name)
    if check:
        check_tools(target, "check")
    with _folder(out) as folder:
        network = trace(net, example_input, name, tile=tile, choose=prior(most_outputs=MOST_OUTPUTS[element]))
        versions = {"lrw": __version__, "torch": torch.__version__}
        built = build_network(network, folder, target=target, threads=threads, versions=versions)
    if check:
        how, error = compare(built, net, example_input)
        if not error <= LIMITS[element]:
            off = f"is off torch by {error:.1e} of the largest output; accepted is up to {LIMITS[element]:g}"
            raise RuntimeError(f"check: the library {how} and {off}; it stays in {folder}")
    return built


@contextmanager
def _folder(out: str | os.PathLike[str]) -> Iterator[Path]:
    """The folder `out`, made where there is none; what was made goes again where nothing comes to lie in it.

    Raises ValueError where it cannot be made or written to.
    """
    folder, missing = Path(out), []
    accepted = "accepted is a folder, which is made where there is none"
    try:
        try:
            missing = [path for path in (folder, *folder.parents) if not path.exists()]
            if not missing and not folder.is_dir():
                raise ValueError(f"out: {folder} is a file; {accepted}")
            folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ValueError(f"out: {folder} cannot be written to ({error.strerror}); {accepted}") from error
        yield folder
    finally:
        for path in missing:
            with suppress(OSError):  # it is not empty, or was not made
                path.rmdir()
