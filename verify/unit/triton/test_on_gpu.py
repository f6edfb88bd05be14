"""The GPU backend on a GPU: CUDA graphs, torch.compile, autocast, processes, streams, sizes that fill it.

What needs no GPU to be seen is tested in Triton's interpreter (test_triton_interpreted.py), and here by the same tests.
"""

import os
from collections.abc import Callable, Iterable
from copy import deepcopy
from math import prod
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import lrw
from bench.gpu.clock import Clock
from bench.layers import kept
from lrw import backends
from lrw.backends import triton
from lrw.ops import transform_weight, winograd_conv3d, winograd_domain_conv3d
from lrw.unchanged import trust_tensor
from lrw_kernels.triton import config

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
refused = "is interpreted" if INTERPRETED else triton.refusal(torch.device("cuda"), torch.float32)
pytestmark = [
    pytest.mark.skipif(refused is not None, reason=f"a GPU is what is tested: the backend {refused}"),
    pytest.mark.filterwarnings("ignore"),  # torch warns of a GPU's settings, and of what its own compiler does
]
if refused is None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself, whatever stream it is on

two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")

TF32 = 2.0**-10  # its spacing at 1
Size = tuple[int, int, int]


@pytest.fixture
def plain_memory() -> None:
    """Not poisoned: what torch itself does is other code when it is."""
    torch.use_deterministic_algorithms(False)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)
    return made.contiguous(memory_format=torch.channels_last_3d) if len(shape) == 5 else made


def example(channels: int = 16, size: Size = (4, 6, 7), batch: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """x, which wants a gradient, and dy."""
    x, dy = (normal(batch, channels, *size, seed=2 * seed + i) for i in range(2))
    return x.requires_grad_(), dy


def winograd(channels: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return lrw.to_winograd(nn.Conv3d(channels, channels, 3, padding=1).to(DEVICE), tile=2, backend="triton")


def pruned_low_rank(channels: int = 16) -> nn.Module:
    layer = lrw.add_low_rank(winograd(channels), rank=2)
    layer.keep(kept(layer.geometry.tile, 0.5))
    return layer


LAYERS: dict[str, Callable[[], nn.Module]] = {"winograd": winograd, "pruned low-rank": pruned_low_rank}
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
each_precision = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["tf32", "bfloat16"])


def trained(net: nn.Module, x: Tensor, dy: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """y, dx and the gradients of all that is trained; under autocast where `dtype` is no float32."""
    with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype != torch.float32, cache_enabled=False):
        y = net(x)
    wanted = [x, *(p for p in net.parameters() if p.requires_grad)]
    return y.detach(), *torch.autograd.grad(y, wanted, dy.to(y.dtype))


def assert_same(ours: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    """To the bit."""
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def assert_near(ours: Iterable[Tensor], expected: Iterable[Tensor], limit: float) -> None:
    """Errors over what was expected, as norms."""
    for a, b in zip(ours, expected, strict=True):
        assert a.shape == b.shape
        error = float((a.double() - b.double()).norm() / b.double().norm())
        assert error < limit


def captured(run: Callable[[], tuple[Tensor, ...]]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
    """A graph of `run`, and where it leaves its results."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    return graph, results


@pytest.mark.usefixtures("plain_memory")
@each_precision
@each_layer
def test_a_cuda_graph_computes_new_inputs_as_calls_do(make: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    net, (x, dy) = make(), example()
    graph, results = captured(lambda: trained(net, x, dy, dtype))
    for seed in (1, 2):
        with torch.no_grad():
            for held, new in zip((x, dy), example(seed=seed), strict=True):
                held.copy_(new)
        graph.replay()
        replayed = [t.clone() for t in results]
        assert_same(replayed, trained(net, x, dy, dtype))


@pytest.mark.usefixtures("plain_memory")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@each_layer
def test_inductor_compiles_it_whole(make: Callable[[], nn.Module], mode: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    net = nn.Sequential(make(), nn.ReLU())
    compiled = torch.compile(net, fullgraph=True, mode=mode)
    for seed in range(4):  # as it is, warmed up, recorded, replayed
        x, dy = example(seed=seed)
        expected = trained(net, x, dy)  # before the first graph: it must find tables that are no part of it
        torch.compiler.cudagraph_mark_step_begin()
        found = [t.clone() for t in trained(compiled, x, dy)]
        assert_near(found, expected, TF32)
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_half_and_leaves_gradients_in_float32(dtype: torch.dtype) -> None:
    net, (x, dy) = winograd(), example()
    with torch.autocast(DEVICE, dtype):
        y = net(x)
    assert y.dtype == dtype
    y.backward(dy.to(dtype))
    found = [y, x.grad, *(p.grad for p in net.parameters())]
    assert {t.dtype for t in found[1:]} == {torch.float32}
    assert_near(found, exactly(net, x, dy), 4 * torch.finfo(dtype).eps)


def exactly(net: nn.Module, x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """`trained`, in float64 by tensor operations."""
    exact = deepcopy(net).double()
    exact.backend = "torch"
    return trained(exact, x.detach().double().requires_grad_(), dy.double())


class Checkpointed(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=False)


@each_precision
@each_layer
def test_checkpointing_gives_the_same_bits(make: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    net, (x, dy) = make(), example()
    assert_same(trained(Checkpointed(net), x, dy, dtype), trained(net, x, dy, dtype))


@each_precision
def test_a_full_gpu_gives_the_same_bits_every_time(dtype: torch.dtype) -> None:
    net, (x, dy) = winograd(64), example(64, (16, 56, 56))
    first = trained(net, x, dy, dtype)
    for _ in range(5):
        assert_same(trained(net, x, dy, dtype), first)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 2.0**-5), (torch.float32, 1e-5)], ids=["half", "ieee"])
def test_offsets_may_be_larger_than_31_bits(dtype: torch.dtype, limit: float) -> None:
    samples, size = 1025, (32, 64, 64)
    numbers = samples * prod(size) * 16
    assert numbers > 2**31
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < 5 * numbers * dtype.itemsize:
        pytest.skip("x, y and their gradients do not fit")
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert_right_at_its_ends(samples, size, dtype, limit)


def assert_right_at_its_ends(samples: int, size: Size, dtype: torch.dtype, limit: float) -> None:
    """A batch of which the first sample and the last alone have gradients."""
    few, shape, how = [0, samples - 1], (samples, *size, 16), {"device": DEVICE, "dtype": dtype}
    x = torch.randn(shape, **how).permute(0, 4, 1, 2, 3).requires_grad_()
    dy = torch.zeros(shape, **how).permute(0, 4, 1, 2, 3)
    for n in few:
        dy[n].normal_()
    u = transform_weight(normal(16, 16, 3, 3, 3) / 20, 2).to(dtype).requires_grad_()
    y = compute(x, u, "triton")
    dx, du = torch.autograd.grad(y, (x, u), dy)
    assert not dx[samples // 2].any()
    x64, u64 = x[few].detach().double().requires_grad_(), u.detach().double().requires_grad_()
    y64 = compute(x64, u64, "torch")
    expected = y64.detach(), *torch.autograd.grad(y64, (x64, u64), dy[few].double())
    assert_near((y[few].detach(), dx[few], du), expected, limit)


def compute(x: Tensor, u: Tensor, backend: str) -> Tensor:
    return winograd_domain_conv3d(x, u, tile=2, padding=1, backend=backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_takes_its_results_and_a_workspace(dtype: torch.dtype) -> None:
    x, dy = (normal(8, 64, 16, 56, 56, seed=i, dtype=dtype) for i in range(2))
    u = transform_weight(normal(64, 64, 3, 3, 3) / 40, 2).to(dtype).requires_grad_()
    activations = 2 * x.numel() * x.element_size()
    workspace = min(config.WORKSPACE, max(config.LEAST_WORKSPACE, activations))
    assert 8 * activations > 2 * workspace  # bytes of all of V and M
    x.requires_grad_()
    taken = Clock(x.device, 1.0).peak(lambda: lambda: torch.autograd.grad(compute(x, u, "triton"), (x, u), dy))
    assert taken is not None
    assert taken < (activations + 1.1 * workspace) / 2**20 + 64  # y and dx; parts are whole blocks; dU and its parts


@each_precision
@pytest.mark.parametrize("channels", [8, 64, 512])
def test_auto_goes_where_choose_says(channels: int, dtype: torch.dtype) -> None:
    x, w = normal(1, channels, 4, 8, 8, dtype=dtype), normal(channels, channels, 3, 3, 3, seed=1, dtype=dtype) / 50
    chosen = backends.choose(torch.device(DEVICE), dtype, (channels, channels)).name
    assert chosen == "cudnn" or channels >= backends.FEWEST_CHANNELS
    with patch.object(triton, "forward", wraps=triton.forward) as ours:
        y = winograd_conv3d(x, w, padding=1)
    assert ours.called == (chosen == "triton")
    expected = F.conv3d(x, w, padding=1)
    if chosen == "cudnn":
        torch.testing.assert_close(y, expected)
    else:
        assert_near([y], [expected], 4 * (TF32 if dtype == torch.float32 else torch.finfo(dtype).eps))


def test_kernels_run_on_the_current_stream() -> None:
    net, (x, dy) = winograd(), example()
    expected, late, side = trained(net, x, dy), torch.zeros_like(x), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # a tenth of a second, in which kernels on another stream would read zeros
        late.copy_(x.detach())
        found = trained(net, late.requires_grad_(), dy)
    side.synchronize()
    assert_same(found, expected)


def test_weights_kept_by_one_stream_are_not_read_by_another_before_they_are_there() -> None:
    x, w = example()[0].detach(), normal(16, 16, 3, 3, 3) / 20
    trust_tensor(w)  # on a GPU nothing is kept of others

    def run() -> Tensor:
        with torch.no_grad():
            return winograd_conv3d(x, w, padding=1, tile=2, backend="triton")

    expected, side = run(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)
        run()  # forms what is kept, late
    assert torch.equal(run(), expected)
    side.synchronize()


@two_gpus
def test_tensors_may_be_on_another_gpu_than_the_current_one() -> None:
    net, (x, dy) = winograd(), example()
    expected = trained(net, x, dy)
    found = trained(net.to("cuda:1"), x.detach().to("cuda:1").requires_grad_(), dy.to("cuda:1"))
    assert_near([t.to(DEVICE) for t in found], expected, TF32)


def worker(rank: int, out: str, world: int) -> None:
    """Gradients of a share of the batch, averaged over all."""
    if DEVICE == "cuda":
        torch.cuda.set_device(rank)
    name = "nccl" if DEVICE == "cuda" else "gloo"
    torch.distributed.init_process_group(name, init_method=f"file://{out}/store", rank=rank, world_size=world)
    net, (x, dy) = DistributedDataParallel(pruned_low_rank()), example()
    own = slice(rank * len(x) // world, (rank + 1) * len(x) // world)
    net(x[own]).backward(dy[own])
    torch.save([p.grad.cpu() for p in net.parameters() if p.grad is not None], f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()
    os._exit(0)  # threads may keep an interpreter from leaving


@pytest.mark.usefixtures("plain_memory")
@pytest.mark.parametrize("world", [1, pytest.param(2, marks=two_gpus)])
def test_processes_average_their_gradients(world: int, tmp_path: Path) -> None:
    mp.spawn(worker, (str(tmp_path), world), nprocs=world, daemon=True)  # raises what they raise
    alone = [t / world for t in trained(pruned_low_rank(), *example())[2:]]
    for rank in range(world):
        assert_near([t.to(DEVICE) for t in torch.load(tmp_path / f"{rank}.pt")], alone, TF32)


def test_every_precision_is_a_subject_of_the_laws() -> None:
    from verify.backends import SUBJECTS

    on_gpu = {name for name, subject in SUBJECTS.items() if subject.device == "cuda"}
    assert on_gpu >= {"triton-float32", "triton-tf32", "triton-bfloat16", "triton-float16"}
