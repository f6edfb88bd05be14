"""Each pass on a few nodes: what it merges, what it must leave alone, and that the function stays."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lrw.trace import fuse
from lrw_kernels.network.graph import INPUT, Network, Node, Size
from lrw_kernels.network.operators import (
    Affine,
    Array,
    Binary,
    Direct,
    Linear,
    Normalise,
    Operator,
    Pointwise,
    Pool,
    Transposed,
    Winograd,
)
from lrw_kernels.winograd import Tile
from verify.programs.interpreter import computed, rounding
from verify.tolerances import assert_close

SIZE, VECTORS = (1, 3, 4, 5, 4), (3, 1, 1, 1, 4)
RELU = Pointwise("relu")
RNG = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def winograd() -> Winograd:
    blocks = ((1, (0, 5, 7)), (2, ()), (1, (1, 63)))
    weights = tuple(normal(len(kept), 4, channels) for channels, kept in blocks)
    return Winograd(Tile.of(2), (1, 1, 1), blocks, weights)


def direct(after: Pointwise | None = None) -> Direct:
    return Direct(normal(3, 1, 1, 4, 4), normal(4), padding=(1, 0, 0), after=after)


def transposed() -> Transposed:
    return Transposed(normal(1, 3, 1, 2, 4), padding=(0, 1, 0), groups=2)


def affine() -> Affine:
    return Affine(normal(4), normal(4))


def add() -> Binary:
    return Binary("add")


def chain(*steps: tuple[str, Operator, tuple[str, ...]], size: Size = SIZE) -> tuple[Node, ...]:
    return tuple(Node(name, operator, inputs, size) for name, operator, inputs in steps)


def assert_fused(
    step: Callable[[Network], Network], nodes: tuple[Node, ...], names: list[str], outputs: tuple[str, ...] = ()
) -> tuple[Node, ...]:
    """`step` leaves nodes of these names, which compute the same; the nodes it was given stay as they were. `outputs`
    come out beside the last node."""
    before = [(node.name, node.operator, node.inputs) for node in nodes]
    (n, d, h, w, c), long = nodes[-1].size, Network.single("net", nodes[-1].size, nodes)
    made = step(replace(long, outputs=(*long.outputs, *outputs)))
    after = made.nodes
    assert [node.name for node in after] == names
    assert [(node.name, node.operator, node.inputs) for node in nodes] == before
    x = torch.randn(n, c, d, h, w, generator=torch.Generator().manual_seed(0))
    expected = computed(long, x)
    tolerance = max(rounding(long, x, expected), 64 * 2.0**-52 * float(expected.abs().max()))
    assert_close(computed(made, x).numpy(), expected.numpy(), tolerance, "fused")
    return after


@pytest.mark.parametrize("make", [winograd, direct, transposed, affine])
def test_an_affine_map_folds_into_what_it_alone_reads(make: Callable[[], Operator]) -> None:
    nodes = chain(("a", make(), (INPUT,)), ("b", affine(), ("a",)), ("c", RELU, ("b",)))
    after = assert_fused(fuse.fold_affine, nodes, ["a", "c"])
    assert after[1].inputs == ("a",)


def test_an_affine_map_stays_where_another_reads_or_something_lies_between() -> None:
    shared = chain(("a", direct(), (INPUT,)), ("b", affine(), ("a",)), ("c", Binary("add"), ("a", "b")))
    assert_fused(fuse.fold_affine, shared, ["a", "b", "c"])
    assert_fused(fuse.fold_affine, chain(("a", direct(RELU), (INPUT,)), ("b", affine(), ("a",))), ["a", "b"])
    residual = chain(("a", direct(), (INPUT, INPUT)), ("b", affine(), ("a",)))
    assert_fused(fuse.fold_affine, residual, ["a", "b"])
    assert_fused(fuse.fold_affine, chain(("a", RELU, (INPUT,)), ("b", affine(), ("a",))), ["a", "b"])
    first = ("a", direct(), (INPUT,)), ("b", affine(), ("a",))
    then_shared = chain(*first, ("c", affine(), ("b",)), ("d", Binary("add"), ("b", "c")))
    assert_fused(fuse.fold_affine, then_shared, ["a", "c", "d"])


def test_what_comes_out_is_not_merged_away_and_keeps_its_place_among_the_outputs() -> None:
    nodes = chain(("a", direct(), (INPUT,)), ("b", RELU, ("a",)), ("c", RELU, ("b",)))
    assert_fused(fuse.fold_functions, nodes, ["a", "b", "c"], outputs=("a", "b"))
    merged = fuse.fold_functions(Network("net", {INPUT: SIZE}, nodes[:2], ("b",)))
    assert ([node.name for node in merged.nodes], merged.outputs) == (["a"], ("a",))


def test_an_addition_goes_to_the_convolution_computed_last() -> None:
    nodes = chain(("a", direct(), (INPUT,)), ("b", winograd(), (INPUT,)), ("c", Binary("add"), ("b", "a")))
    after = assert_fused(fuse.fold_addition, nodes, ["a", "b"])
    assert after[1].inputs == (INPUT, "a")
    followed = (*nodes[:2], Node("c", Binary("add", RELU), ("b", "a"), SIZE))
    after = assert_fused(fuse.fold_addition, followed, ["a", "b"])
    assert (after[1].inputs, after[1].operator.after) == ((INPUT, "a"), RELU)


def test_an_addition_goes_to_the_convolution_there_is() -> None:
    nodes = chain(("a", winograd(), (INPUT,)), ("b", Pointwise("tanh"), (INPUT,)), ("c", Binary("add"), ("a", "b")))
    after = assert_fused(fuse.fold_addition, nodes, ["b", "a"])
    assert after[1].inputs == (INPUT, "b")


def test_an_addition_stays_where_no_convolution_can_take_it() -> None:
    twice = chain(("a", direct(), (INPUT,)), ("b", Binary("add"), ("a", "a")))
    assert_fused(fuse.fold_addition, twice, ["a", "b"])
    after_relu = chain(("a", direct(RELU), (INPUT,)), ("b", transposed(), ("a",)), ("c", Binary("add"), ("a", "b")))
    assert_fused(fuse.fold_addition, after_relu, ["a", "b", "c"])
    rectified = chain(("a", direct(RELU), (INPUT,)), ("b", Binary("add"), ("a", INPUT)))
    assert_fused(fuse.fold_addition, rectified, ["a", "b"])
    three = chain(("a", direct(), (INPUT,)), ("b", Binary("add"), ("a", INPUT)), ("c", Binary("add"), ("b", INPUT)))
    assert_fused(fuse.fold_addition, three, ["a", "c"])


def test_only_a_sum_of_one_size_goes_to_a_convolution() -> None:
    pool = Pool("mean", ((0,),) * 3, ((3,), (4,), (5,)), ((3,), (4,), (5,)))
    mean = Node("mean", pool, (INPUT,), (1, 1, 1, 1, 4))
    small = Node("a", Direct(normal(1, 1, 1, 4, 4)), ("mean",), mean.size)
    for inputs in (("a", INPUT), (INPUT, "a")):
        assert_fused(fuse.fold_addition, (mean, small, *chain(("b", add(), inputs))), ["mean", "a", "b"])
    whole = chain(("a", direct(), (INPUT,)), ("b", add(), ("mean", "a")))
    assert_fused(fuse.fold_addition, (mean, *whole), ["mean", "a", "b"])
    product = chain(("a", direct(), (INPUT,)), ("b", Binary("multiply"), ("a", INPUT)))
    assert_fused(fuse.fold_addition, product, ["a", "b"])


@pytest.mark.parametrize("make", [winograd, direct, transposed, affine, add, lambda: Binary("multiply")])
@pytest.mark.parametrize("function", [RELU, Pointwise("silu"), Pointwise("prelu", (0.1, -0.2, 0.3, 1.5))])
def test_any_function_folds_into_what_it_alone_reads(make: Callable[[], Operator], function: Pointwise) -> None:
    inputs = (INPUT,) if make in (winograd, direct, transposed, affine) else (INPUT, INPUT)
    nodes = chain(("a", make(), inputs), ("b", function, ("a",)), ("c", RELU, ("b",)))
    first, _ = assert_fused(fuse.fold_functions, nodes, ["a", "c"])
    assert first.operator.after == function


def test_functions_stay_elsewhere() -> None:
    shared = chain(("a", direct(), (INPUT,)), ("b", RELU, ("a",)), ("c", Binary("add"), ("a", "b")))
    assert_fused(fuse.fold_functions, shared, ["a", "b", "c"])
    assert_fused(fuse.fold_functions, chain(("a", Pointwise("tanh"), (INPUT,)), ("b", RELU, ("a",))), ["a", "b"])
    assert_fused(fuse.fold_functions, chain(("a", direct(RELU), (INPUT,)), ("b", RELU, ("a",))), ["a", "b"])


def test_a_function_folds_into_the_norm_it_alone_reads_and_only_one_does() -> None:
    norm, leaky = Normalise(1, 1e-5, normal(4), normal(4)), Pointwise("leaky_relu", (0.1,))
    after = chain(("a", norm, (INPUT,)), ("b", leaky, ("a",)), ("c", Pointwise("tanh"), ("b",)))
    first, last = assert_fused(fuse.fold_functions, after, ["a", "c"])
    assert first.operator.after == leaky
    assert last.inputs == ("a",)
    prelu = Pointwise("prelu", (0.1, -0.2, 0.3, 1.5))
    (node,) = assert_fused(fuse.fold_functions, chain(("a", norm, (INPUT,)), ("b", prelu, ("a",))), ["a"])
    assert node.operator.after == prelu
    shared = chain(("a", norm, (INPUT,)), ("b", leaky, ("a",)), ("c", Binary("add"), ("a", "b")))
    assert_fused(fuse.fold_functions, shared, ["a", "b", "c"])


def test_a_norm_adds_its_second_input_before_the_function_or_at_last() -> None:
    norm, leaky = Normalise(1, 1e-5, normal(4), normal(4)), Pointwise("leaky_relu", (0.1,))
    own = ("a", norm, (INPUT,))
    (node,) = assert_fused(fuse.fused, chain(own, ("b", Binary("add"), ("a", INPUT)), ("c", leaky, ("b",))), ["a"])
    assert (node.inputs, node.operator.after, node.operator.late) == ((INPUT, INPUT), leaky, False)
    (node,) = assert_fused(fuse.fused, chain(own, ("b", leaky, ("a",)), ("c", Binary("add"), (INPUT, "b"))), ["a"])
    assert (node.inputs, node.operator.after, node.operator.late) == ((INPUT, INPUT), leaky, True)
    twice = chain(own, ("b", leaky, ("a",)), ("c", Binary("add"), (INPUT, "b")), ("d", leaky, ("c",)))
    assert_fused(fuse.fused, twice, ["a", "c"])


def test_what_follows_a_linear_layer_becomes_part_of_it() -> None:
    layer = Linear(normal(4, 4), normal(4))
    own, rest = ("a", layer, (INPUT,)), (("c", Binary("add"), ("b", INPUT)), ("d", RELU, ("c",)))
    (node,) = assert_fused(fuse.fused, chain(own, ("b", affine(), ("a",)), *rest, size=VECTORS), ["a"])
    assert (node.inputs, node.operator.after) == ((INPUT, INPUT), RELU)
    shift = ("b", Affine(np.ones(4, np.float32), normal(4)), ("a",))
    (node,) = assert_fused(fuse.fused, chain(own, shift, *rest, size=VECTORS), ["a"])
    assert np.shares_memory(node.operator.weight, layer.weight)  # which may be torch's


def test_nodes_nobody_needs_are_dropped_and_the_output_comes_last() -> None:
    whole = Pool("max", ((0,),) * 3, ((3,), (4,), (5,)), ((3,), (4,), (5,)))
    nodes = chain(("a", RELU, (INPUT,)), ("b", RELU, ("a",)), ("c", whole, ("b",)), ("d", Binary("add"), ("a", "c")))
    assert [node.name for node in fuse.needed(nodes, ["b"])] == ["a", "b"]
    assert [node.name for node in fuse.needed(nodes, "d")] == ["a", "b", "c", "d"]


def test_all_passes_make_one_node_of_a_residual_branch() -> None:
    nodes = chain(
        ("a", winograd(), (INPUT,)), ("norm", affine(), ("a",)), ("sum", add(), ("norm", INPUT)), ("r", RELU, ("sum",))
    )  # fmt: skip
    (node,) = assert_fused(fuse.fused, nodes, ["a"])
    assert (node.inputs, node.operator.after, len(node.operator.blocks)) == ((INPUT, INPUT), RELU, 3)
