"""Files damaged at random, and the judge of what a reader makes of them: shared by every fuzzer."""

import struct
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st

FUZZED = settings(max_examples=max(100, settings().max_examples))
"""100 cases in the fixed profile, as many as its own in any other: nightly 2,000."""

_DOCUMENTED = (ValueError, TypeError, FileNotFoundError, PermissionError)
_NUMBERS = {
    "b": (-128, -1, 0, 1, 127),
    "h": (-32768, -1, 64, 512, 32767),
    "i": (-(2**31), -1, 0, 1, 7, 2**16, 2**24 + 1, 2**31 - 1),
    "q": (-(2**63), -1, 0, 1, 2**40, 2**63 - 1),
    "f": (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-30, 1e6, 3e38),
    "d": (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-300, 1e6, 1e308),
}


@st.composite
def mutated(draw: st.DrawFn, whole: bytes, most: int = 3) -> bytes:
    """`whole` with up to `most` places flipped or overwritten by odd numbers, or else cut, doubled or filled too."""
    data = bytearray(whole)
    actions = draw(st.sampled_from((("flip", "number"), ("flip", "number", "cut", "end", "double", "fill"))))
    for _ in range(draw(st.integers(1, most))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from((1, 2, 4, 16, 200))))
        match draw(st.sampled_from(actions)):
            case "flip":
                data[start : start + 1] = bytes(byte ^ draw(st.integers(1, 255)) for byte in data[start : start + 1])
            case "number":
                overwrite(data, start, draw(numbers(draw(st.sampled_from("bhiqfd")))))
            case "cut":
                del data[start:stop]
            case "end":
                del data[start:]
            case "double":
                data[start:start] = data[start:stop]
            case "fill":
                data[start:start] = bytes([draw(st.sampled_from((0, 32, 255)))]) * draw(st.integers(1, 300))
    return bytes(data)


@st.composite
def with_odd_fields(draw: st.DrawFn, whole: bytes, fields: Sequence[tuple[int, str]], most: int = 4) -> bytes:
    """`whole` with up to `most` of its `fields` (byte, format as of struct) set to small or extreme numbers."""
    data = bytearray(whole)
    for start, kind in draw(st.lists(st.sampled_from(fields), min_size=1, max_size=most)):
        overwrite(data, start, draw(numbers(kind)))
    return bytes(data)


def overwrite(data: bytearray, start: int, content: bytes) -> None:
    """`content` over what is there; `data` keeps its length."""
    length = len(data)
    data[start : start + len(content)] = content
    del data[length:]


@st.composite
def numbers(draw: st.DrawFn, kind: str) -> bytes:
    """A number of the format `kind` as bytes of either order: small, or at an end of its range."""
    number = draw(st.sampled_from(_NUMBERS[kind]) | (st.integers(0, 16) if kind in "bhiq" else st.floats(0.1, 10)))
    return struct.pack(draw(st.sampled_from("<<<>")) + kind, number)


def json_values(leaves: int = 5) -> st.SearchStrategy[object]:
    """Anything that can be written as JSON: nulls, huge numbers, texts that no terminal shows, nested tables."""
    values = st.sampled_from((0, -1, 2**31, 10**400, 1e308, float("nan"), float("inf")))
    leaf = st.none() | st.booleans() | values | st.text(max_size=4) | st.sampled_from(("\ud800", "\x1b[2J", "x" * 5000))
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=leaves,
    )


@contextmanager
def judged(name: str, *, most_seconds: float = 20.0, most_memory: int = 2**26) -> Iterator[None]:
    """`with judged(path.name):` around a reader, which gives a value or a documented error that names the file.

    It must do so in bounded time and memory. The bounds are far above what small files take, far below what wrong
    sizes would ask for.
    """
    refusal: Exception | None = None
    tracemalloc.start()
    begun = time.monotonic()
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        refusal = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if refusal is not None:
        assert type(refusal) in _DOCUMENTED, f"{type(refusal).__name__} of a parser: {refusal}"
        assert name in str(refusal), f"which file? {refusal}"
        assert len(str(refusal).splitlines()) == 1, f"more than one line: {refusal}"
    assert time.monotonic() - begun < most_seconds
    assert peak < most_memory, f"{peak} bytes for a small file"


def written(folder: Path, name: str, content: bytes) -> Path:
    """The file `name` in `folder`, holding `content`."""
    path = folder / name
    path.write_bytes(content)
    return path
