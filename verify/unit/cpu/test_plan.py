"""Plans: what formulas say covers the work and fits its scratch; any other plan computes the same numbers."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrw_kernels.codegen.machine import AVX512, NEON, Machine
from lrw_kernels.cpu.winograd.plan import Counts, Plan, plan, planned
from lrw_kernels.cpu.winograd.problem import FORWARD, INPUT_GRAD, MOST_SCRATCH, WEIGHT_GRAD, Problem
from lrw_kernels.program.assemble import assemble
from lrw_kernels.program.layer import Runner, dense, steps
from lrw_kernels.winograd import Block, Tile
from verify.programs.exported import case
from verify.strategies import Array
from verify.unit.cpu.operators import every_machine


def counts(tiles: int, threads: int, channels: int = 8) -> Counts:
    return Counts(216, tiles, tiles, 7, channels, channels, 16 * channels, 64, threads)


@pytest.mark.parametrize("tiles", [1, 4, 16, 49, 98, 343, 784, 4096, 100_000])
@pytest.mark.parametrize("threads", [1, 2, 7, 64])
@pytest.mark.parametrize("channels", [1, 8, 64])
def test_plans_fit_their_scratch_and_cover_their_work(tiles: int, threads: int, channels: int) -> None:
    chosen = plan(counts(tiles, threads, channels), AVX512)
    assert chosen.tiles % chosen.rows == 0
    assert 1 <= chosen.rows <= AVX512.rows
    in_place = chosen.path == "tiles" and chosen.panels >= AVX512.panels(channels)
    each = 216 * chosen.tiles * channels * 64 * (1 if in_place else 2)
    assert each * (threads if chosen.path == "tiles" else 1) <= MOST_SCRATCH or chosen.tiles == chosen.rows
    if chosen.path == "tiles":
        assert tiles >= 2 * threads * chosen.rows - chosen.rows


def test_turns_are_cut_so_that_threads_end_together() -> None:
    assert plan(counts(98, 2), AVX512).tiles == 24, "4 turns of 24 and a rest, not 3 of 28 and one of 14"
    assert plan(counts(784, 2), AVX512).tiles == 56, "14 turns"


def test_turns_are_as_long_as_caches_hold() -> None:
    few, many = (plan(counts(4096, 2, channels), AVX512) for channels in (2, 8))
    assert few.tiles > many.tiles / 4, "where channels are few, V and M of more tiles fit"
    wide = replace(AVX512, l2=4 * AVX512.l2)
    assert plan(counts(4096, 2, 4), wide).tiles > plan(counts(4096, 2, 4), AVX512).tiles


def test_products_take_the_place_of_the_position_before() -> None:
    """Of 19 to 40 channels, all products of a position at once, and in two groups: then V and M lie side by side."""
    p = Case(FORWARD, Plan("tiles", 8, 8, 3), None, None, 1).problem(NEON)
    one, two = (steps(p, dense(p, FORWARD)._replace(plan=Plan("tiles", 8, 8, panels))).steps[0] for panels in (5, 3))
    positions, vectors = 64, 10
    plane = 8 * vectors * 16
    assert one.job.record.m_at == 0
    assert plane <= one.job.record.v_at <= plane + 64
    assert two.job.record.m_at > positions * 5 * 8 * 16
    assert one.job.record.scratch_at < 65 * (plane + 64) + 64


@dataclass(frozen=True)
class Case:
    """A pass of a problem, in blocks of output channels or not, and a plan for it."""

    way: str
    chosen: Plan
    kept: tuple[int, ...] | None
    blocks: tuple[Block, ...] | None
    threads: int

    def problem(self, machine: Machine) -> Problem:
        return Problem(
            str(Tile.of(2)), (1, 1, 1), self.kept, False, 2, (6, 7, 9), 19, 40, "float32", "float32", machine,
            self.threads, blocks=self.blocks,
        )  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> Case:
    way = draw(st.sampled_from([FORWARD, FORWARD, INPUT_GRAD, WEIGHT_GRAD]))
    path = draw(st.sampled_from(["tiles", "positions"])) if way == FORWARD else "positions"
    rows, some = draw(st.integers(1, 8)), st.integers(1, 9)
    chosen = Plan(path, draw(some) * rows, rows, draw(some), draw(some), draw(some), draw(st.booleans()))
    kept = draw(st.sampled_from([None, (0, 5, 21, 63)]))
    blocks = draw(st.sampled_from([None, ((21, (0, 5, 63)), (19, (5, 21)))])) if way == FORWARD and kept else None
    return Case(way, chosen, kept, blocks, draw(st.integers(1, 3)))


def computed(p: Problem, way: str, chosen: Plan, seed: int) -> Array:
    """The result of a pass by a plan on random integers, weights in panels among them: F(2,3) keeps them integers, and
    float32 is exact on them in any order."""
    generator = np.random.default_rng(seed)
    x, y = (p.batch, *p.input_size, p.cin), (p.batch, *p.output_size, p.cout)
    first, second = {FORWARD: (x, y), INPUT_GRAD: (y, x), WEIGHT_GRAD: (x, y)}[way]
    lanes = p.machine.lanes(p.element)
    du = p.columns, -(-p.cin // lanes) * lanes, -(-p.cout // lanes) * lanes
    weights = {
        FORWARD: [part.weight_bytes // 4 for part in p.parts],
        INPUT_GRAD: [p.adjoint_weight_bytes // 4],
        WEIGHT_GRAD: [du],
    }[way]
    a, b, *u = (generator.integers(-9, 10, of).astype(np.float32) for of in (first, second, *weights))
    runner = Runner(steps(p, dense(p, way)._replace(plan=chosen)), p.threads)
    runner.run(a.ctypes.data, b.ctypes.data, 0, 0, *(each.ctypes.data for each in u))
    return u[0][:, : p.cin, : p.cout] if way == WEIGHT_GRAD else b


@every_machine
@settings(max_examples=40)
@given(cases(), st.integers(0, 2**32 - 1))
def test_any_plan_computes_the_same(machine: Machine, case: Case, seed: int) -> None:
    p = case.problem(machine)
    expected = computed(p, case.way, planned(p, case.way), seed)
    np.testing.assert_array_equal(computed(p, case.way, case.chosen, seed), expected)


def test_a_network_is_cut_up_as_its_planner_says() -> None:
    whole = case("unet").network
    for path in ("tiles", "positions"):
        program = assemble(whole, NEON, planner=lambda p, way, path=path: Plan(path, 4, 2, 1, 1, 1))
        assert {layer.details["path"] for layer in program.layers if "path" in layer.details} == {path}


@pytest.mark.parametrize(
    "values", [("blocks", 4, 2, 1, 1, 1), ("tiles", 0, 2, 1, 1, 1), ("positions", 4, 2, 1, 1, -1)], ids=str
)
def test_other_plans_are_refused(values: tuple[str, int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r'^plan: Plan\(.*; accepted are "tiles" or "positions", and integers from 1'):
        Plan(*values)


@pytest.mark.parametrize("way", [INPUT_GRAD, WEIGHT_GRAD])
def test_gradients_go_by_positions(way: str) -> None:
    p = Case(way, Plan("tiles", 4, 2, 1, 1, 1), None, None, 1).problem(NEON)
    with pytest.raises(ValueError, match=f'^plan: by "tiles"; accepted by {way} is "positions"'):
        steps(p, dense(p, way)._replace(plan=Plan("tiles", 4, 2, 1, 1, 1)))
