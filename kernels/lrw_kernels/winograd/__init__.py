"""The maths of Winograd convolution: exact transforms, tiles, columns, cost and error (pure Python and NumPy)."""

from lrw_kernels.winograd.columns import Block, kept_positions
from lrw_kernels.winograd.cost import Cost, column_cost, direct_cost, winograd_cost
from lrw_kernels.winograd.error import domain_error, importance, output_gram, output_norms, spatial_error
from lrw_kernels.winograd.points import default_points
from lrw_kernels.winograd.supports import supports
from lrw_kernels.winograd.tile import Tile
from lrw_kernels.winograd.transform import Transform

__all__ = [
    "Block",
    "Cost",
    "Tile",
    "Transform",
    "column_cost",
    "default_points",
    "direct_cost",
    "domain_error",
    "importance",
    "kept_positions",
    "output_gram",
    "output_norms",
    "spatial_error",
    "supports",
    "winograd_cost",
]
