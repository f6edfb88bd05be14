"""The records of the Winograd kernels: transforms, products, whole convolutions."""

from lrw_kernels.codegen.records import Record, fields


class Transform(Record):
    """One transform between activations and the domain.

    `data` [n, d, h, w, channels] with its strides and sizes; the tile grid, its start and step in activations;
    `vectors` of channels. In the domain, [positions][panels][vectors][rows] vectors: `panel` bytes from panel to panel
    of `rows` tiles, `table` the offsets of the positions. `zeros` is a row of zeros for rows outside, `constants`
    the recipe's; `kernel` the transform. A work item takes a `run` of tiles and `split` vectors, `shift` bytes apart
    in the domain; `base` is the first of the turn's `tiles`. bias, residual, and where
    `after` is not 0 a function of `parameters`, are the epilogue of an output transform. Where `sums` is not 0, the
    parts of `step.Sums` from there on are what it leaves for a norm, `sums_line` from vector to vector.
    """

    _fields_ = fields(
        "data stride_n stride_d stride_h stride_w size_d size_h size_w grid_d grid_h grid_w start_d start_h start_w "
        "step_d step_h step_w channels vectors split shift run base tiles rows panel table domain zeros constants "
        "kernel bias residual after parameters sums sums_line"
    )
    addresses = ("data", "table", "domain", "zeros", "constants", "kernel", "bias", "residual", "parameters", "sums")


class Products(Record):
    """The products of all positions.

    V and M with tables of where the positions lie in them, the bytes from panel to panel, `m_vector` from vector to
    vector; packed weights likewise, `weights_plane` from position to position; `terms` the length of the sum, `tiles`
    of the turn, `panels` of weights, of which a work item takes `split`; `vectors` of C in all, `panel_vectors` in a
    wide panel. `add`: whether dU is added to what is there.
    """

    _fields_ = fields(
        "v v_table v_panel m m_table m_panel m_vector weights weights_plane weights_panel "
        "terms tiles panels split vectors panel_vectors positions add kernel"
    )
    addresses = ("v", "v_table", "m", "m_table", "weights", "kernel")


class Tiles(Record):
    """A whole convolution, `tiles` at a turn, each turn by one thread: input transform, then for each of `parts` of
    output channels (whose records lie one after the other) products and output transform, `panels` of weights at a
    time. In the thread's scratch V lies from `v_at` on, M from `m_at`, the transforms' own scratch from `scratch_at`;
    M's first `zero_bytes` are zeroed first."""

    _fields_ = fields("gather parts products scatter all_tiles tiles panels v_at m_at scratch_at zero_bytes")
    addresses = ("gather", "products", "scatter")
