"""The C contract of an exported network: version, alignment, status codes, symbol names.

Who changes any of them raises the version.
"""

import re
from enum import IntEnum

from lrw_kernels.codegen.machine import LINE
from lrw_kernels.untrusted import shown

ABI_VERSION = 2

ALIGNMENT = LINE
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Status(IntEnum):
    """The statuses that the C functions of a library return."""

    OK = 0
    NULL_POINTER = 1
    MISALIGNED_POINTER = 2
    WRONG_WEIGHTS = 3
    SHORT_WEIGHTS = 4
    DAMAGED_WEIGHTS = 5
    BAD_THREADS = 6
    UNSUPPORTED_CPU = 7


MEANINGS = {
    Status.OK: "",
    Status.NULL_POINTER: "an argument that may not be null is",
    Status.MISALIGNED_POINTER: "weights or workspace are not on LRW_ALIGNMENT bytes, or an input or output not on 4",
    Status.WRONG_WEIGHTS: "not the weights this library was made for",
    Status.SHORT_WEIGHTS: "fewer bytes than the weights have",
    Status.DAMAGED_WEIGHTS: "the weights do not have their checksum",
    Status.BAD_THREADS: "fewer threads than 1, more than the workspace is for, or no function to start them",
    Status.UNSUPPORTED_CPU: "this processor lacks instructions the library uses",
}

VERSION_SYMBOL = "lrw_abi_version"
FUNCTIONS = ("workspace_bytes", "check_weights", "run", "begin", "step")
SIZES = ("WEIGHTS_BYTES", "WORKSPACE_BYTES", "THREADS", "STEPS")
PORT_SIZES = ("FLOATS", "BYTES")


def parameters(kind: str, count: int) -> tuple[str, ...]:
    """What the C functions call `count` buffers of a `kind`: "input" where there is one, else "input_0" and so on."""
    return (kind,) if count == 1 else tuple(f"{kind}_{i}" for i in range(count))


def port_size(parameter: str, unit: str) -> str:
    """What macros call the size of a buffer that goes in or comes out, `unit` one of PORT_SIZES."""
    return f"{parameter.upper()}_{unit}"


def symbol(name: str, function: str) -> str:
    """The C function of network `name`, `function` one of FUNCTIONS."""
    return f"lrw_{name}_{function}"


def macro(name: str, what: str) -> str:
    """The C macro of network `name`, `what` one of SIZES or of `port_size`."""
    return f"LRW_{name}_{what}"


def check_name(name: object) -> None:
    """Raise ValueError where C has no use for a network's `name`, which becomes part of its functions."""
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        raise ValueError(f"name: {shown(name)}; accepted are C identifiers: letters, digits, _")
    if second := taken(name):
        raise ValueError(f"name: {shown(name)} would give a second {second}; accepted are other names")


def taken(name: str) -> str:
    """The file or macro that every library has and a network called `name` would make a second of; "" for most names.

    File names count without regard to case: some file systems know none. No status ends as PORT_SIZES do.
    """
    if name.lower() == "threads":
        return "lrw_threads.h"
    statuses = {f"LRW_{status.name}" for status in Status}
    return next((macro(name, what) for what in SIZES if macro(name, what) in statuses), "")


def exported_symbols(name: str) -> frozenset[str]:
    """Everything network `name` makes visible, and no more."""
    return frozenset({VERSION_SYMBOL, *(symbol(name, function) for function in FUNCTIONS)})
