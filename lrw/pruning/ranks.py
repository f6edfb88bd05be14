"""What pruning does under torch.distributed: sums over ranks, one decision for all, and a check that all follow it."""

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, distributed

from lrw.pruning.selection import Kept


def active() -> bool:
    """Whether there are ranks to agree with."""
    return distributed.is_available() and distributed.is_initialized()


def summed(values: Tensor) -> Tensor:
    """`values`, added up over all ranks, where they were."""
    if not active():
        return values
    moved = values.to("cuda") if distributed.get_backend() == "nccl" else values.clone()
    distributed.all_reduce(moved)
    return moved.to(values.device)


def averaged(values: Tensor) -> Tensor:
    """`values`, averaged over all ranks, as DistributedDataParallel does with gradients."""
    return summed(values) / distributed.get_world_size() if active() else values


def first(values: Tensor) -> Tensor:
    """The first rank's `values`, on every rank, where there are some."""
    if not active():
        return values
    moved = values.to("cuda") if distributed.get_backend() == "nccl" else values.clone()
    distributed.broadcast(moved, 0)
    return moved.to(values.device)


def decided(kept: Mapping[str, Kept], masks: Mapping[str, Tensor]) -> dict[str, Kept]:
    """The first rank's `kept`, on every rank.

    `masks` are the layers' before the cut. Raises RuntimeError on every rank where masks or choices differ.
    """
    if not active():
        return dict(kept)
    bits = [(name, mask.flatten().tolist()) for name, mask in sorted(masks.items())]
    digest = hashlib.sha256(repr((bits, sorted(kept.items()))).encode()).hexdigest()
    digests: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(digests, digest)
    if len(set(digests)) != 1:
        raise RuntimeError("prune: ranks chose different columns; their networks or scores have diverged")
    first = [dict(kept)]
    distributed.broadcast_object_list(first)
    return first[0]
