"""Modelled cycles: of blocks whose schedule is known by hand, and the gate on the hottest loop."""

import shutil

import pytest

from bench.arm import cycles
from bench.arm.cycles import Kernel
from bench.arm.emulator import Block

NOP, BRANCH, CALL, SYSTEM = 0xD503201F, 0x54FFFF81, 0x94000400, 0xD4000001
SPILL, LOAD = 0x3D8003E0, 0x3DC00020  # str q0, [sp] and ldr q0, [x1]


def by_element(to: int) -> int:
    """fmla v`to`.4s, v24.4s, v28.s[0]"""
    return 0x4F801000 | 28 << 16 | 24 << 5 | to


def whole(to: int) -> int:
    """fmla v`to`.4s, v24.4s, v28.4s"""
    return 0x4E20CC00 | 28 << 16 | 24 << 5 | to


FMAS = tuple(by_element(to) for to in range(24))


needs_llvm = pytest.mark.skipif(not all(map(shutil.which, cycles.TOOLS)), reason="LLVM 22 is not installed")


@pytest.mark.parametrize(("model", "per_cycle"), [("a55", 1), ("n1", 2), ("n2", 2), ("x1", 4)])
@needs_llvm
def test_independent_fmas_run_at_the_rate_of_the_core(model: str, per_cycle: int) -> None:
    (modelled,) = cycles.cycles([Block(1, FMAS)], model)
    assert modelled == pytest.approx(24 / per_cycle, rel=0.03)


@needs_llvm
def test_a_chain_of_fmas_costs_its_latency() -> None:
    (modelled,) = cycles.cycles([Block(1, (whole(1),) * 10)], "n1")
    assert modelled >= 20  # accumulators are forwarded after two cycles


@needs_llvm
def test_cycles_are_those_of_the_blocks_times_their_executions() -> None:
    one, two = Block(10, FMAS, 0x1000), Block(30, (LOAD, NOP, BRANCH), 0x2000)
    each = cycles.cycles([one, two], "n1")
    assert cycles.total_cycles([one, two], "n1") == pytest.approx(10 * each[0] + 30 * each[1])
    assert cycles.total_cycles([], "n1") == 0


@needs_llvm
def test_what_hardly_runs_costs_what_the_rest_costs_on_average() -> None:
    much, little = Block(10**6, FMAS, 0x1000), Block(1, (LOAD,) * 24, 0x2000)
    alone = cycles.total_cycles([much], "n1")
    assert cycles.total_cycles([much, little], "n1") == pytest.approx(alone * (1 + 1e-6))


@needs_llvm
def test_calls_and_system_instructions_cost_no_hundred_cycles() -> None:
    assert max(cycles.cycles([Block(1, (NOP, CALL)), Block(1, (NOP, SYSTEM))], "n1")) < 5


@needs_llvm
def test_words_that_are_no_instructions_are_refused() -> None:
    with pytest.raises(RuntimeError, match="made 1 lines of 2 instructions"):
        cycles.cycles([Block(1, (NOP, 0xFFFFFFFF))], "n1")


def test_code_cut_at_the_end_of_a_page_is_one_block() -> None:
    first, second = Block(7, (NOP, NOP), 0xFF8), Block(7, (NOP, BRANCH), 0x1000)
    after, other = Block(7, (NOP,), 0x1008), Block(9, (NOP,), 0x100C)
    whole_loop = Block(7, (NOP, NOP, NOP, BRANCH), 0xFF8)
    assert cycles.joined([other, second, after, first]) == [whole_loop, after, other]


@needs_llvm
def test_a_good_kernel_passes_the_gate() -> None:
    kernel = cycles.hottest([Block(5, (LOAD,) * 9), Block(3, (*FMAS, BRANCH), 0x1000)])
    assert (kernel.fmas, kernel.by_element, kernel.spills) == (24, 24, 0)
    assert kernel.misses() == []


@needs_llvm
def test_a_bad_kernel_is_told_what_is_wrong() -> None:
    kernel = cycles.hottest([Block(3, (SPILL, SPILL, SPILL, SPILL, *FMAS[:3], whole(3), BRANCH))])
    rate, *rest = kernel.misses()
    assert rate.endswith("FMA/cycle, below 1.95")
    assert rest == ["4 loads or stores on the stack", "1 of 4 FMAs are not by element"]


def test_the_gate_is_what_it_says() -> None:
    assert Kernel(1.95, 24, 24, 0, 30).misses() == []
    assert Kernel(1.949, 24, 24, 0, 30).misses() == ["1.95 FMA/cycle, below 1.95"]


def test_code_without_fmas_has_no_kernel() -> None:
    with pytest.raises(RuntimeError, match="no block holds a vector FMA"):
        cycles.hottest([Block(3, (LOAD, NOP))])
