"""The training loop that all methods share; only what they hang into it differs."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from bench.evidence.tasks import LAST, Task
from lrw.job.training import schedule


def train(
    net: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch: int,
    seed: int,
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor],
    after_backward: Callable[[], None] = lambda: None,
    after_step: Callable[[float], None] = lambda _: None,
    after_epoch: Callable[[int, float], None] = lambda *_: None,
) -> None:
    """Train on `loss_of(images, logits, numbers)`, of the training samples of these numbers: learning rates rise
    linearly, fall as a cosine, order follows `seed`.

    `after_step(progress)` with the share of the steps that are done, `after_epoch(number, mean loss)` from 1 on.
    """
    torch.manual_seed(seed)
    device = next(net.parameters()).device
    steps = epochs * sum(1 for _ in task.volumes.batches("train", batch, seed=0))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(min(1.0, (step + 1) / steps)))
    done = 0
    for epoch in range(epochs):
        net.train()
        losses = []
        for batch_of in _batches(task, batch, 1000 * seed + epoch):
            images, numbers = (t.to(device) for t in batch_of)
            loss = loss_of(images, net(images), numbers)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            after_backward()
            optimizer.step()
            scheduler.step()
            done += 1
            after_step(done / steps)
            losses.append(loss.detach())
        after_epoch(epoch + 1, float(torch.stack(losses).mean()))


def _batches(task: Task, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch, each batch mirrored along axes drawn at random where the task allows it."""
    generator = torch.Generator().manual_seed(seed)
    for images, numbers in task.numbered.batches("train", batch, seed=seed):
        axes = [axis for axis in (-3, -2, -1) if task.flips and torch.rand((), generator=generator) < 0.5]
        yield images.flip(axes).contiguous(memory_format=LAST), numbers
