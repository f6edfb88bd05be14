"""Laws of writing: after any write to weights or to what is kept, every layer gives the new result.

Each writer meets each kind of layer after calls enough for its packed weights to be kept; then all doors must agree
with a layer that never computed before. Some writers are ones torch counts, most are not.
"""

import copy
import gc
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

import lrw
from lrw import unchanged
from lrw.nn import GroupedConv3d, WinogradConv3d, WinogradLayer
from lrw.ops import winograd_conv3d, winograd_domain_conv3d
from lrw.trace import trace
from verify.programs.interpreter import assert_same

CIN, COUT = 8, 32
INPUTS = [torch.randn(1, CIN, 5, 6, 7, generator=torch.Generator().manual_seed(0))]
INPUTS.append(INPUTS[0].to(memory_format=torch.channels_last_3d))
EVEN, ODD = range(0, 64, 2), range(1, 64, 2)


class Spatial(nn.Module):
    """The function of spatial weights."""

    def __init__(self, memory_format: torch.memory_format) -> None:
        super().__init__()
        weight = torch.randn(COUT, CIN, 3, 3, 3).to(memory_format=memory_format)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.randn(COUT))

    def forward(self, x: Tensor) -> Tensor:
        return winograd_conv3d(x, self.weight, self.bias, padding=1, tile=2)


class Domain(nn.Module):
    """The function of weights in the domain; called past torch's dispatch, or as the registered operator."""

    def __init__(self, *, raw: bool) -> None:
        super().__init__()
        self.weight, self.bias, self.raw = (
            nn.Parameter(torch.randn(32, CIN, COUT)),
            nn.Parameter(torch.zeros(COUT)),
            raw,
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.raw:
            arguments = ("F(2x2x2,3x3x3)", [1, 1, 1], list(EVEN), False, "auto")
            return torch.ops.lrw.winograd_forward(x, self.weight, self.bias, None, False, *arguments)
        return winograd_domain_conv3d(x, self.weight, self.bias, tile=2, padding=1, kept=EVEN)


def layer(*, kept: range | None = None, holes: bool = False, grouped: bool = False) -> WinogradConv3d:
    made = WinogradConv3d(CIN, COUT, padding=1, tile=2)
    if kept is not None:
        made.keep(kept)
    if holes:
        made.keep_weights(torch.rand(64, CIN, COUT) > 0.5)
    if grouped:
        mask = torch.zeros(64, 1, COUT, dtype=torch.bool)
        mask[::2, :, : COUT // 2] = mask[1::2, :, COUT // 2 :] = True
        made.keep_weights(mask)
    return made


def rectified() -> nn.Module:
    return WinogradConv3d(CIN, COUT, padding=1, tile=2, rectified=True)


KINDS: dict[str, Callable[[], nn.Module]] = {
    "spatial": lambda: Spatial(torch.contiguous_format),
    "spatial, channels last": lambda: Spatial(torch.channels_last_3d),
    "domain": lambda: Domain(raw=False),
    "operator": lambda: Domain(raw=True),
    "dense": layer,
    "columns": lambda: layer(kept=EVEN),
    "single weights": lambda: layer(holes=True),
    "low rank": lambda: lrw.add_low_rank(nn.Sequential(layer()), rank=4),
    "compressed": lambda: lrw.compress(nn.Sequential(layer(kept=EVEN))),
    "grouped": lambda: lrw.compress(nn.Sequential(layer(grouped=True))),
    "rectified": rectified,
}


def largest(net: nn.Module) -> nn.Parameter:
    return max(net.parameters(), key=Tensor.numel)


def swapped(net: nn.Module) -> None:
    for p in list(net.parameters()):
        torch.utils.swap_tensors(p, nn.Parameter(p.detach() * 2, requires_grad=p.requires_grad))


def converted_by_swapping(net: nn.Module) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        net.load_state_dict({k: t * 2 if t.is_floating_point() else t for k, t in net.state_dict().items()})
        net.double()
        net.float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def edited_vector(net: nn.Module) -> None:
    """Parameters become views of one vector, which is edited after they were used again."""
    vector = torch.cat([2 * p.detach().reshape(-1) for p in net.parameters()])
    nn.utils.vector_to_parameters(vector, net.parameters())
    used(net)
    vector[5:200] += 5


def set_through_dlpack(net: nn.Module) -> None:
    torch.from_dlpack(torch.utils.dlpack.to_dlpack(largest(net).detach())).mul_(-2)


def unversioned(net: nn.Module) -> None:
    p = largest(net)
    with torch.no_grad(), torch.autograd._unsafe_preserve_version_counter(p):
        p.mul_(2)


def optimized(net: nn.Module) -> None:
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.SGD([p for p in net.parameters() if p.requires_grad] or list(net.parameters()), lr=0.1).step()


def loaded(net: nn.Module, **how: bool) -> None:
    net.load_state_dict({k: t * 2 if t.is_floating_point() else t.clone() for k, t in net.state_dict().items()}, **how)


def averaged(net: nn.Module) -> None:
    """As an exponential average of models copies: state dict to state dict, in place."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(-0.5)
        for mine, theirs in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
            mine.copy_(theirs)


def new_parameters(net: nn.Module) -> None:
    for module in net.modules():
        for name, p in list(module._parameters.items()):
            if p is not None:
                setattr(module, name, nn.Parameter(p.detach() * 2, requires_grad=p.requires_grad))


def other_process(net: nn.Module) -> None:
    net.share_memory()
    used(net)
    process = mp.get_context("fork").Process(target=negated, args=(largest(net),))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def negated(p: Tensor) -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        p[..., 1:] *= -2


def flat(net: nn.Module) -> Tensor:
    """The largest parameter as it lies in memory."""
    p = largest(net)
    return p.data.as_strided((p.numel(),), (1,))


def scaled_last(net: nn.Module) -> None:
    largest(net).data[..., 1:] *= -2


def few_numbers(net: nn.Module) -> None:
    flat(net)[:3] += 100


def pruned(net: nn.Module) -> None:
    p = largest(net).data
    p.mul_(torch.rand_like(p) > 0.5)


WRITERS: dict[str, Callable[[nn.Module], object]] = {
    "data": lambda net: largest(net).data.mul_(1.5),
    "data, some channels": scaled_last,
    "data, few numbers": few_numbers,
    "data, masked": pruned,
    "data, clamped": lambda net: largest(net).data.clamp_(-0.01, 0.01),
    "data, two signs": lambda net: flat(net)[:2].neg_(),
    "data, exchanged": lambda net: largest(net).data.copy_(largest(net).detach().flip(0)),
    "data, new memory": lambda net: setattr(largest(net), "data", largest(net).detach() * 2),
    "numpy": lambda net: largest(net).detach().numpy().__imul__(2),
    "dlpack": set_through_dlpack,
    "vector": edited_vector,
    "version kept": unversioned,
    "other process": other_process,
    "in place": lambda net: nn.init.ones_(largest(net)),
    "inference mode": lambda net: torch.inference_mode()(nn.init.ones_)(largest(net)),
    "optimizer": optimized,
    "load_state_dict": loaded,
    "load_state_dict, assigned": lambda net: loaded(net, assign=True),
    "averaged": averaged,
    "new parameters": new_parameters,
    "there and back": lambda net: (net.half(), net.float()),
    "swapped": swapped,
    "swapping conversions": converted_by_swapping,
    "bias": lambda net: next(p for n, p in net.named_parameters() if n.endswith("bias")).data.add_(9),
}


def used(net: nn.Module) -> list[Tensor]:
    """The results of all doors, often enough for the short ways to be taken."""
    results = []
    for _ in range(3):
        for x in INPUTS:
            with torch.no_grad():
                results.append(net(x))
            with torch.inference_mode():
                results.append(net(x.clone()).clone())
            results.append(net(x).detach())  # gradients are wanted
    return results


def unused(net: nn.Module) -> Tensor:
    """What a copy that shares no memory gives, computed by torch's own operations."""
    fresh = copy.deepcopy(net)
    for module in fresh.modules():
        if isinstance(module, WinogradLayer):
            module.backend = "torch"
    with torch.no_grad():
        return fresh(INPUTS[0])


def check(net: nn.Module) -> None:
    expected = unused(net)
    for y in used(net):
        torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("writer", WRITERS)
def test_every_write_is_seen(writer: str, kind: str) -> None:
    torch.manual_seed(1)
    net = KINDS[kind]()
    before = used(net)[0]
    WRITERS[writer](net)
    check(net)
    same = writer == "there and back" or torch.allclose(unused(net), before, rtol=1e-3)
    assert not same or writer in ("there and back", "data, two signs"), "the writer wrote nothing"


def state(net: nn.Module, name: str) -> Tensor:
    return next(t for key, t in net.state_dict().items() if key.endswith(name))


KEPT_WRITERS: dict[str, Callable[[Tensor], object]] = {
    "in place": lambda t: t.copy_(torch.roll(t, 1, 0) if t.dtype == torch.bool else t ^ 1),
    "data": lambda t: t.data.copy_(torch.roll(t, 1, 0) if t.dtype == torch.bool else t ^ 1),
    "numpy": lambda t: t.numpy().__ixor__(True if t.dtype == torch.bool else 1),
}


@pytest.mark.parametrize("kind", ["columns", "single weights", "compressed", "grouped"])
@pytest.mark.parametrize("writer", KEPT_WRITERS)
@pytest.mark.parametrize("through", ["buffer", "state dict"])
def test_what_is_kept_is_followed(through: str, writer: str, kind: str) -> None:
    torch.manual_seed(1)
    net = KINDS[kind]()
    before = used(net)[0]
    name = "kept" if kind in ("compressed", "grouped") else "mask"
    if through == "state dict":
        buffer = state(net, name)
    else:
        buffer = next(b for n, b in net.named_buffers() if n.endswith(name))
    KEPT_WRITERS[writer](buffer)
    check(net)
    assert not torch.allclose(used(net)[0], before)


@pytest.mark.parametrize("kind", ["columns", "single weights", "compressed", "grouped"])
def test_equal_state_dicts_are_equal_functions(kind: str) -> None:
    """Averaging copies: what was pruned otherwise follows the copy, and is saved as what it computes."""
    torch.manual_seed(1)
    one, other = nn.Sequential(KINDS[kind]()), nn.Sequential(KINDS[kind]())
    if kind == "columns":
        other[0].keep(ODD)
    elif kind == "compressed":
        other = nn.Sequential(lrw.compress(nn.Sequential(layer(kept=ODD))))
    elif kind == "grouped":
        first = next(m for m in other.modules() if isinstance(m, GroupedConv3d))
        first.kept ^= 1
    used(one), used(other)
    for mine, theirs in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        mine.copy_(theirs)
    for y, z in zip(used(one), used(other), strict=True):
        torch.testing.assert_close(y, z)
    mine, theirs = (next(m for m in net.modules() if isinstance(m, WinogradLayer)) for net in (one, other))
    assert mine.geometry == theirs.geometry


@pytest.mark.parametrize("average", ["all", "parameters alone"])
def test_averaged_models_follow(average: str) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(layer())
    mean = torch.optim.swa_utils.AveragedModel(net, use_buffers=average == "all")
    used(mean)
    net[0].keep(EVEN)
    mean.update_parameters(net)
    with torch.no_grad():
        torch.testing.assert_close(mean(INPUTS[0]), net(INPUTS[0]))


def test_averaged_masks_are_refused_by_name() -> None:
    net = layer(kept=EVEN)
    averaged = {k: (t.float() + 1) / 2 if t.dtype == torch.bool else t for k, t in net.state_dict().items()}
    with pytest.raises(ValueError, match="mask: dtype"):
        net.load_state_dict(averaged)


def test_kept_sets_that_are_none_are_refused() -> None:
    net = lrw.compress(nn.Sequential(layer(kept=EVEN)))
    used(net)
    net[0].kept.add_(2)
    for _ in range(2):  # not only the first time
        with pytest.raises(ValueError, match="outside 0"):
            net(INPUTS[0])
    mask = layer()
    mask.mask.zero_()
    with pytest.raises(ValueError, match="keeps no column"):
        mask(INPUTS[0])


def test_trusted_weights_are_not_looked_at_until_they_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(layer())
    looked: list[int] = []
    digest = unchanged.digest_of
    monkeypatch.setattr(unchanged, "digest_of", lambda t: looked.append(t.numel()) or digest(t))
    lrw.trust(net)
    with torch.no_grad():
        for _ in range(5):
            before = net(INPUTS[1])
        assert looked == []
        net[0].weight.data.mul_(2)
        torch.testing.assert_close(net(INPUTS[1]), before)  # as promised: nobody looks
        lrw.forget(net)
        check(net)
        net[0].weight.mul_(2)  # torch counts this one
        check(net)
        lrw.trust(net, every=3)
        for _ in range(5):
            net(INPUTS[1])
        net[0].weight.data.mul_(2)
        changed = [net(INPUTS[1]) for _ in range(3)]
        torch.testing.assert_close(changed[-1], unused(net), rtol=1e-3, atol=1e-3)
        lrw.trust(net, every=1)
        net[0].weight.data.mul_(2)
        check(net)


@pytest.mark.parametrize("every", [-1, 1.0, True, "never"])
def test_other_rates_are_refused(every: object) -> None:
    with pytest.raises(ValueError, match="every"):
        lrw.trust(layer(), every=every)  # type: ignore[arg-type]


def test_nothing_is_kept_of_weights_that_are_gone() -> None:
    net = nn.Sequential(layer())
    used(net)
    lrw.forget(net)
    before = list(unchanged._SEEN)
    used(net)
    assert len(unchanged._SEEN) > len(before)
    del net
    gc.collect()
    assert set(unchanged._SEEN) <= set(before)


@pytest.fixture
def compiler() -> Iterator[None]:
    """torch.compile with nothing compiled yet: it makes eight functions of one piece of code, then no more."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("kind", ["dense", "columns", "single weights", "compressed", "grouped", "spatial"])
def test_compiled_functions_see_weights_and_refuse_other_kept_sets(kind: str) -> None:
    """torch.compile makes the kept set a constant: it may never be another one without a word."""
    torch.manual_seed(1)
    net = KINDS[kind]()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    for writer in ("data", "version kept", "averaged"):
        WRITERS[writer](net)
        for context in (torch.no_grad, torch.enable_grad):
            with context():
                torch.testing.assert_close(compiled(INPUTS[0]), unused(net), rtol=1e-3, atol=1e-3)
    if kind == "spatial":
        return
    buffer = state(net, "kept" if kind in ("compressed", "grouped") else "mask")
    buffer.data[:2] ^= True if buffer.dtype == torch.bool else 1
    with torch.no_grad(), pytest.raises(RuntimeError, match="mask or kept set was written to"):
        compiled(INPUTS[0])
    net(INPUTS[0])
    torch.testing.assert_close(compiled(INPUTS[0]), unused(net), rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("compiler")
def test_layers_written_to_before_they_are_compiled_say_so() -> None:
    net = layer(kept=EVEN)
    net.mask[:8] = False
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    with pytest.raises(RuntimeError, match="mask or kept set was written to"):
        compiled(INPUTS[0])


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("kind", ["columns", "single weights", "low rank", "compressed"])
def test_gradients_of_compiled_layers_are_those_of_eager_ones(kind: str) -> None:
    torch.manual_seed(1)
    net = KINDS[kind]()
    trained = [p for p in net.parameters() if p.requires_grad]
    expected = torch.autograd.grad(net(INPUTS[0]).square().sum(), trained)
    found = torch.autograd.grad(torch.compile(net, backend="aot_eager")(INPUTS[0]).square().sum(), trained)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("kind", ["columns", "compressed", "grouped"])
def test_what_is_written_to_is_saved_compressed_and_exported_as_it_is(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(KINDS[kind]() if kind == "columns" else KINDS[kind]()[0])
    used(net)
    buffer = state(net, "mask" if kind == "columns" else "kept")
    buffer.data.copy_(torch.roll(buffer, 1, 0) if kind == "columns" else buffer ^ 1)
    expected = unused(net)
    plain = nn.Sequential(nn.Conv3d(CIN, COUT, 3, padding=1))
    for other in (lrw.load(lrw.save(net, tmp_path / "net.safetensors"), plain), lrw.compress(net), copy.deepcopy(net)):
        with torch.no_grad():
            torch.testing.assert_close(other(INPUTS[0]), expected, rtol=1e-3, atol=1e-3)
    assert_same(trace(net.eval(), INPUTS[0], "net"), net, INPUTS[0])


class Labelled(torch.Tensor):
    """A subclass, as libraries wrap buffers in."""


def counted(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), FlopCounterMode(display=False):
        return net(x)


def recomputed(net: nn.Module, x: Tensor) -> Tensor:
    contexts = partial(create_selective_checkpoint_contexts, [torch.ops.aten.mm.default])
    return checkpoint(net, x, use_reentrant=False, context_fn=contexts)


def symbolic(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return make_fx(net)(x)(x)


def differentiated(net: nn.Module, x: Tensor) -> Tensor:
    return torch.func.jvp(net, (x,), (x,))[0]


def mapped(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.vmap(net)(x[None])[0]


DOORS = {"flops": counted, "checkpoint": recomputed, "make_fx": symbolic, "jvp": differentiated, "vmap": mapped}


@pytest.mark.parametrize("kind", ["columns", "single weights", "compressed", "grouped"])
@pytest.mark.parametrize("door", DOORS)
def test_doors_with_modes_and_transforms_follow_too(door: str, kind: str) -> None:
    torch.manual_seed(1)
    net = KINDS[kind]()
    net(INPUTS[0])
    buffer = state(net, "kept" if kind in ("compressed", "grouped") else "mask")
    buffer.data.copy_(torch.roll(buffer, 1, 0) if buffer.dtype == torch.bool else buffer ^ 1)
    expected = unused(net)
    y = DOORS[door](copy.deepcopy(net), INPUTS[0]).detach()
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["columns", "compressed"])
def test_members_of_an_ensemble_that_keep_others_are_refused(kind: str) -> None:
    one, other = KINDS[kind](), KINDS[kind]()
    p = state(other, "mask" if kind == "columns" else "kept")
    p.copy_(torch.roll(p, 1, 0) if p.dtype == torch.bool else p ^ 1)
    params, buffers = torch.func.stack_module_state([one, other])

    def run(p: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(one, (p, b), (INPUTS[0],))

    with torch.no_grad(), pytest.raises(RuntimeError, match="differs from sample to sample"):
        torch.vmap(run)(params, buffers)


@pytest.mark.parametrize("kind", ["columns", "compressed", "grouped"])
def test_exported_programs_refuse_other_kept_sets(kind: str) -> None:
    torch.manual_seed(1)
    net = KINDS[kind]() if kind == "columns" else KINDS[kind]()[0]
    made = torch.export.export(net, (INPUTS[0],)).module()
    with torch.no_grad():
        torch.testing.assert_close(made(INPUTS[0]), unused(net), rtol=1e-3, atol=1e-3)
        for buffer in made.buffers():
            buffer.copy_(torch.roll(buffer, 1, 0) if buffer.dtype == torch.bool else buffer ^ 1)
        with pytest.raises(RuntimeError, match="mask or kept set was written to"):
            made(INPUTS[0])


def test_buffers_of_other_classes_are_asked_each_time() -> None:
    net = layer(kept=EVEN)
    net.mask = net.mask.as_subclass(Labelled)
    net(INPUTS[0])
    with torch.no_grad():
        net.mask[:16] = False
        plain = layer()
        plain.load_state_dict({key: t.as_subclass(Tensor) for key, t in net.state_dict().items()})
        torch.testing.assert_close(net(INPUTS[0]), plain(INPUTS[0]), rtol=1e-3, atol=1e-3)


def test_eager_and_compiled_passes_train_together() -> None:
    net = layer(holes=True)
    compiled = torch.compile(net, backend="aot_eager")
    (net(INPUTS[0]) + compiled(INPUTS[0])).square().sum().backward()
    assert net.weight.grad is not None
    assert net.mask._version == 1


def test_trust_is_of_the_tensors_it_was_given() -> None:
    """Not of others in the same memory, nor of those whose writes torch never counts."""
    a, b = layer(), layer()
    vector = torch.cat([p.detach().reshape(-1) for m in (a, b) for p in m.parameters()])
    nn.utils.vector_to_parameters(vector, [*a.parameters(), *b.parameters()])
    lrw.trust(a)
    used(b)
    b.weight.data.mul_(2)
    check(b)
    with torch.inference_mode():
        made = layer()
        lrw.trust(made)
        for _ in range(4):
            before = made(INPUTS[0])
        made.weight.mul_(2)
        assert not torch.allclose(made(INPUTS[0]), before)
    strange = layer()
    strange.register_buffer("adjacency", torch.eye(3).to_sparse())
    lrw.trust(strange)
    lrw.forget(strange)


def test_a_value_that_failed_leaves_nothing_behind() -> None:
    derived: unchanged.Derived[float] = unchanged.Derived()
    w = torch.ones(4)
    assert derived.get(w, "sum", lambda: float(w.sum())) is None
    with pytest.raises(MemoryError):
        derived.get(w, "sum", refused)
    w.data.fill_(2)
    assert derived.get(w, "sum", lambda: float(w.sum())) == 8
    w.data.fill_(1)
    assert derived.find(w, "sum") is None
    assert derived.get(w, "sum", lambda: float(w.sum())) in (None, 4)


def refused() -> float:
    raise MemoryError


def test_many_layers_in_one_memory_are_all_kept() -> None:
    flat = torch.randn(400 * 8)
    derived: unchanged.Derived[int] = unchanged.Derived()
    for _ in range(2):
        made = [derived.get(view, "key", lambda: 1) for view in flat.split(8)]
    assert made == [1] * 400


def test_memory_that_was_given_back_is_an_error() -> None:
    """As sharded training and offloading do between passes."""
    net = layer()
    used(net)
    net.weight.untyped_storage().resize_(0)
    with torch.no_grad(), pytest.raises(ValueError, match="u: its memory was given back"):
        net(INPUTS[0])
    x = INPUTS[0].clone()
    x.untyped_storage().resize_(8)
    with torch.no_grad(), pytest.raises(ValueError, match="input: its memory was given back"):
        layer()(x)


def test_memory_may_go_while_another_thread_derives() -> None:
    """No lock is held anywhere a tensor could die."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def churn() -> None:
        try:
            while not stop.is_set():
                net = layer()
                with torch.no_grad():
                    for _ in range(3):
                        net(INPUTS[0])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failures == []
