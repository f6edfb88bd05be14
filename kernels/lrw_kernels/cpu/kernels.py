"""The kernels that serve others, and what kernels of several families are made of, as Numba functions over addresses.

Item kernels are (job, item, scratch); each function that returns a Function makes the Python function of one
kernel, from texts and numbers. All in int64: a kernel neither allocates nor raises, so that it also lowers to a library
without a runtime.
"""

from dataclasses import replace
from typing import Any

from lrw_kernels.codegen.intrinsics import copy_number, get, get_byte, put
from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import ADDRESS, BYTES, LINE
from lrw_kernels.codegen.settings import helper
from lrw_kernels.cpu.intrinsics import (
    clear_at,
    digest_at,
    matrix_at,
    mix_stripes,
    mix_word,
    move_narrow,
    move_square,
    multiply,
    spin,
)
from lrw_kernels.cpu.micro import Micro
from lrw_kernels.cpu.mix import STRIPE


@helper
def clear(address, size):
    """Zero `size` bytes, a multiple of 8."""
    for i in range(0, size, ADDRESS):
        put(address + i, 0)


@helper
def first_vector(p, panel):
    """The vector of C a panel of weights begins with: wide panels first, then those of one vector."""
    whole = p.vectors // p.panel_vectors
    return panel * p.panel_vectors if panel <= whole else whole * p.panel_vectors + panel - whole


def panel_products(micro: Micro) -> Any:
    """(a, b, c, tiles, terms, add, v_panel, m_panel, following): all tiles times one panel of weights, over
    `terms` channels; `following` is where the weights lie that are needed then."""
    rows, a_row, c_row, step, ahead = micro.rows[0], micro.a_row, micro.c_row, micro.b_step, micro.ahead * LINE
    whole_text, rest_text = replace(micro, rows=(rows,)).text, replace(micro, rows=micro.rows[1:] or (rows,)).text
    plain_text = replace(micro, rows=(rows,), ahead=0).text
    fetching = -(-step // ahead) if ahead else 0  # panels of tiles in whose time what is next is asked for

    @helper
    def all_tiles(a, b, c, tiles, terms, add, v_panel, m_panel, following):
        # Weights come from memory, evenly: so many panels of tiles as it takes, a line a term, ask for what follows.
        for panel in range(tiles // rows):
            if panel < fetching:
                multiply(whole_text, a, b, c, rows, terms, add, following)
                following += terms * ahead
            else:
                multiply(plain_text, a, b, c, rows, terms, add, following)
            a, c = a + v_panel, c + m_panel
        left = tiles % rows
        while left > 0:
            done = multiply(rest_text, a, b, c, left, terms, add, following)
            a, c, left = a + done * a_row, c + done * c_row, left - done

    return all_tiles


def clear_item() -> Function:
    """One item: `records.Clear`."""

    def clears(job, item, scratch):
        c = clear_at(job)
        clear(c.data, c.size)

    return clears


def matrix_item(element: str, lanes: int, transposed: bool) -> Function:
    """Items are pieces of matrices, columns fastest: `records.Matrix`."""
    size = BYTES[element]

    def matrices(job, item, scratch):
        m = matrix_at(job)
        across, down = (m.columns + m.column_chunk - 1) // m.column_chunk, (m.rows + m.row_chunk - 1) // m.row_chunk
        j, i, outer = item % across, (item // across) % down, item // (across * down)
        rows = min(m.row_chunk, m.rows - i * m.row_chunk)
        columns = min(m.column_chunk, m.columns - j * m.column_chunk)
        source = m.source + outer * m.source_outer + i * m.row_chunk * m.source_row + j * m.column_chunk * size
        target = m.target + outer * m.target_outer + i * m.target_i + j * m.target_j
        right, below = (m.target_row, size) if transposed else (size, m.target_row)
        for r in range(0, rows, lanes):
            for c in range(0, columns, lanes):
                to, at = target + r * below + c * right, source + r * m.source_row + c * size
                if rows - r >= lanes and columns - c >= lanes:
                    move_square(transposed, element, lanes, to, m.target_row, at, m.source_row)
                else:
                    for y in range(min(lanes, rows - r)):
                        for x in range(min(lanes, columns - c)):
                            copy_number(element, to + y * below + x * right, at + y * m.source_row + x * size)

    return matrices


def narrow_item(element: str, lanes: int, count: int, apart: bool) -> Function:
    """Items are pieces of matrices: as `matrix_item`, transposed, for rows of a few numbers, or a few rows."""
    size = BYTES[element]

    def narrow(job, item, scratch):
        m = matrix_at(job)
        pixels, chunk = (m.rows, m.row_chunk) if apart else (m.columns, m.column_chunk)
        pieces = (pixels + chunk - 1) // chunk
        outer, first = item // pieces, item % pieces * chunk
        source, target = m.source + outer * m.source_outer, m.target + outer * m.target_outer
        flat, rows = (source, target) if apart else (target, source)
        row = m.target_row if apart else m.source_row
        flat, rows, some = flat + first * count * size, rows + first * size, min(chunk, pixels - first)
        for at in range(0, some // lanes * lanes, lanes):
            move_narrow(apart, element, lanes, count, flat + at * count * size, rows + at * size, row)
        for at in range(some // lanes * lanes, some):
            for i in range(count):
                here, there = flat + (at * count + i) * size, rows + i * row + at * size
                copy_number(element, there if apart else here, here if apart else there)

    return narrow


def digest_item() -> Function:
    """Items are pieces of memory: whole stripes by vectors, then words, then bytes. See `records.Digest`."""

    def digests(job, item, scratch):
        d = digest_at(job)
        at = get(d.table + 2 * ADDRESS * item)
        last = at + get(d.table + 2 * ADDRESS * item + ADDRESS)
        stripes = (last - at) // STRIPE
        state = mix_stripes(at, stripes, 1)
        at += stripes * STRIPE
        while at + 8 <= last:
            state, at = mix_word(state, get(at)), at + 8
        while at < last:
            state, at = mix_word(state, get_byte(at)), at + 1
        put(d.hashes + 8 * item, state)

    return digests


def peak_kernel(text: str) -> Function:
    """(job, item, scratch): fused multiply-adds in registers and nothing else; what a micro-kernel can reach."""

    def peak(job, item, scratch):
        spin(text, scratch)

    return peak
