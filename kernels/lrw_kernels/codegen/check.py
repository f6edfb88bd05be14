"""Whether a file's bytes are an object of this machine: asked before the loader, which trusts all it is given."""

from lrw_kernels.codegen.elf import read_elf
from lrw_kernels.codegen.macho import read_macho

# By a file's first bytes: how many of it say its form, its machine and that it is an object; its reader.
_FORMS = {b"\x7fELF": (20, read_elf), b"\xcf\xfa\xed\xfe": (16, read_macho)}

_IN_EVERY_PROCESS = frozenset({"memset", "memcpy", "memmove"})  # LLVM makes loops into calls of them


def is_own_object(data: bytes, like: bytes, entry: str) -> bool:
    """Whether `data` is a whole object of the form and machine of the object `like` that defines `entry`, and needs
    nothing that would not be found.

    False too for machines whose form is not known here.
    """
    size, read = _FORMS.get(like[:4], (0, read_elf))
    if size == 0 or data[:size] != like[:size]:
        return False
    try:
        file = read(data)
    except ValueError:
        return False
    return entry in file.exported and file.undefined <= _IN_EVERY_PROCESS
