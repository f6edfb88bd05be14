"""Convolution by gathering patches and multiplying them with packed weights."""

from lrw_kernels.codegen.intrinsics import get, put
from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import ADDRESS, FLOAT
from lrw_kernels.codegen.settings import helper
from lrw_kernels.cpu.kernels import clear, first_vector, panel_products
from lrw_kernels.cpu.micro import CHUNK, Micro
from lrw_kernels.cpu.operators.intrinsics import add_vectors, finish_pixel, gather_run, patches_at
from lrw_kernels.cpu.operators.records import PIECE_FIELDS, PLACE_FIELDS
from lrw_kernels.network.operators import BY_CHANNEL

PIECE = PIECE_FIELDS * ADDRESS
PLACE = PLACE_FIELDS * ADDRESS
FEW_PIECES = 2  # of a chunk, which may lie outside of x


@helper
def put_row(k, pixel, places, count):
    """The places of `count` output pixels of one row, from `pixel` on: where their patches start, which may be outside,
    and where results go."""
    row, w = pixel // k.out_w, pixel % k.out_w
    rest, h = row // k.out_h, row % k.out_h
    n, d = rest // k.out_d, rest % k.out_d
    at_d, at_h, at_w = k.start_d + d * k.step_d, k.start_h + h * k.step_h, k.start_w + w * k.step_w
    x = k.x + n * k.x_n + at_d * k.x_d + at_h * k.x_h + at_w * k.x_w
    y = k.y + n * k.y_n + d * k.y_d + h * k.y_h + w * k.y_w
    residual = k.residual + n * k.residual_n + d * k.residual_d + h * k.residual_h + w * k.residual_w
    for i in range(count):
        place = places + i * PLACE
        put(place, x + i * k.step_w * k.x_w)
        put(place + ADDRESS, at_d)
        put(place + 2 * ADDRESS, at_h)
        put(place + 3 * ADDRESS, (at_w + i * k.step_w) * k.pixel_floats)
        put(place + 4 * ADDRESS, y + i * k.y_w)
        put(place + 5 * ADDRESS, residual + i * k.residual_w if k.residual != 0 else 0)


@helper
def put_places(k, first, pixels, places):
    """The places of output pixels first..first + pixels, as `put_row` writes them, row by row."""
    done = 0
    while done < pixels:
        count = min(pixels - done, k.out_w - (first + done) % k.out_w)
        put_row(k, first + done, places + done * PLACE, count)
        done += count


@helper
def reaches(k, piece, place):
    """Whether a piece of the patch at `place` has numbers inside of x."""
    at = get(place + 3 * ADDRESS) + get(piece + 2 * ADDRESS)
    d, h = get(place + ADDRESS) + get(piece), get(place + 2 * ADDRESS) + get(piece + ADDRESS)
    return 0 <= d < k.size_d and 0 <= h < k.size_h and at < k.row_floats and at + get(piece + 3 * ADDRESS) > 0


@helper
def list_pixels(k, first, last, pixels, places, listed):
    """List the pixels whose patches have numbers inside of x among pieces first..last; returns how many. All, where
    there are more pieces than are worth looking at."""
    count = 0
    for i in range(pixels):
        met = last - first > FEW_PIECES
        for piece in range(first, min(last, first + FEW_PIECES)):
            met = met or reaches(k, k.pieces + piece * PIECE, places + i * PLACE)
        if met:
            put(listed + count * ADDRESS, i)
            count += 1
    return count


def _gather(lanes: int, a_row: int) -> Function:
    """(record, piece, count, listed, places, a): one piece of the patches that are listed, which may run over into
    where the next one comes to lie. Pixels lie at even distances, which hardware fetches ahead."""

    @helper
    def gather(k, piece, count, listed, places, a):
        d, h, first = get(piece), get(piece + ADDRESS), get(piece + 2 * ADDRESS)
        numbers, to = get(piece + 3 * ADDRESS), a + get(piece + 4 * ADDRESS) * FLOAT
        shift = d * k.x_d + h * k.x_h + first * FLOAT
        for i in range(count):
            place = places + get(listed + i * ADDRESS) * PLACE
            at = get(place + 3 * ADDRESS) + first
            inside = 0 <= get(place + ADDRESS) + d < k.size_d and 0 <= get(place + 2 * ADDRESS) + h < k.size_h
            low, high = (-at, k.row_floats - at) if inside else (0, 0)
            gather_run(lanes, get(place) + shift, to + i * a_row, low, high, numbers)

    return gather


def _multiply(wide_text: str, narrow_text: str) -> Function:
    """(record, chunk, pixels, first, last, a, m, add): the chunk's products with panels first..last of weights, added
    to what m holds or not; m is [panels of pixels][vectors][rows][lanes]."""
    wide, narrow = Micro.parse(wide_text), Micro.parse(narrow_text)
    vectors, rows, line = wide.vectors, wide.rows[0], wide.c_row
    wide_step, narrow_step, a_panel = wide.b_step, narrow.b_step, rows * wide.a_row
    multiply_wide, multiply_narrow = panel_products(wide), panel_products(narrow)

    @helper
    def weights_at(k, panel, term):
        whole = k.vectors // vectors
        if panel < whole:
            return k.weights + panel * k.weights_panel + term * wide_step
        return k.weights + whole * k.weights_panel + (panel - whole) * (k.weights_panel // vectors) + term * narrow_step

    @helper
    def products(k, chunk, pixels, first, last, a, m, add):
        start, whole, m_panel = chunk * CHUNK, k.vectors // vectors, k.m_panel
        terms = min(CHUNK, k.terms - start)
        for panel in range(first, last):
            b = weights_at(k, panel, start)
            following = weights_at(k, panel + 1, start) if panel + 1 < last else weights_at(k, first, start + terms)
            if panel < whole:
                multiply_wide(a, b, m, pixels, terms, add, a_panel, m_panel, following)
                m += vectors * rows * line
            else:
                multiply_narrow(a, b, m, pixels, terms, add, a_panel, m_panel, following)
                m += rows * line

    return products


def patches_item(wide_text: str, narrow_text: str, function: str) -> Function:
    """Items are shares of output pixels x groups of panels of weights, groups fastest: `records.Patches`.

    Chunk by chunk of the sum the patches are gathered that have numbers there, then every panel of weights, once from
    memory, meets all of them. Products of some pixels are made beside `m`, which has all, and added to it.
    """
    wide = Micro.parse(wide_text)
    lanes, rows, line, a_row = wide.lanes, wide.rows[0], wide.c_row, wide.a_row
    by_channel = function == BY_CHANNEL
    gather, products = _gather(lanes, a_row), _multiply(wide_text, narrow_text)

    @helper
    def pixel_at(k, m, i):
        return m + (i // rows) * k.m_panel + (i % rows) * line

    def patches(job, item, scratch):
        k = patches_at(job)
        groups = (k.panels + k.split - 1) // k.split
        places, listed, a, m, beside = (
            scratch,
            scratch + k.listed_at,
            scratch + k.a_at,
            scratch + k.m_at,
            scratch + k.beside_at,
        )
        pixel, first = item // groups * k.share, item % groups * k.split
        pixels, last = min(k.share, k.pixels - pixel), min(k.panels, first + k.split)
        vectors = first_vector(k, last) - first_vector(k, first)
        put_places(k, pixel, pixels, places)
        clear(m, k.beside_at - k.m_at)
        for chunk in range(k.chunks):
            begin, end = get(k.chunk_table + chunk * ADDRESS), get(k.chunk_table + chunk * ADDRESS + ADDRESS)
            count = list_pixels(k, begin, end, pixels, places, listed)
            for piece in range(begin, end):
                gather(k, k.pieces + piece * PIECE, count, listed, places, a)
            everything = count == pixels
            if count > 0:  # one call: its code, all of the products, would be there twice
                products(k, chunk, count, first, last, a, m if everything else beside, everything)
            for i in range(0 if everything else count):
                add_vectors(
                    lanes, pixel_at(k, m, get(listed + i * ADDRESS)), pixel_at(k, beside, i), rows * line, vectors
                )
        shift = first_vector(k, first) * line
        channels = min(k.channels, first_vector(k, last) * lanes) - shift // FLOAT
        for i in range(pixels):
            place = places + i * PLACE
            target, residual = get(place + 4 * ADDRESS) + shift, get(place + 5 * ADDRESS)
            residual += shift if residual != 0 else 0
            finish_pixel(function, lanes, pixel_at(k, m, i), rows * line, k.bias + shift, residual, target, k.after,
                         k.parameters + shift * by_channel, channels)  # fmt: skip

    return patches
