"""A static library of one object, as ar and ranlib would write it, without owners and times: the same bytes always."""

from struct import pack


def archive(name: str, data: bytes, symbols: "frozenset[str] | set[str]") -> bytes:
    """A System V archive with member `name` and an index of the symbols it defines."""
    names = sorted(symbols)
    text = b"".join(symbol.encode() + b"\0" for symbol in names)
    index_size = 4 + 4 * len(names) + len(text)
    member_at = 8 + 60 + index_size + index_size % 2
    index = pack(f">{1 + len(names)}I", len(names), *[member_at] * len(names)) + text
    return b"!<arch>\n" + _member("/", index) + _member(name + "/", data)


def _member(name: str, data: bytes) -> bytes:
    if len(name) > 16:
        raise ValueError(f"archive: member name {name!r}; accepted are at most 15 characters")
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'644':<8}{len(data):<10}`\n".encode()
    return head + data + b"\n" * (len(data) % 2)
