"""The records of the operators' kernels; addresses and strides are bytes, all int64. x goes in, y comes out."""

from lrw_kernels.codegen.records import Record, fields

PIECE_FIELDS = 5  # of a run of a patch: d, h and number in the row of x where it starts; how many; where in the chunk
PLACE_FIELDS = 6  # of an output pixel: its patch's address, plane, row, number in the row; output, residual
SCALES = 3  # vectors that normalise a sample: centre, scale, shift
BLOCK_FIELDS = 4  # of a block of output pixels: input, output and residual of the first; how many are done already


class Box(Record):
    """Output pixels that meet the same taps, none of which lies outside of x: lines of `pixels`, in blocks of `height`,
    the last of which begins where it ends with the line; inner, middle and outer axes of lines. x, y and residual are
    those of the first pixel, x at the first number of its sum; `blocks` in all. `end` counts the
    work items' shares of blocks up to this box's last one.

    Entries of the sum are pairs: bytes from a pixel's x on, and the row of weights; first `runs`, of as many numbers
    and rows as a vector has, one after the other, then `singles`, of one.
    """

    _fields_ = fields(
        "end blocks height pixels inner middle outer x x_pixel x_inner x_middle x_outer y y_pixel y_inner y_middle "
        "y_outer residual residual_pixel residual_inner residual_middle residual_outer entries runs singles"
    )
    addresses = ("x", "y", "residual", "entries")


class Boxes(Record):
    """A convolution as products of weights with x where it lies, box by box.

    A work item takes `run` of the `shares`, each of `share` of a box's blocks and `split` of the weights' `panels`;
    panel_vectors and vectors of channels as in Products, `weights_vector` bytes a vector. In scratch come the blocks'
    places, from `m_at` on the products, `m_block` from block to block. Then bias, residual (if not 0) and, where
    `after` is not 0, a function of `parameters`. Every `piece` channels of a pixel lie in one of `places`: bytes from
    where y and the residual do.
    """

    _fields_ = fields(
        "boxes residual bias after parameters weights weights_vector panels split vectors panel_vectors channels share "
        "shares run m_at m_block places piece"
    )
    addresses = ("boxes", "residual", "bias", "parameters", "weights", "places")


class Patches(Record):
    """A convolution as products: patches of x gathered to [pixels, sum], times packed weights [sum, channels].

    The patch of output pixel (d, h, w) starts at start + step * (d, h, w) of x, whose rows have `row_floats` numbers,
    `pixel_floats` from pixel to pixel. It is made of pieces, `taps.Pieces`: those of chunk i of the sum, which has
    `terms`, are pieces[chunk_table[i]] up to pieces[chunk_table[i + 1]]. A work item takes `share` of the output's
    `pixels` and `split` of the weights' `panels`; panel_vectors and vectors of channels as in Products. In scratch
    come the pixels' places, from `listed_at` on the numbers of some of them, from `a_at` on the patches, from `m_at`
    on the products, `m_panel` from panel to panel of pixels, from `beside_at` on those of a chunk alone. Then bias,
    residual (if not 0) and, where `after` is not 0, a function of `parameters`.
    """

    _fields_ = fields(
        "x x_n x_d x_h x_w size_d size_h size_w start_d start_h start_w step_d step_h step_w row_floats pixel_floats "
        "y y_n y_d y_h y_w out_d out_h out_w residual residual_n residual_d residual_h residual_w bias after "
        "parameters chunk_table pieces chunks terms weights weights_panel panels split vectors panel_vectors channels "
        "pixels share listed_at a_at m_at m_panel beside_at"
    )
    addresses = ("x", "y", "residual", "bias", "parameters", "chunk_table", "pieces", "weights")


class Depthwise(Record):
    """A convolution in groups of a few channels: taps [taps_d, taps_h, taps_w], `by` apart in x, the first one of
    output pixel (d, h, w) at start + step * (d, h, w); weights [taps, C of a group, C padded], `weights_tap` bytes a
    tap, `weights_channel` each of the group's. A work item is a row of output pixels and `split` channels. Then bias,
    residual (if not 0) and, where `after` is not 0, a function of `parameters`."""

    _fields_ = fields(
        "x x_n x_d x_h x_w size_d size_h size_w start_d start_h start_w step_d step_h step_w by_d by_h by_w "
        "taps_d taps_h taps_w y y_n y_d y_h y_w out_d out_h out_w residual residual_n residual_d residual_h residual_w "
        "bias after parameters weights weights_tap weights_channel channels split"
    )
    addresses = ("x", "y", "residual", "bias", "parameters", "weights")


class Linear(Record):
    """Dot products of x [batch, terms] with the rows of a weight [channels, terms], `weights_row` bytes apart, along
    `chunk` of the terms at a time. A work item takes `outputs` of the channels and `block` samples; their sums are in
    scratch, `total` bytes from sample to sample. Then bias (whole vectors), residual (if not 0) and, where `after` is
    not 0, a function of `parameters`."""

    _fields_ = fields(
        "x x_n y y_n residual residual_n bias after parameters weights weights_row batch block channels outputs terms "
        "chunk total"
    )
    addresses = ("x", "y", "residual", "bias", "parameters", "weights")


class Pool(Record):
    """Windows of x: tables of where those of an axis start and end, and of what a mean divides by. A work item is a
    row of output pixels and `split` channels."""

    _fields_ = fields(
        "x x_n x_d x_h x_w y y_n y_d y_h y_w out_d out_h out_w starts_d starts_h starts_w ends_d ends_h ends_w "
        "counts_d counts_h counts_w channels split"
    )
    addresses = (
        *("x", "y", "starts_d", "starts_h", "starts_w", "ends_d", "ends_h", "ends_w"),
        *("counts_d", "counts_h", "counts_w"),
    )


class Resample(Record):
    """Trilinear: tables of an axis' lower and higher neighbours, and (float32) of the higher one's share. A work item
    is a row of output pixels."""

    _fields_ = fields(
        "x x_n x_d x_h x_w y y_n y_d y_h y_w out_d out_h out_w low_d low_h low_w high_d high_h high_w "
        "share_d share_h share_w channels"
    )
    addresses = (
        *("x", "y", "low_d", "low_h", "low_w", "high_d", "high_h", "high_w"),
        *("share_d", "share_h", "share_w"),
    )


class Gather(Record):
    """Planes and rows of x by tables, -1 for one outside, and `count` runs of each row: [to, from, numbers], the first
    two in bytes from the row's beginning, -1 for a run outside. What is outside is copied from `value`, as many
    float32 as the longest run has. A work item is a row of output pixels."""

    _fields_ = fields("x x_n x_d x_h x_w y y_n y_d y_h y_w out_d out_h out_w planes rows runs count value")
    addresses = ("x", "y", "planes", "rows", "runs", "value")


class Rows(Record):
    """Something done to every pixel: y = f(x, z). A work item is a row of out_w pixels of `channels`, or of what is
    left of `total` numbers where a row is just a piece of memory. `scale`, `shift` and `centre` are vectors [C],
    `scale_n` bytes apart for samples with their own; `parameters` are float32."""

    _fields_ = fields(
        "x x_n x_d x_h x_w z z_n z_d z_h z_w y y_n y_d y_h y_w out_d out_h out_w channels total "
        "scale shift centre scale_n parameters"
    )
    addresses = ("x", "z", "y", "scale", "shift", "centre", "parameters")


class Statistics(Record):
    """Mean and variance of groups of channels. First, by `rows` rows of a sample at a time, `step.Sums` in `parts`,
    vectors of `line` bytes, of the `channels` of so many pixels side by side (`times`). Then, from the parts of each
    sample, of `tiles` of its `sample_tiles` each: the centre, scale and shift that normalise, for so many pixels
    (`copies`), vectors of `result_line` bytes in `results`; of `groups` of `group_channels`, whose numbers are
    `numbers`. gain and offset [C] come on top, `epsilon` (float32) to the variance."""

    _fields_ = fields(
        "x x_n x_d x_h x_w out_d out_h out_w channels rows line times parts tiles sample_tiles numbers groups "
        "group_channels copies result_line results gain offset epsilon"
    )
    addresses = ("x", "parts", "results", "gain", "offset", "epsilon")
