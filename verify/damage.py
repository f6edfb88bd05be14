"""What fuzzers do to valid files, and how they judge what a reader makes of the outcome.

A reader either gives a value or raises a documented error of one short line, soon and without taking much memory.
Anything else is the fuzzer's finding.
"""

import json
import resource
import struct
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

FUZZED = settings(max_examples=max(100, settings.default.max_examples))
"""100 cases in the fixed profile, as many as its own in any other: nightly 2,000."""

ENDS = 4096  # bytes from either end where headers and directories lie
FRAGMENTS = [
    "null", "true", "0", "-1", "2", "1.5", "1e9", "1e999", "NaN", "-Infinity", "1048577", str(2**40), "9" * 5000, '""',
    '"x"', '"0"', '"1e9999999"', '"F(2x2x2,3x3x3)@0,0,0[0 1 1e9999999;0 1 -1;0 1 -1]"', '"F(8x8x8,7x7x7)"', "[]", "{}",
    "[0]", "[null]", '["0"]', "[[[0]]]", "[0,0]", "[1,1,1]", "[64,64,64]", "[1000000000,0,0]", '{"0":1,"0":1}',
    "[" * 100 + "]" * 100, "[" * 9000 + "]" * 9000, json.dumps(list(range(64))), json.dumps("\ud800\0" * 99),
]  # fmt: skip
_DOCUMENTED = (ValueError, TypeError, OSError, FileNotFoundError, PermissionError, IsADirectoryError)
_NUMBERS = {
    "b": (-128, -1, 0, 1, 127),
    "h": (-32768, -1, 64, 512, 32767),
    "i": (-(2**31), -1, 0, 1, 7, 2**16, 2**24 + 1, 2**31 - 1),
    "q": (-(2**63), -1, 0, 1, 2**40, 2**63 - 1),
    "f": (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-30, 1e6, 3e38),
    "d": (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-300, 1e6, 1e308),
}


@dataclass
class Verdict:
    """What the documented error said; None where there was none."""

    said: str | None = None


@contextmanager
def judged(
    name: str, *, most_seconds: float = 20.0, most_memory: int = 2**26, most_resident: int = 300 * 2**20
) -> Iterator[Verdict]:
    """`with judged(path.name):` around a reader, which gives a value or a documented error that names the file.

    It must do so in bounded time and memory: `most_memory` of Python and NumPy, `most_resident` of the process. The
    bounds are far above what small files take, far below what wrong sizes would ask for.
    """
    verdict, refusal, before = Verdict(), None, _resident()
    tracemalloc.start()
    begun = process_time()
    try:
        yield verdict
    except (ValueError, TypeError, OSError) as error:
        refusal = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if refusal is not None:
        verdict.said = str(refusal)
        assert type(refusal) in _DOCUMENTED, f"{type(refusal).__name__} of a parser: {refusal}"
        assert name in verdict.said, f"which file? {refusal}"
        assert len(verdict.said.splitlines()) == 1, f"more than one line: {refusal}"
        assert len(verdict.said) < 1000, f"more than a line: {refusal}"
    assert process_time() - begun < most_seconds
    assert peak < most_memory, f"{peak} bytes for a small file"
    assert _resident() - before < most_resident


def refusal(read: Callable[[], object], name: str = "") -> str | None:
    """What the documented error of `read` said, judged; None where it gave a value."""
    with judged(name) as verdict:
        read()
    return verdict.said


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, most: int = 4) -> bytes:
    """`whole` with up to `most` places flipped or overwritten by odd numbers, or else cut, doubled or filled too."""
    data = bytearray(whole)
    actions = draw(st.sampled_from((("flip", "number"), ("flip", "number", "cut", "end", "double", "fill", "insert"))))
    for _ in range(draw(st.integers(1, most))):
        size = len(data)
        near = st.integers(0, min(ENDS, size)) | st.integers(max(0, size - ENDS), size)
        start = draw(near | st.integers(0, size))
        stop = min(size, start + draw(st.sampled_from((1, 2, 4, 16, 200, ENDS))))
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
            case "insert":
                data[start:start] = draw(st.binary(min_size=1, max_size=20))
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


@st.composite
def damaged_json(draw: st.DrawFn, value: Any) -> str:
    """The text of `value` with one to three of its parts replaced, left out or there twice."""
    value, marks = json.loads(json.dumps(value)), dict[str, str]()
    for i in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_places(value))))
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double"]))
        if what == "remove":
            del holder[key]
        elif what == "double" and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif what == "double":
            holder[f"@{i}@"], marks[f'"@{i}@"'] = holder[key], json.dumps(key)
        else:
            holder[key], marks[f'"@{i}@"'] = f"@{i}@", draw(st.sampled_from(FRAGMENTS))
        if not value:
            break
    text = json.dumps(value)
    for mark, fragment in marks.items():
        text = text.replace(mark, fragment)
    return text


def _places(value: Any) -> Any:
    """(holder, key) of every part inside `value`; of long lists the first ones."""
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 4)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _resident() -> int:
    """The most bytes this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def written(folder: Path, name: str, content: bytes) -> Path:
    """The file `name` in `folder`, holding `content`."""
    path = folder / name
    path.write_bytes(content)
    return path
