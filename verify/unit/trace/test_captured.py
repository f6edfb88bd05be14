"""Graphs that torch.export did not make: constants by placeholder or attribute, names without modules, refusals."""

import linecache
from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

import lrw
from lrw.engine import MOST_FORMS
from lrw.geometry import Geometry
from lrw.trace import trace
from lrw.trace.captured import Captured
from lrw.trace.network import network
from lrw.trace.walk import Walk
from lrw_kernels.choice.convolution import always
from lrw_kernels.network.graph import INPUT
from lrw_kernels.network.operators import Binary, ChannelsFirst, Concat, Direct, Linear, Pool, Winograd
from lrw_kernels.winograd import Tile
from verify.programs.interpreter import assert_same
from verify.unit.trace.nets import settled

X = torch.randn(2, 3, 4, 6, 5, generator=torch.Generator().manual_seed(1))


def net() -> nn.Module:
    torch.manual_seed(3)
    blocks = ((4, (0, 5, 9)), (2, ()), (3, (1, 5, 63)))
    grouped = lrw.GroupedConv3d(20, blocks, Geometry(Tile.of(2), (1, 1, 1)), bias=True)
    with torch.no_grad():
        for p in grouped.parameters():
            p.normal_()
    first = nn.Conv3d(3, 20, 3, padding=1), nn.BatchNorm3d(20), nn.ReLU(), grouped, nn.MaxPool3d(2)
    return settled(
        nn.Sequential(*first, lrw.WinogradConv3d(9, 5, padding=1), nn.Flatten(), nn.Linear(5 * 2 * 3 * 2, 4))
    )


def test_programs_that_are_made_anew_leave_nothing_behind() -> None:
    """More sizes than programs are kept for: torch.fx would hold the source of each graph for ever."""
    kept = fx.graph_module._loader.eval_cache
    fast = lrw.accelerate(
        nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU()), torch.zeros(1, 1, 4, 4, 4), measure=False
    )
    before = set(kept)
    with torch.inference_mode():
        for size in (*range(3, 3 + MOST_FORMS + 2), 3):
            fast(torch.zeros(1, 1, 4, 4, size))
    assert set(kept) == before
    assert not [name for name in linecache.cache if name.startswith("<eval_with_key>") and name not in kept]
    fx.symbolic_trace(nn.ReLU())
    assert set(kept) > before  # other people's stay


def made_of(function: Callable[..., object], *given: Tensor, inputs: int = 1) -> Captured:
    """The graph of `function`; of what it is called with, `inputs` are such and the others constants."""
    with torch.no_grad():
        graph = make_fx(function, pre_dispatch=True)(*given).graph
    constants = dict(zip(graph.find_nodes(op="placeholder")[inputs:], given[inputs:], strict=True))
    (returned,) = graph.find_nodes(op="output")[0].args
    return Captured(graph, constants, tuple(returned) if isinstance(returned, list | tuple) else (returned,))


def functional(module: nn.Module) -> Captured:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    tensors = {name: t.detach() for name, t in tensors.items()}

    def run(x: Tensor, *values: Tensor) -> object:
        return torch.func.functional_call(module, dict(zip(tensors, values, strict=True)), (x,))

    return made_of(run, X, *tensors.values())


def test_a_graph_of_make_fx_is_the_network_of_torch_export() -> None:
    module = net()
    ours, theirs = network(functional(module), choose=always(2)), trace(module, X, tile=2)
    assert [type(n.operator) for n in ours.nodes] == [*(Winograd, Winograd, Pool, Winograd, ChannelsFirst, Linear)]
    assert [type(n.operator) for n in ours.nodes] == [type(n.operator) for n in theirs.nodes]
    assert [n.name for n in ours.nodes][:2] == ["conv3d", "winograd_blocks_forward"]
    assert ours.nodes[0].inputs == (INPUT,)
    assert_same(ours, module, X)


def test_constants_may_be_attributes_of_the_graphs_module() -> None:
    module, graph = nn.Conv3d(3, 2, 1, bias=False).eval(), fx.Graph()
    weight = module.weight.detach()
    x, w = graph.placeholder("anything"), graph.get_attr("weight")
    y = graph.call_function(torch.ops.aten.conv3d.default, (x, w))
    x.meta["val"], y.meta["val"] = X, torch.conv3d(X, weight)
    graph.output((y,))
    assert_same(network(Captured(graph, {w: weight}, (y,))), module, X)


def test_the_walk_knows_several_inputs_and_outputs_by_name() -> None:
    def several(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return x + y, torch.cat([torch.conv3d(y, weight), x], dim=1)

    captured = made_of(several, X, X + 1, torch.randn(2, 3, 1, 1, 1), inputs=2)
    walk = Walk(captured)
    nodes = [node for made in walk.made.values() for node in made]
    assert [given.name for given in walk.inputs] == [node.name for node in captured.inputs]
    assert len({given.name for given in walk.inputs}) == 2
    assert [type(node.operator) for node in nodes] == [Binary, Direct, Concat]
    assert nodes[0].inputs == tuple(given.name for given in walk.inputs)
    made = network(captured)
    assert [(name, made.size(name)[4]) for name in made.outputs] == [("add", 3), ("cat", 5)]
    names = [node.name for node in captured.inputs]
    assert made.origins == (*(f"argument {name}" for name in names), "result[0]", "result[1]")


REFUSED: dict[str, Callable[[], Captured]] = {
    "net: no tensor goes in; accepted is one at least": lambda: made_of(lambda x: None, X, inputs=0),
    "net: no tensor comes out; accepted is one at least": lambda: made_of(lambda x: (None, 2), X),
    "net: its result[1] does not depend on the input": lambda: made_of(lambda x, y: (x + 1, y + 1), X, X + 1),
    "aten.log_sigmoid at 'log_sigmoid' [2, 3, 4, 6, 5]: is none of this version's operators": lambda: made_of(
        lambda x: torch.nn.functional.logsigmoid(x), X
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_no_network_is_made_of_is_named(message: str) -> None:
    captured = REFUSED[message]()
    with pytest.raises(ValueError) as caught:
        network(captured)
    assert message in str(caught.value)


def test_the_package_of_libraries_has_trace_too() -> None:
    assert import_module("lrw.export").trace is trace
