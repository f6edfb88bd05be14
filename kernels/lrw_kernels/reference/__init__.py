"""Plain Numba kernels, float32 or float64: the reference every fast kernel is judged by."""

from lrw_kernels.reference.conv import (
    column_products,
    direct_conv3d,
    filter_transform,
    input_transform,
    input_transform_adjoint,
    output_transform,
    output_transform_adjoint,
    winograd_conv3d,
    winograd_input_grad,
    winograd_weight_grad,
)

__all__ = [
    "column_products",
    "direct_conv3d",
    "filter_transform",
    "input_transform",
    "input_transform_adjoint",
    "output_transform",
    "output_transform_adjoint",
    "winograd_conv3d",
    "winograd_input_grad",
    "winograd_weight_grad",
]
