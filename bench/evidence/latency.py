"""Time what training kept: the compressed networks themselves, and networks of the papers' width with their patterns.

The trained networks are narrow, and what a call costs hides what its products save; so the pattern each layer kept is
stretched over the channels of a wide network with random weights, which costs what a trained one would.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench import rows
from bench.evidence.chain import Job
from bench.evidence.rows import Row
from bench.evidence.settings import MAIN, REMOVED, SETTINGS, Setting
from bench.evidence.tasks import Task, task
from lrw.checkpoint import load
from lrw.compress import compress
from lrw.convert import to_winograd
from lrw.layers import named_layers
from lrw.nn import WinogradConv3d, WinogradLayer
from lrw.timing import interleaved

WIDE = {"digits": 64, "adrenal": 64, "hippocampus": 32}
SEED = 0
SECONDS = 4.0  # for one method's networks together


@dataclass(frozen=True)
class Timing(rows.Row):
    """One compressed network at batch 1, beside the dense one (torch's faster layout) and the one with all columns.

    multiplies are those of its Winograd layers, all_multiplies those with every column.
    """

    setting: str
    task: str
    method: str
    width: int
    removed: float
    ms: float
    dense_ms: float
    all_ms: float
    multiplies: int
    all_multiplies: int


def measure(table: Path, out: Path, setting: Setting, data: Path, folder: Path) -> None:
    """Time the main methods in `table` whose networks are in `folder`; writes `out` anew, whole.

    The others keep as many columns, at other positions: they would take the same time.
    """
    known = [row for row in rows.read(Row, table) if row.setting == setting.name and row.seed == SEED]
    timings = []
    for name in dict.fromkeys(row.task for row in known):
        learnt = task(name, setting, data, SEED)
        for method in (m for m in MAIN if any((row.task, row.method) == (name, m) for row in known)):
            job = Job(setting.name, name, method, SEED, data, folder)
            if not all(job.network(removed).exists() for removed in REMOVED):
                print(f"{name} {method}: its networks are not in {folder}, not timed")
                continue
            timings += [*_time(job, learnt, setting.width), *_time(job, learnt, WIDE[name])]
            print(*(f"{t.task} {t.method} width {t.width} -{t.removed:.2%}: {t.ms:.2f} ms, all columns {t.all_ms:.2f}, "
                    f"dense {t.dense_ms:.2f}" for t in timings[-2 * len(REMOVED) :]), sep="\n", flush=True)  # fmt: skip
    with rows.Writer(out) as writer:
        writer.write(*timings)


def _time(job: Job, learnt: Task, width: int) -> list[Timing]:
    torch.manual_seed(SEED)
    dense, narrow = (learnt.build(learnt.volumes, w).eval() for w in (width, SETTINGS[job.setting].width))
    x = learnt.example
    last = x.to(memory_format=torch.channels_last_3d)
    nets: dict[float, nn.Module] = {}
    for removed in REMOVED:
        trained = load(job.network(removed), narrow)
        nets[removed] = compress(stretched(dense, trained), x).eval()
    tile = next(iter(named_layers(trained, WinogradLayer).values())).geometry.tile
    kept = named_layers(trained, WinogradLayer)
    whole = compress(to_winograd(dense, tile.outputs, filter=lambda name, _: name in kept), x).eval()
    dense_last = learnt.build(learnt.volumes, width).eval().to(memory_format=torch.channels_last_3d)
    runs = {"contiguous": (dense, x), "channels_last": (dense_last, last), "all": (whole, x)}
    runs |= {str(removed): (net, x) for removed, net in nets.items()}
    with torch.inference_mode():
        times = interleaved({name: _call(net, images) for name, (net, images) in runs.items()}, seconds=SECONDS)
    best = min(times["contiguous"], times["channels_last"])
    return [
        Timing(job.setting, job.task, job.method, width, removed, *(round(1e3 * t, 3) for t in (
            times[str(removed)], best, times["all"])), _multiplies(net), _multiplies(whole))
        for removed, net in nets.items()
    ]  # fmt: skip


def stretched(wide: nn.Module, trained: nn.Module) -> nn.Module:
    """`wide` with Winograd layers where `trained` has them, and their patterns, each channel's over several."""
    layers = named_layers(trained, WinogradLayer)
    tile = next(iter(layers.values())).geometry.tile
    net = to_winograd(wide, tile.outputs, filter=lambda name, _: name in layers)
    for name, layer in named_layers(net, WinogradConv3d).items():
        pattern = kept_weights(layers[name])
        for dim, channels in ((1, layer.in_channels), (2, layer.out_channels)):
            if pattern.shape[dim] > 1:
                pattern = pattern.repeat_interleave(channels // pattern.shape[dim], dim)
        layer.keep_weights(pattern)
    return net


def kept_weights(layer: WinogradLayer) -> Tensor:
    """Which weights a layer has: bool [T, 1 or Cin, 1 or Cout], one where all channels agree."""
    mask = torch.zeros(layer.geometry.tile.positions, layer.in_channels, layer.out_channels, dtype=torch.bool)
    mask[list(layer.geometry.positions)] = layer.weights().detach() != 0
    for dim in (1, 2):
        first = mask.narrow(dim, 0, 1)
        if bool((mask == first).all()):
            mask = first
    return mask


def _call(net: nn.Module, images: Tensor):
    return lambda: net(images)


def _multiplies(net: nn.Module) -> int:
    return sum(layer.multiplies for layer in net.report.layers)
