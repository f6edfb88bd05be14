"""Two processes that each see half of a batch score and keep the columns one process does on the whole."""

import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import lrw

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


def spawn(out: Path, diverge: bool = False, reduce: str = "scores") -> list[dict[str, object]]:
    context = mp.get_context("spawn")
    processes = [context.Process(target=worker, args=(rank, str(out), diverge, reduce)) for rank in range(2)]
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
