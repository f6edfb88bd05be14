"""The C contract of an exported layer: version, alignment, status codes, symbol names.

Who changes any of them raises the version.
"""

ABI_VERSION = 1

# One cache line on every core this library is for; also what the vector loads of faster kernels ask for.
ALIGNMENT = 64

STATUS_OK = 0
STATUS_NULL = 1
STATUS_MISALIGNED = 2

VERSION_SYMBOL = "lrw_abi_version"


def workspace_symbol(name: str) -> str:
    """The C function that returns the workspace's size in bytes."""
    return f"lrw_{name}_workspace_bytes"


def run_symbol(name: str) -> str:
    """The C function that runs the layer."""
    return f"lrw_{name}_run"


def exported_symbols(name: str) -> frozenset[str]:
    """Everything layer `name` makes visible, and no more."""
    return frozenset({VERSION_SYMBOL, workspace_symbol(name), run_symbol(name)})
