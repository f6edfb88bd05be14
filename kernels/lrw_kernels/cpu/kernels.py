"""The kernels as Numba functions over addresses: one tile's transform, one position's products.

Each function here makes the Python function of one kernel, from texts and numbers; `library.py` names them. What
differs between programs is in the literal text an intrinsic gets, everything about a call is in the records. All in
int64: a kernel neither allocates nor raises, so that it also lowers to a library without a runtime.
"""

from collections.abc import Callable
from typing import Any

from numba import njit

from lrw_kernels.cpu.intrinsics import (
    copy_number,
    gather_columns,
    gather_lines,
    get,
    multiply,
    products_at,
    put,
    scatter_tile,
    side_at,
)
from lrw_kernels.cpu.machine import LINE
from lrw_kernels.cpu.micro import CHUNK, Micro
from lrw_kernels.cpu.program import ADDRESS, Program
from lrw_kernels.cpu.vector import BYTES

Kernel = Callable[..., None]
helper = njit(error_model="numpy")


@helper
def clear(address, size):
    """Zero `size` bytes, a multiple of 8."""
    for i in range(0, size, ADDRESS):
        put(address + i, 0)


@helper
def corner(s, tile):
    """n, d, h, w of a tile's first activation; d, h and w may lie outside."""
    rest, w = tile // s.grid_w, tile % s.grid_w
    rest, h = rest // s.grid_h, rest % s.grid_h
    n, d = rest // s.grid_d, rest % s.grid_d
    return n, s.start_d + d * s.step_d, s.start_h + h * s.step_h, s.start_w + w * s.step_w


@helper
def put_rows(s, data, outside, n, d, h, w, n_d, n_h, rows):
    """The addresses of the n_d * n_h rows of a patch of `data`; `outside` for those that are."""
    first = data + n * s.stride_n + d * s.stride_d + h * s.stride_h + w * s.stride_w
    for i in range(n_d):
        for j in range(n_h):
            inside = 0 <= d + i < s.size_d and 0 <= h + j < s.size_h
            put(rows + (i * n_h + j) * ADDRESS, first + i * s.stride_d + j * s.stride_h if inside else outside)


@helper
def reaches_out(s, d, h, n_d, n_h):
    """Whether some rows of a patch lie outside."""
    return d < 0 or h < 0 or d + n_d > s.size_d or h + n_h > s.size_h


@helper
def slot_at(s, domain, slot, line):
    """Where a tile's first vector lies."""
    return domain + (slot // s.rows) * s.panel + (slot % s.rows) * line


def _exchange(program: Program) -> Any:
    """(pad, rows, step, at, few, column, begin, end, out): the last `few` bytes of channels, between a padded patch and
    the activations, for columns begin..end of a patch that starts at `column`."""
    kind, size, width = program.kind, BYTES[program.kind], program.kind_bytes
    n_d, n_h, n_w = program.patch

    @helper
    def exchange(pad, rows, step, at, few, column, begin, end, out):
        for i in range(n_d * n_h):
            for k in range(begin, end):
                inner = pad + (i * n_w + k - column) * width
                outer = get(rows + i * ADDRESS) + at + k * step
                for c in range(0, few, size):
                    if out:
                        copy_number(kind, outer + c, inner + c)
                    else:
                        copy_number(kind, inner + c, outer + c)

    return exchange


def gather_kernel(text: str) -> Kernel:
    """(side, tile, slot, count, first, last, domain, scratch): vectors first..last of `count` tiles of a grid row.

    Neighbouring patches overlap, and columns already transformed stay in scratch for the next tile. `text` is a
    Program's.
    """
    program = Program.parse(text)
    size, step_w, overlap = BYTES[program.kind], program.step, program.overlap
    n_d, n_h, n_w = program.patch
    lanes, width, line = program.lanes, program.kind_bytes, program.vector_bytes
    rows_at, pad_rows_at, lines_at, lines_bytes = (
        program.rows_at,
        program.pad_rows_at,
        program.lines_at,
        program.lines_bytes,
    )
    exchange = _exchange(program)

    def gather(side, tile, slot, count, first, last, domain, scratch):
        s = side_at(side)
        n, d, h, w = corner(s, tile)
        begin, end, whole = -w, s.size_w - w, s.channels // lanes
        pad, rows, pad_rows = scratch, scratch + rows_at, scratch + pad_rows_at
        edge = reaches_out(s, d, h, n_d, n_h)
        for i in range(n_d * n_h):
            put(pad_rows + i * ADDRESS, pad + i * n_w * width)
        for i in range(count):
            column = i * step_w
            if i == 0 or edge:  # rows outside are as short as one patch: back to their start
                put_rows(s, s.data, s.zeros - column * s.stride_w, n, d, h, w, n_d, n_h, rows)
            to = slot_at(s, domain, slot + i, line)
            for vector in range(first, last):
                zero, start = 0, column if i == 0 else column + overlap
                source, step, at = rows, s.stride_w, vector * width
                lines = scratch + lines_at + (vector - first) * lines_bytes
                if vector == whole:  # the last few channels, through a patch padded with zeros
                    left, right, few = max(begin, column), min(end, column + n_w), (s.channels - whole * lanes) * size
                    clear(pad, n_d * n_h * n_w * width)
                    exchange(pad, rows, s.stride_w, at, few, column, left, right, False)
                    zero, start, source, step, at = column, column, pad_rows, width, 0
                stop = column + n_w - zero
                gather_columns(text, source, step, at, begin - zero, end - zero, start - zero, stop, lines)
                gather_lines(text, column - zero, to + vector * s.rows * line, s.table, lines)

    return gather


def scatter_kernel(text: str) -> Kernel:
    """(side, tile, slot, count, first, last, domain, scratch): vectors first..last of `count` tiles of a grid row.

    `domain` begins with vector `first`. Rows outside are written behind the program's own scratch, and never read.
    `text` is a Program's.
    """
    program = Program.parse(text)
    size, accumulate, step_w = BYTES[program.kind], program.accumulate, program.step
    n_d, n_h, n_w = program.patch
    lanes, width, line = program.lanes, program.kind_bytes, program.vector_bytes
    rows_at, pad_rows_at, residual_at = program.rows_at, program.pad_rows_at, program.residual_at
    lines_at, outside_at = program.lines_at, program.scratch_bytes(1)
    exchange = _exchange(program)

    def scatter(side, tile, slot, count, first, last, domain, scratch):
        s = side_at(side)
        n, d, h, w = corner(s, tile)
        left, right, whole = -w, s.size_w - w, s.channels // lanes
        pad, rows, pad_rows = scratch, scratch + rows_at, scratch + pad_rows_at
        residual = scratch + residual_at if s.residual != 0 else 0
        edge = reaches_out(s, d, h, n_d, n_h)
        for i in range(n_d * n_h):
            put(pad_rows + i * ADDRESS, pad + i * n_w * width)
        for i in range(count):
            column = i * step_w
            begin, end = max(left, column) - column, min(right - column, n_w)
            if i == 0 or edge:  # rows outside are as short as one patch: back to their start
                outside = scratch + outside_at - column * s.stride_w
                put_rows(s, s.data, outside, n, d, h, w, n_d, n_h, rows)
                if residual != 0:
                    put_rows(s, s.residual, outside, n, d, h, w, n_d, n_h, residual)
            source, lines = slot_at(s, domain, slot + i, line), scratch + lines_at
            for vector in range(first, last):
                from_slot, bias = source + (vector - first) * s.rows * line, s.bias + vector * line
                few, here = (s.channels - whole * lanes) * size, vector * width
                to, step, at, added = rows, s.stride_w, here + column * s.stride_w, residual
                if vector == whole:  # the last few channels, through a patch of their own
                    to, step, at = pad_rows, width, 0
                    if accumulate:
                        exchange(pad, rows, s.stride_w, here, few, column, begin + column, end + column, False)
                    elif residual != 0:
                        exchange(pad, residual, s.stride_w, here, few, column, begin + column, end + column, False)
                        added = pad_rows
                if begin < end:
                    scatter_tile(text, from_slot, s.table, to, step, at, begin, end, bias, added, s.relu, lines)
                if vector == whole:
                    exchange(pad, rows, s.stride_w, here, few, column, begin + column, end + column, True)

    return scatter


def products_kernel(wide_text: str, narrow_text: str) -> Kernel:
    """(products, position, tiles, first, last, v, m): one position's M for panels first..last of weights.

    Panels are `wide` as long as there are vectors enough, then `narrow`, of one vector. `m` begins with panel `first`.
    """
    wide, narrow = Micro.parse(wide_text), Micro.parse(narrow_text)
    vectors, rows = wide.vectors, wide.rows[0]
    line, wide_step, narrow_step, run = wide.a_row, wide.b_step, narrow.b_step, wide.run

    def products(job, position, tiles, first, last, v, m):
        p = products_at(job)
        a_position, c = v + get(p.v_table + position * ADDRESS), m + get(p.m_table + position * ADDRESS)
        weights, whole = p.weights + position * p.weights_plane, p.vectors // vectors
        for panel in range(first, last):
            is_wide = panel < whole
            panel_at = weights + (panel if is_wide else whole) * p.weights_panel
            if not is_wide:
                panel_at += (panel - whole) * (p.weights_panel // vectors)
            for start in range(0, p.steps, CHUNK):
                b = panel_at + start * (wide_step if is_wide else narrow_step)
                steps, a_start = min(CHUNK, p.steps - start), a_position + start // run * rows * line
                # Weights come from memory, and evenly: of several panels of tiles, the first two fetch half of what is
                # next each. One alone is better left to the hardware (medmnist layer3: 82 % of peak, 60 with this).
                after, tile = b + steps * wide_step, 0
                while tile < tiles:
                    ahead = after + (tile // rows) * steps * LINE if rows < tiles and tile < 2 * rows else 0
                    shift = (tile % rows) * line
                    a, to = a_start + (tile // rows) * p.v_panel + shift, c + (tile // rows) * p.m_panel + shift
                    left, a_jump = tiles - tile, rows * line
                    b_jump = run * (wide_step if is_wide else narrow_step)
                    if is_wide:
                        tile += multiply(wide_text, a, b, to, left, steps, a_jump, b_jump, line, start, ahead)
                    else:
                        tile += multiply(narrow_text, a, b, to, left, steps, a_jump, b_jump, line, start, ahead)
            c += (vectors if is_wide else 1) * rows * line

    return products


def weight_grad_kernel(wide_text: str, narrow_text: str) -> Kernel:
    """(products, position, tiles, first, last, v, m): one position's dU = or += V^T dM for blocks first..last of rows.

    `weights` is dU [positions, rows, vectors * lanes], row-major, rows and columns padded; `v` and `m` whole planes.
    """
    wide = Micro.parse(wide_text)
    vectors, rows, tile_rows = wide.vectors, wide.rows[0], wide.run
    line, size, lanes = wide.a_step, wide.a_row, wide.lanes

    def weight_grad(job, position, tiles, first, last, v, m):
        p = products_at(job)
        row_bytes = p.vectors * line
        for block in range(first, last):
            row = block * rows
            a_position, b = v + get(p.v_table + position * ADDRESS), m + get(p.m_table + position * ADDRESS)
            a = a_position + (row // lanes) * tile_rows * line + (row % lanes) * size
            c = p.weights + position * p.weights_plane + row * row_bytes
            vector = 0
            while vector < p.vectors:
                if p.vectors - vector >= vectors:
                    multiply(wide_text, a, b, c, rows, tiles, p.v_panel, p.m_panel, row_bytes, p.add, 0)
                    done = vectors
                else:
                    multiply(narrow_text, a, b, c, rows, tiles, p.v_panel, p.m_panel, row_bytes, p.add, 0)
                    done = 1
                vector += done
                b += done * tile_rows * line
                c += done * line

    return weight_grad
