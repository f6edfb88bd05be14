"""The job's stages in order, each resumable after any epoch: train, fine-tune while scoring, prune and retrain; where a
plan says what is cut there is nothing to score.

Data flows one way: config -> state (checkpointed after every epoch) -> finished files and report.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import islice
from math import prod
from pathlib import Path
from reprlib import repr as short
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from lrw import data, nets
from lrw.checkpoint import fill, load, read_state_dict, save
from lrw.convert import to_winograd
from lrw.data import Volumes
from lrw.distill import distillation_loss
from lrw.job import folder, network, restore
from lrw.job import state as checkpoint
from lrw.job.config import JobConfig
from lrw.job.finish import finish
from lrw.job.losses import label_loss
from lrw.job.metrics import Metrics, evaluate
from lrw.job.report import Report
from lrw.job.restore import Stage
from lrw.job.state import JobState, Scores
from lrw.job.training import train_epoch
from lrw.layers import copied
from lrw.lowrank import add_low_rank, count_parameters
from lrw.progress import Reporter
from lrw.prune import check_multiplies, prune
from lrw.pruning import ColumnPruner
from lrw.state_dict import check_file

SAMPLES, FEWEST_SAMPLES, SAMPLE_VOXELS = 256, 8, 1 << 20
"""What columns are fitted on after a cut: at most so many samples, fewer of large ones, of as many voxels together."""


class Job:
    """A run of the pipeline; `state` is what a checkpoint holds, the rest is rebuilt from it. `config` is one
    `of_data`."""

    def __init__(self, config: JobConfig, volumes: Volumes, reporter: Reporter, state: JobState) -> None:
        self.config, self.volumes, self.reporter, self.state = config, volumes, reporter, state
        assert config.batch_size is not None
        self.batch = config.batch_size
        self.out = Path(config.out)
        self.stages = (
            Stage("train", 0 if config.starts_trained else config.epochs, "dense"),
            *(() if config.planned else (Stage("finetune", config.finetune_epochs, "finetuned"),)),
            Stage("retrain", config.retrain_epochs, "retrained"),
        )
        self.dense = network.dense(config, volumes)
        self.net, self.pruner = self.dense, None
        if state.stage == 0:
            network.check_labels(self.dense, config.net, volumes)
            self._convert(self.dense)  # refuses a tile or rank now, not after the dense training
            if config.multiplies is not None:  # and a budget that no plan keeps to
                check_multiplies(self.dense, self._example(), config.multiplies)
        elif config.planned:
            self.net = self._with_factors(load(self.out / folder.PRUNED, self.dense))
        else:
            self.net, self.pruner = self._convert(self.dense)
        self.optimizer = self._new_optimizer()
        if state.stage > 0 or state.history:
            self._restore()

    # --- building and restoring --------------------------------------------------------------------------------------

    def _example(self) -> Tensor:
        """A test sample [1, C, D, H, W]."""
        return next(self.volumes.batches("test", 1))[0]

    def _restore(self) -> None:
        """Take the state's tensors. Raises ValueError naming the checkpoint where they are none of this job's."""
        state = self.state
        try:
            restore.check_progress(state, self.stages, None if self.config.planned else self.config.stages)
            restore.load_network(self.net, state.model)
            restore.load_optimizer(self.optimizer, state.optimizer)
            if self.pruner is not None:
                restore.load_pruner(self.pruner, state.pruner)
        except ValueError as error:
            path = checkpoint.path_in(self.out)
            raise ValueError(f"out: {path} does not fit this job ({error}); --fresh starts over") from error
        if self.pruner is not None and self.pruner.done:
            self.pruner.detach()

    def _convert(self, dense: nn.Module) -> tuple[nn.Module, ColumnPruner]:
        net = self._with_factors(to_winograd(dense, self.config.tile))
        pruner = ColumnPruner(net, self.config.sparsity, score=self.config.score, scope=self.config.scope,
                              stages=self.config.stages, example_input=self._example())  # fmt: skip
        return net, pruner

    def _with_factors(self, net: nn.Module) -> nn.Module:
        torch.manual_seed(self.config.seed)
        return add_low_rank(net, self.config.rank)

    def _prune_as_planned(self) -> nn.Module:
        """The trained dense network with the tiles and columns of a plan, kept in a file that a resumed run starts
        from."""
        quiet = self.reporter.quiet
        pruned = prune(self.dense, self._samples(), multiplies=self.config.multiplies, progress=not quiet)
        save(pruned, self.out / folder.PRUNED)
        return self._with_factors(pruned)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        trainable = [p for p in self.net.parameters() if p.requires_grad]
        return torch.optim.AdamW(trainable, lr=self.config.learning_rate, weight_decay=1e-4)

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Go through what is left of the stages, then finish."""
        self.out.mkdir(parents=True, exist_ok=True)
        for index in range(self.state.stage, len(self.stages)):
            self._run_stage(index)
        report = finish(self.config, self.volumes, self.dense, self.net, self.state, self.reporter)
        self.state.finished = True
        self._checkpoint()
        return report

    def _run_stage(self, index: int) -> None:
        stage = self.stages[index]
        for epoch in range(self.state.epoch, stage.epochs):
            start = perf_counter()
            self._before_epoch(stage)
            loss = self._train(index, stage, epoch)
            metrics = evaluate(self.net, self.volumes, "val")
            self._note(stage, epoch, loss, metrics, perf_counter() - start)
        self._close_stage(index, stage)

    def _before_epoch(self, stage: Stage) -> None:
        """Retraining starts each epoch with a cut, until all pruning stages are done."""
        if stage.name != "retrain" or self.pruner is None or self.pruner.done:
            return
        self.pruner.prune(calibration=self._samples() if self.config.calibration else None)
        if self.pruner.done:
            self.pruner.detach()
            self._milestone("pruned")

    def _samples(self) -> list[Tensor]:
        """Training samples without their labels."""
        count = min(SAMPLES, max(FEWEST_SAMPLES, SAMPLE_VOXELS // prod(self.volumes.size)))
        batches = self.volumes.batches("train", self.batch, seed=self.config.seed)
        return [images for images, _ in islice(batches, -(-count // self.batch))]

    def _train(self, index: int, stage: Stage, epoch: int) -> float:
        pruner = self.pruner
        observe = pruner.observe if pruner is not None and not pruner.done else _nothing
        steps = -(-len(self.volumes.train) // self.batch)
        with self.reporter.bar(f"{stage.name} {epoch + 1}/{stage.epochs}", steps) as update:
            return train_epoch(
                self.net,
                self.volumes,
                self.optimizer,
                epoch=epoch,
                epochs=stage.epochs,
                batch_size=self.batch,
                learning_rate=self.config.learning_rate,
                seed=self.config.seed * 10 + index,
                loss_of=self._loss,
                after_backward=observe,
                after_step=lambda done, _: update(done),
            )

    def _loss(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """That of the labels; from the conversion on, where the job distills, also what the dense network says."""
        share = 0.0 if self.state.stage == 0 else self.config.distill
        loss = (1 - share) * label_loss(logits, labels)
        if share:
            with torch.no_grad():
                teacher = self._teacher(images)
            loss = loss + share * distillation_loss(logits, teacher, labels, weight=1.0)
        return loss

    @cached_property
    def _teacher(self) -> nn.Module:
        """The dense network as trained, or as given."""
        teacher = copied(self.dense)
        if not self.config.starts_trained:
            path = self.out / folder.DENSE
            fill(teacher, read_state_dict(path), f"out: {path} does not fit this job", path)
        return teacher.eval()

    def _note(self, stage: Stage, epoch: int, loss: float, metrics: Metrics, seconds: float) -> None:
        state = self.state
        state.seconds[stage.name] = state.seconds.get(stage.name, 0.0) + seconds
        scores: Scores = checkpoint.plain(metrics)
        state.history.append({"stage": stage.name, "epoch": epoch + 1, **scores})
        state.epoch = epoch + 1
        self._checkpoint()
        self.reporter.say(f"{stage.name:>8} {epoch + 1}/{stage.epochs}  loss {loss:.3f}  val {metrics.words}  "
                          f"{seconds:.1f} s")  # fmt: skip

    def _close_stage(self, index: int, stage: Stage) -> None:
        self._milestone(stage.milestone)
        self.state.parameters[stage.milestone] = list(count_parameters(self.net))
        if stage.name == "train":
            save(self.net, self.out / folder.DENSE)
            if self.config.planned:
                self.net = self._prune_as_planned()
                self._milestone("pruned")
            else:
                self.net, self.pruner = self._convert(self.dense)
        if index + 1 < len(self.stages):
            self.optimizer = self._new_optimizer()
            self.state.stage, self.state.epoch = index + 1, 0
        self._checkpoint()

    def _milestone(self, name: str) -> None:
        metrics = evaluate(self.net, self.volumes, "test")
        self.state.accuracy[name] = checkpoint.plain(metrics)
        self.reporter.say(f"{name}: test {metrics.words}")

    def _checkpoint(self) -> None:
        state = self.state
        state.model = self.net.state_dict()
        state.optimizer = self.optimizer.state_dict()
        state.pruner = {} if self.pruner is None else self.pruner.state_dict()
        checkpoint.write(state, self.out)


def run(config: JobConfig, reporter: Reporter, *, resume: bool = False, fresh: bool = False) -> Report:
    """Do the whole job in folder `config.out`, or with `resume` what is left of it.

    Files of one run only: `fresh` removes those of an earlier one first, once nothing is left to refuse. Raises
    ValueError (or FileNotFoundError) for settings and data that are not accepted, for a run in the folder, finished or
    not, without `resume` or `fresh`, and for `resume` with other settings or a checkpoint that is not this job's;
    OSError naming the file where one cannot be written. That, like KeyboardInterrupt, leaves the last checkpoint whole.
    """
    out = Path(config.out)
    if resume:
        state = _resumable(checkpoint.read(out), config)
    else:
        if fresh:
            folder.check_replaceable(out, config.weights)
        else:
            folder.check_unused(out)
        state = JobState(config.to_dict())
    if config.export != "none":
        folder.check_export(out)
    if config.weights is not None:
        check_file(config.weights)
    volumes = data.load(config.data, seed=config.seed, size=config.size, segmented=config.net not in nets.CLASSIFIERS)
    job = Job(config.of_data(volumes), volumes, reporter, state)
    _introduce(job)
    if fresh:
        folder.clear(out)
    folder.clear_partial(out)
    return job.run()


def _introduce(job: Job) -> None:
    """Say what is learnt, by what."""
    config, volumes = job.config, job.volumes
    named = not volumes.segmented and (Path(config.data) / "imagesTr").is_dir()
    what = (
        "a label a voxel"
        if volumes.segmented
        else "a label each, that of the centre's voxel"
        if named
        else "a label each"
    )
    counts = ", ".join(f"{count:,} {name}" for name, count in volumes.counts.items())
    net = config.net if nets.is_own(config.net) else f"{config.net} (width {config.width})"
    job.reporter.say(f"data {config.data}: samples {'x'.join(map(str, volumes.size))} with {what} ({counts})")
    job.reporter.say(f"net {net}, files in {config.out}/")


def resumed(out: str, given: Mapping[str, Any]) -> JobConfig:
    """The settings of the run in folder `out`, with those that are `given` now in their place.

    Where these would be other work `run` refuses them. Raises ValueError where there is no run, or no checkpoint.
    """
    state = checkpoint.read(Path(out))
    if state is None:
        raise ValueError(f"out: {out} holds no run to resume")
    try:
        kept = JobConfig.of(state.config)
    except ValueError as error:
        path = checkpoint.path_in(Path(out))
        raise ValueError(f"out: {path} is not as this version writes it ({error}); --fresh starts over") from error
    return replace(kept, **{**given, "out": out})


def _resumable(state: JobState | None, config: JobConfig) -> JobState:
    if state is None:
        raise ValueError(f"out: {config.out} holds no run to resume")
    different = config.same_work(state.config)
    if different:
        key = different[0]
        raise ValueError(
            f"{key}: {config.to_dict()[key]!r}; the run in {config.out} was started with {short(state.config[key])}"
        )
    return state


def _nothing() -> None:
    """What follows a backward pass when no columns are scored."""
