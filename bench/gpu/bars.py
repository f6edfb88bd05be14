"""What was wanted of the GPU kernels, and what was measured: every bar has an answer, be it "unmeasured"."""

from collections.abc import Callable, Iterable, Sequence
from statistics import geometric_mean
from typing import NamedTuple

from bench.gpu.rows import Row

SHARED = 0.01  # shares of columns nearer than that are one
WIDE, NARROW = range(256, 1 << 20), range(64, 129)  # Cin
SPEEDS = (
    ("ieee", "float32", range(1 << 20), ((1.0, 2.5), (0.25, 7.0))),
    ("tf32", "TF32, Cin from 256", WIDE, ((1.0, 1.5), (0.5, 2.5), (0.25, 4.0))),
    ("tf32", "TF32, Cin 64 to 128", NARROW, ((0.5, 1.1), (0.25, 1.9))),
    ("half", "bfloat16, Cin from 256", WIDE, ((1.0, 1.5), (0.5, 2.5), (0.25, 4.0))),
    ("half", "bfloat16, Cin 64 to 128", NARROW, ((0.5, 1.1), (0.25, 1.9))),
)
"""Precision, its name, channels; by share of columns how many times as fast as cuDNN."""


class Bar(NamedTuple):
    """A text, the limit, the value to be held against it (None: unmeasured), whether it holds, and details."""

    text: str
    limit: str
    value: float | None
    reached: bool | None
    details: str

    @property
    def answer(self) -> str:
        """The value and what became of the bar."""
        if self.value is None:
            return "unmeasured"
        return f"{self.value:.2f}, {'reached' if self.reached else 'missed'}"


def bars(rows: Sequence[Row]) -> list[Bar]:
    """All bars of the GPU kernels."""
    found = []
    for precision, name, cin, limits in SPEEDS:
        for share, limit in limits:
            own = [r for r in rows if r.precision == precision and _is(r, share) and r.speedup and (r.cin or 0) in cin]
            found.append(_speed(f"{name}, {share:.0%} of columns, times as fast", limit, own))
    steps = {r.form: r.speedup for r in rows if r.kind == "step" and r.speedup and _is(r, 0.5)}
    details = ", ".join(f"{form} {speedup:.2f}" for form, speedup in steps.items())
    text = "training step of R3D-18, bfloat16, 50% of columns, times as fast"
    found.append(_bar(text, ">", 1.0, max(steps.values(), default=None), details))
    found.append(_memory(rows, "step", "peak memory of R3D-18's training step, of cuDNN's"))
    return [*found, _memory(rows, "memory", "peak memory of a layer's training step, of cuDNN's")]


def _speed(text: str, limit: float, own: Sequence[Row]) -> Bar:
    """The geometric mean over the layers, each with its faster tile; in CUDA graphs, and at the floors, in the
    details."""
    passes, graphs = (_best(own, kind, lambda r: r.speedup) for kind in ("forward", "graph"))
    floors = _best(own, "forward", lambda r: r.cudnn_ms / r.floor_ms if r.cudnn_ms and r.floor_ms else None)
    details = [f"{len(passes)} layers"] if passes else []
    details += [f"{geometric_mean(graphs):.2f} in a CUDA graph"] if graphs else []
    details += [f"at the floor {geometric_mean(floors):.2f}"] if floors else []
    return _bar(text, ">=", limit, geometric_mean(passes) if passes else None, ", ".join(details))


def _best(rows: Iterable[Row], kind: str, figure: Callable[[Row], float | None]) -> list[float]:
    """The largest of each layer."""
    found: dict[str, float] = {}
    for row in rows:
        if row.kind == kind and (value := figure(row)):
            found[row.layer] = max(value, found.get(row.layer, 0.0))
    return list(found.values())


def _memory(rows: Iterable[Row], kind: str, text: str) -> Bar:
    """The most; peaks are those of calls in a stream."""
    own = {r.mib / r.cudnn_mib: r for r in rows if r.kind == kind and r.mib and r.cudnn_mib}
    if not own:
        return _bar(text, "<=", 1.3, None, "")
    row = own[max(own)]
    where = f"most of {len(own)}: {row.layer} {row.form or row.precision} {row.columns:.0%}"
    return _bar(text, "<=", 1.3, max(own), where)


def _bar(text: str, sign: str, limit: float, value: float | None, details: str) -> Bar:
    reached = None if value is None else {">=": value >= limit, ">": value > limit, "<=": value <= limit}[sign]
    return Bar(text, f"{sign} {limit:g}", value, reached, details)


def _is(row: Row, share: float) -> bool:
    return row.columns is not None and abs(row.columns - share) < SHARED
