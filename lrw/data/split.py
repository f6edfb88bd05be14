"""Seeded division of n things into train, val and test."""

import torch

_HELD_OUT = 0.15


def three_ways(count: int, what: str, generator: torch.Generator) -> dict[str, list[int]]:
    """Return sorted indices of "train", "val", "test": about 70, 15 and 15 %, at least one each, disjoint.

    Raises:
        ValueError: `count` is below 3; the message says `what` there is too little of.
    """
    if count < 3:
        raise ValueError(f"{what}: at least 3 are needed (train, val, test), found {count}")
    held_out = max(1, round(_HELD_OUT * count))
    order = torch.randperm(count, generator=generator).tolist()
    return {
        "train": sorted(order[2 * held_out :]),
        "val": sorted(order[:held_out]),
        "test": sorted(order[held_out : 2 * held_out]),
    }
