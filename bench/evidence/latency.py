"""Time the kinds of networks that training kept: as narrow as they were trained, and of the papers' width.

The trained networks are narrow, and what a call costs hides what its products save; so the pattern each layer kept is
stretched over the channels of a wide network with random weights, which costs what a trained one would. Beside them
are what a user would take: the dense network in torch, accelerated, in OpenVINO, in OpenVINO's 8 bits.
"""

from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lrw
from bench.evidence.chain import Job
from bench.evidence.methods import PACKAGES, without_filters, without_packages
from bench.evidence.multiplies import multiplies
from bench.evidence.rows import Timing
from bench.evidence.settings import EIGHT_BITS, SETTINGS, Setting
from bench.evidence.tables import Tables
from bench.evidence.tasks import Task, task
from bench.networks import eight_bits
from bench.rows import Writer
from lrw import peers
from lrw.checkpoint import load
from lrw.layers import named_layers
from lrw.nn import WinogradConv3d, WinogradLayer
from lrw.timing import interleaved

WIDE = {"digits": 64, "adrenal": 64, "hippocampus": 32}
SEED = 0
SECONDS = 4.0  # for one method's networks together
KINDS = ("low_rank", "low_rank_f4", "planned", "planned_low_rank", "grouped", "filters", "native", "sparse_winograd",
         "spatial_winograd")  # fmt: skip
_AS = {"fitted": "low_rank", "cut": "low_rank", "vanilla": "low_rank", "vanilla_cut": "low_rank",
       "low_rank_cut": "low_rank", "fitted_f4": "low_rank_f4", "cut_f4": "low_rank_f4", "vanilla_f4": "low_rank_f4",
       "by_magnitude_f4": "low_rank_f4", "by_importance_f4": "low_rank_f4", "paper_units_f4": "low_rank_f4",
       "plain_vanilla_f4": "low_rank_f4"}  # fmt: skip

Call = Callable[[], object]


def kind(method: str) -> str:
    """The method whose networks take the time of those of `method`: as many columns, at other positions."""
    return _AS.get(method, method)


def measure(tables: Tables, setting: Setting, data: Path) -> None:
    """Time each kind of network in `tables` whose networks are kept there; times that are in the file already stay."""
    known = [row for row in tables.rows if row.setting == setting.name and row.seed == SEED]
    done = {(t.task, t.method, t.width) for t in tables.times if t.setting == setting.name}
    for name in dict.fromkeys(row.task for row in known):
        learnt = task(name, setting, data, SEED)
        for width in (setting.width, WIDE[name]):
            beside: Beside | None = None
            for method in (m for m in KINDS if (name, m, width) not in done):
                rates = sorted({row.removed for row in known if (row.task, row.method) == (name, method)} - {0.0})
                job = Job(setting.name, name, method, SEED, data, tables.folder)
                if not rates or not all(job.network(removed).exists() for removed in rates):
                    continue
                beside = beside or Beside(learnt, width, setting.stretches[name].samples)
                found = beside.timings(job, rates)
                with Writer(tables.times_file, add=True) as writer:
                    writer.write(*found)
                print(*(f"{t.task} {t.method} width {t.width} -{t.removed:.2%}: {t.ms:.2f} ms, all columns "
                        f"{t.whole_ms:.2f}, dense {t.dense_ms:.2f}, torch {t.torch_ms:.2f}" for t in found),
                      sep="\n", flush=True)  # fmt: skip


class Beside:
    """The dense network of one width in each way a user would run it, and pruned ones in turns with those."""

    def __init__(self, learnt: Task, width: int, samples: int) -> None:
        torch.manual_seed(SEED)
        self.task, self.width, self.dense = learnt, width, learnt.build(learnt.volumes, width).eval()
        x = self.x = learnt.example
        last, x_last = deepcopy(self.dense), x.to(memory_format=torch.channels_last_3d)
        last.to(memory_format=torch.channels_last_3d)
        self.calls: dict[str, Call] = {
            "contiguous": _call(self.dense, x), "channels_last": _call(last, x_last), "dense": self._fast(self.dense)
        }  # fmt: skip
        if find_spec("openvino") is not None:
            self.calls["openvino"] = peers.openvino(self.dense, (x,))
        if without_packages(EIGHT_BITS) is None:
            images = [one for batch in learnt.samples(min(samples, 32), 1) for one in batch.split(1)]
            self.calls[EIGHT_BITS] = peers.openvino_call(eight_bits(self.dense, (x,), images), (x,))

    def timings(self, job: Job, rates: list[float]) -> list[Timing]:
        """Of a method's networks at those rates."""
        nets = {removed: self._shaped(job, removed) for removed in rates}
        whole = self._whole(nets[rates[0]])
        runs = {**self.calls, **{str(removed): self._fast(net) for removed, net in nets.items()}}
        if whole is not self.dense:
            runs["whole"] = self._fast(whole)
        with torch.inference_mode():
            ms = {name: 1e3 * t for name, t in interleaved(runs, seconds=SECONDS).items()}
        in_torch, every = min(ms["contiguous"], ms["channels_last"]), sum(multiplies(whole, self.x).values())
        return [
            Timing(
                job.setting, job.task, job.method, self.width, removed, ms[str(removed)], ms.get("whole", ms["dense"]),
                in_torch, ms["dense"], ms.get("openvino"), ms.get(EIGHT_BITS), sum(multiplies(net, self.x).values()),
                every,
            )
            for removed, net in nets.items()
        ]  # fmt: skip

    def _shaped(self, job: Job, removed: float) -> nn.Module:
        """A network of this width with the pattern that was trained."""
        if job.method in PACKAGES:
            return without_filters(deepcopy(self.dense), self.x, 1 - (1 - removed) ** 0.5).eval()
        narrow = self.task.build(self.task.volumes, SETTINGS[job.setting].width).eval()
        return lrw.compress(stretched(self.dense, load(job.network(removed), narrow))).eval()

    def _whole(self, net: nn.Module) -> nn.Module:
        """The network with all columns where `net` has some."""
        layers = named_layers(net, WinogradLayer)
        if not layers:
            return self.dense
        return lrw.to_winograd(self.dense, {name: layer.geometry.tile.outputs for name, layer in layers.items()}).eval()

    def _fast(self, net: nn.Module) -> Call:
        return _call(lrw.accelerate(net, self.x), self.x)


def stretched(wide: nn.Module, trained: nn.Module) -> nn.Module:
    """`wide` with Winograd layers where `trained` has them, and their patterns, each channel's over several."""
    layers = named_layers(trained, WinogradLayer)
    net = lrw.to_winograd(wide, {name: layer.geometry.tile.outputs for name, layer in layers.items()})
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


def _call(net: Any, images: Tensor) -> Call:
    return lambda: net(images)
