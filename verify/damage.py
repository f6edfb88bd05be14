"""What fuzzers do to valid files, and how they judge what a reader makes of the outcome.

A reader either gives a value or raises a documented error (ValueError, or OSError as for a missing file), of one short
line, soon and without taking much memory. Anything else is the fuzzer's finding.
"""

import json
import resource
from collections.abc import Callable
from time import perf_counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

FUZZED = settings(max_examples=max(100, settings.default.max_examples))  # the nightly profile has more
SECONDS, MEBIBYTES = 5.0, 300
EXTREME = [0, 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
FRAGMENTS = [
    "null", "true", "0", "-1", "2", "1.5", "1e9", "1e999", "NaN", "-Infinity", "1048577", str(2**40), "9" * 5000, '""',
    '"x"', '"0"', '"1e9999999"', '"F(2x2x2,3x3x3)@0,0,0[0 1 1e9999999;0 1 -1;0 1 -1]"', '"F(8x8x8,7x7x7)"', "[]", "{}",
    "[0]", "[null]", '["0"]', "[[[0]]]", "[0,0]", "[1,1,1]", "[64,64,64]", "[1000000000,0,0]", '{"0":1,"0":1}',
    "[" * 100 + "]" * 100, "[" * 9000 + "]" * 9000, json.dumps(list(range(64))), json.dumps("\ud800\0" * 99),
]  # fmt: skip


def refusal(read: Callable[[], object]) -> str | None:
    """What the documented error said; None where `read` gave a value."""
    start, before = perf_counter(), _peak()
    try:
        read()
        said = None
    except (ValueError, OSError) as error:
        said = str(error)
    assert perf_counter() - start < SECONDS
    assert _peak() - before < MEBIBYTES * 2**20
    assert said is None or ("\n" not in said and len(said) < 1000)
    return said


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with bytes flipped, cut, doubled, put in or overwritten by an extreme number, in one to four places."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)) | st.integers(0, min(len(data), 64)))
        end = at + draw(st.integers(1, 40))
        new = draw(st.binary(min_size=1, max_size=12) | st.sampled_from(EXTREME).map(lambda n: n.to_bytes(8, "little")))
        flipped = bytes(b ^ draw(st.integers(1, 255)) for b in data[at : at + 1])
        data = draw(
            st.sampled_from([
                data[:at] + flipped + data[at + 1 :], data[:at], data[:at] + data[end:], data[:end] + data[at:],
                data[:at] + new + data[at:], data[:at] + new + data[at + len(new) :],
            ])
        )  # fmt: skip
    return data


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


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
