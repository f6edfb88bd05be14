"""One epoch of training and one pass of evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrw.data import Volumes
from lrw.layers import evaluating

WARM_UP = 0.1  # share of a stage's steps in which the learning rate rises


@dataclass(frozen=True)
class Metrics:
    """How well a network does on one split; auc is None unless there are two classes, both present."""

    accuracy: float
    loss: float
    auc: float | None


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


def evaluate(net: nn.Module, data: Volumes, split: str, batch_size: int = 128) -> Metrics:
    """Accuracy, cross-entropy and, for two classes, AUC of `net` on a split."""
    with torch.no_grad(), evaluating(net):
        parts = [(net(images), labels) for images, labels in data.batches(split, batch_size)]
    logits, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    accuracy = float((logits.argmax(1) == labels).float().mean())
    auc = _auc(logits.softmax(1)[:, 1], labels) if logits.shape[1] == 2 else None
    return Metrics(accuracy, float(F.cross_entropy(logits, labels)), auc)


def _auc(score: Tensor, label: Tensor) -> float | None:
    if len(label.unique()) < 2:
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(label.numpy(), score.numpy()))


def schedule(progress: float) -> float:
    """Learning rate over its peak after a share of the steps: a linear rise, then a cosine to zero."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + cos(pi * (progress - WARM_UP) / (1 - WARM_UP)))
