"""What is measured, in parts: the seconds each may take, its cases, how rows become a table and what is compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from bench import networks, pruned, rows, startup
from bench.cpu import inference, training
from bench.layers import CPU, NETWORKS, Network, picked
from bench.overview import sheet, timed
from bench.overview.compare import Timed
from lrw import peers

WHOLE = ("UNet", "C3D", "r3d_18", "SegResNet")  # of volumes and of video; UNet is where others are nearest
FEW = ("C3D", "r3d_18")
TRAINED = picked("r3d18-layer1 c3d-3b medmnist-layer1")
PEERS = ("openvino", "onnxruntime")
LEFT_OUT = "left out for time: torch.compile, OpenVINO in 8 bits; `nox -s bench -- networks` has them"

Case = tuple[str, Callable[[], Sequence[rows.Row]]]
"""A name, and what measures it; that raises gate.Red where what was computed is wrong."""


@dataclass(frozen=True)
class Part:
    """One table: `seconds` are its share of the five minutes, beyond which cases are left out; `files` in
    bench/results have rows of the same `kind`; `notes` say what is absent, `versions` are those of the peers."""

    name: str
    seconds: float
    kind: type[rows.Row]
    cases: Callable[[], list[Case]]
    table: Callable[[Sequence[Any]], list[str]]
    timed: Callable[[Any], Timed]
    files: tuple[str, ...] = ()
    notes: Callable[[], list[str]] = list
    versions: Callable[[], str] = str


def chosen(names: Sequence[str]) -> list[Network]:
    """The networks of these names, in this order."""
    by_name = {network.name: network for network in NETWORKS}
    return [by_name[name] for name in names]


def made(network: Network) -> bool:
    """Whether the package it is made of is installed."""
    return find_spec(network.package) is not None


def absent() -> list[str]:
    """A note on the peers that are not installed, one on the networks whose packages are not, and what has no time."""
    missing = [networks.PEERS[name] for name in PEERS if networks.PEERS[name] not in peers.installed()]
    notes = [f"absent, not installed: {', '.join(missing)}"] if missing else []
    notes += [f"absent: {of.name}, {of.package} is not installed" for of in chosen(WHOLE) if not made(of)]
    return [*notes, LEFT_OUT]


def _layers() -> list[Case]:
    """Every other one first: where time is short, each network has some."""
    tile = inference.usual_tile
    layers = (*CPU[::2], *CPU[1::2])
    return [(layer.name, partial(inference.measure, layer, tile(layer), "auto", 1.5)) for layer in layers]


def _networks() -> list[Case]:
    others = [name for name in PEERS if networks.PEERS[name] in peers.installed()]
    return [(network.name, partial(_network, network, others)) for network in chosen(WHOLE) if made(network)]


def _network(network: Network, others: Sequence[str]) -> list[networks.Row]:
    return [networks.measure(network, 8.0, others)]


def _pruned() -> list[Case]:
    return [(network.name, partial(pruned.measure, network, 5.0)) for network in chosen(FEW) if made(network)]


def _training() -> list[Case]:
    tile = inference.usual_tile
    return [(layer.name, partial(training.measure, layer, tile(layer), "auto", 2.0)) for layer in TRAINED]


def _startup() -> list[Case]:
    return [("new processes", startup.measure)]


PARTS = (
    # What cannot be cut short comes first: those after it have cases to leave out. The rest of 300 s is for the page.
    Part("start-up", 80.0, startup.Row, _startup, startup.table, timed.of_wait),
    Part("layers", 45.0, inference.Row, _layers, inference.table, timed.of_layer, tuple(sheet.LAYERS.values())),
    Part("networks", 105.0, networks.Row, _networks, networks.table, timed.of_network,
         tuple(sheet.NETWORKS.values()), absent, networks.peer_versions),
    Part("pruned", 35.0, pruned.Row, _pruned, pruned.table, timed.of_pruned),
    Part("training", 15.0, training.Row, _training, training.table, timed.of_step, tuple(sheet.TRAINING.values())),
)  # fmt: skip
