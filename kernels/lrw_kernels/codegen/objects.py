"""What the readers of ELF and Mach-O files give: an object file or a library, what it offers and asks for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ObjectFile:
    """Its machine's number; defined symbols others can see; symbols it takes from elsewhere; libraries it names."""

    machine: int
    exported: frozenset[str]
    undefined: frozenset[str]
    needed: tuple[str, ...] = ()
