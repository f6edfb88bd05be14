"""What the kernels are made of, without a clock: operations and memory accesses of the emitted vector code."""

import re
from collections import Counter
from math import prod

import pytest
from llvmlite import ir

from lrw_kernels.codegen.machine import MACHINES, Machine
from lrw_kernels.codegen.vector import I64, Vectors
from lrw_kernels.cpu.micro import UNROLLED, emit_micro, forward_micro
from lrw_kernels.cpu.winograd.patch import emit_columns, emit_lines, emit_scatter
from lrw_kernels.cpu.winograd.recipe import Recipe
from lrw_kernels.winograd import Tile, winograd_cost

TILES = ["F(2x2x2,3x3x3)", "F(4x4x4,3x3x3)", "F(2x4x3,3x3x3)", "F(1x4x4,1x3x3)"]
OPERATIONS = {
    "fadd": "add",
    "fsub": "add",
    "fmul": "multiply",
    '@"llvm.fma': "fma",
    "load <": "load",
    "store <": "store",
}
every_machine = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)


def emitted(emit: object, count: int, *arguments: object) -> Counter[str]:
    """Vector operations of what emit(v, *arguments, integers) leaves in a function of `count` integers."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * count), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    program = arguments[0]
    emit(Vectors(builder, program.element, program.lanes), program, list(function.args))  # type: ignore[operator, attr-defined]
    builder.ret_void()
    code = str(function)
    return Counter({name: len(re.findall(re.escape(text), code)) for text, name in OPERATIONS.items()})


def flops(counts: Counter[str]) -> int:
    return counts["add"] + counts["multiply"] + 2 * counts["fma"]


def whole(tile: str, way: str, table: str, kept: tuple[int, ...] | None = None) -> Recipe:
    positions = tuple(range(Tile.parse(tile).positions)) if kept is None else kept
    return Recipe(way, table, str(Tile.parse(tile)), "float32", 8, "float32", positions)


@pytest.mark.parametrize("text", TILES)
def test_transforms_take_no_more_operations_than_the_cost_model_says(text: str) -> None:
    tile = Tile.parse(text)
    one = tile.outputs  # one tile, one channel in and out
    model = winograd_cost(tile, 1, 1, one)
    gather, scatter = whole(text, "gather", "B"), whole(text, "scatter", "A")
    columns, lines = emitted(emit_columns, 9, gather), emitted(emit_lines, 8, gather)
    back = emitted(emit_scatter, 13, scatter)
    stages = flops(columns) * gather.patch[2] + flops(lines)
    column_flops = flops(emitted(emit_scatter, 13, whole(text, "scatter", "A", (0,))))
    assert stages + flops(back) <= model.flops - 2 * model.products + 2 * prod(one) + column_flops * tile.outputs[2]
    assert columns["load"] == gather.inputs[0] * gather.inputs[1], "each activation is loaded once"
    assert lines["store"] == tile.positions, "each position is stored once"


@pytest.mark.parametrize("text", TILES)
def test_pruned_positions_are_neither_stored_nor_loaded(text: str) -> None:
    tile = Tile.parse(text)
    kept = tuple(range(0, tile.positions, 4))
    full, pruned = (emitted(emit_lines, 8, whole(text, "gather", "B", some)) for some in (None, kept))
    assert pruned["store"] == len(kept)
    assert flops(pruned) < flops(full)
    back = emitted(emit_scatter, 13, whole(text, "scatter", "A", kept))
    lines = {position // tile.inputs[2] for position in kept}  # of which one column is read back
    outputs = tile.outputs[0] * tile.outputs[1]
    assert back["load"] == len(kept) + len(lines) + 1 + outputs, "positions, lines, bias, residual"


@every_machine
@pytest.mark.parametrize("element", ["float32", "float64"])
def test_the_micro_kernel_is_fused_multiply_adds_on_values_loaded_once(machine: Machine, element: str) -> None:
    micro = forward_micro(machine, element, machine.vectors)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 10), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(emit_micro(Vectors(builder, element, micro.lanes), micro, list(function.args)))
    code = str(function)
    tallest, *others = micro.rows
    vectors, run = micro.vectors, micro.run
    read_back = vectors * sum(micro.rows)  # C, where it is added to
    if micro.by_element:
        # All heights but one: UNROLLED steps that begin the sums, as many in a loop, a single run, a loop for parts.
        runs = {rows: 2 * UNROLLED // run + 1 if rows > 1 else 1 for rows in micro.rows}
        fmas = sum(rows * (runs[rows] * run + 1 - (rows > 1)) for rows in micro.rows)
        loads = sum(runs[rows] * (rows + run * vectors) + vectors for rows in micro.rows)
        registers = tallest * vectors + tallest + vectors
    else:
        fmas = tallest * (run + 1) + 2 * sum(others)  # a whole run unrolled and a loop for parts; two loops
        loads = vectors * (run + 1 + 2 * len(others))
        registers = tallest * vectors + vectors + 1
    assert len(re.findall(r"call .*@.?llvm\.fma", code)) == vectors * fmas
    assert len(re.findall(r"load <", code)) == loads + read_back, "B once per step, A by element once per run"
    assert registers <= {64: 32, 32: 16, 16: 32}[machine.vector_bytes]
