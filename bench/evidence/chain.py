"""One chain: a dense network, or one method on it at rising rates; every network is saved, loaded back and measured."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from bench.evidence.methods import METHODS, Method
from bench.evidence.rows import Row
from bench.evidence.settings import REMOVED, SETTINGS
from bench.evidence.tasks import Task, task
from bench.evidence.training import REST, train
from lrw.checkpoint import load, save
from lrw.compress import compress
from lrw.distill import distillation_loss
from lrw.layers import named_layers
from lrw.lowrank import count_parameters
from lrw.nn import WinogradLayer

DENSE = "dense"
DENSE_RATE = 3e-3


@dataclass(frozen=True)
class Job:
    """A chain by name: what a process is asked to do. `folder` takes the networks, `data` holds the files; training is
    on `device`, what is measured on the CPU."""

    setting: str
    task: str
    method: str
    seed: int
    data: Path
    folder: Path
    device: str = "cpu"

    @property
    def chain(self) -> tuple[str, str, str, int]:
        """What its rows belong to."""
        return self.setting, self.task, self.method, self.seed

    def network(self, removed: float, method: str | None = None) -> Path:
        """Where a network of the chain (or of another method beside it) is kept."""
        return self.folder / f"{self.setting}-{self.task}-{self.seed}-{method or self.method}-{removed}.safetensors"


def run(job: Job) -> list[Row]:
    """Train the whole chain. Raises FileNotFoundError where the dense network it starts from was not trained yet."""
    learnt = task(job.task, SETTINGS[job.setting], job.data, job.seed)
    torch.manual_seed(job.seed)
    dense = learnt.build(learnt.volumes, SETTINGS[job.setting].width)
    if job.method == DENSE:
        return [_train_dense(job, learnt, dense)]
    load_dense = load(job.network(0.0, DENSE), dense)
    return _train_chain(job, learnt, load_dense, METHODS[job.method].new())


def _train_dense(job: Job, learnt: Task, net: nn.Module) -> Row:
    begin, stretch = perf_counter(), SETTINGS[job.setting].stretches[job.task]
    net.to(job.device)
    train(
        net,
        learnt,
        torch.optim.AdamW(net.parameters(), lr=DENSE_RATE, weight_decay=1e-4),
        epochs=stretch.dense,
        batch=stretch.batch,
        seed=job.seed,
        loss_of=_loss(learnt, 0.0, net),
    )
    save(net.cpu(), job.network(0.0))
    trainable, total = count_parameters(net)
    size = job.network(0.0).stat().st_size
    return _row(job, learnt, net, 0.0, 1.0, (trainable, 0, total), size, 0, begin)


def _train_chain(job: Job, learnt: Task, dense: nn.Module, method: Method) -> list[Row]:
    stretch, rows = SETTINGS[job.setting].stretches[job.task], []
    torch.manual_seed(100 + job.seed)
    net, teacher = method.start(dense).to(job.device), deepcopy(dense).to(job.device)
    for index, removed in enumerate((0.0, *REMOVED)):
        begin = perf_counter()
        if removed:
            net = method.cut(net, removed)
        if removed != REMOVED[-1]:
            method.watch(net, REMOVED[index])
        train(
            net,
            learnt,
            method.optimizer(net, REST),
            epochs=stretch.retrain if removed else stretch.score,
            batch=stretch.batch,
            seed=10 * (1 + index) + job.seed,
            loss_of=_loss(learnt, method.distill, teacher),
            after_backward=lambda net=net: method.after_backward(net),
            after_step=lambda progress, net=net: method.after_step(net, progress),
        )
        rows.append(_measured(job, learnt, dense, deepcopy(net).cpu(), removed, method.density(net), begin))
    return rows


def _loss(learnt: Task, weight: float, teacher: nn.Module):
    def of(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        loss = learnt.loss(logits, labels)
        if weight == 0:
            return loss
        with torch.no_grad():
            said = teacher.eval()(images)
        soft = distillation_loss(logits, said, labels, weight=1.0)
        return (1 - weight) * loss + weight * soft

    return of


def _measured(
    job: Job, learnt: Task, dense: nn.Module, net: nn.Module, removed: float, kept: float, begin: float
) -> Row:
    """The network as it is shipped: compressed, written, loaded back."""
    domain = sum(p.numel() for layer in named_layers(net, WinogradLayer).values() for p in layer.parameters()
                 if p.requires_grad)  # fmt: skip
    trainable, total = count_parameters(net)
    if not named_layers(net, WinogradLayer):  # before its conversion: taps masked
        save(net, job.network(removed))
        size = job.network(removed).stat().st_size
        return _row(job, learnt, net, removed, kept, (trainable, 0, total), size, 0, begin)
    small = compress(net, learnt.example)
    save(small, job.network(removed))
    multiplies = sum(layer.multiplies for layer in small.report.layers)
    loaded = load(job.network(removed), dense)
    for layer in named_layers(loaded, WinogradLayer).values():
        layer.backend = "torch"  # kernels for every kept set would take longer to compile than the test split to run
    size = job.network(removed).stat().st_size
    return _row(job, learnt, loaded, removed, kept, (trainable, domain, total), size, multiplies, begin)


def _row(
    job: Job, learnt: Task, net: nn.Module, removed: float, kept: float, counts: tuple[int, int, int], stored: int,
    multiplies: int, begin: float,
) -> Row:  # fmt: skip
    value = learnt.measure(net, learnt.volumes)
    trainable, domain, total = counts
    return Row(job.setting, job.task, job.method, job.seed, removed, round(kept, 5), learnt.metric, round(value, 5),
               trainable, domain, total, stored, multiplies, round(perf_counter() - begin, 1))  # fmt: skip
