"""From a trained layer to an ahead-of-time compiled library with a C header."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lrw.nn import WinogradLayer
from lrw_kernels.winograd.tile import triple

if TYPE_CHECKING:
    from lrw_kernels.aarch64 import Artifacts


def export_layer(
    layer: WinogradLayer,
    input_size: int | Sequence[int],
    out: str | os.PathLike[str],
    *,
    name: str = "layer",
    target: str = "aarch64-linux-gnu",
    batch: int = 1,
) -> "Artifacts":
    """Compile one Winograd layer for `target`: object, header, weights, manifest and, with a linker, a library.

    input_size [3] is the (D, H, W) the library will take; activations are float32 [batch, D, H, W, C]. Raises
    ValueError for arguments that are not accepted, RuntimeError with the compiler's message where lowering fails.
    """
    from lrw_kernels.aarch64 import LayerSpec, build_layer

    if not isinstance(layer, WinogradLayer):
        raise ValueError(f"layer: a {type(layer).__name__}; accepted are lrw's Winograd layers")
    geometry = layer.geometry
    if geometry.rectified:
        raise ValueError("layer: a Winograd-ReLU layer; this version exports layers without")
    spec = LayerSpec(
        name=name,
        tile=geometry.tile,
        padding=geometry.padding,
        input_size=triple(input_size, "input_size"),
        cin=layer.in_channels,
        cout=layer.out_channels,
        kept=geometry.positions,
        bias=layer.bias is not None,
        batch=batch,
    )
    u = layer.weights().detach().to("cpu").float().numpy()
    bias = None if layer.bias is None else layer.bias.detach().to("cpu").float().numpy()
    return build_layer(spec, np.ascontiguousarray(u), bias, out, target=target)
