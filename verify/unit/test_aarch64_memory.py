"""The plan of the workspace, where activations lie, and the image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrw_kernels.aot.abi import ALIGNMENT
from lrw_kernels.codegen.records import Region
from lrw_kernels.cpu.operators.step import View
from lrw_kernels.network.graph import INPUT, Network, Node, Size
from lrw_kernels.network.operators import Add, Concat, Copy, Direct, Operator, Pointwise
from lrw_kernels.program.image import Image, Section, symbolic
from lrw_kernels.program.memory import Buffer, plan
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
RELU = Pointwise("relu")


def one(inputs: int, outputs: int) -> Direct:
    return Direct(np.zeros((1, 1, 1, inputs, outputs), np.float32))


def stored(*nodes: tuple[str, Operator, tuple[str, ...], Size]) -> tuple[Storage, dict[str, View]]:
    network = Network("net", SIZE, tuple(Node(*node) for node in nodes))
    storage = Storage(network)
    return storage, {name: storage.view(name) for name in (INPUT, *(node.name for node in network.nodes))}


def test_input_and_output_are_the_callers() -> None:
    storage, views = stored(("a", RELU, (INPUT,), SIZE), ("b", RELU, ("a",), SIZE))
    assert views[INPUT].address == symbolic(Section.INPUT)
    assert views["b"].address == symbolic(Section.OUTPUT)
    assert [root.buffer for root in storage.roots] == [Buffer(4 * 144, 0, 1)]


def test_what_works_in_place_takes_over_what_nobody_needs_any_more() -> None:
    storage, views = stored(
        ("a", one(6, 6), (INPUT,), SIZE), ("b", RELU, ("a",), SIZE), ("c", Add(), ("b", INPUT), SIZE),
        ("d", one(6, 6), ("c",), SIZE),
    )  # fmt: skip
    assert views["a"].address == views["b"].address == views["c"].address
    assert [root.buffer for root in storage.roots] == [Buffer(4 * 144, 0, 3)]


def test_the_input_and_what_is_needed_later_are_not_taken_over() -> None:
    _, views = stored(
        ("a", RELU, (INPUT,), SIZE),
        ("b", RELU, ("a",), SIZE),
        ("c", Add(), ("a", "b"), SIZE),
        ("d", RELU, ("c",), SIZE),
    )
    assert views["a"].address not in (views["b"].address, symbolic(Section.INPUT))


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
    assert [views[name].address - symbolic(Section.OUTPUT) for name in ("a", "b", "both")] == [0, 12, 0]


def image_of(**fields: int) -> tuple[Image, Region]:
    image, region = Image(), Region(**fields)
    image.add_records([region])
    return image, region


def test_an_address_of_nothing_that_was_added_is_refused() -> None:
    numbers = np.zeros(4, np.int64)
    image, _ = image_of(job=numbers.ctypes.data + 32)
    image.add_table(numbers)
    with pytest.raises(RuntimeError, match=r"^image: Region\.job is the address 0x[0-9a-f]+ of nothing that was added"):
        image.freeze([])


def test_addresses_become_sections_and_offsets() -> None:
    numbers, weights, zeros = np.arange(4), np.zeros(5, np.float32), np.zeros(9, np.uint8)
    for address, expected in [
        (numbers.ctypes.data + 8, symbolic(Section.IMAGE, 128 + 8)),
        (weights.ctypes.data + 4, symbolic(Section.WEIGHTS, 196)),
        (zeros.ctypes.data, symbolic(Section.ZEROS)),
        (symbolic(Section.OUTPUT, 40), symbolic(Section.OUTPUT, 40)),
        (symbolic(Section.BUFFER + 1, 12), symbolic(Section.BUFFERS, 640 + 12)),
    ]:
        image, region = image_of(job=address)
        assert padded(len(bytes(region))) == 128
        image.add_table(numbers)
        image.add_elsewhere(weights.ctypes.data, weights.nbytes, symbolic(Section.WEIGHTS, 192))
        image.add_zeros(zeros.ctypes.data, zeros.nbytes)
        frozen = image.freeze([0, 640])
        at = Region.job.offset
        assert frozen.relocations == (at,)
        assert int.from_bytes(frozen.data[at : at + 8], "little") == expected
        assert frozen.zeros == 9
        assert frozen.data[128 : 128 + 32] == numbers.tobytes()


def test_an_empty_table_has_an_address() -> None:
    nothing = np.zeros(0, np.int64)
    image, _ = image_of(job=nothing.ctypes.data)
    image.add_table(nothing)
    assert image.freeze([]).relocations == (Region.job.offset,)
