"""Pruning without training: columns go by elimination, the others are fitted to what the network computed."""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.accelerate import accelerate
from lrw.compress import LayerSize, compress, measure
from lrw.convert import UNNAMED, ConversionReport, to_winograd
from lrw.layers import copied, evaluating, named_layers
from lrw.nn import WinogradConv3d
from lrw.ops import TileLike
from lrw.progress import on_stderr
from lrw.pruning.budget import AUTO, Share, planned, planned_in_time, uniform
from lrw.pruning.calibration import Calibration, Forward, survey
from lrw.pruning.compensation import Compensated, Errors, compensated
from lrw.pruning.granularity import COLUMN, Granularity
from lrw.pruning.layerwise import VOXELS, change_in_turn, draw
from lrw.pruning.least_squares import RIDGE
from lrw.pruning.resume import Done
from lrw.pruning.statistics import estimate_again
from lrw.pruning.tiles import Tiles
from lrw.pruning.weights import effective_weights
from lrw.timing import interleaved

FEWEST = 4  # input channels from which on a layer's columns are worth dropping


@dataclass(frozen=True)
class PrunedLayer:
    """One layer: its size, the errors of its outputs on the calibration samples, the seconds that pruning it took."""

    size: LayerSize
    errors: Errors
    seconds: float

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of a table."""
        size, errors = self.size, self.errors
        share = (size.multiplies or 0) / (size.direct_multiplies or 1)
        numbers = (f"{share:.3f}", f"{errors.cut:.3f}", f"{errors.fitted:.3f}", f"{self.seconds:.1f}")
        return (size.name, size.tile, f"{size.kept} of {size.columns}", *numbers)


HEADS = ("layer", "tile", "columns", "multiplies of direct", "error of the cut", "fitted", "s")


@dataclass(frozen=True)
class PruningReport:
    """What `prune` did, layer by layer in the order in which they compute, and what it left alone and why.

    error: distance of the network's outputs from the original's on the calibration samples, root mean square over that
    of the latter; statistics: whether batch norms took theirs from the samples anew, None where there are none; ms:
    milliseconds of one sample through the accelerated network before and after, where a speedup was asked for.
    """

    layers: tuple[PrunedLayer, ...]
    skipped: dict[str, str]
    error: float
    statistics: bool | None
    ms: tuple[float, float] | None = None

    def __str__(self) -> str:
        rows = [HEADS, *(layer.cells for layer in self.layers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [f"{name}: left as it is, {reason}" for name, reason in self.skipped.items()]
        lines.append(f"outputs are off by {self.error:.3f} of their root mean square")
        if self.ms is not None:
            before, after = self.ms
            lines.append(f"one sample takes {after:.2f} ms, {before:.2f} before: {before / after:.2f} times as fast")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def prune(
    net: nn.Module,
    batches: Iterable[Any] | Tensor,
    *,
    sparsity: float | None = None,
    multiplies: float | None = None,
    speedup: float | None = None,
    tile: TileLike | str = AUTO,
    granularity: Granularity = COLUMN,
    spare: Collection[str] | None = None,
    voxels: int = VOXELS,
    ridge: float = RIDGE,
    seed: int = 0,
    forward: Forward | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> nn.Module:
    """A copy of `net` that computes fewer of its layers' Winograd columns, and nearly the same function.

    sparsity: the share of each layer's columns to drop; or multiplies: the share of direct convolution's multiplies, in
    the products of all these layers together, that may be left (1/16, say), which a plan spreads over layers and tiles
    where the least error comes of it; or speedup: how many times as fast as the accelerated dense network the pruned
    one is to be, compressed and accelerated, for one sample like those of the first batch, on this machine and torch's
    threads, by a plan of milliseconds: layers are timed here. One of the three.

    batches: some samples as `net` takes them, without labels: tensors [N, C, D, H, W], tuples that start with one,
    dictionaries with one at "image"; a few hundred, or a few volumes, of the kind that `net` is meant for. Layers that
    can become Winograd layers do, with `tile` outputs per axis ("auto": 2, or each layer's own as the plan says); those
    that are (`WinogradConv3d`) stay what they are. One after the other, in the order in which they compute, each loses
    the columns whose loss costs its outputs least (backward elimination), and the rest is fitted by least squares to
    what the layer gave in `net`, from what it is given now. Nothing is trained, no label is looked at, and the same
    samples and seed give the same network in whatever order they come.

    granularity: blocks of channels that columns are divided into. spare: names of layers to leave alone; by default
    those of fewer than 4 input channels. voxels: outputs of each layer that are looked at, as far as memory (512 MiB a
    layer) goes; ridge: how strongly weights are held, in units of each column's energy. forward(net, batch): how `net`
    is called, by default with the tensor alone. checkpoint: a folder for layers that are done, from which the same call
    goes on after it was stopped. Batch norms take running statistics from the samples where that brings outputs nearer.
    `.report` lists what was done. Train on with `add_low_rank`, or go on to `compress`. Raises ValueError naming the
    argument, also for NaN in a batch and where there is nothing to prune; OSError where `checkpoint` cannot be written.
    The method is ours: optimal brain surgeon (Hassibi, Stork 1992) on columns, and least squares, layer after layer.
    """
    checks.check_network(net)
    checks.check_unwrapped(net)
    _check_budget(sparsity, multiplies, speedup)
    if isinstance(tile, str) and tile != AUTO:
        raise ValueError(f"tile: {tile!r}; accepted are outputs per axis and 'auto'")
    checks.check_count(voxels, "voxels")
    if not ridge > 0:
        raise ValueError(f"ridge: {ridge!r}; accepted is a number above 0")
    calibration = Calibration.of(batches, forward)
    chosen, skipped = _chosen(net, spare)
    sites = survey(net, calibration, chosen)
    skipped |= {name: "the first batch does not reach it" for name in chosen if name not in sites}
    if not sites:
        raise ValueError("net: holds no layer to prune that is not spared and that the first batch reaches")
    reached = {name: layer for name, layer in chosen.items() if name in sites}
    ms = None if speedup is None else _milliseconds(net, calibration, forward)
    if multiplies is not None:
        shares = planned(net, calibration, reached, sites, multiplies, tile, seed=seed)
    elif ms is not None and speedup is not None:
        shares = planned_in_time(net, calibration, reached, sites, speedup, ms, tile, seed=seed)
    else:
        shares = uniform(reached, sparsity or 0.0, tile)
    result, refused = _converted(net, shares)
    layers = {name: layer for name, layer in named_layers(result, WinogradConv3d).items() if name in sites}
    draws = [
        draw(name, layers[name], sites[name], calibration, voxels=voxels, seed=seed)
        for name in sorted(layers, key=lambda name: sites[name].place)
    ]

    def pruned(name: str, tiles: Tiles, wanted: Tensor) -> Compensated:
        u, own = effective_weights(layers[name]), shares[name]
        return compensated(tiles, wanted, u, own.dropped, granularity, ridge=ridge)

    said = {"shares": str([shares[own.name] for own in draws]), "draws": str(draws), "granularity": str(granularity),
            "ridge": ridge, "marks": sorted(chain(*calibration.marks))}  # fmt: skip
    done = None if checkpoint is None else Done.of(checkpoint, said, result.state_dict())
    rows: list[PrunedLayer] = []
    with on_stderr(quiet=not progress).bar("pruning layers", len(draws)) as update:
        for name, errors, seconds in change_in_turn(net, result, calibration, draws, sites, pruned, done):
            d, h, w = sites[name].input_size
            rows.append(PrunedLayer(measure(name, layers[name], (d, h, w)), errors, seconds))
            update(len(rows))
    error, statistics = estimate_again(result, net, calibration)
    times = None if ms is None else (ms, _milliseconds(compress(result), calibration, forward))
    result.report = PruningReport(tuple(rows), skipped | refused, error, statistics, times)  # type: ignore[assignment]
    return result


def _milliseconds(net: nn.Module, calibration: Calibration, forward: Forward | None) -> float:
    """Of `net`, accelerated, for the first sample. Raises ValueError where it cannot be accelerated."""
    if forward is not None:
        raise ValueError("speedup: with forward= nothing is known of how to time the network; accepted is multiplies=")
    sample = calibration.batches[0][:1]
    try:
        with torch.inference_mode(), evaluating(net):
            fast = accelerate(net, sample)
            return 1e3 * interleaved({"fast": lambda: fast(sample)}, seconds=1.0)["fast"]
    except ValueError as error:
        raise ValueError(f"speedup: the network cannot be accelerated ({error}); accepted is multiplies=") from error


def _check_budget(sparsity: float | None, multiplies: float | None, speedup: float | None) -> None:
    """Raises ValueError where not exactly one is given, and where it is not accepted."""
    given = sum(value is not None for value in (sparsity, multiplies, speedup))
    if given != 1:
        raise ValueError(f"sparsity, multiplies, speedup: {given} are given; accepted is one of them")
    if sparsity is not None:
        checks.check_share(sparsity, "sparsity")
    if multiplies is not None and not _number(multiplies, 0, 1):
        raise ValueError(f"multiplies: {multiplies!r}; accepted is a share of direct convolution's, above 0 up to 1")
    if speedup is not None and not _number(speedup, 1, inf):
        raise ValueError(f"speedup: {speedup!r}; accepted is a number above 1")


def _number(value: object, above: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value <= most


def _converted(net: nn.Module, shares: Mapping[str, Share]) -> tuple[nn.Module, dict[str, str]]:
    """A copy of `net` in which the convolutions with `shares` are Winograd layers, and which others were refused."""
    convs = {name: own.tile for name, own in shares.items() if isinstance(net.get_submodule(name), nn.Conv3d)}
    if not convs:
        return copied(net), {}
    result = to_winograd(net, convs)
    report: ConversionReport = result.report  # type: ignore[assignment]
    return result, {name: reason for name, reason in report.skipped.items() if reason != UNNAMED}


def _chosen(net: nn.Module, spare: Collection[str] | None) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Layers that may be pruned, and those that are spared with the reason."""
    convs = {n: c for n, c in named_layers(net, nn.Conv3d).items() if checks.unsuited(checks.fitted(c)) is None}
    layers: dict[str, nn.Module] = {**convs, **named_layers(net, WinogradConv3d)}
    unknown = sorted(set(spare or ()) - set(layers))
    if unknown:
        raise ValueError(f"spare: names {unknown[0]!r}, which is no layer to prune; accepted are {', '.join(layers)}")
    if not layers:
        raise ValueError("net: holds no layer to prune; they are 3D convolutions of stride 1 and Winograd layers")
    if spare is not None:
        return {n: m for n, m in layers.items() if n not in spare}, dict.fromkeys(spare, "spared")
    few = {n: int(m.in_channels) for n, m in layers.items() if int(m.in_channels) < FEWEST}  # type: ignore[arg-type]
    reason = "input channels are too few to gain by it; spare=() prunes it too"
    return {n: m for n, m in layers.items() if n not in few}, {n: f"{c} {reason}" for n, c in few.items()}
