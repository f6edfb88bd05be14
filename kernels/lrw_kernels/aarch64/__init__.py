"""One Winograd layer as a library without a runtime: ELF object, C header, weights, manifest, shared library.

Numba and LLVM lower the reference kernels with everything about the layer frozen in: sizes, matrices,
kept positions. Only `lower`'s child process imports Numba; importing this package costs nothing until a name
is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrw_kernels.aarch64.build import Artifacts, build_layer
    from lrw_kernels.aarch64.emulate import missing_tools, run_layer
    from lrw_kernels.aarch64.header import header_text
    from lrw_kernels.aarch64.link import link_shared
    from lrw_kernels.aarch64.lower import lower_layer
    from lrw_kernels.aarch64.spec import LayerSpec
    from lrw_kernels.aarch64.targets import TARGETS, Target, find_target

_HOME = {
    "Artifacts": "build",
    "LayerSpec": "spec",
    "TARGETS": "targets",
    "Target": "targets",
    "build_layer": "build",
    "find_target": "targets",
    "header_text": "header",
    "link_shared": "link",
    "lower_layer": "lower",
    "missing_tools": "emulate",
    "run_layer": "emulate",
}

__all__ = [
    "TARGETS",
    "Artifacts",
    "LayerSpec",
    "Target",
    "build_layer",
    "find_target",
    "header_text",
    "link_shared",
    "lower_layer",
    "missing_tools",
    "run_layer",
]


def __getattr__(name: str) -> object:
    """The public name's value, imported from its module at first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
