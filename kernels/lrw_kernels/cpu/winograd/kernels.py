"""The kernels as Numba functions over addresses: one tile's transform, one position's products.

Each function here makes the Python function of one kernel, from texts and numbers; `library.py` names them. What
differs between recipes is in the literal text an intrinsic gets, everything about a call is in the records. All in
int64: a kernel neither allocates nor raises, so that it also lowers to a library without a runtime.
"""

from typing import Any

from lrw_kernels.codegen.intrinsics import copy_number, get, put
from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import ADDRESS, BYTES, FLOAT
from lrw_kernels.codegen.settings import helper
from lrw_kernels.cpu.kernels import clear, panel_products
from lrw_kernels.cpu.micro import CHUNK, Micro
from lrw_kernels.cpu.step import SUMS
from lrw_kernels.cpu.winograd.intrinsics import (
    accumulate,
    add_sums,
    gather_columns,
    gather_lines,
    products_at,
    scatter_tile,
    transform_at,
)
from lrw_kernels.cpu.winograd.recipe import Recipe
from lrw_kernels.network.operators import BY_CHANNEL


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
    plane = data + n * s.stride_n + d * s.stride_d + h * s.stride_h + w * s.stride_w
    stride_d, stride_h, size_d = s.stride_d, s.stride_h, s.size_d
    above, below = min(max(-h, 0), n_h), min(max(s.size_h - h, 0), n_h)  # rows above..below of a plane are inside
    for i in range(n_d):
        inside = 0 <= d + i < size_d
        first, last = (above, below) if inside else (n_h, n_h)
        for j in range(first):
            put(rows + j * ADDRESS, outside)
        for j in range(first, last):
            put(rows + j * ADDRESS, plane + j * stride_h)
        for j in range(last, n_h):
            put(rows + j * ADDRESS, outside)
        rows, plane = rows + n_h * ADDRESS, plane + stride_d


@helper
def slot_at(s, domain, slot, line):
    """The address in `domain` of the first vector of the tile in `slot`; vectors take `line` bytes."""
    return domain + (slot // s.rows) * s.panel + (slot % s.rows) * line


def _exchange(recipe: Recipe) -> Any:
    """(pad, rows, pitch, at, few, column, begin, end, out): the last `few` bytes of channels, between a padded patch
    and the activations, for columns begin..end of a patch that starts at `column`."""
    kind, size, width = recipe.kind, BYTES[recipe.kind], recipe.kind_bytes
    n_d, n_h, n_w = recipe.patch

    @helper
    def exchange(pad, rows, pitch, at, few, column, begin, end, out):
        for i in range(n_d * n_h):
            for k in range(begin, end):
                inner = pad + (i * n_w + k - column) * width
                outer = get(rows + i * ADDRESS) + at + k * pitch
                for c in range(0, few, size):
                    if out:
                        copy_number(kind, outer + c, inner + c)
                    else:
                        copy_number(kind, inner + c, outer + c)

    return exchange


def gather_kernel(text: str) -> Function:
    """(side, tile, slot, count, first, last, domain, scratch): vectors first..last of `count` tiles of a grid row.

    Some vectors after others, so that what lies between the stages stays in the first-level cache. Neighbouring patches
    overlap, and columns already transformed stay in scratch for the next tile. `text` is a Recipe's.
    """
    recipe = Recipe.parse(text)
    size, step_w, overlap = BYTES[recipe.kind], recipe.step, recipe.overlap
    n_d, n_h, n_w = recipe.patch
    lanes, width, line = recipe.lanes, recipe.kind_bytes, recipe.vector_bytes
    rows_at, pad_rows_at, lines_at = recipe.rows_at, recipe.pad_rows_at, recipe.lines_at
    together, lines_bytes = recipe.together, recipe.lines_bytes
    exchange = _exchange(recipe)

    def gather(side, tile, slot, count, first, last, domain, scratch):
        s = transform_at(side)
        n, d, h, w = corner(s, tile)
        begin, end, whole = -w, s.size_w - w, s.channels // lanes
        pad, rows, pad_rows = scratch, scratch + rows_at, scratch + pad_rows_at
        constants = s.constants
        for i in range(n_d * n_h):
            put(pad_rows + i * ADDRESS, pad + i * n_w * width)
        put_rows(s, s.data, s.zeros, n, d, h, w, n_d, n_h, rows)
        for begin_vector in range(first, last, together):
            for i in range(count):
                column, to = i * step_w, slot_at(s, domain, slot + i, line)
                for vector in range(begin_vector, min(begin_vector + together, last)):
                    zero, start = 0, column if i == 0 else column + overlap
                    source, pitch, at = rows, s.stride_w, vector * width
                    lines = scratch + lines_at + (vector - begin_vector) * lines_bytes
                    if vector == whole:  # the last few channels, through a patch padded with zeros
                        left, right = max(begin, column), min(end, column + n_w)
                        clear(pad, n_d * n_h * n_w * width)
                        exchange(pad, rows, pitch, at, (s.channels - whole * lanes) * size, column, left, right, False)
                        zero, start, source, pitch, at = column, column, pad_rows, width, 0
                    stop, from_column, to_column = column + n_w - zero, begin - zero, end - zero
                    gather_columns(
                        text, source, pitch, at, from_column, to_column, start - zero, stop, lines, constants
                    )  # fmt: skip
                    ahead = at + stop * pitch  # the first column of the next tile that is not known yet
                    target = to + vector * s.rows * line
                    gather_lines(text, column - zero, target, s.table, lines, constants, source, pitch, ahead)

    return gather


def scatter_kernel(text: str) -> Function:
    """(side, tile, slot, count, first, last, domain, scratch): vectors first..last of `count` tiles of a grid row.

    `domain` begins with vector `first`. Rows outside lie behind the recipe's own scratch; what is read there goes
    nowhere else.
    `text` is a Recipe's.
    """
    recipe = Recipe.parse(text)
    size, accumulate, step_w = BYTES[recipe.kind], recipe.accumulate, recipe.step
    n_d, n_h, n_w = recipe.patch
    lanes, width, line = recipe.lanes, recipe.kind_bytes, recipe.vector_bytes
    rows_at, pad_rows_at, residual_at = recipe.rows_at, recipe.pad_rows_at, recipe.residual_at
    lines_at, outside_at, together = recipe.lines_at, recipe.scratch_bytes, recipe.together
    bias_line = lanes * BYTES[recipe.result]
    counted = recipe.kind == recipe.element == "float32" and not accumulate  # as networks have it
    slopes_line = lanes * FLOAT if recipe.function == BY_CHANNEL else 0
    exchange = _exchange(recipe)

    def scatter(side, tile, slot, count, first, last, domain, scratch):
        s = transform_at(side)
        n, d, h, w = corner(s, tile)
        left, right, whole = -w, s.size_w - w, s.channels // lanes
        pad, rows, pad_rows = scratch, scratch + rows_at, scratch + pad_rows_at
        residual = scratch + residual_at if s.residual != 0 else 0
        for i in range(n_d * n_h):
            put(pad_rows + i * ADDRESS, pad + i * n_w * width)
        put_rows(s, s.data, scratch + outside_at, n, d, h, w, n_d, n_h, rows)
        if residual != 0:
            put_rows(s, s.residual, scratch + outside_at, n, d, h, w, n_d, n_h, residual)
        turn = tile // s.tiles
        sums = s.sums + (turn + n) * SUMS * s.sums_line
        first_tile = max(turn * s.tiles, n * s.grid_d * s.grid_h * s.grid_w)  # of the part
        above, ahead = max(-d, 0), max(-h, 0)  # rows outside before those inside
        inside, first_row = (min(n_d, s.size_d - d) - above) * (min(n_h, s.size_h - h) - ahead), above * n_h + ahead
        for begin_vector in range(first, last, together):
            for i in range(count):
                column, source = i * step_w, slot_at(s, domain, slot + i, line)
                begin, end = max(left, column) - column, min(right - column, n_w)
                for vector in range(begin_vector, min(begin_vector + together, last)):
                    here, few = vector * width, (s.channels - whole * lanes) * size
                    to, pitch, at, added = rows, s.stride_w, here + column * s.stride_w, residual
                    if vector == whole:  # the last few channels, through a patch of their own
                        to, pitch, at = pad_rows, width, 0
                        if accumulate:
                            exchange(pad, rows, s.stride_w, here, few, column, begin + column, end + column, False)
                        elif residual != 0:
                            exchange(pad, residual, s.stride_w, here, few, column, begin + column, end + column, False)
                            added = pad_rows
                    if begin < end:
                        scatter_tile(
                            text, source + (vector - first) * s.rows * line, s.table, to, pitch, at, begin, end,
                            s.bias + vector * bias_line, added, s.after, s.parameters + vector * slopes_line,
                            scratch + lines_at, s.constants
                        )  # fmt: skip
                    if vector == whole:
                        exchange(pad, rows, s.stride_w, here, few, column, begin + column, end + column, True)
                    if counted and s.sums != 0 and begin < end:
                        add_sums(
                            text, rows, to, to + first_row * ADDRESS, pitch, at + begin * pitch, end - begin,
                            scratch + outside_at, sums + here, s.sums_line, inside, tile + i == first_tile
                        )  # fmt: skip

    return scatter


def _all_terms(micro: Micro) -> Any:
    """(a, b, c, tiles, terms, v_panel, m_panel): all tiles times one panel of weights, CHUNK channels at a time."""
    step, run, a_run = micro.b_step, micro.run, micro.rows[0] * micro.a_row
    multiply = panel_products(micro)

    @helper
    def products(a, b, c, tiles, terms, v_panel, m_panel):
        for start in range(0, terms, CHUNK):
            length, from_a, from_b = min(CHUNK, terms - start), a + start // run * a_run, b + start * step
            multiply(from_a, from_b, c, tiles, length, start, v_panel, m_panel, from_b + length * step)

    return products


def products_kernel(wide_text: str, narrow_text: str) -> Function:
    """(products, position, tiles, first, last, v, m): one position's M for panels first..last of weights.

    Panels are `wide` as long as there are vectors enough, then `narrow`, of one vector. `m` begins with panel `first`.
    Weights are read in the order in which they lie.
    """
    wide, narrow = Micro.parse(wide_text), Micro.parse(narrow_text)
    vectors, line = wide.vectors, wide.rows[0] * wide.a_row
    multiply_wide, multiply_narrow = _all_terms(wide), _all_terms(narrow)

    def products(job, position, tiles, first, last, v, m):
        p = products_at(job)
        a, to = v + get(p.v_table + position * ADDRESS), m + get(p.m_table + position * ADDRESS)
        terms, v_panel, m_panel, weights_panel = p.terms, p.v_panel, p.m_panel, p.weights_panel
        whole, narrow_panel = p.vectors // vectors, weights_panel // vectors
        wides, narrows = min(last, whole), max(first, whole)
        b = p.weights + position * p.weights_plane + first * weights_panel
        for _ in range(first, wides):
            multiply_wide(a, b, to, tiles, terms, v_panel, m_panel)
            b, to = b + weights_panel, to + vectors * line
        b = p.weights + position * p.weights_plane + whole * weights_panel + (narrows - whole) * narrow_panel
        for _ in range(narrows, last):
            multiply_narrow(a, b, to, tiles, terms, v_panel, m_panel)
            b, to = b + narrow_panel, to + line

    return products


def weight_grad_kernel(wide_text: str, narrow_text: str) -> Function:
    """(products, position, tiles, first, last, v, m): one position's dU = or += V^T dM for panels first..last of rows.

    `weights` is dU [positions, rows, vectors * lanes], row-major, rows and columns padded; `v` and `m` whole planes.
    """
    wide = Micro.parse(wide_text)
    vectors, rows, tile_rows = wide.vectors, wide.rows[0], wide.run
    line, size, lanes = wide.a_step, wide.a_row, wide.lanes

    def weight_grad(job, position, tiles, first, last, v, m):
        p = products_at(job)
        row_bytes = p.vectors * line
        for panel in range(first, last):
            row = panel * rows
            a_position, b = v + get(p.v_table + position * ADDRESS), m + get(p.m_table + position * ADDRESS)
            a = a_position + (row // lanes) * tile_rows * line + (row % lanes) * size
            c = p.weights + position * p.weights_plane + row * row_bytes
            vector = 0
            while vector < p.vectors:
                if p.vectors - vector >= vectors:
                    accumulate(wide_text, a, b, c, rows, tiles, p.v_panel, p.m_panel, row_bytes, p.add)
                    done = vectors
                else:
                    accumulate(narrow_text, a, b, c, rows, tiles, p.v_panel, p.m_panel, row_bytes, p.add)
                    done = 1
                vector += done
                b += done * tile_rows * line
                c += done * line

    return weight_grad
