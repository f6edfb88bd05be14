"""GPU kernels that multiply, one product a position: alone, or with the way out of the Winograd domain behind it."""

from lrw_kernels.triton.jit import tl, triton
from lrw_kernels.triton.transforms import INTERPRETED, corner_of, finish, place, rounded


@triton.jit
def cut(value):
    """float32 without what TF32 has no bits for: what tensor cores make of their operands."""
    return (value.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def dot(a, b, c, PRECISION: tl.constexpr):
    """c + a b, of numbers or of their bits."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
        if PRECISION == "tf32":
            a, b = cut(a), cut(b)
        return tl.dot(a, b, c, input_precision="ieee")
    return tl.dot(a, b, c, input_precision=PRECISION)


@triton.jit
def operand(u, out, steps, columns, u_plane, u_step, u_column, out_plane, STEPS: tl.constexpr, COLUMNS: tl.constexpr):
    """out [K, steps, columns], with steps one behind the other, = u of any strides, rounded to TF32."""
    step = tl.program_id(0) * STEPS + tl.arange(0, STEPS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    position = tl.program_id(2).to(tl.int64)
    source = u + position * u_plane + step.to(tl.int64)[:, None] * u_step + column.to(tl.int64)[None, :] * u_column
    target = out + position * out_plane + column.to(tl.int64)[None, :] * steps + step[:, None]
    there = (step < steps)[:, None] & (column < columns)[None, :]
    tl.store(target, rounded(tl.load(source, mask=there, other=0.0)), mask=there)


@triton.jit
def products(
    a, b, c, rows, columns, steps, share, a_plane, b_plane, a_row, a_step, b_step, b_column, splits_plane,
    c_plane, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEPS: tl.constexpr, GROUP: tl.constexpr, WHOLE: tl.constexpr,
    ADD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """c[z, p] = a[p] b[p], `rows` x `columns`, one product a position p, summed over the z-th `share` of the steps.

    a and b are of any strides, c [splits, positions, rows, columns] with whole products. ADD: to what is in c. WHOLE:
    shares and steps are multiples of STEPS. Blocks go in bands of GROUP rows, so that what a band reads of b stays in
    the second-level cache.
    """
    position, split = tl.program_id(1).to(tl.int64), tl.program_id(2)
    across, down = tl.cdiv(columns, COLUMNS), tl.cdiv(rows, ROWS)
    band = tl.program_id(0) // (GROUP * across)
    height = min(down - band * GROUP, GROUP)
    inner = tl.program_id(0) % (GROUP * across)
    row = (band * GROUP + inner % height) * ROWS + tl.arange(0, ROWS)
    column = (inner // height) * COLUMNS + tl.arange(0, COLUMNS)
    step = split * share + tl.arange(0, STEPS)
    end = min(split * share + share, steps)
    left = a + position * a_plane + row.to(tl.int64)[:, None] * a_row + step.to(tl.int64)[None, :] * a_step
    right = b + position * b_plane + step.to(tl.int64)[:, None] * b_step + column.to(tl.int64)[None, :] * b_column
    row_there, column_there = (row < rows)[:, None], (column < columns)[None, :]
    target = c + split.to(tl.int64) * splits_plane + position * c_plane
    target += row.to(tl.int64)[:, None] * columns + column[None, :]
    if ADD:
        total = tl.load(target, mask=row_there & column_there, other=0.0)
    else:
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for at in range(split * share, end, STEPS):
        if WHOLE:
            p = tl.load(left, mask=row_there, other=0.0)
            q = tl.load(right, mask=column_there, other=0.0)
        else:
            there = at + tl.arange(0, STEPS) < end
            p = tl.load(left, mask=row_there & there[None, :], other=0.0)
            q = tl.load(right, mask=column_there & there[:, None], other=0.0)
        total = dot(p, q, total, PRECISION)
        left += STEPS * a_step
        right += STEPS * b_step
    tl.store(target, total.to(c.dtype.element_ty), mask=row_there & column_there)


@triton.jit
def products_scatter(
    v, u, y, bias, residual, factors, positions, v_plane, u_plane, u_step, u_column, stride_n, stride_d, stride_h,
    stride_w, residual_n, residual_d, residual_h, residual_w, size_d, size_h, size_w, steps, channels, grid_d, grid_h,
    grid_w, start_d, start_h, start_w, first, tiles,
    HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RELU: tl.constexpr, OUTPUTS: tl.constexpr, TILES: tl.constexpr,
    COLUMNS: tl.constexpr, STEPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`products` and a `scatter` whose tiles do not overlap, at once: no products in memory. v [K, tiles, steps].

    Sums of a tile's OUTPUTS stay in registers while positions are gone through; factors [positions, outputs] say what
    each adds to each. A product's `steps` (at most STEPS) are one step here: without branches a loop is pipelined.
    """
    COUNT: tl.constexpr = OUTPUTS[0] * OUTPUTS[1] * OUTPUTS[2]
    across = tl.cdiv(channels, COLUMNS)
    local = tl.program_id(0) // across * TILES + tl.arange(0, TILES)
    channel = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    step = tl.arange(0, STEPS)
    here = local < tiles
    left = v + local.to(tl.int64)[:, None] * steps + step[None, :]
    right = u + step[:, None] * u_step + channel[None, :] * u_column
    left_there, right_there = (
        here[:, None] & (step < steps)[None, :],
        (step < steps)[:, None] & (channel < channels)[None, :],
    )
    plane = tl.cast(v_plane, tl.int64)
    nothing = tl.zeros((TILES, COLUMNS), tl.float32)
    total = ()
    for _ in tl.static_range(COUNT):
        total = total + (nothing,)
    for p in range(positions):
        values = tl.load(left + plane * p, mask=left_there, other=0.0)
        weights = tl.load(right + tl.cast(p, tl.int64) * u_plane, mask=right_there, other=0.0)
        product = dot(values, weights, nothing, PRECISION)
        sums = ()
        for o in tl.static_range(COUNT):
            sums = sums + (total[o] + tl.load(factors + p * COUNT + o) * product,)
        total = sums
    n, d, h, w = place(first + local, grid_d, grid_h, grid_w)
    d, h, w = d * OUTPUTS[0] + start_d, h * OUTPUTS[1] + start_h, w * OUTPUTS[2] + start_w
    corner = corner_of(n, d, h, w, stride_n, stride_d, stride_h, stride_w)
    other = corner_of(n, d, h, w, residual_n, residual_d, residual_h, residual_w)
    finish(total, y, bias, residual, corner, other, d, h, w, channel, here, size_d, size_h, size_w, channels, stride_d,
           stride_h, stride_w, residual_d, residual_h, residual_w, HAS_BIAS, HAS_RESIDUAL, RELU, OUTPUTS[0],
           OUTPUTS[1], OUTPUTS[2])  # fmt: skip
