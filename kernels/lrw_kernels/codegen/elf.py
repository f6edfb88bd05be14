"""As much of an ELF64 little-endian file as checks of it ask for: symbols and needed libraries."""

from dataclasses import dataclass
from struct import error, iter_unpack, unpack_from

from lrw_kernels.codegen.objects import ObjectFile

_SYMTAB, _DYNAMIC, _NOBITS, _DYNSYM = 2, 6, 8, 11
_DT_NEEDED = 1


@dataclass(frozen=True)
class _Section:
    kind: int
    link: int
    data: bytes


def read_elf(data: bytes) -> ObjectFile:
    """Read an object or a shared library; the latter's dynamic symbols are what counts.

    Raises ValueError when `data` is not a little-endian ELF64 file, or a damaged one.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"not a little-endian ELF64 file: begins with {data[:6]!r}")
    try:
        return _read(data)
    except (error, IndexError, OverflowError) as damage:
        raise ValueError(f"a damaged ELF64 file: {damage}") from damage


def _read(data: bytes) -> ObjectFile:
    sections = _sections(data)
    tables = [s for s in sections if s.kind == _DYNSYM] or [s for s in sections if s.kind == _SYMTAB]
    exported, undefined = set(), set()
    for table in tables:
        names = sections[table.link].data
        for name, info, other, section, _, _ in iter_unpack("<IBBHQQ", table.data):
            text = _text(names, name)
            if text and section == 0:
                undefined.add(text)
            elif text and info >> 4 in (1, 2) and other & 3 == 0:
                exported.add(text)
    return ObjectFile(unpack_from("<H", data, 18)[0], frozenset(exported), frozenset(undefined), _needed(sections))


def _sections(data: bytes) -> list[_Section]:
    (start,), (size, count) = unpack_from("<Q", data, 0x28), unpack_from("<HH", data, 0x3A)
    if start + size * count > len(data):
        raise ValueError(f"a damaged ELF64 file: its sections end at {start + size * count} of {len(data)} bytes")
    found = []
    for at in range(start, start + size * count, size):
        kind, offset, length, link = unpack_from("<I", data, at + 4) + unpack_from("<QQI", data, at + 24)
        if kind != _NOBITS and offset + length > len(data):
            raise ValueError(f"a damaged ELF64 file: a section ends at {offset + length} of {len(data)} bytes")
        found.append(_Section(kind, link, data[offset : offset + length]))
    return found


def _needed(sections: list[_Section]) -> tuple[str, ...]:
    found = []
    for section in sections:
        if section.kind == _DYNAMIC:
            entries = iter_unpack("<QQ", section.data)
            found += [_text(sections[section.link].data, at) for tag, at in entries if tag == _DT_NEEDED]
    return tuple(found)


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode()
