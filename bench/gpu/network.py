"""A training step of R3D-18 under autocast, forward and backward: with Winograd layers, and with cuDNN's."""

import random
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lrw
from bench.gpu.clock import Call, Times, forget
from bench.gpu.direct import LAYOUTS
from bench.gpu.measure import Bench, spread
from bench.gpu.rows import Row
from bench.layers import kept
from lrw.layers import winograd_layers
from lrw.nets import R3D18
from lrw.nn import WinogradConv3d

BATCH, SIZE, CLASSES, WIDTH = 16, (16, 112, 112), 400, 64
DRY_BATCH, DRY_SIZE = 2, (1, 2, 3)
SAME = 0.2  # distance of logits of the same network, one rounding to bfloat16 a layer apart
FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "masked": lambda net: net,  # as while it is pruned: all columns stored, those kept computed
    "compressed": lrw.compress,  # as it is trained on afterwards: those kept stored
}


class Figures(NamedTuple):
    """Of a step: times and peak of memory; the layout of what cuDNN computed."""

    times: Times | None = None
    mib: float | None = None
    form: str = ""


def steps(bench: Bench, shares: Sequence[float]) -> Iterator[Row]:
    """A row for each share and form; half precision, batch norm in training mode, no optimizer."""
    plain, clips = _task(bench)
    dense = lrw.to_winograd(plain, 2, backend="triton")
    common = {"layer": "r3d18", "precision": "half", "batch": clips[0].shape[0],
              "size": "x".join(map(str, clips[0].shape[2:]))}  # fmt: skip
    if note := _difference(plain, dense, clips[0]):
        yield Row("step", **common, note=note)
        return
    theirs = _faster(bench, plain, clips)
    for share in shares:
        for name, form in FORMS.items() if share < 1 else [("dense", FORMS["masked"])]:
            ours = _measured(bench, form(_with(dense, share)), clips)
            cudnn = theirs.times.median if theirs.times else None
            yield Row("step", **common, columns=share, form=name, cudnn_form=theirs.form, mib=ours.mib,
                      cudnn_mib=theirs.mib, **spread(ours.times), cudnn_ms=cudnn,
                      speedup=cudnn / ours.times.median if ours.times and cudnn else None)  # fmt: skip
            forget()


def _task(bench: Bench) -> tuple[nn.Module, list[Tensor]]:
    """The plain network, and clips."""
    device, dry = bench.clock.device, bench.clock.dry
    torch.manual_seed(0)
    plain = _small() if dry else R3D18(3, CLASSES, SIZE, WIDTH)
    torch.seed()
    batch, size = (DRY_BATCH, DRY_SIZE) if dry else (BATCH, SIZE)
    clips = [torch.randn(batch, 3, *size, device=device) for _ in range(2)]
    last = torch.channels_last_3d
    return plain.to(device).to(memory_format=last), [clip.contiguous(memory_format=last) for clip in clips]


def _faster(bench: Bench, plain: nn.Module, clips: list[Tensor]) -> Figures:
    """cuDNN's, in the layout that is faster."""
    found = []
    for layout, memory in LAYOUTS.items():
        net = deepcopy(plain).to(memory_format=memory)
        own = [clip.contiguous(memory_format=memory) for clip in clips]
        found.append(_measured(bench, net, own)._replace(form=layout))
        forget()
    return min(found, key=lambda one: one.times.median if one.times else 0.0)


def _measured(bench: Bench, net: nn.Module, clips: list[Tensor]) -> Figures:
    """Times, and the peak with the network's own parameters, without what is there anyway."""
    net.train()
    times = bench.clock.eager([_step(net, clip) for clip in clips])
    net.zero_grad(set_to_none=True)  # gradients are part of what a step takes
    mib = bench.clock.peak(lambda: _step(net, clips[0]))
    net.zero_grad(set_to_none=True)
    own = sum(p.numel() * p.element_size() for p in net.parameters()) / 2**20
    return Figures(times, None if mib is None else mib + own)


def _step(net: nn.Module, clip: Tensor) -> Call:
    classes = [random.randrange(2) for _ in range(clip.shape[0])]
    labels = torch.tensor(classes, device=clip.device)

    def run() -> None:
        net.zero_grad(set_to_none=True)
        with torch.autocast(clip.device.type, torch.bfloat16):
            loss = F.cross_entropy(net(clip), labels)
        loss.backward()

    return run


def _with(net: nn.Module, share: float) -> nn.Module:
    """`net` with that share of every layer's columns, at random."""
    for layer in winograd_layers(net).values():
        assert isinstance(layer, WinogradConv3d)
        layer.keep(kept(layer.geometry.tile, share))
    return net


def _difference(plain: nn.Module, dense: nn.Module, clip: Tensor) -> str:
    """Why the two are not the same network, else an empty text; also where a gradient is no number."""
    logits = []
    for net in (plain.eval(), dense.eval()):
        with torch.no_grad(), torch.autocast(clip.device.type, torch.bfloat16):
            logits.append(net(clip).double())
    far = float((logits[1] - logits[0]).norm() / logits[0].norm())
    if not far <= SAME:
        return f"gate: logits are {far:.2g} of their norm from the plain network's"
    _step(dense.train(), clip)()
    wrong = [name for name, p in dense.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    return f"gate: no finite gradients of {', '.join(wrong[:3])}" if wrong else ""


def _small() -> nn.Module:
    """What a dry run goes through."""
    return nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 4, 3, padding=1),
                         nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2))  # fmt: skip
