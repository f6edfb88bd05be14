"""The records kernels read: everything about a call that is data. Addresses and strides are bytes, all int64."""

import numpy as np


def _record(names: str) -> np.dtype:  # type: ignore[type-arg]
    return np.dtype([(name, np.int64) for name in names.split()])


# One transform between activations and the domain. `data` [n, d, h, w, channels] with its strides and sizes; the tile
# grid, its start and step in activations; `vectors` of channels. In the domain, [positions][panels][vectors][rows]
# vectors: `panel` bytes from panel to panel of `rows` tiles, `table` the offsets of the positions. `zeros` is a row of
# zeros for rows outside; `kernel` the transform itself; `split` how many vectors a work item takes, `base` the first
# tile of the block. bias, residual and relu: the epilogue of an output transform.
SIDE = _record(
    "data stride_n stride_d stride_h stride_w size_d size_h size_w "
    "grid_d grid_h grid_w start_d start_h start_w step_d step_h step_w "
    "channels vectors split run tiles rows panel shift table domain zeros kernel base bias residual relu"
)

# The products of all positions: V and M with the bytes from position to position and from panel to panel; packed
# weights likewise; `steps` the length of the sum, `tiles` of the block, `panels` of weights, `split` how many a work
# item takes, `vectors` of C in all.
PRODUCTS = _record(
    "v v_plane v_panel m m_plane m_panel m_vector weights weights_plane weights_panel "
    "steps tiles panels split vectors panel_vectors kernel positions"
)

# A whole convolution, block by block of `tiles` tiles, each block by one thread: input transform, then products and
# output transform for `panels` of weights at a time. V and M lie in the thread's scratch from `v_at` and `m_at` on.
BLOCKS = _record("gather products scatter all_tiles tiles panels v_at m_at scratch_at zero_at zero_bytes")

# A parallel region: `items` handed out `chunk` at a time to whoever comes; every thread takes a slice of scratch.
REGION = _record("kernel job items chunk scratch scratch_bytes arrived next")

# A matrix [outer, rows, columns] copied or transposed, piece by piece: a work item is `row_chunk` rows and
# `column_chunk` columns, whose result begins `target_i`, `target_j` bytes per piece further on.
MATRIX = _record(
    "source target source_outer target_outer source_row target_row rows columns row_chunk column_chunk target_i target_j"
)
