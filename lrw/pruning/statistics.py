"""Batch normalisation after pruning: running statistics of what the pruned network really computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from lrw.pruning.calibration import Calibration

MOST = 1 << 28  # bytes of outputs that are kept


class Wanted:
    """What a network gives for all samples: kept up to `most` bytes, computed again where it is more."""

    def __init__(self, net: nn.Module, calibration: Calibration, most: float = MOST) -> None:
        self._net, self._calibration, self._most = net, calibration, most
        self._kept: list[list[Tensor]] | None = None

    def __iter__(self) -> Iterator[list[Tensor]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[list[Tensor]] | None = []
        held = 0
        for outputs in self._calibration.run(self._net):
            own = floating(outputs)
            held += sum(t.numel() * t.element_size() for t in own)
            kept = None if kept is None or held > self._most else [*kept, own]
            yield own
        self._kept = kept

    def keep(self) -> None:
        """Compute them now, where they are not kept yet and can be."""
        for _ in self if self._kept is None else ():
            pass

    def distance(self, net: nn.Module) -> float | None:
        """How far the floating outputs of `net` are from these, root mean square over that of these; None where there
        are none, or all are zero."""
        apart = total = 0.0
        for ours, theirs in zip(self._calibration.run(net), self, strict=True):
            for a, b in zip(floating(ours), theirs, strict=True):
                apart += float((a.double() - b.double()).square().sum())
                total += float(b.double().square().sum())
        return (apart / total) ** 0.5 if total > 0 else None


def estimate_again(net: nn.Module, original: nn.Module, calibration: Calibration) -> tuple[float | None, bool | None]:
    """Take running means and variances from the calibration samples, where that brings `net` nearer to `original`.

    Returns the distance of its outputs then, and whether they were taken; None where no layer has any, or nothing can
    be said of the outputs.
    """
    wanted = Wanted(original, calibration)
    before = wanted.distance(net)
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms or before is None:
        return before, None
    old = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    try:
        with _estimating(norms):
            for _ in calibration.run(net):
                pass
        for norm, buffers in zip(norms, old, strict=True):
            if norm.num_batches_tracked == 0:  # no sample reached it
                norm.load_state_dict(buffers, strict=False)
        after = wanted.distance(net)
    except ValueError:  # a batch of one value for each channel has no variance
        after = None
    if after is not None and after < before:
        return after, True
    for norm, buffers in zip(norms, old, strict=True):
        norm.load_state_dict(buffers, strict=False)
    return before, False


@contextmanager
def _estimating(norms: list[_BatchNorm]) -> Iterator[None]:
    """Running statistics become plain averages over the passes of this block, in which all else is in eval mode."""
    momenta = [norm.momentum for norm in norms]
    hooks = [norm.register_forward_pre_hook(_train) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        yield
    finally:
        for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
            norm.momentum = momentum
            hook.remove()


def _train(norm: nn.Module, _: object) -> None:
    norm.training = True


def floating(outputs: object) -> list[Tensor]:
    """The floating tensors in what a network gives."""
    leaves = pytree.tree_leaves(outputs)
    return [t.detach() for t in leaves if isinstance(t, torch.Tensor) and t.is_floating_point()]
