"""Networks of several inputs and outputs: which tensors they are, in what order, and what they are called."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from lrw.trace import trace
from lrw_kernels.network.graph import INPUT
from lrw_kernels.network.operators import Copy
from verify.programs.interpreter import assert_same
from verify.unit.trace.nets import Gated, gated, settled, volume

X, Y, V = volume(2, 3, 4, 5, 4), volume(2, 3, 4, 5, 4) + 1, volume(2, 5)


class Scores(NamedTuple):
    near: Tensor
    far: Tensor


class Fn(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.conv, self.linear = nn.Conv3d(3, 5, 3, padding=1), nn.Linear(5, 4)

    def forward(self, *given: Any) -> Any:
        return self.function(self, *given)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], list[str], list[str]]] = {
    "two and two": (
        lambda m, x, y: (m.conv(x) + m.conv(y), x * y), (X, Y),
        ["given[0]", "given[1]"], ["[0]", "[1]"],
    ),
    "a vector beside a volume": (
        lambda m, x, v: {"scores": m.linear(v), "volume": m.conv(x)}, (X, V),
        ["given[0]", "given[1]"], ["['scores']", "['volume']"],
    ),
    "one unused": (lambda m, x, y: [m.conv(y)], (X, Y), ["given[0]", "given[1]"], ["[0]"]),
    "one that comes out as it is": (
        lambda m, x, y: (y, m.conv(x)), (X, Y), ["given[0]", "given[1]"], ["[0]", "[1]"]
    ),
    "the same twice": (
        lambda m, x: (lambda z: {"a": z, "b": (z, x), "c": x})(m.conv(x)), (X,),
        ["given[0]"], ["['a']", "['b'][0]", "['b'][1]", "['c']"],
    ),
    "the same given twice": (lambda m, x, y: x + 2 * y, (X, X), ["given[0]", "given[1]"], [""]),
    "numbers, texts and nothing": (
        lambda m, x, scale, how, extra: (m.conv(x) * scale["by"] if how == "scaled" else x, extra, None, 3, x + 1),
        (X, {"by": 2.5, "n": 3}, "scaled", None), ["given[0]"], ["[0]", "[4]"],
    ),
    "containers in containers": (
        lambda m, s: {"s": Scores(s[0]["x"] + 1, s[1]), "t": [s[1] * s[0]["x"]]}, (({"x": X}, Y),),
        ["given[0][0]['x']", "given[0][1]"], ["['s'].near", "['s'].far", "['t'][0]"],
    ),
    "one of a shape of its own": (
        lambda m, x: (x.mean((2, 3, 4)), x.flatten(1)), (X,), ["given[0]"], ["[0]", "[1]"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_tensors_go_in_and_come_out_in_torchs_order(name: str) -> None:
    function, args, inputs, outputs = CASES[name]
    net = Fn(function).eval()
    network = trace(net, args)
    assert network.origins == (*(f"argument {of}" for of in inputs), *(f"result{of}" for of in outputs))
    assert (len(network.inputs), len(network.outputs)) == (len(inputs), len(outputs))
    assert_same(network, net, args)


def test_a_tensor_alone_is_what_a_tuple_of_it_is() -> None:
    net = Fn(lambda m, x: m.conv(x)).eval()
    alone, held = trace(net, X), trace(net, (X,))
    assert [*alone.inputs] == [*held.inputs] == [INPUT]
    assert alone.origins == held.origins == ("argument given[0]", "result")
    assert [node.name for node in alone.nodes] == [node.name for node in held.nodes]


def test_a_gated_network_is_traced_with_all_its_heads() -> None:
    net = settled(Gated())
    network = trace(net, gated(), tile=2)
    assert_same(network, net, gated())
    assert network.origins[:3] == ("argument image", "argument batch['mask']", "argument batch['ids']")
    assert network.origins[3:] == ("result['out']", "result['others'][0]", "result['others'][1]")


def test_a_network_of_torch_export_calls_its_arguments_as_the_one_it_was_made_of() -> None:
    net = settled(Gated())
    again = torch.export.export(net, gated()).module()
    assert trace(again, gated()).origins == trace(net, gated()).origins


def test_copies_are_made_only_of_what_is_there_already() -> None:
    net = Fn(lambda m, x: (lambda z: (z, z.relu(), z))(m.conv(x))).eval()
    network = trace(net, X)
    assert [type(node.operator) is Copy for node in network.nodes].count(True) == 1
    assert len({*network.outputs}) == 3
    assert_same(network, net, X)
