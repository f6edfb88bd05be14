"""What every library computes a layer on, and what should come out."""

import numpy as np
import torch
import torch.nn.functional as F

from bench.arm.program import Doubles, Floats
from bench.layers import Layer


def values(layer: Layer) -> tuple[Floats, Floats]:
    """Input [1, Cin, D, H, W] and weight [Cout, Cin, 3, 3, 3] of a layer: normal, the same at every call."""
    draw = np.random.default_rng(0).standard_normal
    x = draw((1, layer.cin, *layer.size), np.float32)
    weight = draw((layer.cout, layer.cin, 3, 3, 3), np.float32) / np.float32(27 * layer.cin) ** 0.5
    return x, weight.astype(np.float32)


def convolved(x: Floats, weight: Floats) -> Doubles:
    """The layer's output [Cout, D, H, W], directly and in float64."""
    return F.conv3d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), padding=1)[0].numpy()
