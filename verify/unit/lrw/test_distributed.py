"""Two processes that each see half of a batch score, keep and resume as one process does on the whole."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import lrw

pytestmark = pytest.mark.slow

X = torch.randn(4, 1, 6, 6, 6, generator=torch.Generator().manual_seed(1))


def net() -> nn.Module:
    torch.manual_seed(0)
    return lrw.to_winograd(nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv3d(3, 2, 3, padding=1)), 2)


def worker(rank: int, out: str, diverge: bool, reduce: str) -> None:
    torch.set_num_threads(1)
    # A store in a file: no port that another process could take meanwhile, no server that could leave too early.
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/store", rank=rank, world_size=2)
    model = net()
    pruner = lrw.ColumnPruner(model, 0.5, reduce=reduce)
    parallel = DistributedDataParallel(model)
    parallel(X[2 * rank : 2 * rank + 2]).square().mean().backward()
    pruner.observe()
    if diverge and rank:
        pruner.layers["0"].keep(range(20))  # what a rank with another mask would choose from
    try:
        kept: object = pruner.prune()
    except RuntimeError as error:
        kept = str(error)
    torch.save({"kept": kept, "scores": pruner.scores}, f"{out}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads may keep an interpreter from leaving


def fitted_worker(rank: int, out: str) -> None:
    """Each rank has samples of its own to fit on: the first one's hold."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/store", rank=rank, world_size=2)
    model = net()
    pruner = lrw.ColumnPruner(model, 0.5)
    DistributedDataParallel(model)(X[2 * rank : 2 * rank + 2]).square().mean().backward()
    pruner.observe()
    before = model[2].weights().detach().clone()
    kept = pruner.prune(calibration=[X[2 * rank : 2 * rank + 2]])
    torch.save({"kept": kept, "before": before, "after": [m.weights() for m in model[::2]]}, f"{out}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)


def sharded_worker(rank: int, out: str) -> None:
    """Train, prune and save under FSDP2; go on from the file in fresh objects; both must agree."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/store", rank=rank, world_size=2)
    mesh = torch.distributed.init_device_mesh("cpu", (2,))

    def start(shift: float) -> tuple[nn.Module, lrw.ColumnPruner, torch.optim.Optimizer]:
        model = lrw.add_low_rank(net(), 4)
        with torch.no_grad():
            for p in model.parameters():
                p += shift
        pruner = lrw.ColumnPruner(model, 0.5)
        for layer in (*pruner.layers.values(), model):
            fully_shard(layer, mesh=mesh)
        return model, pruner, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    def train(model: nn.Module, pruner: lrw.ColumnPruner, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(X[2 * rank : 2 * rank + 2]).square().mean().backward()
        if not pruner.done:
            pruner.observe()
        optimizer.step()

    def states(model: nn.Module, pruner: lrw.ColumnPruner, optimizer: torch.optim.Optimizer) -> dict[str, object]:
        tensors, held = get_state_dict(model, optimizer)
        return {"model": tensors, "optimizer": held, "pruner": pruner.state_dict()}

    model, pruner, optimizer = start(0.0)
    train(model, pruner, optimizer)
    kept = pruner.prune()
    train(model, pruner, optimizer)
    checkpoint.save(states(model, pruner, optimizer), checkpoint_id=f"{out}/checkpoint")
    train(model, pruner, optimizer)
    again, resumed, other = start(1.0)
    state = states(again, resumed, other)
    checkpoint.load(state, checkpoint_id=f"{out}/checkpoint")
    set_state_dict(again, other, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    resumed.load_state_dict(state["pruner"])  # type: ignore[arg-type]
    train(again, resumed, other)
    with torch.no_grad():
        same = torch.equal(model(X), again(X))
    try:
        lrw.compress(model)
        refusal = ""
    except ValueError as error:
        refusal = str(error)
    torch.save({"kept": kept, "same": same, "refusal": refusal, "stage": resumed.stage}, f"{out}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)


def spawn(out: Path, diverge: bool = False, reduce: str = "scores") -> list[dict[str, object]]:
    return spawned(worker, out, diverge, reduce)


def spawned(target: Callable[..., None], out: Path, *arguments: object) -> list[dict[str, object]]:
    context = mp.get_context("spawn")
    processes = [context.Process(target=target, args=(rank, str(out), *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()  # where it has not ended: its exit code then fails the test
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(out / f"{rank}.pt") for rank in range(2)]


@pytest.mark.filterwarnings("ignore")
def test_ranks_agree_on_the_columns_of_their_summed_scores(tmp_path: Path) -> None:
    first, second = spawn(tmp_path)
    assert first["kept"] == second["kept"]
    total = first["scores"]["0"] + second["scores"]["0"]
    best = set(total.argsort(descending=True, stable=True)[:32].tolist())
    assert set(first["kept"]["0"]) == best


@pytest.mark.filterwarnings("ignore")
def test_gradients_reduced_before_scoring_give_what_one_process_gives(tmp_path: Path) -> None:
    model = net()
    pruner = lrw.ColumnPruner(model, 0.5)
    model(X).square().mean().backward()
    pruner.observe()
    alone = {"scores": pruner.scores, "kept": pruner.prune()}
    for rank in spawn(tmp_path, reduce="gradients"):
        for name, score in pruner.scores.items():
            torch.testing.assert_close(rank["scores"][name], score, rtol=1e-4, atol=0)  # type: ignore[index]
        assert rank["kept"] == alone["kept"]


@pytest.mark.filterwarnings("ignore")
def test_ranks_that_disagree_raise(tmp_path: Path) -> None:
    for result in spawn(tmp_path, diverge=True):
        assert "ranks chose different columns" in str(result["kept"])


@pytest.mark.filterwarnings("ignore")
def test_sharded_networks_prune_and_resume(tmp_path: Path) -> None:
    first, second = spawned(sharded_worker, tmp_path)
    assert first["kept"] == second["kept"]
    for result in (first, second):
        assert result["same"]
        assert result["stage"] == 1
        assert "wrapped in FSDPModule" in str(result["refusal"])


def test_wrapped_networks_keep_their_layers() -> None:
    wrapped = nn.DataParallel(net())
    for change in (lrw.add_low_rank, lrw.compress, lambda net: lrw.compress(net, inplace=True)):
        with pytest.raises(ValueError, match="wrapped in DataParallel"):
            change(wrapped)


def test_what_a_layer_returns_may_be_changed_in_place() -> None:
    model = net()
    y = model[0](X)
    assert not y._is_view()
    y.relu_().sum().backward()
    with torch.no_grad():
        assert not model[0](X.contiguous(memory_format=torch.channels_last_3d))._is_view()


def test_ranks_fit_what_stays_to_the_same_weights(tmp_path: Path) -> None:
    first, second = spawned(fitted_worker, tmp_path)
    assert first["kept"] == second["kept"]
    assert all(torch.equal(a, b) for a, b in zip(first["after"], second["after"], strict=True))  # type: ignore[call-overload]
    kept = first["kept"]["2"]  # type: ignore[index]
    assert not torch.equal(first["after"][1], first["before"][list(kept)])  # type: ignore[index]
