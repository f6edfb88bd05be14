"""The plain Numba kernels everything else is judged by.

Layouts: activations x, y [N, D, H, W, C]; the Winograd domain v, m [K, tiles, C] with tiles = N*nd*nh*nw, row-major;
transformed weights u [K, Cin, Cout]. Sums run in the arrays' own dtype. Scratch comes from the caller, nothing is
allocated and nothing raised, so that the undecorated bodies (`.py_func`) also lower to a library without a runtime.
"""

from lrw_kernels.reference.kernel import Kernel


@Kernel
def apply_along(matrix, src, dst, outer, inner):
    """dst[o, p, i] = sum_k matrix[p, k] src[o, k, i] on flat src [outer*n*inner] and dst [outer*rows*inner]."""
    rows, n = matrix.shape
    for o in range(outer):
        for p in range(rows):
            to = (o * rows + p) * inner
            for i in range(inner):
                dst[to + i] = 0
            for k in range(n):
                factor = matrix[p, k]
                if factor != 0:
                    start = (o * n + k) * inner
                    for i in range(inner):
                        dst[to + i] += factor * src[start + i]


@Kernel
def transform_patch(m_d, m_h, m_w, patch, scratch, channels):
    """Apply m_d, m_h, m_w [rows, n] to a patch [n_d, n_h, n_w, C]; the result [r_d, r_h, r_w, C] ends in `scratch`."""
    apply_along(m_d, patch, scratch, 1, m_h.shape[1] * m_w.shape[1] * channels)
    apply_along(m_h, scratch, patch, m_d.shape[0], m_w.shape[1] * channels)
    apply_along(m_w, patch, scratch, m_d.shape[0] * m_h.shape[0], channels)


@Kernel
def load_patch(x, n, d, h, w, size_d, size_h, size_w, patch):
    """patch [size_d, size_h, size_w, C] = x[n] from (d, h, w) on, zero outside x."""
    channels = x.shape[4]
    at = 0
    for i in range(d, d + size_d):
        for j in range(h, h + size_h):
            for k in range(w, w + size_w):
                inside = 0 <= i < x.shape[1] and 0 <= j < x.shape[2] and 0 <= k < x.shape[3]
                for c in range(channels):
                    patch[at] = x[n, i, j, k, c] if inside else 0
                    at += 1


@Kernel
def add_patch(y, n, d, h, w, size_d, size_h, size_w, patch):
    """y[n] from (d, h, w) on += patch [size_d, size_h, size_w, C]; what falls outside y is dropped."""
    channels = y.shape[4]
    at = 0
    for i in range(d, d + size_d):
        for j in range(h, h + size_h):
            for k in range(w, w + size_w):
                if 0 <= i < y.shape[1] and 0 <= j < y.shape[2] and 0 <= k < y.shape[3]:
                    for c in range(channels):
                        y[n, i, j, k, c] += patch[at + c]
                at += channels


@Kernel
def gather_transform(x, m_d, m_h, m_w, start, step, grid, kept, patch, scratch, v):
    """v[k, tile] = position kept[k] of (m_d x m_h x m_w) applied to the patch of x at start + tile * step.

    Matrices [rows, n] per axis take n values of x to `rows` positions. With B this is the input transform, with A the
    adjoint of the output transform, with G on one tile the filter transform. patch and scratch each hold
    max(rows, n) per axis, times C.
    """
    channels = x.shape[4]
    tile = 0
    for n in range(x.shape[0]):
        for d in range(grid[0]):
            for h in range(grid[1]):
                for w in range(grid[2]):
                    at_d, at_h, at_w = start[0] + d * step[0], start[1] + h * step[1], start[2] + w * step[2]
                    load_patch(x, n, at_d, at_h, at_w, m_d.shape[1], m_h.shape[1], m_w.shape[1], patch)
                    transform_patch(m_d, m_h, m_w, patch, scratch, channels)
                    for k in range(kept.shape[0]):
                        for c in range(channels):
                            v[k, tile, c] = scratch[kept[k] * channels + c]
                    tile += 1


@Kernel
def scatter_transform(v, m_d, m_h, m_w, start, step, grid, kept, patch, scratch, y):
    """The adjoint of `gather_transform`: y at start + tile * step += (m_d x m_h x m_w) applied to v's positions.

    Matrices [rows, n] take n positions to `rows` values of y; positions that are not kept count as zero. y is zeroed
    first. With A^T this is the output transform, with B^T the adjoint of the input transform, whose patches overlap.
    """
    channels = y.shape[4]
    positions = m_d.shape[1] * m_h.shape[1] * m_w.shape[1]
    for n in range(y.shape[0]):
        y[n] = 0
    tile = 0
    for n in range(y.shape[0]):
        for d in range(grid[0]):
            for h in range(grid[1]):
                for w in range(grid[2]):
                    for i in range(positions * channels):
                        patch[i] = 0
                    for k in range(kept.shape[0]):
                        for c in range(channels):
                            patch[kept[k] * channels + c] = v[k, tile, c]
                    transform_patch(m_d, m_h, m_w, patch, scratch, channels)
                    at_d, at_h, at_w = start[0] + d * step[0], start[1] + h * step[1], start[2] + w * step[2]
                    add_patch(y, n, at_d, at_h, at_w, m_d.shape[0], m_h.shape[0], m_w.shape[0], scratch)
                    tile += 1


@Kernel
def column_products(a, b, out):
    """out[k] = a[k] b[k] for a [K, I, J], b [K, J, L], out [K, I, L]."""
    for k in range(a.shape[0]):
        for i in range(a.shape[1]):
            for n in range(b.shape[2]):
                out[k, i, n] = 0
            for j in range(a.shape[2]):
                factor = a[k, i, j]
                for n in range(b.shape[2]):
                    out[k, i, n] += factor * b[k, j, n]


@Kernel
def direct_conv3d(x, w, padding, y):
    """Direct stride-1 convolution (cross-correlation, as torch): x [N,D,H,W,Cin], w [rd,rh,rw,Cin,Cout]."""
    for n in range(y.shape[0]):
        for d in range(y.shape[1]):
            for h in range(y.shape[2]):
                for k in range(y.shape[3]):
                    for o in range(y.shape[4]):
                        y[n, d, h, k, o] = 0
                    for i in range(w.shape[0]):
                        for j in range(w.shape[1]):
                            for l in range(w.shape[2]):  # noqa: E741
                                p, q, s = d + i - padding[0], h + j - padding[1], k + l - padding[2]
                                if 0 <= p < x.shape[1] and 0 <= q < x.shape[2] and 0 <= s < x.shape[3]:
                                    for c in range(x.shape[4]):
                                        for o in range(y.shape[4]):
                                            y[n, d, h, k, o] += x[n, p, q, s, c] * w[i, j, l, c, o]
