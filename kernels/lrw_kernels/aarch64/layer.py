"""The layer as one Python function for Numba: the reference kernels in turn, everything but data frozen.

Imports Numba: only the lowering child (`lower.main`) comes here.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import get_cfarray_intrinsic

from lrw_kernels.aarch64.spec import FLOAT_BYTES, LayerSpec
from lrw_kernels.reference import kernels

# view(pointer, shape), a C-ordered array: what numba.carray does, but it compiles without Numba's runtime.
view: Any = cast(Any, get_cfarray_intrinsic)("C", None)


def _offset(typing_context: Any, pointer: Any, count: Any) -> tuple[Any, Callable[..., Any]]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.int64), generate


# offset(pointer, count): the address `count` elements further on.
offset: Any = intrinsic(_offset)


def layer_function(spec: LayerSpec) -> Callable[[Any, Any, Any, Any], None]:
    """run(x, y, weights, workspace) of four float32 pointers, to be compiled; layouts as in `LayerSpec`.

    Numba turns what the closure holds into constants: matrices and kept positions become read-only data,
    shapes and offsets immediates. The kernels zero what they sum into, so the caller initialises nothing.
    """
    gather, products, scatter = kernels.gather_transform, kernels.column_products, kernels.scatter_transform
    b_d, b_h, b_w = (axis.array("B", np.float32) for axis in spec.tile.axes)
    a_d, a_h, a_w = (_transposed(axis.array("A", np.float32)) for axis in spec.tile.axes)
    in_start, out_start = spec.tile.starts(spec.padding), spec.tile.starts()
    step, grid, kept = spec.tile.outputs, spec.tile.grid(spec.output_size), np.array(spec.kept, np.int64)
    x_shape, y_shape, u_shape = spec.input_shape, spec.output_shape, spec.weight_shape
    v_shape, m_shape = (len(spec.kept), spec.tiles, spec.cin), (len(spec.kept), spec.tiles, spec.cout)
    patch_shape = (spec.tile.positions * max(spec.cin, spec.cout),)
    at_v, at_m, at_patch, at_scratch, _ = (byte // FLOAT_BYTES for byte in spec.workspace_offsets)
    at_u, at_bias, _ = (byte // FLOAT_BYTES for byte in spec.weight_offsets)
    has_bias, cout, outputs = spec.bias, spec.cout, int(np.prod(y_shape[:-1]))

    def run(x: Any, y: Any, weights: Any, workspace: Any) -> None:
        v, m = view(offset(workspace, at_v), v_shape), view(offset(workspace, at_m), m_shape)
        patch = view(offset(workspace, at_patch), patch_shape)
        scratch = view(offset(workspace, at_scratch), patch_shape)
        gather(view(x, x_shape), b_d, b_h, b_w, in_start, step, grid, kept, patch, scratch, v)
        products(v, view(offset(weights, at_u), u_shape), m)
        scatter(m, a_d, a_h, a_w, out_start, step, grid, kept, patch, scratch, view(y, y_shape))
        if has_bias:
            out, bias = view(y, (outputs, cout)), view(offset(weights, at_bias), (cout,))
            for i in range(outputs):
                for c in range(cout):
                    out[i, c] += bias[c]

    return run


def _transposed(matrix: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.ascontiguousarray(matrix.T)
