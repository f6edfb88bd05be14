"""One layer after the other: what each sees of a network whose earlier layers are changed already, and what it gave in
the original."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from lrw.layers import copied
from lrw.nn import WinogradConv3d
from lrw.pruning import ranks
from lrw.pruning.calibration import FEWEST, Calibration, Draw, Site, survey
from lrw.pruning.compensation import Compensated, Errors, refitted
from lrw.pruning.resume import Done
from lrw.pruning.tiles import Patches, Tiles, outputs_at
from lrw.pruning.weighing import weights
from lrw.pruning.weights import effective_weights

VOXELS = 1 << 17  # output voxels of a layer that are looked at
MEMORY = 1 << 29  # bytes that one layer's tiles may take, and what several layers gave
_FLOAT = 4  # bytes


def draw(name: str, layer: WinogradConv3d, site: Site, calibration: Calibration, *, voxels: int, seed: int) -> Draw:
    """Which of a layer's tiles are looked at: about `voxels` output voxels over all samples, as far as memory goes."""
    tile = layer.geometry.tile
    outside = 2 * prod(tile.outputs) * layer.out_channels
    most = MEMORY // (_FLOAT * (tile.positions * layer.in_channels + outside))
    tiles = max(FEWEST, min(voxels / prod(tile.outputs), most))
    return Draw(name, layer.geometry, tiles / (calibration.samples * site.calls), seed)


def refit(
    net: nn.Module, layers: Mapping[str, WinogradConv3d], masks: Mapping[str, Tensor], calibration: Calibration,
    scores: bool | None = None,
) -> None:  # fmt: skip
    """Cut the `layers` of `net` to `masks`, in place, and fit what stays to what the layers gave before.

    Errors count by class `scores`, where `net` gives these (None: where it seems so).

    Raises ValueError, with nothing changed, where the first batch does not reach one. Under torch.distributed what the
    first rank's samples say holds.
    """
    sites = survey(net, calibration, layers)
    missed = next((name for name in layers if name not in sites), None)
    if missed is not None:
        raise ValueError(f"calibration: the first batch does not reach {missed!r}; accepted is one that reaches all")

    def change(name: str, tiles: Tiles, wanted: Tensor) -> Compensated:
        if name in counts:
            counts[name].on(tiles, wanted)
        found = refitted(tiles, wanted, effective_weights(layers[name]), masks[name])
        return replace(found, u=ranks.first(found.u))

    order = sorted(layers, key=lambda name: sites[name].place)
    draws = [draw(name, layers[name], sites[name], calibration, voxels=VOXELS, seed=0) for name in order]
    original, counts = copied(net), weights(net, calibration, draws, scores)
    try:
        for _ in change_in_turn(original, net, calibration, draws, sites, change):
            pass
    except BaseException:  # half of it would be no network that anybody asked for
        for name, layer in layers.items():
            layer.load_state_dict(original.get_submodule(name).state_dict())
        raise


def change_in_turn(
    original: nn.Module,
    net: nn.Module,
    calibration: Calibration,
    draws: Sequence[Draw],
    sites: Mapping[str, Site],
    change: Callable[[str, Tiles, Tensor], Compensated],
    done: Done | None = None,
) -> Iterator[tuple[str, Errors, float]]:
    """Change the Winograd layers of `net` to what `change(name, tiles, wanted)` says, one after the other.

    Gives (name, errors, seconds) of each. `draws` are in the order in which layers compute; `original`, another module
    than `net`, says what is wanted. Layers that are `done` already are taken as they are, the others are kept there.
    """
    layers: dict[str, WinogradConv3d] = {own.name: net.get_submodule(own.name) for own in draws}  # type: ignore[misc]
    places, left = {own.name: place for place, own in enumerate(draws)}, []
    for own in draws:
        found = None if done is None else done.read(places[own.name], layers[own.name])
        if found is None:
            left.append(own)
            continue
        layers[own.name].adopt(found.u, found.mask)
        yield own.name, found.errors, 0.0
    start = perf_counter()
    for name, tiles, wanted in in_turn(original, net, calibration, left, sites):
        found = change(name, tiles, wanted)
        layers[name].adopt(found.u, found.mask)
        if done is not None:
            done.write(places[name], found)
        yield name, found.errors, perf_counter() - start
        start = perf_counter()


def in_turn(
    original: nn.Module, net: nn.Module, calibration: Calibration, draws: Sequence[Draw], sites: Mapping[str, Site]
) -> Iterator[tuple[str, Tiles, Tensor]]:
    """(name, what the layer sees in `net`, what it gave in `original` less its bias [m^3, tiles, Cout]) by layer.

    `draws` are in the order in which layers compute. Whoever takes one may change that layer before the next.
    """
    for together in _together(original, draws, calibration):
        given = _outputs(original, calibration, together, sites)
        for own in together:
            yield own.name, _inputs(net, calibration, own, sites[own.name]), given.pop(own.name)


def _together(original: nn.Module, draws: Sequence[Draw], calibration: Calibration) -> Iterator[list[Draw]]:
    """Runs of layers whose outputs fit into memory together: `original` computes once for each run."""
    run: list[Draw] = []
    held = 0.0
    for own in draws:
        channels = _channels(original, own.name)
        size = _FLOAT * own.each * calibration.samples * prod(own.geometry.tile.outputs) * channels
        if run and held + size > MEMORY:
            yield run
            run, held = [], 0.0
        run.append(own)
        held += size
    if run:
        yield run


def _outputs(
    net: nn.Module, calibration: Calibration, draws: Sequence[Draw], sites: Mapping[str, Site]
) -> dict[str, Tensor]:
    """What each of the layers gives at its tiles, less its bias."""
    by_name = {own.name: own for own in draws}
    parts: dict[str, list[Tensor]] = {name: [] for name in by_name}
    layers: dict[str, Any] = {name: net.get_submodule(name) for name in by_name}

    def see(name: str, call: int, batch: int, x: Tensor, y: Tensor) -> None:
        own = by_name[name]
        chosen = own.chosen(calibration.marks[batch], call, len(y), y.shape[2:])
        parts[name].append(outputs_at(y, layers[name].bias, own.geometry.tile, chosen))

    calibration.watch(net, layers, see, {name: sites[name].calls for name in layers})
    return {name: torch.cat(parts.pop(name), dim=1) for name in by_name}


def _inputs(net: nn.Module, calibration: Calibration, own: Draw, site: Site) -> Tiles:
    """What the layer sees at its tiles."""
    parts: list[Patches] = []

    def see(name: str, call: int, batch: int, x: Tensor, y: Tensor) -> None:
        chosen = own.chosen(calibration.marks[batch], call, len(x), y.shape[2:])
        parts.append(Patches.of(x, own.geometry, chosen))

    calibration.watch(net, {own.name: net.get_submodule(own.name)}, see, {own.name: site.calls})
    return Tiles.of(parts, own.geometry.tile)


def _channels(net: nn.Module, name: str) -> int:
    return int(net.get_submodule(name).out_channels)  # type: ignore[arg-type]
