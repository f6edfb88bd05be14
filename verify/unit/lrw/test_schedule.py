"""The recipe for training loops: cuts when due, goes on after kill -9, runs inside Lightning; distillation."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lrw
from verify.unit.lrw.small_nets import X, small_net

ROOT = Path(__file__).parents[3]
LOOP = """
import os, sys, torch, lrw
from verify.unit.lrw.small_nets import X, small_net

path, steps = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank=3)
pruner = lrw.ColumnPruner(net, 0.75, stages=3)
optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)
schedule, done = lrw.PruningSchedule(pruner, score=4, every=3), 0
if os.path.exists(path):
    state = torch.load(path)
    net.load_state_dict(state["net"]), optimizer.load_state_dict(state["optimizer"])
    pruner.load_state_dict(state["pruner"])
    done = state["done"]
while done < steps:
    optimizer.zero_grad()
    (net(X) - done % 3).square().mean().backward()
    schedule.step()
    optimizer.step()
    done += 1
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "pruner": pruner.state_dict(), "done": done}
    torch.save(state, path + ".partial")
    os.replace(path + ".partial", path)
    print(done, flush=True)
"""


def loop(path: Path, steps: int) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOOP, str(path), str(steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_loop_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    with loop(tmp_path / "whole.pt", 14) as whole:
        assert whole.wait(300) == 0
    for stop in (2, 5, 8):  # while scoring, between cuts, after them
        with loop(tmp_path / "killed.pt", 14) as killed:
            assert killed.stdout is not None
            next(line for line in killed.stdout if int(line) >= stop)
            time.sleep(0.002 * stop)  # in the middle of something
            killed.kill()
    with loop(tmp_path / "killed.pt", 14) as last:
        assert last.wait(300) == 0
    expected, found = (torch.load(tmp_path / name) for name in ("whole.pt", "killed.pt"))
    assert found["pruner"]["stage"] == 3
    for name, tensor in expected["net"].items():
        assert torch.equal(found["net"][name], tensor), name
    for name, score in expected["pruner"]["scores"].items():
        assert torch.equal(found["pruner"]["scores"][name], score)


def test_cuts_come_when_they_are_due() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5, stages=2)
    schedule = lrw.PruningSchedule(pruner, score=3, every=2)
    cut = []
    for step in range(1, 8):
        net(X).square().mean().backward()
        if schedule.step():
            cut.append((step, net[0].geometry.columns))
    assert cut == [(3, 36), (5, 32)]
    assert pruner.observations == 5, "nothing is scored after the last cut"
    assert net[0].observer is None
    for wrong in ({"score": 0}, {"every": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            lrw.PruningSchedule(pruner, **wrong)


def lightning_module(base: Any) -> Any:
    class Module(base):
        def __init__(self) -> None:
            super().__init__()
            self.net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank=3)

        def training_step(self, batch: list[Tensor]) -> Tensor:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=1e-2)

    return Module()


@pytest.mark.parametrize("batches", [lambda: iter([X, 2 * X]), lambda: X])
def test_a_schedule_can_fit_what_each_cut_leaves(batches: Any) -> None:
    """As the pruner does it by hand, with the same samples for every cut, however they were given."""
    outputs = []
    for by_hand in (True, False):
        torch.manual_seed(0)
        net = lrw.to_winograd(small_net(), 2)
        pruner = lrw.ColumnPruner(net, 0.5, stages=2)
        schedule = lrw.PruningSchedule(pruner, score=1, every=1, calibration=batches())
        for _ in range(2):
            net(X).square().mean().backward()
            if by_hand:
                pruner.observe()
                pruner.prune(calibration=batches())
            else:
                assert schedule.step()
        outputs.append(net(X).detach())
    assert torch.equal(*outputs)
    plain = lrw.to_winograd(small_net(), 2)
    assert not torch.equal(outputs[0], plain(X))


@pytest.mark.filterwarnings("ignore")
def test_lightning_prunes_and_resumes(tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning")
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X.repeat(2, 1, 1, 1, 1)), batch_size=2)

    def fit(steps: int, resumed: str | None = None) -> tuple[Any, Any]:
        torch.manual_seed(0)
        module, callback = (
            lightning_module(lightning.LightningModule),
            lrw.lightning_callback(score=3, every=2, stages=2),
        )
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        trainer = lightning.Trainer(max_steps=steps, callbacks=[callback], accelerator="cpu", devices=1,
                                    enable_checkpointing=False, default_root_dir=str(tmp_path), **quiet)  # fmt: skip
        trainer.fit(module, data, ckpt_path=resumed)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt", weights_only=False)
        return module, callback

    whole, callback = fit(6)
    assert callback.schedule.pruner.done
    assert whole.net[0].geometry.columns == 16
    half, stopped = fit(4)
    assert (stopped.schedule.pruner.stage, half.net[0].geometry.columns) == (1, 22)
    resumed, _ = fit(6, str(tmp_path / "4.ckpt"))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor)


def test_without_lightning_the_callback_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrw.callbacks.LIGHTNING", ("no_such_trainer",))
    with pytest.raises(ImportError, match="pip install lightning"):
        lrw.lightning_callback()


def test_distillation_mixes_labels_and_teacher() -> None:
    torch.manual_seed(0)
    logits, teacher, labels = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    loss = lrw.distillation_loss(logits, teacher, labels, weight=0.3, temperature=2.0)
    p, q = ((x / 2).softmax(1) for x in (teacher, logits))
    divergence = (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(loss, 0.7 * F.cross_entropy(logits, labels) + 0.3 * 4 * divergence)
    torch.testing.assert_close(
        lrw.distillation_loss(logits, logits.clone(), labels, weight=1.0), torch.tensor(0.0), atol=1e-6, rtol=0
    )
    loss.backward()
    assert logits.grad is not None
    for wrong in ({"weight": 1.5}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            lrw.distillation_loss(logits, teacher, labels, **wrong)


def test_labels_that_do_not_count_do_not_count_in_either_part() -> None:
    torch.manual_seed(0)
    logits, teacher = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4)
    labels = torch.tensor([[0, -100, 2, 1], [-100, -100, 1, 0]])
    lrw.distillation_loss(logits, teacher, labels, weight=0.5).backward()
    assert logits.grad is not None
    assert bool((logits.grad.transpose(1, 2)[labels == -100] == 0).all())
    assert bool((logits.grad.transpose(1, 2)[labels != -100] != 0).all())
    with pytest.raises(ValueError, match="teacher: shape"):
        lrw.distillation_loss(logits, teacher[:1], labels)
