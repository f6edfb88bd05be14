"""The plan of the workspace, where activations lie, and the image."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lrw_kernels.aot.abi import ALIGNMENT
from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.records import Region
from lrw_kernels.codegen.references import Section, section_of, symbolic
from lrw_kernels.cpu.records import Clear
from lrw_kernels.cpu.step import Step, Steps, View, Zeros, job
from lrw_kernels.cpu.winograd.records import Tiles, Transform
from lrw_kernels.network.graph import INPUT, Network, Node, Size
from lrw_kernels.network.operators import Binary, Channels, Concat, Copy, Direct, Operator, Pointwise
from lrw_kernels.program.collect import Collector
from lrw_kernels.program.memory import Buffer, plan
from lrw_kernels.program.program import Program
from lrw_kernels.program.storage import Storage

buffers = st.lists(
    st.builds(lambda size, first, more: Buffer(size, first, first + more), st.integers(1, 700), st.integers(0, 9),
              st.integers(0, 4)), max_size=12)  # fmt: skip


def padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@given(buffers)
def test_buffers_that_meet_do_not_overlap(given_buffers: list[Buffer]) -> None:
    offsets, _ = plan(given_buffers)
    placed = list(zip(given_buffers, offsets, strict=True))
    for i, (a, a_at) in enumerate(placed):
        for b, b_at in placed[:i]:
            apart = a_at + a.size <= b_at or b_at + b.size <= a_at
            assert apart or a.last < b.first or b.last < a.first


@given(buffers)
def test_offsets_are_aligned_and_all_of_them_inside_what_the_largest_moment_and_the_sum_allow(
    given_buffers: list[Buffer],
) -> None:
    offsets, size = plan(given_buffers)
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    assert size >= max((at + b.size for at, b in zip(offsets, given_buffers, strict=True)), default=0)
    moments = [sum(padded(b.size) for b in given_buffers if b.first <= t <= b.last) for t in range(14)]
    assert max(moments) <= size <= sum(padded(b.size) for b in given_buffers)


def test_a_chain_of_equal_buffers_takes_two() -> None:
    offsets, size = plan([Buffer(100, i, i + 1) for i in range(9)])
    assert (offsets, size) == ([0, 128] * 4 + [0], 256)


def test_nothing_takes_nothing() -> None:
    assert plan([]) == ([], 0)


SIZE: Size = (1, 2, 3, 4, 6)
HALF: Size = (1, 2, 3, 4, 3)
ONE: Size = (1, 2, 3, 4, 1)
RELU = Pointwise("relu")


def one(inputs: int, outputs: int) -> Direct:
    return Direct(np.zeros((1, 1, 1, inputs, outputs), np.float32))


def stored(*nodes: tuple[str, Operator, tuple[str, ...], Size]) -> tuple[Storage, dict[str, View]]:
    network = Network.single("net", SIZE, tuple(Node(*node) for node in nodes))
    storage = Storage(network)
    return storage, {name: storage.view(name) for name in (INPUT, *(node.name for node in network.nodes))}


def test_input_and_output_are_the_callers() -> None:
    storage, views = stored(("a", RELU, (INPUT,), SIZE), ("b", RELU, ("a",), SIZE))
    assert views[INPUT].address == symbolic(Section.OUTSIDE)
    assert views["b"].address == symbolic(Section.OUTSIDE + 1)
    assert [root.buffer for root in storage.roots] == [Buffer(4 * 144, 0, 1)]


def test_what_works_in_place_takes_over_what_nobody_needs_any_more() -> None:
    storage, views = stored(
        ("a", one(6, 6), (INPUT,), SIZE), ("b", RELU, ("a",), SIZE), ("c", Binary("add"), ("b", INPUT), SIZE),
        ("d", one(6, 6), ("c",), SIZE),
    )  # fmt: skip
    assert views["a"].address == views["b"].address == views["c"].address
    assert [root.buffer for root in storage.roots] == [Buffer(4 * 144, 0, 3)]


def test_the_input_and_what_is_needed_later_are_not_taken_over() -> None:
    _, views = stored(
        ("a", RELU, (INPUT,), SIZE),
        ("b", RELU, ("a",), SIZE),
        ("c", Binary("add"), ("a", "b"), SIZE),
        ("d", RELU, ("c",), SIZE),
    )
    assert views["a"].address not in (views["b"].address, symbolic(Section.OUTSIDE))


def test_a_residual_gives_its_place_to_the_sum_and_a_convolutions_input_does_not() -> None:
    first, second = ("a", one(6, 6), (INPUT,), SIZE), ("b", one(6, 6), ("a",), SIZE)
    _, views = stored(first, second, ("c", one(6, 6), ("b", "a"), SIZE), ("d", Copy(), ("c",), SIZE))
    assert views["c"].address == views["a"].address != views["b"].address
    _, views = stored(first, ("b", one(6, 6), ("a", "a"), SIZE), ("c", Copy(), ("b",), SIZE))
    assert views["b"].address != views["a"].address, "neighbours are read after a pixel is written"


def test_a_residual_stays_where_the_convolution_reads_some_of_its_channels() -> None:
    _, views = stored(
        ("a", one(6, 3), (INPUT,), HALF), ("b", one(6, 3), (INPUT,), HALF), ("both", Concat(), ("a", "b"), SIZE),
        ("c", one(3, 6), ("b", "both"), SIZE), ("d", Copy(), ("c",), SIZE),
    )  # fmt: skip
    assert views["c"].address != views["both"].address


def test_channels_of_what_is_there_lie_where_they_are() -> None:
    storage, views = stored(
        ("a", one(6, 6), (INPUT,), SIZE), ("some", Channels(2, 3), ("a",), HALF), ("b", RELU, ("a",), SIZE),
        ("of some", Channels(1, 1), ("some",), ONE), ("c", Binary("add"), ("b", "of some"), SIZE),
        ("d", one(6, 6), ("c",), SIZE),
    )  # fmt: skip
    assert views["some"] == views["a"].some(2, 3)
    assert views["of some"] == views["a"].some(3, 1)
    assert views["b"].address != views["a"].address, "some of it is still to be read"
    assert views["c"].address == views["b"].address
    assert [root.buffer for root in storage.roots] == [Buffer(4 * 144, 0, 4), Buffer(4 * 144, 2, 5)]


def test_what_is_put_together_with_some_of_its_channels_is_not_changed_in_place() -> None:
    _, views = stored(
        ("a", one(6, 6), (INPUT,), SIZE), ("some", Channels(0, 1), ("a",), ONE),
        ("b", Binary("multiply"), ("a", "some"), SIZE), ("c", Copy(), ("b",), SIZE),
    )  # fmt: skip
    assert views["some"].address == views["a"].address != views["b"].address
    _, views = stored(
        ("a", one(6, 6), (INPUT,), SIZE), ("b", Binary("multiply"), ("a", "a"), SIZE), ("c", Copy(), ("b",), SIZE)
    )
    assert views["b"].address == views["a"].address


def test_channels_that_are_concatenated_or_the_output_are_copied() -> None:
    _, views = stored(
        ("a", one(6, 6), (INPUT,), SIZE), ("some", Channels(2, 3), ("a",), HALF),
        ("b", Concat(), ("some", "a"), (1, 2, 3, 4, 9)), ("c", Channels(1, 3), ("b",), HALF),
    )  # fmt: skip
    assert views["some"] == views["b"].some(0, 3)
    assert views["c"].address == symbolic(Section.OUTSIDE + 1)


def test_what_is_concatenated_is_computed_in_its_place() -> None:
    storage, views = stored(
        ("a", one(6, 3), (INPUT,), HALF), ("b", RELU, ("a",), HALF), ("inner", Concat(), ("a", "b"), SIZE),
        ("outer", Concat(), (INPUT, "inner", "b"), (1, 2, 3, 4, 15)), ("d", one(15, 6), ("outer",), SIZE),
    )  # fmt: skip
    (root,) = storage.roots
    assert (root.size, root.first, root.last) == ((1, 2, 3, 4, 15), 0, 4)
    start = views["outer"].address
    assert [views[name].address - start for name in ("inner", "a", "b")] == [24, 24, 36]
    assert all(views[name].strides == views["outer"].strides for name in ("inner", "a", "b"))


def test_a_concatenation_that_is_the_output_is_computed_in_the_output() -> None:
    storage, views = stored(
        ("a", one(6, 3), (INPUT,), HALF), ("b", RELU, ("a",), HALF), ("both", Concat(), ("a", "b"), SIZE)
    )
    assert storage.roots == []
    assert [views[name].address - symbolic(Section.OUTSIDE + 1) for name in ("a", "b", "both")] == [0, 12, 0]


SIDE = Zeros(72)
KERNEL = Kernel("cpu.kernels.clear_item", (), ITEM)


def frozen_of(*made: Steps, threads: int = 1) -> Program:
    to = Collector(threads, [Buffer(640, 0, 1)])
    for index, steps in enumerate(made):
        to.add(index, steps)
    return to.program("net", ())


def number(program: Program, at: int) -> int:
    return int.from_bytes(program.image.data[at : at + 8], "little")


def test_what_records_refer_to_becomes_sections_and_offsets() -> None:
    numbers, weights, inner = np.arange(4), np.arange(5, dtype=np.float32), job(Clear, data=9, size=3)
    first, second = np.zeros(3, np.float32), symbolic(Section.OUTSIDE + 1, 40)
    made = job(Transform, table=numbers, constants=weights, domain=first, zeros=SIDE, data=second, kernel=KERNEL)
    outer = job(Tiles, gather=[made], products=[inner, inner.but(size=4)], scatter=symbolic(Section.BUFFER, 12))
    program = frozen_of(Steps.of(Step(KERNEL, outer, 7)))
    image, regions = program.image, program.regions_at
    assert set(image.relocations) >= {regions + Region.kernel.offset, regions + Region.job.offset}
    assert number(program, regions + Region.items.offset) == 7
    blocks = number(program, regions + Region.job.offset)
    assert section_of(blocks) == Section.IMAGE
    at = blocks - symbolic(Section.IMAGE)
    assert number(program, at + Tiles.scatter.offset) == symbolic(Section.BUFFERS, 12)
    gather = number(program, at + Tiles.gather.offset) - symbolic(Section.IMAGE)
    products = number(program, at + Tiles.products.offset) - symbolic(Section.IMAGE)
    size = len(bytes(Clear()))
    sizes = [number(program, products + i * size + Clear.size.offset) for i in range(2)]
    assert sizes == [3, 4], "records lie one after the other"
    table = number(program, gather + Transform.table.offset) - symbolic(Section.IMAGE)
    assert image.data[table : table + 32] == numbers.tobytes()
    for name, numbers_of in (("constants", weights), ("domain", first)):
        of = number(program, gather + getattr(Transform, name).offset) - symbolic(Section.WEIGHTS)
        assert program.weights[of : of + numbers_of.nbytes] == numbers_of.tobytes()
    assert number(program, gather + Transform.zeros.offset) == symbolic(Section.ZEROS)
    assert image.zeros == SIDE.size
    assert number(program, gather + Transform.data.offset) == second
    assert number(program, gather + Transform.kernel.offset) == symbolic(Section.CODE, 0)
    assert program.kernels == (KERNEL,)
    assert number(program, gather + Transform.bias.offset) == 0
    assert gather + Transform.bias.offset not in image.relocations, "there is none"


def test_a_table_that_several_records_share_is_there_once() -> None:
    weights = np.ones(100, np.float32)
    steps = [Step(KERNEL, job(Transform, constants=weights), 1) for _ in range(3)]
    assert len(frozen_of(Steps(tuple(steps))).weights) == 448


def test_steps_share_scratch_behind_the_slices_of_all_threads() -> None:
    reads = job(Clear, data=symbolic(Section.SHARED, 8), size=8)
    made = Steps((Step(KERNEL, reads, 1, 64), Step(KERNEL, reads, 1, 128)), shared=256)
    program = frozen_of(made, threads=3)
    assert program.buffer_bytes == 640 + 3 * 128 + 256
    at = number(program, program.regions_at + Region.job.offset) - symbolic(Section.IMAGE)
    scratch = number(program, program.regions_at + Region.scratch.offset)
    assert number(program, at + Clear.data.offset) == scratch + 3 * 128 + 8


def test_an_empty_table_has_an_address() -> None:
    program = frozen_of(Steps.of(Step(KERNEL, job(Transform, table=np.zeros(0, np.int64)), 1)))
    at = number(program, program.regions_at + Region.job.offset) - symbolic(Section.IMAGE)
    assert at + Transform.table.offset in program.image.relocations
