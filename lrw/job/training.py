"""One epoch of training."""

from collections.abc import Callable
from math import cos, pi

import torch
from torch import Tensor, nn

from lrw.data import Volumes

WARM_UP = 0.1  # share of a stage's steps in which the learning rate rises


def train_epoch(
    net: nn.Module,
    data: Volumes,
    optimizer: torch.optim.Optimizer,
    *,
    epoch: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor],
    after_backward: Callable[[], None],
    after_step: Callable[[int, int], None],
) -> float:
    """Train `net` for epoch `epoch` of `epochs` of a stage; returns the mean loss.

    Order and dropout follow from `seed` and `epoch` alone and the learning rate (linear rise, cosine fall over the
    stage) from the step number, so that an interrupted stage goes on exactly as it would have. What is trained on is
    `loss_of(images, logits, labels)`; `after_backward()` runs between backward and step, `after_step(done, steps)`
    after each step.
    """
    torch.manual_seed(seed * 1000 + epoch)
    batches = list(data.batches("train", batch_size, seed=seed * 1000 + epoch))
    net.train()
    total = 0.0
    for step, (images, labels) in enumerate(batches):
        rate = learning_rate * schedule((epoch * len(batches) + step + 1) / (epochs * len(batches)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(images, net(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        after_backward()
        optimizer.step()
        total += loss.item()
        after_step(step + 1, len(batches))
    return total / len(batches)


def schedule(progress: float) -> float:
    """Learning rate over its peak after a share of the steps: a linear rise, then a cosine to zero."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + cos(pi * (progress - WARM_UP) / (1 - WARM_UP)))
