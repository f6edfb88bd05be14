"""The table of configurations, `lrw_kernels/triton/tuned.csv`, out of a sweep."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import NamedTuple

from bench.on_gpu.rows import Row
from bench.on_gpu.speedups import lines, replace_file
from lrw_kernels.triton.tuned import KERNELS, SEPARATE, Tuned, parse

GAIN = 1.03  # times as fast as the configuration in use, at least


class Key(NamedTuple):
    """What a configuration is chosen for."""

    kernel: str
    precision: str
    cin: int
    cout: int


def fastest(rows: Sequence[Row]) -> dict[Key, str | None]:
    """The configuration of each key, by the geometric mean over its layers; None where that in use is as good."""
    times = _times(rows)
    found: dict[Key, str | None] = {}
    for key, layers in times.items():
        shared = set.intersection(*(set(by_config) for by_config in layers.values()))
        used = next(iter(next(iter(layers.values()))))
        if used not in shared:
            continue
        gains = {config: geometric_mean([own[used] / own[config] for own in layers.values()]) for config in shared}
        best = max(gains, key=lambda config: gains[config])
        if key.kernel == "fused":  # that it is one kernel is measured, too
            found[key] = SEPARATE if _separate_is_faster(key, times) else best
        else:
            found[key] = best if gains[best] >= GAIN else None
    return found


def _times(rows: Iterable[Row]) -> dict[Key, dict[str, dict[str, float]]]:
    """Milliseconds by key, layer and configuration, the one in use first."""
    found: dict[Key, dict[str, dict[str, float]]] = {}
    for row in rows:
        if row.kind == "sweep" and row.ms and row.cin and row.cout:
            kernel, _, config = row.form.partition(" ")
            channels = {"gather": (row.cin, row.cin), "scatter": (row.cout, row.cout)}.get(kernel, (row.cin, row.cout))
            found.setdefault(Key(kernel, row.precision, *channels), {}).setdefault(row.layer, {})[config] = row.ms
    return found


def _separate_is_faster(key: Key, times: dict[Key, dict[str, dict[str, float]]]) -> bool:
    """Whether products and inverse transform, each in its best form, take less time than the best kernel of both."""
    others = [times.get(key._replace(kernel="products"), {}),
              times.get(Key("scatter", key.precision, key.cout, key.cout), {})]  # fmt: skip
    pairs = [
        (min(fused.values()), sum(min(other[layer].values()) for other in others))
        for layer, fused in times[key].items()
        if all(layer in other for other in others)
    ]
    return bool(pairs) and geometric_mean([fused / two for fused, two in pairs]) > 1


def merged(old: Sequence[Tuned], found: dict[Key, str | None], capability: int, device: str, date: str) -> list[Tuned]:
    """The old rows and what was found; a configuration in use that is as good as any stays as it is."""
    by_key = {(row[:4], row.capability): row for row in old}
    for key, config in found.items():
        if config is not None:
            by_key[tuple(key), capability] = Tuned(*key, config, capability, device.removeprefix("NVIDIA "), date)
    order = {name: i for i, name in enumerate((*KERNELS, "half", "tf32", "ieee"))}
    return sorted(by_key.values(), key=lambda row: (order[row.kernel], order[row.precision], row[2:4], row.capability))


def known(path: Path) -> list[Tuned]:
    """The rows of a file, none where there is no file. Raises ValueError for a file of something else."""
    return parse(lines(path, Tuned._fields)) if path.is_file() else []


def rewrite(path: Path, rows: Sequence[Row], capability: int, device: str, date: str) -> int:
    """Put what was found into the file, whole or not at all; returns how many rows it then has."""
    new = merged(known(path), fastest(rows), capability, device, date)
    text = [",".join(Tuned._fields), *(",".join(map(str, row)) for row in new)]
    replace_file(path, "\n".join(text) + "\n")
    return len(new)
