"""Pruning without training: columns go by elimination, the others are fitted to what the network computed."""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.accelerate import accelerate
from lrw.compress import LayerSize, compress, measure
from lrw.convert import winograd_layers_for
from lrw.layers import copied, evaluating, named_layers, replace_layers
from lrw.nn import WinogradConv3d
from lrw.ops import TileLike
from lrw.progress import on_stderr
from lrw.pruning import budget as budgets
from lrw.pruning.budget import AUTO, OUTPUTS, Budget, Plan, Share, planned, uniform
from lrw.pruning.calibration import Calibration, Draw, Forward, Site, survey
from lrw.pruning.compensation import Compensated, Errors, compensated
from lrw.pruning.granularity import COLUMN, Granularity
from lrw.pruning.layerwise import VOXELS, change_in_turn, draw
from lrw.pruning.least_squares import RIDGE
from lrw.pruning.resume import Done
from lrw.pruning.statistics import estimate_again
from lrw.pruning.tiles import Tiles
from lrw.pruning.weighing import weights
from lrw.pruning.weights import effective_weights
from lrw.timing import interleaved
from lrw.typed import typed
from lrw_kernels.untrusted import shown
from lrw_kernels.winograd import column_cost, direct_cost

MOST_RIDGE = 1e6  # beyond which nothing is fitted, and numbers overflow
FEWEST = 4  # input channels from which on a layer's columns are worth dropping


@dataclass(frozen=True)
class PrunedLayer:
    """One layer: its size, its products as a share of direct convolution's multiplies, the errors of its outputs on the
    calibration samples, the seconds that pruning it took; its milliseconds for one sample before and after, by what
    was timed for a speedup that was asked for."""

    size: LayerSize
    products: float
    errors: Errors
    seconds: float
    ms: tuple[float, float] | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of a table."""
        size, errors = self.size, self.errors
        numbers = (f"{self.products:.3f}", f"{errors.cut:.3f}", f"{errors.fitted:.3f}", f"{self.seconds:.1f}")
        times = () if self.ms is None else tuple(f"{ms:.3f}" for ms in self.ms)
        return (size.name, size.tile, f"{size.kept} of {size.columns}", *numbers, *times)


HEADS = ("layer", "tile", "columns", "products of direct", "error of the cut", "fitted", "s", "ms before", "after")


@dataclass(frozen=True)
class PruningReport:
    """What `prune` did, layer by layer in the order in which they compute, and what it left alone and why.

    error: distance of the network's outputs from the original's on the calibration samples, root mean square over that
    of the latter, None where there are no floating ones; weighed: whether errors of layers count by what they do to
    class scores; statistics: whether batch norms took theirs from the samples
    anew, None where there are none; ms: milliseconds of one sample through the accelerated network before and after,
    where a speedup was asked for.
    """

    layers: tuple[PrunedLayer, ...]
    skipped: dict[str, str]
    error: float | None
    statistics: bool | None
    weighed: bool
    ms: tuple[float, float] | None = None

    def __str__(self) -> str:
        cells = [layer.cells for layer in self.layers]
        rows = [HEADS[: len(cells[0])], *cells]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [f"{name}: left as it is, {reason}" for name, reason in self.skipped.items()]
        if self.error is not None:
            lines.append(f"outputs are off by {self.error:.3f} of their root mean square")
        if self.ms is not None:
            before, after = self.ms
            lines.append(f"one sample takes {after:.2f} ms, {before:.2f} before: {before / after:.2f} times as fast")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@typed
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
    scores: bool | None = None,
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
    samples and seed give the same network. With `sparsity` and without batch norms they may come in any order; plans
    look at the first ones for how far errors carry, and variances of batch norms are means over batches.

    granularity: blocks of channels that columns are divided into. spare: names of layers to leave alone; by default
    those of fewer than 4 input channels. voxels: outputs of each layer that are looked at, as far as memory (512 MiB a
    layer) goes; ridge: how strongly weights are held, in units of each column's energy. scores: whether `net` gives
    class scores [N, classes, ...]: errors then count by what they do to the likeliest class, of a sample or of each
    voxel (`lrw.pruning.weighing`); by default where some output has that form. forward(net, batch): how `net`
    is called, by default with the tensor alone. checkpoint: a folder for layers that are done, from which the same call
    goes on after it was stopped. Batch norms take running statistics from the samples where that brings outputs nearer.
    `.report` lists what was done. Train on with `add_low_rank`, or go on to `compress`. Raises ValueError naming the
    argument, also for NaN in a batch and where there is nothing to prune; OSError where `checkpoint` cannot be written.
    The method is ours: optimal brain surgeon (Hassibi, Stork 1992) on columns, and least squares, layer after layer.
    """
    budget = Budget(sparsity, multiplies, speedup)
    _check(net, budget, tile, voxels, ridge, forward)
    with torch.inference_mode(False), torch.no_grad():  # what comes out can be trained
        calibration, reporter = Calibration.of(batches, forward), on_stderr(quiet=not progress)
        layers, sites, skipped = _found(net, calibration, tile, spare)
        with reporter.status("planning"):
            plan = _plan(net, calibration, layers, sites, budget, tile, seed, checkpoint)
        result = _converted(net, plan.shares)
        draws = _draws(result, calibration, sites, voxels, seed)
        said = {"shares": str([plan.shares[own.name] for own in draws]), "draws": str(draws), "ridge": ridge,
                "granularity": str(granularity), "scores": scores,
                "marks": sorted(chain(*calibration.marks))}  # fmt: skip
        counts = weights(net, calibration, draws, scores)
        done = None if checkpoint is None else Done.of(checkpoint, said, result.state_dict())

        def pruned(name: str, tiles: Tiles, wanted: Tensor) -> Compensated:
            layer: Any = result.get_submodule(name)
            u, dropped, weight = effective_weights(layer), plan.shares[name].dropped, counts.get(name)
            if weight is not None:
                weight.on(tiles, wanted)
            channels = None if weight is None else weight.channels
            return compensated(tiles, wanted, u, dropped, granularity, there=layer.mask, channels=channels, ridge=ridge)

        rows: list[PrunedLayer] = []
        with reporter.bar("pruning layers", len(draws)) as update:
            for name, errors, seconds in change_in_turn(net, result, calibration, draws, sites, pruned, done):
                ms = None if plan.layers_ms is None else plan.layers_ms[name]
                rows.append(_row(name, result.get_submodule(name), sites[name], errors, seconds, ms))
                update(len(rows))
        error, statistics = estimate_again(result, net, calibration)
        times = None if plan.ms is None else (plan.ms, _milliseconds(compress(result), calibration))
    result.report = PruningReport(tuple(rows), skipped, error, statistics, bool(counts), times)  # type: ignore[assignment]
    return result


def _check(net: object, budget: Budget, tile: object, voxels: int, ridge: float, forward: Forward | None) -> None:
    """Raises ValueError naming the first argument that is not accepted, before anything is computed."""
    checks.check_network(net)
    checks.check_unwrapped(cast(nn.Module, net))
    checks.check_finite(cast(nn.Module, net))
    if isinstance(tile, str) and tile != AUTO:
        raise ValueError(f"tile: {shown(tile)}; accepted are outputs per axis and 'auto'")
    if budget.speedup is not None and forward is not None:
        raise ValueError("speedup: with forward= nothing is known of how to time the network; accepted is multiplies=")
    checks.check_count(voxels, "voxels")
    if not 0 < ridge <= MOST_RIDGE:
        raise ValueError(f"ridge: {ridge!r}; accepted is a number above 0, up to {MOST_RIDGE:g}")


def check_multiplies(net: nn.Module, batch: Any, share: float) -> None:
    """Raises ValueError where `prune` cannot leave as little as a `share` of direct convolution's multiplies in `net`,
    trained or not, which is called with a `batch` once."""
    calibration = Calibration.of([batch])
    layers, sites, _ = _found(net, calibration, AUTO, None)
    budgets.check_multiplies(layers, sites, share)


def _found(
    net: nn.Module, calibration: Calibration, tile: TileLike | str, spare: Collection[str] | None
) -> tuple[dict[str, Any], dict[str, Site], dict[str, str]]:
    """(layers to prune, where they are called, the others with the reason). Raises ValueError where there are none."""
    chosen, skipped = _chosen(net, tile, spare)
    sites = survey(net, calibration, chosen)
    skipped |= {name: "the first batch does not reach it" for name in chosen if name not in sites}
    if not sites:
        raise ValueError("net: holds no layer to prune that is not spared and that the first batch reaches")
    return {name: layer for name, layer in chosen.items() if name in sites}, sites, skipped


def _plan(
    net: nn.Module, calibration: Calibration, layers: Mapping[str, Any], sites: Mapping[str, Site], budget: Budget,
    tile: TileLike | str, seed: int, checkpoint: str | os.PathLike[str] | None,
) -> Plan:  # fmt: skip
    """What each layer loses: the plan in the folder `checkpoint`, if it is of the same work, or one made now."""
    if budget.sparsity is not None:
        return uniform(layers, budget.sparsity, tile)
    said = {"budget": str(budget), "tile": str(tile), "layers": list(layers), "seed": seed,
            "marks": sorted(chain(*calibration.marks))}  # fmt: skip
    kept = None if checkpoint is None else Done.of(checkpoint, said, net.state_dict())
    plan = None if kept is None else kept.read_plan()
    if plan is None:
        ms = None if budget.speedup is None else _milliseconds(net, calibration)
        plan = planned(net, calibration, layers, sites, budget, tile, ms, seed=seed)
        if kept is not None:
            kept.write_plan(plan)
    return plan


def _draws(net: nn.Module, calibration: Calibration, sites: Mapping[str, Site], voxels: int, seed: int) -> list[Draw]:
    """Of the Winograd layers that have a site, in the order in which they compute."""
    layers = {name: layer for name, layer in named_layers(net, WinogradConv3d).items() if name in sites}
    order = sorted(layers, key=lambda name: sites[name].place)
    return [draw(name, layers[name], sites[name], calibration, voxels=voxels, seed=seed) for name in order]


def _row(
    name: str, layer: Any, site: Site, errors: Errors, seconds: float, ms: tuple[float, float] | None
) -> PrunedLayer:
    d, h, w = site.input_size
    tile, pairs = layer.geometry.tile, layer.in_channels * layer.out_channels
    output = layer.geometry.output_size((d, h, w))
    kept = float(layer.mask.expand(-1, layer.in_channels, layer.out_channels).sum()) / pairs  # columns, in weights
    direct = direct_cost(tile.kernel_size, layer.in_channels, layer.out_channels, output).multiplies
    products = kept * column_cost(tile, layer.in_channels, layer.out_channels, output) / direct
    return PrunedLayer(measure(name, layer, (d, h, w)), products, errors, seconds, ms)


def _milliseconds(net: nn.Module, calibration: Calibration) -> float:
    """Of `net`, accelerated, for the first sample. Raises ValueError where it cannot be accelerated."""
    sample = calibration.batches[0][:1]
    try:
        with torch.inference_mode(), evaluating(net):
            fast = accelerate(net, sample)
            return 1e3 * interleaved({"fast": lambda: fast(sample)}, seconds=1.0)["fast"]
    except ValueError as error:
        raise ValueError(f"speedup: the network cannot be accelerated ({error}); accepted is multiplies=") from error


def _converted(net: nn.Module, shares: Mapping[str, Share]) -> nn.Module:
    """A copy of `net` in which the convolutions with `shares` are Winograd layers."""
    convs = {name: own.tile for name, own in shares.items() if isinstance(net.get_submodule(name), nn.Conv3d)}
    new, _ = winograd_layers_for(net, convs, {})
    return replace_layers(copied(net), new)


def _chosen(
    net: nn.Module, tile: TileLike | str, spare: Collection[str] | None
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Layers that may be pruned, and the others with the reason."""
    convs = named_layers(net, nn.Conv3d)
    new, conversion = winograd_layers_for(net, OUTPUTS if isinstance(tile, str) else tile, {})
    layers: dict[str, nn.Module] = {**{n: convs[n] for n in new}, **named_layers(net, WinogradConv3d)}
    if not layers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in conversion.skipped.items())
        raise ValueError(f"net: no layer to prune ({reasons or 'it holds no nn.Conv3d'})")
    unknown = sorted(set(spare or ()) - set(layers) - set(convs))
    if unknown:
        raise ValueError(f"spare: names {unknown[0]!r}, which is no layer to prune; accepted are {', '.join(layers)}")
    if spare is not None:
        spared = dict.fromkeys(spare, "spared") | conversion.skipped
        return {n: m for n, m in layers.items() if n not in spare}, spared
    inputs = {n: (checks.fitted(m) if isinstance(m, nn.Conv3d) else m).in_channels for n, m in layers.items()}
    few = {n: count for n, count in inputs.items() if int(count) < FEWEST}  # type: ignore[arg-type]
    reason = "input channels are too few to gain by it; spare=() prunes it too"
    skipped = conversion.skipped | {n: f"{c} {reason}" for n, c in few.items()}
    return {n: m for n, m in layers.items() if n not in few}, skipped
