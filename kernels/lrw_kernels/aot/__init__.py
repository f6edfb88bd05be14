"""A whole network as a library without a runtime: static and shared library, C header, weights, manifest, example.

The fast CPU kernels are lowered ahead of time by LLVM, for aarch64 and others, with everything about the network frozen
into the records they read; memory is planned here. Only `lower`'s child process imports Numba; importing this package
costs nothing until a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrw_kernels.aot.build import build_network
    from lrw_kernels.aot.emulate import missing_tools, run_network
    from lrw_kernels.aot.manifest import Artifacts
    from lrw_kernels.aot.targets import TARGETS, Target, find_target

_HOME = {
    "Artifacts": "manifest",
    "TARGETS": "targets",
    "Target": "targets",
    "build_network": "build",
    "find_target": "targets",
    "missing_tools": "emulate",
    "run_network": "emulate",
}

__all__ = [
    "TARGETS",
    "Artifacts",
    "Target",
    "build_network",
    "find_target",
    "missing_tools",
    "run_network",
]


def __getattr__(name: str) -> object:
    """The public name's value, imported from its module at first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
