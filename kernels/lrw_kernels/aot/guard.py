"""The guard on what leaves the house: an object or a library is for its target, and shows and needs what it should."""

from lrw_kernels.aot import abi
from lrw_kernels.aot.targets import Target
from lrw_kernels.codegen.elf import read_elf
from lrw_kernels.codegen.macho import read_macho

# What a library may take from elsewhere, if it is there: what asks the system about the processor. `no-builtins` keeps
# LLVM from making loops into memset.
ALLOWED_UNDEFINED = frozenset({"getauxval"})


def check_object(data: bytes, name: str, target: Target) -> None:
    """Raise RuntimeError unless the file is for `target`, exports the functions of network `name` and needs nothing."""
    file = read_elf(data) if target.form == "elf" else read_macho(data)
    expected, surplus = abi.exported_symbols(name), file.undefined - ALLOWED_UNDEFINED
    if file.machine != target.object_machine:
        raise RuntimeError(f"object guard: machine {file.machine}, {target.name} is {target.object_machine}")
    if file.exported != expected:
        raise RuntimeError(f"object guard: exports {sorted(file.exported)}, expected {sorted(expected)}")
    if surplus or file.needed:
        raise RuntimeError(f"object guard: needs {', '.join([*sorted(surplus), *file.needed])}")
