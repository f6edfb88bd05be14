"""As much of a 64-bit Mach-O object as checks of it ask for: its symbols, without the underscore C names get there."""

from struct import error, iter_unpack, unpack_from

from lrw_kernels.codegen.objects import ObjectFile

_MAGIC = 0xFEEDFACF
_HEADER_BYTES, _COMMAND_BYTES = 32, 8
_SYMTAB = 2
_EXTERNAL, _PRIVATE, _DEBUG, _TYPE = 0x01, 0x10, 0xE0, 0x0E


def read_macho(data: bytes) -> ObjectFile:
    """Read an object file. Raises ValueError when `data` is not a little-endian 64-bit Mach-O, or a damaged one."""
    if len(data) < _HEADER_BYTES or unpack_from("<I", data)[0] != _MAGIC:
        raise ValueError(f"not a little-endian 64-bit Mach-O: begins with {data[:4]!r}")
    try:
        return _read(data)
    except error as damage:
        raise ValueError(f"a damaged Mach-O: {damage}") from damage


def _read(data: bytes) -> ObjectFile:
    machine, commands = unpack_from("<I", data, 4)[0], unpack_from("<I", data, 16)[0]
    exported, undefined, at = set(), set(), _HEADER_BYTES
    for _ in range(commands):
        command, size = unpack_from("<II", data, at)
        if size < _COMMAND_BYTES:
            raise ValueError(f"a damaged Mach-O: a command of {size} bytes")
        if command == _SYMTAB:
            symbols, count, names, _ = unpack_from("<IIII", data, at + 8)
            for name, kind, _, _, _ in iter_unpack("<IBBHQ", data[symbols : symbols + 16 * count]):
                if kind & _DEBUG or not kind & _EXTERNAL:
                    continue
                start = names + name
                text = data[start : data.index(b"\0", start)].decode().removeprefix("_")
                if kind & _TYPE == 0:
                    undefined.add(text)
                elif not kind & _PRIVATE:
                    exported.add(text)
        at += size
    return ObjectFile(machine, frozenset(exported), frozenset(undefined))
