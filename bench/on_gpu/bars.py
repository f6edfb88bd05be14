"""What was wanted of the GPU kernels, and what was measured: every bar has an answer, be it "unmeasured"."""

from collections.abc import Callable, Iterable, Sequence
from statistics import geometric_mean
from typing import NamedTuple

from bench.on_gpu.rows import Row
from lrw_kernels.triton.precision import Precision

NETWORK = "r3d18"
SHARED = 0.01  # shares of columns nearer than that are one


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
    found = [
        _speed(rows, "ieee", share, limit, "float32", _any) for share, limit in ((1.0, 2.5), (0.25, 7.0))
    ]  # fmt: skip
    for precision, name in (("tf32", "TF32"), ("half", "bfloat16")):
        for share, limit in ((1.0, 1.5), (0.5, 2.5), (0.25, 4.0)):
            found.append(_speed(rows, precision, share, limit, f"{name}, Cin from 256", lambda c: c >= 256))
        for share, limit in ((0.5, 1.1), (0.25, 1.9)):
            found.append(_speed(rows, precision, share, limit, f"{name}, Cin 64 to 128", lambda c: 64 <= c <= 128))
    steps = {r.form: r.speedup for r in rows if r.kind == "step" and r.speedup and _is(r, 0.5)}
    details = ", ".join(f"{form} {speedup:.2f}" for form, speedup in steps.items())
    found.append(_bar("training step of R3D-18, bfloat16, 50% of columns, times as fast", ">", 1.0,
                      max(steps.values(), default=None), details))  # fmt: skip
    found.append(_of_ceiling(rows, ("gather", "scatter"), 0.8, "transforms, of copy bandwidth", _any))
    found.append(
        _of_ceiling(rows, ("products",), 0.7, "products, Cin from 256, of the matmul rate", lambda c: c >= 256)
    )
    found.append(_memory(rows, "step", "peak memory of R3D-18's training step, of cuDNN's"))
    return [*found, _memory(rows, "memory", "peak memory of a layer's training step, of cuDNN's")]


def _speed(
    rows: Iterable[Row], precision: Precision, share: float, limit: float, name: str, cin: Callable[[int], bool]
) -> Bar:
    """The geometric mean over the layers, each with its faster tile; in CUDA graphs, and at the floors, in the
    details."""
    own = [r for r in rows if r.precision == precision and _is(r, share) and r.speedup and cin(r.cin or 0)]
    passes, graphs = (_best(own, kind, lambda r: r.speedup) for kind in ("forward", "graph"))
    floors = _best(own, "forward", lambda r: r.cudnn_ms / r.floor_ms if r.cudnn_ms and r.floor_ms else None)
    details = [f"{len(passes)} layers"] if passes else []
    details += [f"{geometric_mean(graphs):.2f} in a CUDA graph"] if graphs else []
    details += [f"at the floor {geometric_mean(floors):.2f}"] if floors else []
    value = geometric_mean(passes) if passes else None
    return _bar(f"{name}, {share:.0%} of columns, times as fast", ">=", limit, value, ", ".join(details))


def _best(rows: Iterable[Row], kind: str, figure: Callable[[Row], float | None]) -> list[float]:
    """The largest of each layer."""
    found: dict[str, float] = {}
    for row in rows:
        value = figure(row)
        if row.kind == kind and value:
            found[row.layer] = max(value, found.get(row.layer, 0.0))
    return list(found.values())


def _of_ceiling(rows: Iterable[Row], kinds: Sequence[str], limit: float, text: str, cin: Callable[[int], bool]) -> Bar:
    """The least; products are those that a pass takes, cuBLAS's in float32."""
    own = [r for r in rows if r.of_ceiling and cin(r.cin or 0) and _is_taken(r, kinds)]
    if not own:
        return _bar(text, ">=", limit, None, "")
    least = min(own, key=lambda r: r.of_ceiling or 0.0)
    mean = geometric_mean([r.of_ceiling or 0.0 for r in own])
    where = f"{least.kind} {least.layer} {least.precision} {least.columns:.0%}"
    return _bar(text, ">=", limit, least.of_ceiling, f"least of {len(own)}: {where}; geometric mean {mean:.2f}")


def _is_taken(row: Row, kinds: Sequence[str]) -> bool:
    if row.precision == "ieee" and "products" in kinds:
        return row.kind == "bmm"
    return row.kind in kinds


def _memory(rows: Iterable[Row], kind: str, text: str) -> Bar:
    """The most; peaks are those of calls in a stream."""
    own = [(r.mib / r.cudnn_mib, r) for r in rows if r.kind == kind and r.mib and r.cudnn_mib]
    if not own:
        return _bar(text, "<=", 1.3, None, "")
    most, row = max(own, key=lambda pair: pair[0])
    return _bar(text, "<=", 1.3, most, f"most of {len(own)}: {row.layer} {row.form or row.precision} {row.columns:.0%}")


def _bar(text: str, sign: str, limit: float, value: float | None, details: str) -> Bar:
    reached = None if value is None else {">=": value >= limit, ">": value > limit, "<=": value <= limit}[sign]
    return Bar(text, f"{sign} {limit:g}", value, reached, details)


def _is(row: Row, share: float) -> bool:
    return row.columns is not None and abs(row.columns - share) < SHARED


def _any(_: int) -> bool:
    return True
