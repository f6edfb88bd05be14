"""GPU kernels into the Winograd domain and out of it: gather and scatter. Tiles are data to them.

Along h and w a transform is straight-line code from the exact matrices, which are compile-time tuples: zeros vanish.
Along d it is a run-time loop over rows of tables, which keeps the code a fraction as long. Activations are
[N, D, H, W, C] of any strides but 1 along C, domain values `[positions, tiles, C]`. Half precision is widened on load
and rounded once, on store, but where a transform into the domain only adds and subtracts: then two numbers are added by
one instruction, each sum rounded. What TF32 products will read is rounded to TF32 on store: tensor cores cut it.
Offsets are int64 where a tile begins and from slice to slice, int32 inside a tile's slice.
"""

from lrw_kernels.triton.jit import tl, triton

# Triton's interpreter keeps bfloat16 as its bits and computes on those: there it is widened before anything else.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def place(index, grid_d, grid_h, grid_w):
    """(n, d, h, w) of a tile or cell counted through the batch."""
    w = index % grid_w
    rest = index // grid_w
    h = rest % grid_h
    rest = rest // grid_h
    return rest // grid_d, rest % grid_d, h, w


@triton.jit
def plus(total, factor: tl.constexpr, value):
    """(sum + factor * value,), of a tuple with the sum, or without one yet; none for the factor 0."""
    result = total
    if factor == -1 and len(total):  # no negation, which older compilers make an operation
        result = (total[0] - value,)
    elif factor != 0:
        term = value if factor == 1 else factor * value
        result = (total[0] + term,) if len(total) else (term,)
    return result


@triton.jit
def transformed(z, MATRIX: tl.constexpr, FIRST: tl.constexpr, STEP: tl.constexpr, LINES: tl.constexpr):
    """MATRIX times lines of blocks, of row 0 first; line l of LINES has z[FIRST + l], z[FIRST + l + STEP], ..."""
    result = ()
    for row in tl.static_range(len(MATRIX)):
        for at in tl.static_range(LINES):
            total = ()
            for i in tl.static_range(len(MATRIX[row])):
                total = plus(total, MATRIX[row][i], z[FIRST + at + i * STEP])
            result = result + total
    return result


@triton.jit
def rounded(value):
    """float32 to the nearest TF32, ten bits behind the leading one; infinities and NaN stay."""
    bits = tl.add(value.to(tl.int32, bitcast=True), 0x1000, sanitize_overflow=False) & -0x2000
    return tl.where(value == value, bits.to(tl.float32, bitcast=True), value)  # the bits of some NaN overflow


@triton.jit
def corner_of(n, d, h, w, stride_n, stride_d, stride_h, stride_w):
    """Where such an element is, in int64: the sum may be as large as the tensor."""
    rest = h.to(tl.int64) * stride_h + w.to(tl.int64) * stride_w
    return n.to(tl.int64) * stride_n + d.to(tl.int64) * stride_d + rest


@triton.jit
def add_row(row, x, factor, w, size_w, stride_w, there, columns, FIRST: tl.constexpr, NW: tl.constexpr):
    """row[FIRST + c] + factor * x, NW blocks [tiles, channels] along w; zero outside of x."""
    result = ()
    for c in tl.static_range(NW):
        here = there & (w + c >= 0) & (w + c < size_w)
        value = tl.load(x + c * stride_w, mask=here[:, None] & columns, other=0.0).to(row[0].dtype)
        result = result + (row[FIRST + c] + factor.to(row[0].dtype) * value,)
    return result


@triton.jit
def add_slab(slab, x, factor, h, w, size_h, size_w, stride_h, stride_w, inside, columns, NH: tl.constexpr,
             NW: tl.constexpr):  # fmt: skip
    """slab + factor * x, NH x NW blocks [tiles, channels] of a plane of x; zero outside of it."""
    result = ()
    for b in tl.static_range(NH):
        there = inside & (h + b >= 0) & (h + b < size_h)
        result = result + add_row(slab, x + b * stride_h, factor, w, size_w, stride_w, there, columns, b * NW, NW)
    return result


@triton.jit
def store_row(line, target, slots, inside, v_plane, W: tl.constexpr, FIRST: tl.constexpr, ROUNDED: tl.constexpr):
    """W times the blocks line[FIRST], line[FIRST + 1], ... to the slots of these positions, where they are kept."""
    values = transformed(line, W, FIRST, 1, 1)
    for k in tl.static_range(len(W)):
        slot = tl.load(slots + k)
        if slot >= 0:
            value = rounded(values[k]) if ROUNDED else values[k]
            tl.store(target + slot.to(tl.int64) * v_plane, value.to(target.dtype.element_ty), mask=inside)


@triton.jit
def gather(
    x, v, slots, rows, taps, factors, heights, row_count, stride_n, stride_d, stride_h, stride_w, size_d, size_h,
    size_w, channels, grid_d, grid_h, grid_w, start_d, start_h, start_w, first, tiles, filled, v_plane, v_tile,
    v_channel, TAPS: tl.constexpr, UNROLLED: tl.constexpr, ROLLED: tl.constexpr, STEPS: tl.constexpr, H: tl.constexpr,
    W: tl.constexpr, PACKED: tl.constexpr, ROUNDED: tl.constexpr, TILES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """v[slots[p], tile] = (MATRIX_d x H x W)_p of the patch of x that begins at start + STEPS * tile.

    v [K, filled, channels] of any strides are the tiles from `first` on, zeros from `tiles` on. Row i of MATRIX_d has
    the numbers factors[i, q] at taps[i, q], q < TAPS; rows [row_count] are those where a position is kept. slots [T]:
    where p is kept, -1 where it is not. UNROLLED: straight code for all taps. ROLLED: along h, too, there is a loop at
    run time, with H as a table `heights`, and x is read again for each of its rows. PACKED: sums are of x's own dtype.
    ROUNDED: values are rounded to TF32.
    """
    NH: tl.constexpr = len(H[0])
    NW: tl.constexpr = len(W[0])
    KIND: tl.constexpr = x.dtype.element_ty if PACKED and not INTERPRETED else tl.float32
    local = tl.program_id(0) * TILES + tl.arange(0, TILES)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    n, d, h, w = place(first + local, grid_d, grid_h, grid_w)
    d, h, w = d * STEPS[0] + start_d, h * STEPS[1] + start_h, w * STEPS[2] + start_w
    here, columns = local < tiles, (channel < channels)[None, :]
    patch = x + corner_of(n, d, h, w, stride_n, stride_d, stride_h, stride_w)[:, None] + channel[None, :]
    target = v + (local.to(tl.int64) * v_tile)[:, None] + (channel.to(tl.int64) * v_channel)[None, :]
    inside = (local < filled)[:, None] & columns
    nothing = tl.full((TILES, CHANNELS), 0.0, KIND)
    for r in range(row_count):
        i = tl.load(rows + r)
        if ROLLED:
            for j in range(len(H)):
                line = ()
                for _ in tl.static_range(NW):
                    line = line + (nothing,)
                for q in range(TAPS):
                    tap, factor = tl.load(taps + i * TAPS + q), tl.load(factors + i * TAPS + q)
                    plane = patch + tap.to(tl.int64) * stride_d
                    there = here & (d + tap >= 0) & (d + tap < size_d)
                    for b in range(NH):
                        line = add_row(line, plane + b * stride_h, factor * tl.load(heights + j * NH + b), w, size_w,
                                       stride_w, there & (h + b >= 0) & (h + b < size_h), columns, 0, NW)  # fmt: skip
                store_row(line, target, slots + (i * len(H) + j) * len(W), inside, v_plane, W, 0, ROUNDED)
        else:
            slab = ()
            for _ in tl.static_range(NH * NW):
                slab = slab + (nothing,)
            if UNROLLED:
                for q in tl.static_range(TAPS):
                    tap, factor = tl.load(taps + i * TAPS + q), tl.load(factors + i * TAPS + q)
                    there = here & (d + tap >= 0) & (d + tap < size_d)
                    slab = add_slab(slab, patch + tap.to(tl.int64) * stride_d, factor, h, w, size_h, size_w, stride_h,
                                    stride_w, there, columns, NH, NW)  # fmt: skip
            else:
                for q in range(TAPS):
                    tap, factor = tl.load(taps + i * TAPS + q), tl.load(factors + i * TAPS + q)
                    there = here & (d + tap >= 0) & (d + tap < size_d)
                    slab = add_slab(slab, patch + tap.to(tl.int64) * stride_d, factor, h, w, size_h, size_w, stride_h,
                                    stride_w, there, columns, NH, NW)  # fmt: skip
            lines = transformed(slab, H, 0, NW, NW)
            for j in tl.static_range(len(H)):
                store_row(lines, target, slots + (i * len(H) + j) * len(W), inside, v_plane, W, j * NW, ROUNDED)


@triton.jit
def loaded(
    m, slots, at, here, columns, channel, grid_d, grid_h, grid_w, first_tile, channels, plane, COUNT: tl.constexpr
):
    """The values of COUNT positions, in `slots`, of the tiles at (n, d, h, w); zero of those that are not kept or not
    there."""
    n, d, h, w = at
    there = here & (d >= 0) & (d < grid_d) & (h >= 0) & (h < grid_h) & (w >= 0) & (w < grid_w)
    tile = ((n * grid_d + d) * grid_h + h) * grid_w + w - first_tile
    source = m + tile.to(tl.int64)[:, None] * channels + channel[None, :]
    values = ()
    for k in tl.static_range(COUNT):
        slot = tl.load(slots + k)
        kept = there[:, None] & columns & (tl.zeros_like(columns).to(tl.int32) + slot >= 0)
        value = tl.load(source + slot.to(tl.int64) * plane, mask=kept, other=0.0)
        values = values + (value.to(tl.float32),)
    return values


@triton.jit
def across(values, W: tl.constexpr, FIRST: tl.constexpr, WIDTHS: tl.constexpr):
    """For each of the WIDTHS columns c of W, from FIRST on, the sum over k of W[k][c] * values[k]."""
    sums = ()
    for c in tl.static_range(FIRST, FIRST + WIDTHS):
        total = ()
        for k in tl.static_range(len(W)):
            total = plus(total, W[k][c], values[k])
        sums = sums + (total if len(total) else (tl.full(values[0].shape, 0.0, tl.float32),))
    return sums


@triton.jit
def add_rows(slab, sums, H: tl.constexpr, ROW: tl.constexpr, FIRST: tl.constexpr, HEIGHTS: tl.constexpr,
             WIDTHS: tl.constexpr):  # fmt: skip
    """slab[b, c] + H[ROW][FIRST + b] * sums[c], blocks of the outputs b x c of a cell."""
    result = ()
    for b in tl.static_range(HEIGHTS):
        for c in tl.static_range(WIDTHS):
            result = result + plus((slab[b * WIDTHS + c],), H[ROW][FIRST + b], sums[c])
    return result


@triton.jit
def add_factored(slab, sums, factors, HEIGHTS: tl.constexpr, WIDTHS: tl.constexpr):
    """slab[b, c] + factors[b] * sums[c]: `add_rows` with the HEIGHTS numbers in memory."""
    result = ()
    for b in tl.static_range(HEIGHTS):
        factor = tl.load(factors + b)
        for c in tl.static_range(WIDTHS):
            result = result + (slab[b * WIDTHS + c] + factor * sums[c],)
    return result


@triton.jit
def finish(
    cells, y, bias, residual, corner, residual_corner, d, h, w, channel, here, size_d, size_h, size_w, channels,
    stride_d, stride_h, stride_w, residual_d, residual_h, residual_w,
    HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    DEPTHS: tl.constexpr, HEIGHTS: tl.constexpr, WIDTHS: tl.constexpr,
):  # fmt: skip
    """Bias, residual and ReLU (which keeps NaN), in this order, and the store of what lies inside y."""
    columns = channel < channels
    if HAS_BIAS:
        shift = tl.load(bias + channel, mask=columns, other=0.0).to(tl.float32)[None, :]
    for a in tl.static_range(DEPTHS):
        for b in tl.static_range(HEIGHTS):
            for c in tl.static_range(WIDTHS):
                value = cells[(a * HEIGHTS + b) * WIDTHS + c]
                inside = here & (d + a >= 0) & (d + a < size_d) & (h + b >= 0) & (h + b < size_h)
                inside = (inside & (w + c >= 0) & (w + c < size_w))[:, None] & columns[None, :]
                if HAS_BIAS:
                    value += shift
                if HAS_RESIDUAL:
                    offset = tl.cast(residual_d, tl.int64) * a + b * residual_h + c * residual_w
                    at = residual_corner[:, None] + offset + channel[None, :]
                    value += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
                if RELU:
                    value = tl.where(value < 0.0, 0.0, value)
                offset = tl.cast(stride_d, tl.int64) * a + b * stride_h + c * stride_w
                at = corner[:, None] + offset + channel[None, :]
                tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def scatter(
    m, y, bias, residual, slots, rows, shifts, factors, heights, row_count, stride_n, stride_d, stride_h, stride_w,
    residual_n, residual_d, residual_h, residual_w, size_d, size_h, size_w, channels, grid_d, grid_h, grid_w, cells_d,
    cells_h, cells_w, start_d, start_h, start_w, first_cell, cells, first_tile, m_plane,
    HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RELU: tl.constexpr, STEPS: tl.constexpr, DEPTHS: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, ROLLED: tl.constexpr, TILES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The adjoint of `gather`: y[start + STEPS * cell + a] = sum over tiles and p of MATRIX_p[...] m[slots[p], tile].

    A cell holds the outputs [STEPS] that no neighbour shares; tile `cell - s` reaches it with the matrices' columns
    from s * STEPS on. H and W [positions][shifts * STEPS]; along d, row r of the tables is one of the pairs of a shift
    shifts[r] and a position rows[r], with numbers factors[r, STEPS]. ROLLED: along h, too, there is a loop at run time,
    with H as a table `heights`. A program forms DEPTHS of a cell's planes. m [K, tiles, channels] are the tiles from
    `first_tile` on, y's cells those from `first_cell` on.
    """
    TH: tl.constexpr = len(H)
    TW: tl.constexpr = len(W)
    SHIFTS_H: tl.constexpr = len(H[0]) // STEPS[1]
    SHIFTS_W: tl.constexpr = len(W[0]) // STEPS[2]
    local = tl.program_id(0) * TILES + tl.arange(0, TILES)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    part = tl.program_id(2) * DEPTHS
    n, d, h, w = place(first_cell + local, cells_d, cells_h, cells_w)
    here, columns = local < cells, (channel < channels)[None, :]
    plane = tl.cast(m_plane, tl.int64)
    nothing = tl.full((TILES, CHANNELS), 0.0, tl.float32)
    total = ()
    for _ in tl.static_range(DEPTHS * STEPS[1] * STEPS[2]):
        total = total + (nothing,)
    for r in range(row_count):
        i, tile_d = tl.load(rows + r), d - tl.load(shifts + r)
        slab = ()
        for _ in tl.static_range(STEPS[1] * STEPS[2]):
            slab = slab + (nothing,)
        if ROLLED:
            for line in range(TH * SHIFTS_H):
                j, s = line // SHIFTS_H, line % SHIFTS_H
                for u in tl.static_range(SHIFTS_W):
                    at = n, tile_d, h - s, w - u
                    values = loaded(m, slots + (i * TH + j) * TW, at, here, columns, channel, grid_d, grid_h, grid_w,
                                    first_tile, channels, plane, TW)  # fmt: skip
                    sums = across(values, W, u * STEPS[2], STEPS[2])
                    slab = add_factored(slab, sums, heights + line * STEPS[1], STEPS[1], STEPS[2])
        else:
            for j in tl.static_range(TH):
                for s in tl.static_range(SHIFTS_H):
                    for u in tl.static_range(SHIFTS_W):
                        at = n, tile_d, h - s, w - u
                        values = loaded(m, slots + (i * TH + j) * TW, at, here, columns, channel, grid_d, grid_h,
                                        grid_w, first_tile, channels, plane, TW)  # fmt: skip
                        sums = across(values, W, u * STEPS[2], STEPS[2])
                        slab = add_rows(slab, sums, H, j, s * STEPS[1], STEPS[1], STEPS[2])
        total = add_factored(total, slab, factors + r * STEPS[0] + part, DEPTHS, STEPS[1] * STEPS[2])
    d, h, w = d * STEPS[0] + start_d + part, h * STEPS[1] + start_h, w * STEPS[2] + start_w
    corner = corner_of(n, d, h, w, stride_n, stride_d, stride_h, stride_w)
    other = corner_of(n, d, h, w, residual_n, residual_d, residual_h, residual_w)
    finish(total, y, bias, residual, corner, other, d, h, w, channel, here, size_d, size_h, size_w, channels, stride_d,
           stride_h, stride_w, residual_d, residual_h, residual_w, HAS_BIAS, HAS_RESIDUAL, RELU, DEPTHS, STEPS[1],
           STEPS[2])  # fmt: skip
