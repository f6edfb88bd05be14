"""What single A64 instructions are, by their words: the fields of the architecture's encoding tables."""


def is_fma(word: int) -> bool:
    """A vector fmla or fmls of fp32 or fp64."""
    return is_by_element(word) or word & 0xBF20FC00 == 0x0E20CC00


def is_by_element(word: int) -> bool:
    """One of those that takes a factor from a lane."""
    return word & 0xBF80B400 == 0x0F801000


def is_branch(word: int) -> bool:
    """Calls and returns too; nop, mrs and their like share the branches' group."""
    return word >> 26 & 7 == 5 and word >> 22 != 0x354


def access(word: int) -> str:
    """What it does to memory: "load" (atomic operations too), "store", "prefetch", or "" for nothing."""
    if word >> 25 & 5 != 4:
        return ""
    kind, size, operation, is_vector = word >> 27 & 7, word >> 30, word >> 22 & 3, word >> 26 & 1
    reads = bool(operation & 1)  # structures, exclusive ones, pairs, vector registers
    if kind == 3:
        if not word >> 24 & 1 and size == 3 and not is_vector:
            return "prefetch"
        reads = is_literal(word) or operation != 0  # ldapur, stlur
    elif kind == 7 and not is_vector:
        is_atomic = not word >> 24 & 1 and word >> 21 & 1 and not word >> 10 & 3
        if not is_atomic and size == 3 and operation == 2:
            return "prefetch"
        reads = bool(is_atomic or operation)
    return "load" if reads else "store"


def does(what: str, word: int) -> bool:
    """Whether `access` says so."""
    return access(word) == what


def is_literal(word: int) -> bool:
    """An access that has its address from the program counter."""
    return word >> 27 & 7 == 3 and not word >> 24 & 1


def is_on_stack(word: int) -> bool:
    """An access whose base register is the stack pointer."""
    return bool(access(word)) and not is_literal(word) and word >> 5 & 31 == 31
