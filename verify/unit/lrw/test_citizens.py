"""What of torch people use accelerated networks with: each gets the right numbers, and the program where it can.

Each docstring is a row of docs/accelerate.md: what it is, and behind its last colon what happens.
"""

import copy
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, parametrize, prune, vector_to_parameters
from torch.optim.swa_utils import AveragedModel
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import lrw
from lrw import programs
from lrw.compiled import backend
from lrw.engine import PROGRAM
from verify.unit.trace.nets import settled

X = torch.randn(1, 2, 5, 6, 7, generator=torch.Generator().manual_seed(3))


def plain() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU()
    return settled(nn.Sequential(*first, nn.Conv3d(8, 4, 3)))


def accelerated(net: nn.Module, x: Tensor = X) -> nn.Module:
    return lrw.accelerate(net, x, measure=False)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return plain()


@pytest.fixture(scope="module")
def fast(net: nn.Module) -> nn.Module:
    """Shared: tests that change something change a copy."""
    return accelerated(net)


@pytest.fixture
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def assert_alike(y: Tensor, expected: Tensor) -> None:
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5 * float(expected.detach().abs().max()))


def same(fast: nn.Module, net: nn.Module, x: Tensor = X) -> str:
    """What computed the pass, whose result is that of `net`."""
    with torch.no_grad():
        assert_alike(fast(x), net(x))
    return str(fast.report.last)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("holds", [False, True])
def test_torch_compile(fast: nn.Module, net: nn.Module, holds: bool) -> None:
    """`torch.compile(fullgraph=True)` of it, or of what holds it: compiled whole, as the plain network is."""
    over = nn.Sequential(fast, nn.ReLU()).eval() if holds else fast
    made = torch.compile(over, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert_alike(made(X), net(X).relu() if holds else net(X))
    assert_alike(made(X), net(X).relu() if holds else net(X))


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("dynamic", [True, None])
def test_dynamic_batch(net: nn.Module, dynamic: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.compile(net, backend="lrw")` with dynamic sizes: a program for each size, under one graph."""
    runs, run = list[int](), programs.NetworkProgram.run
    monkeypatch.setattr(programs.NetworkProgram, "run", lambda self, leaves: runs.append(1) or run(self, leaves))
    made: Any = torch.compile(net, backend=backend, dynamic=dynamic, options={"measure": False})
    with torch.no_grad():
        for count in (2, 3, 4, 2):
            x = torch.randn(count, *X.shape[1:])
            assert_alike(made(x), net(x))
    assert len(runs) == 4


def test_torch_export(fast: nn.Module, net: nn.Module) -> None:
    """`torch.export.export`, saved, loaded, with sizes dynamic by arguments' names: the plain network's graph."""
    dynamic = {"input": {0: torch.export.Dim("batch")}}
    made = torch.export.export(fast, (torch.cat([X, X]),), dynamic_shapes=dynamic)
    torch.export.save(made, file := io.BytesIO())
    file.seek(0)
    again = torch.export.load(file).module()
    assert_alike(again(X), net(X))
    assert same(fast, net) == PROGRAM


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch's, of its own copies
@pytest.mark.parametrize("traced", [True, False])
def test_graph_modules(net: nn.Module, traced: bool) -> None:
    """Networks of `torch.fx` and `torch.export`, their copies, `recompile`: the program, of the graph as it is."""
    graph: Any = fx.symbolic_trace(net) if traced else torch.export.export(net, (X,)).module()
    fast = accelerated(graph)
    copied = copy.deepcopy(fast)
    assert [same(one, net) for one in (fast, copied)] == [PROGRAM] * 2
    reverted = lrw.revert(copied)
    assert "report" not in vars(reverted)
    assert_alike(reverted(X), net(X))
    if traced:
        assert same(pickle.loads(pickle.dumps(fast)), net) == PROGRAM
    (returned,) = fast.graph.find_nodes(op="output")
    with fast.graph.inserting_before(returned):
        returned.args = (fast.graph.call_function(torch.neg, (pytree.tree_leaves(returned.args)[0],)),)
    fast.recompile()
    with torch.no_grad():
        assert_alike(pytree.tree_leaves(fast(X))[0], -net(X))
    assert fast.report.last == PROGRAM


def test_autocast(fast: nn.Module, net: nn.Module) -> None:
    """`torch.autocast` in bfloat16: the program, in float32 inside, with the dtypes that autocast gives."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for x in (X, X.bfloat16()):
            y, expected = fast(x), net(x)
            assert fast.report.last == PROGRAM
            assert y.dtype == expected.dtype == torch.bfloat16
            with torch.autocast("cpu", enabled=False):
                exact = net(x.float())
            torch.testing.assert_close(y.float(), exact, rtol=2**-8, atol=1e-5 * float(exact.abs().max()))
    assert same(fast, net) == PROGRAM


class Looks(nn.Module):
    """Looks at dtypes, or multiplies in half precision."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.inner, self.last = how, nn.Conv3d(2, 3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Any:
        y = self.inner(x)
        if self.how == "branches":
            return y * 100 if y.dtype == torch.bfloat16 else y
        if self.how == "multiplies":
            return self.last(y.mean((2, 3, 4)).to(y.dtype)) @ torch.ones(2, 2, dtype=y.dtype).mul(y.sum() > -1e9)
        return {"first": y, "again": y, "number": 1}


@pytest.mark.parametrize("how", ["branches", "multiplies", "twice"])
def test_autocast_of_networks_that_look_at_dtypes(how: str) -> None:
    """`torch.autocast` of a network that looks at dtypes: its own forward, where float32 gives something else."""
    net = settled(Looks(how))
    fast = accelerated(net)
    for _ in range(2):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            mine, theirs = fast(X), net(X)
        for y, expected in zip(pytree.tree_leaves(mine), pytree.tree_leaves(theirs), strict=True):
            if isinstance(y, Tensor):
                assert y.dtype == expected.dtype
                torch.testing.assert_close(y, expected, rtol=0, atol=2e-2 * float(expected.abs().max()))
    if how == "branches":
        assert "gives something else in float32 than under autocast" in fast.report.last
    if how == "twice":
        assert mine["first"] is mine["again"]
        assert fast.report.last == PROGRAM


def test_half_precision(fast: nn.Module, net: nn.Module) -> None:
    """`net.to(torch.bfloat16)`, `half()`, `double()`: the network's own forward."""
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        with torch.no_grad():
            mine, theirs = (copy.deepcopy(one).to(dtype) for one in (fast, net))
            assert torch.equal(mine(X.to(dtype)), theirs(X.to(dtype)))
        assert "an input is no float32" in mine.report.last
    with pytest.raises(ValueError, match="none of it can be computed by kernels"):
        accelerated(copy.deepcopy(net).bfloat16(), X.bfloat16())


def test_copies_and_pickles(fast: nn.Module, net: nn.Module) -> None:
    """`copy.deepcopy`, `pickle`, `torch.save` of the whole network: a network of its own, accelerated."""
    torch.save(fast, file := io.BytesIO())
    file.seek(0)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), torch.load(file, weights_only=False)):
        other[0].weight.data.zero_()
        with torch.no_grad():
            assert not torch.allclose(other(X), net(X))
        assert other.report.last == PROGRAM
    assert same(fast, net) == PROGRAM


def test_state_dicts(fast: nn.Module, net: nn.Module) -> None:
    """`state_dict`, `load_state_dict(strict=True)`, `torch.save` of them: the plain network's, both ways."""
    other, mine = plain(), copy.deepcopy(fast)
    other[0].weight.data.mul_(2)
    torch.save(other.state_dict(), file := io.BytesIO())
    file.seek(0)
    mine.load_state_dict(torch.load(file), strict=True)
    assert same(mine, other) == PROGRAM
    other.load_state_dict(fast.state_dict(), strict=True)
    assert same(mine.to(torch.float32), copy.deepcopy(mine)) == PROGRAM
    assert_alike(other(X), net(X))


def adam(net: nn.Module) -> None:
    optimizer = torch.optim.Adam(net.train().parameters(), lr=0.05)
    net(X).square().mean().backward()
    optimizer.step()
    net.eval()


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "in place": lambda net: net[0].weight.detach().mul_(2),
    "data": lambda net: net[3].weight.data.add_(0.1),
    "optimiser": adam,
    "vector": lambda net: vector_to_parameters(torch.linspace(-1, 1, 1324), net.parameters()),
    "statistics": lambda net: net[1].running_mean.add_(1),
    "state dict": lambda net: net.load_state_dict({key: value * 2 for key, value in net.state_dict().items()}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights(change: str, fast: nn.Module) -> None:
    """Weights changed in place, by `.data`, an optimiser, `vector_to_parameters`, `load_state_dict`: followed."""
    mine, theirs = copy.deepcopy(fast), plain()
    before = mine(X)
    for one in (mine, theirs):
        CHANGES[change](one)
    assert same(mine, theirs) == PROGRAM
    assert not torch.allclose(mine(X), before)


def test_weights_loaded_again(fast: nn.Module, net: nn.Module) -> None:
    """`load_state_dict` of the numbers that are there, as nnU-Net's predictor does for each case: nothing is built."""
    mine = copy.deepcopy(fast)
    assert same(mine, net) == PROGRAM
    built = dict(mine.__dict__["_lrw"].built)
    for _ in range(2):
        mine.load_state_dict(net.state_dict())
        assert same(mine, net) == PROGRAM
    assert mine.__dict__["_lrw"].built == built
    mine[0].weight.data.mul_(2)
    assert same(mine, copy.deepcopy(mine)) == PROGRAM
    assert mine.__dict__["_lrw"].built != built


def test_averaged_models(fast: nn.Module, net: nn.Module) -> None:
    """`torch.optim.swa_utils.AveragedModel` of it: the program, with the averages."""
    averaged = AveragedModel(fast)
    averaged.update_parameters(fast)
    assert_alike(averaged.eval()(X), net(X))
    assert averaged.module.report.last.startswith("gradients")
    assert same(averaged.module, net) == PROGRAM


INPUTS: dict[str, Tensor] = {
    "channels_last_3d": X.to(memory_format=torch.channels_last_3d),
    "every second": torch.randn(1, 2, 5, 6, 14)[..., ::2],
    "transposed": X.transpose(2, 4).contiguous().transpose(2, 4),
    "expanded": X.expand(3, -1, -1, -1, -1),
    "a slice": torch.randn(3, 4, 5, 9, 7)[1:2, 1:3, :, 2:8],
    "another size": torch.randn(1, 2, 4, 4, 9),
}


@pytest.mark.parametrize("how", INPUTS)
def test_inputs(how: str, fast: nn.Module, net: nn.Module) -> None:
    """Inputs in `channels_last_3d`, strided, transposed, expanded, of other sizes: the program."""
    assert same(fast, net, INPUTS[how]) == PROGRAM


def test_hooks(fast: nn.Module, net: nn.Module) -> None:
    """Forward hooks: those on the whole run around the program; with hooks inside the network's own forward runs."""
    mine, theirs = copy.deepcopy(fast), plain()
    for one in (mine, theirs):
        one.register_forward_hook(lambda module, args, y: y * 2)
        one.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    assert same(mine, theirs) == PROGRAM
    for one in (mine, theirs):
        one[2].register_forward_hook(lambda module, args, y: y + 1)
    assert same(mine, theirs) == "a module inside has hooks"


def test_data_parallel(fast: nn.Module, net: nn.Module) -> None:
    """`nn.DataParallel` on a CPU, which has one device: the program."""
    with torch.no_grad():
        assert_alike(nn.DataParallel(fast)(X), net(X))
    assert fast.report.last == PROGRAM


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_distributed_data_parallel(fast: nn.Module) -> None:
    """`DistributedDataParallel` of it: trains as the plain network does; the program without gradients in eval mode."""
    mine, theirs = copy.deepcopy(fast).train(), plain().train()
    parallel = DistributedDataParallel(mine)
    for one in (parallel, theirs):
        one(X).square().sum().backward()
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    with torch.no_grad():
        assert_alike(parallel.eval()(X), theirs.eval()(X))
    assert mine.report.last == PROGRAM


def test_inference_mode(fast: nn.Module, net: nn.Module) -> None:
    """`torch.inference_mode`: the program, which gives inference tensors as torch does."""
    with torch.inference_mode():
        assert fast(X).is_inference()
        assert same(fast, net) == PROGRAM


def test_wanted_gradients(fast: nn.Module, net: nn.Module) -> None:
    """Gradients of weights or of the input, where grad mode is on: the network's own forward."""
    x, other = (X.clone().requires_grad_() for _ in range(2))
    mine, theirs = copy.deepcopy(fast).requires_grad_(False), plain().requires_grad_(False)
    mine(x).square().sum().backward()
    assert mine.report.last.startswith("gradients are wanted")
    theirs(other).square().sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    assert_alike(mine(X), net(X))
    assert mine.report.last == PROGRAM  # nothing here wants any


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant: bool, fast: nn.Module) -> None:
    """`torch.utils.checkpoint` around it in training: the network's own forward and gradients."""
    mine, theirs = copy.deepcopy(fast).train(), plain().train()
    for one in (mine, theirs):
        checkpoint(one, X.clone().requires_grad_(), use_reentrant=reentrant).square().sum().backward()
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_functional_transforms(fast: nn.Module, net: nn.Module) -> None:
    """`torch.func` (`vmap`, `grad`, `functional_call`, ensembles): the network's own forward, nothing is built."""
    many, weights = torch.randn(3, *X.shape), dict(net.named_parameters())
    with torch.no_grad():
        assert_alike(vmap(fast)(many), vmap(net)(many))
        twice = {name: 2 * p for name, p in weights.items()}
        built = dict(fast.__dict__["_lrw"].built)
        assert_alike(functional_call(fast, twice, (X,)), functional_call(net, twice, (X,)))
        assert fast.report.last.startswith("tensors stand for parameters")
        assert fast.__dict__["_lrw"].built == built

    def loss(weights: dict[str, Tensor], of: nn.Module) -> Tensor:
        return functional_call(of, weights, (X,)).square().sum()

    mine, theirs = (grad(loss)(weights, of) for of in (fast, net))
    for name in weights:
        torch.testing.assert_close(mine[name], theirs[name])
    stacked, buffers = stack_module_state([fast, copy.deepcopy(fast)])  # type: ignore[list-item]
    empty = copy.deepcopy(fast).to("meta")
    y = vmap(lambda p, b: functional_call(empty, (p, b), (X,)))(stacked, buffers)
    torch.testing.assert_close(y[1], net(X))
    assert same(fast, net) == PROGRAM


def test_meta_and_fake_tensors(fast: nn.Module, net: nn.Module) -> None:
    """`to("meta")`, `FakeTensorMode`: shapes, by the network's own forward; `accelerate` refuses weights on meta."""
    assert copy.deepcopy(fast).to("meta")(X.to("meta")).shape == net(X).shape
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, torch.no_grad():
        y = fast(mode.from_tensor(X))
    assert isinstance(y, FakeTensor)
    assert y.shape == net(X).shape
    with pytest.raises(ValueError, match=r"weight: has no numbers \(on the meta device\)"):
        accelerated(plain()[0].to("meta"))
    assert same(fast, net) == PROGRAM


def test_modes_that_watch(fast: nn.Module, net: nn.Module) -> None:
    """Modes that watch operators (`FlopCounterMode`): they see the network's own; the profiler sees the program."""
    counts = []
    for one in (fast, net):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            one(X)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
    with torch.profiler.profile() as profile:
        assert same(fast, net) == PROGRAM
    assert profile.events()


def test_tracing(fast: nn.Module, net: nn.Module) -> None:
    """`torch.jit.trace`, `torch.jit.script`, `fx.symbolic_trace` of it: the plain network's graph."""
    with torch.no_grad():
        for made in (torch.jit.trace(fast, X), torch.jit.script(fast), fx.symbolic_trace(fast)):
            assert_alike(made(X), net(X))
            assert_alike(made(X[..., :5]), net(X[..., :5]))


WEIGHTS: dict[str, Callable[[nn.Module], object]] = {
    "weight_norm": lambda layer: parametrizations.weight_norm(layer).eval(),
    "spectral_norm": lambda layer: parametrizations.spectral_norm(layer).eval(),
    "orthogonal": lambda layer: parametrizations.orthogonal(layer).eval(),
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
}


@pytest.mark.parametrize("of", WEIGHTS)
def test_computed_weights(of: str, fast: nn.Module) -> None:
    """`torch.nn.utils.parametrizations` and `prune` inside: the program, followed; `prune` has hooks, so its own."""
    mine, theirs = copy.deepcopy(fast), plain()
    for one in (mine, theirs):
        torch.manual_seed(1)
        WEIGHTS[of](one[0])
    assert same(mine, theirs) == ("a module inside has hooks" if of == "prune" else PROGRAM)
    for one in (mine, theirs):
        next(p for name, p in one.named_parameters() if name.startswith("0.") and "bias" not in name).data[0] *= 3
    same(mine, theirs)
    for one in (mine, theirs):
        prune.remove(one[0], "weight") if of == "prune" else parametrize.remove_parametrizations(one[0], "weight")
    assert same(mine, theirs) == PROGRAM


def test_parametrized_wholes() -> None:
    """Parametrizations put on the whole (a network of one layer): its own forward; `revert` refuses the new class."""
    layer = nn.Conv3d(2, 4, 3).eval()
    fast = parametrizations.weight_norm(accelerated(layer)).eval()
    assert "torch.export cannot follow it" in same(fast, layer)
    with pytest.raises(ValueError, match="net: its class became ParametrizedConv3d; accepted is"):
        lrw.revert(fast)
    parametrize.remove_parametrizations(fast, "weight")
    assert same(fast, layer) == PROGRAM


def test_networks_inside(fast: nn.Module, net: nn.Module) -> None:
    """A part of another network, which may train or be accelerated itself: the program."""
    holder = nn.Sequential(copy.deepcopy(fast), nn.Conv3d(4, 2, 1)).train()
    holder[0].eval()
    theirs = nn.Sequential(plain(), copy.deepcopy(holder[1]))
    with torch.no_grad():
        assert_alike(holder(X), theirs(X))
    assert holder[0].report.last == PROGRAM
    assert same(accelerated(holder.eval()), theirs) == PROGRAM


def test_thread_counts(fast: nn.Module, net: nn.Module) -> None:
    """`torch.set_num_threads` between calls: as many threads as it says, at most those accelerated for."""
    count = torch.get_num_threads()
    try:
        for threads in (2, 1, 4):
            torch.set_num_threads(threads)
            assert same(fast, net) == PROGRAM
    finally:
        torch.set_num_threads(count)


def test_python_threads(net: nn.Module) -> None:
    """Eight Python threads, with forms new and known, gradients and none: one builds, the others wait."""
    fast, inputs = accelerated(net), [torch.randn(1 + i % 4, *X.shape[1:]) for i in range(32)]
    holder = accelerated(nn.Sequential(fast, nn.ReLU()).eval())

    def run(i: int) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(i % 3 == 0):
            return inputs[i], (holder if i % 3 == 1 else fast)(inputs[i]).relu()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(run, range(len(inputs))))
    for x, y in found:
        assert_alike(y.detach(), net(x).detach().relu())


def test_forks(fast: nn.Module) -> None:
    """`os.fork`, on one thread in the child, as in DataLoader's workers: it runs the program, and builds its own."""
    reader, writer = os.pipe()
    with torch.no_grad():
        expected = fast(X)
        child = os.fork()
        if not child:
            try:
                torch.set_num_threads(1)  # the parent's threads are not there: torch's own parallel regions hang
                own = fast(torch.cat([X, X, X]))
                alike = torch.allclose(fast(X), expected, rtol=1e-4, atol=1e-5) and own.shape[0] == 3
                os.write(writer, f"{alike} {fast.report.last}".encode())
            finally:
                os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 1000).decode() == f"True {PROGRAM}"


ONE_OF_SEVERAL = """
import sys, torch, lrw
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv3d(3, 2, 1), torch.nn.ReLU()).eval()
x = torch.randn(1, 3, 4, 5, 6)
with torch.no_grad():
    fast = lrw.accelerate(net, x, threads=1)
    torch.testing.assert_close(fast(x), net(x))
print(fast.report.last)
"""


@pytest.mark.slow
def test_processes(tmp_path: Path) -> None:
    """Several processes at once with one empty cache: each compiles, or reads what is whole there."""
    (tmp_path / "cache").mkdir(mode=0o700)
    environment = {**os.environ, "LRW_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", ONE_OF_SEVERAL]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        assert process.communicate(timeout=300)[0].strip() == PROGRAM
        assert process.returncode == 0
