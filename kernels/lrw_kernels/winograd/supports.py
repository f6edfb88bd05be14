"""Which taps of a spatial filter each Winograd coefficient depends on."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lrw_kernels.winograd.tile import Tile


@lru_cache(maxsize=64)
def supports(tile: Tile) -> npt.NDArray[np.bool_]:
    """[T, r^3]: where G_d x G_h x G_w (Kronecker product, exact) is not zero.

    A coefficient is exactly zero for certain if and only if all taps of its row are (Yu, Park, Naumov, arXiv
    1901.02132). Taps are row-major (d, h, w).
    """
    d, h, w = (np.array([[value != 0 for value in row] for row in axis.G]) for axis in tile.axes)
    return np.kron(np.kron(d, h), w)
