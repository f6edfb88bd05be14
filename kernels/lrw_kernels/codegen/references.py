"""Addresses before there are any: a section in the upper bits, an offset in the lower ones.

Records hold such numbers from birth. A program is bound to a process, or a library to its workspace, by exchanging each
section for where it lies.
"""

from enum import IntEnum

SECTION_BITS = 48  # no address of a process has any above


class Section(IntEnum):
    """The parts of a program or a process that a symbolic address may be relative to."""

    IMAGE = 1
    ZEROS = 2
    WEIGHTS = 3
    BUFFERS = 4
    CODE = 5  # the offset is the kernel's number
    SHARED = 6  # memory the steps of one operator share, until it has a place among BUFFERS
    HELD = 7  # the offset is the array's number
    OUTSIDE = 8  # this one and those after it: a buffer of the caller's each; a network's inputs, then its outputs
    BUFFER = 1 << 14  # this one and all above: a buffer each, until it has a place among BUFFERS


def symbolic(section: int, offset: int = 0) -> int:
    """An address to be filled in where a program is bound."""
    return (section << SECTION_BITS) + offset


def section_of(address: int) -> int:
    """The section of a symbolic address; 0 for an address of this process."""
    return address >> SECTION_BITS
