"""One chain: a dense network, or one method on it at rising rates; every network is saved, loaded back and measured."""

from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from bench.evidence.bootstrap import metric
from bench.evidence.methods import METHODS, Method
from bench.evidence.multiplies import fewer, kept
from bench.evidence.outcomes import TRUTH, key
from bench.evidence.rows import Epoch, Row
from bench.evidence.settings import EIGHT_BITS, SETTINGS
from bench.evidence.tasks import AUC, LAST, Task, task
from bench.evidence.training import train
from bench.networks import eight_bits
from lrw import peers
from lrw.checkpoint import load, save
from lrw.compress import compress
from lrw.distill import distillation_loss
from lrw.layers import named_layers
from lrw.lowrank import count_parameters
from lrw.nn import WinogradLayer

DENSE = "dense"
DENSE_RATE = 3e-3
TEMPERATURE = 2.0  # methods learn what the dense network says, not labels


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


@dataclass
class Found:
    """What came of a chain: rows, what each network made of each test sample, and the curve of a dense network."""

    rows: list[Row] = field(default_factory=list)
    outcomes: dict[str, Tensor] = field(default_factory=dict)
    curve: list[Epoch] = field(default_factory=list)


def run(job: Job) -> Found:
    """Train the whole chain. Raises FileNotFoundError where the dense network it starts from was not trained yet."""
    chain = _Chain(job)
    if job.method == DENSE:
        chain.train_dense()
    elif job.method == EIGHT_BITS:
        chain.quantize()
    else:
        chain.follow(METHODS[job.method].new())
    return chain.found


class _Chain:
    """A job with its task and dense network, and what was found so far."""

    def __init__(self, job: Job) -> None:
        setting = SETTINGS[job.setting]
        self.job, self.stretch, self.found = job, setting.stretches[job.task], Found()
        self.task: Task = task(job.task, setting, job.data, job.seed)
        torch.manual_seed(job.seed)
        fresh = self.task.build(self.task.volumes, setting.width)
        self.dense = fresh if job.method == DENSE else load(job.network(0.0, DENSE), fresh).eval()
        self.begin = perf_counter()

    def train_dense(self) -> None:
        """To convergence; the curve says how it got there."""
        job, stretch, net = self.job, self.stretch, self._placed(self.dense)
        optimizer = torch.optim.AdamW(net.parameters(), lr=DENSE_RATE, weight_decay=stretch.decay)

        def note(epoch: int, loss: float) -> None:
            value = self._metric(self.task.of(deepcopy(net).cpu()))
            self.found.curve.append(Epoch(job.setting, job.task, job.seed, epoch, loss, value))

        labels = self.task.volumes.train.labels.long().to(job.device)
        train(net, self.task, optimizer, epochs=stretch.dense, batch=stretch.batch, seed=job.seed, after_epoch=note,
              loss_of=lambda _, logits, numbers: self.task.loss(logits, labels[numbers]))  # fmt: skip
        save(net.cpu(), job.network(0.0))
        if self.task.metric == AUC:
            name = key(job.setting, job.task, TRUTH, job.seed, "")
            self.found.outcomes[name] = self.task.volumes.test.labels.float()
        trainable, total = count_parameters(net)
        self._add(net, 0.0, self.task.of(net), (trainable, 0, total), job.network(0.0))

    def quantize(self) -> None:
        """The dense network in OpenVINO's 8 bits, quantised by NNCF on the samples that pruning sees."""
        samples = [x for batch in self.task.samples(self.stretch.samples, 1) for x in batch.split(1)]
        model = eight_bits(self.dense, (self.task.example,), samples)
        infer = peers.openvino_infer(model)
        values = self.task.each(lambda x: torch.from_numpy(infer(x.contiguous().numpy())[0]).clone(), batch=1)
        self._add(self.dense, 0.0, values, (0, 0, count_parameters(self.dense)[1]), None)

    def follow(self, method: Method) -> None:
        """Cut and train as the method does."""
        torch.manual_seed(100 + self.job.seed)
        net = self._placed(method.start(self.dense, self.task.samples(self.stretch.samples)))
        teacher = Teacher(self._placed(deepcopy(self.dense)), self.task)
        for index, removed in enumerate((0.0, *method.rates)):
            if not removed and not method.before:
                continue
            self.begin = perf_counter()
            net = method.cut(net, removed) if removed else net
            if method.trains:
                if index < len(method.rates):
                    method.watch(net, method.rates[index])
                self._train(net, method, teacher, index)
            if removed or method.trains:
                self._measure(deepcopy(net).cpu(), removed)

    def _placed(self, net: nn.Module) -> nn.Module:
        """Where and how it is trained."""
        placed: nn.Module = net.to(self.job.device).to(memory_format=LAST)  # type: ignore[call-overload]
        return placed

    def _train(self, net: nn.Module, method: Method, teacher: "Teacher", index: int) -> None:
        """A stretch of training, towards what the teacher says of each sample."""

        def loss_of(images: Tensor, logits: Tensor, numbers: Tensor) -> Tensor:
            said = teacher.says(images, numbers)
            return distillation_loss(logits, said, said.argmax(1), weight=1.0, temperature=TEMPERATURE)

        train(
            net,
            self.task,
            method.optimizer(net),
            epochs=self.stretch.retrain if index else self.stretch.score,
            batch=self.stretch.batch,
            seed=10 * (1 + index) + self.job.seed,
            loss_of=loss_of,
            after_backward=lambda: method.after_backward(net),
            after_step=lambda progress: method.after_step(net, progress),
        )

    def _measure(self, net: nn.Module, removed: float) -> None:
        """The network as it is shipped: compressed, written, loaded back."""
        layers, path = named_layers(net, WinogradLayer).values(), self.job.network(removed)
        domain = sum(p.numel() for layer in layers for p in layer.parameters() if p.requires_grad)
        trainable, total = count_parameters(net)
        counts = trainable, domain, total
        if not layers:  # taps or filters are gone, nothing was converted
            save(net, path)
            self._add(net, removed, self.task.of(net), counts, path)
            return
        save(compress(net), path)
        self._add(net, removed, self.task.of(load(path, self.dense)), counts, path)

    def _metric(self, outcomes: Tensor) -> float:
        truth = self.task.volumes.test.labels if self.task.metric == AUC else None
        return float(metric(outcomes, truth))

    def _add(self, net: nn.Module, removed: float, outcomes: Tensor, counts: tuple[int, int, int],
             path: Path | None) -> None:  # fmt: skip
        job, of = self.job, self.task
        self.found.outcomes[key(*job.chain, removed)] = outcomes
        self.found.rows.append(Row(
            *job.chain, removed, round(kept(net, self.dense), 5), of.metric, round(self._metric(outcomes), 5), *counts,
            path.stat().st_size if path else 0, round(fewer(net, self.dense, of.example), 4),
            round(perf_counter() - self.begin, 1),
        ))  # fmt: skip


class Teacher:
    """What a dense network says of training samples; where they are always the same it is asked once."""

    def __init__(self, net: nn.Module, of: Task) -> None:
        self._net, self._task = net.eval(), of

    @cached_property
    def _all(self) -> Tensor:
        batches = self._task.numbered.batches("train", 32)
        return torch.cat([self._says(images.contiguous(memory_format=LAST)) for images, _ in batches])

    @torch.no_grad()
    def _says(self, images: Tensor) -> Tensor:
        said: Tensor = self._net(images.to(next(self._net.parameters()).device))
        return said

    def says(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Of these images, the training samples of these numbers: logits [n, classes, ...]."""
        return self._says(images) if self._task.flips else self._all[numbers]
