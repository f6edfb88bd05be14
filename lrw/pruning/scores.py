"""What one observation adds to a block's score, from its weights and their gradient.

A score that is to compare columns must not depend on how factors are split between G and B (row norms of G differ by
36 times in 3D F(4,3)): |u dL/du| and |u| F do not; plain |u| does and mostly ranks the convention. Each takes U and
dL/dU [K, Cin, Cout], F [K] and the blocks to score. `weighted_sum` is ours, and so is the choice of `product`: the
paper's own combination of magnitude and gradient is not known.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lrw.pruning.granularity import COLUMN, Granularity

Score = Callable[..., Tensor]


def product(u: Tensor, du: Tensor, importance: Tensor, blocks: Granularity = COLUMN) -> Tensor:
    """Sum of |u dL/du|, magnitude times gradient; the default."""
    return blocks.sums((u * du).abs())


def taylor(u: Tensor, du: Tensor, importance: Tensor, blocks: Granularity = COLUMN) -> Tensor:
    """|sum of u dL/du|, the first-order change of the loss when the whole block goes."""
    return blocks.sums(u * du).abs()


def weighted_magnitude(u: Tensor, du: Tensor, importance: Tensor, blocks: Granularity = COLUMN) -> Tensor:
    """|u|_2 F, the RMS output change for white input (Yu, Park, Naumov, arXiv 1901.02132); no gradient."""
    return blocks.sums(u * u).sqrt() * importance[:, None, None]


def weighted_sum(u: Tensor, du: Tensor, importance: Tensor, blocks: Granularity = COLUMN) -> Tensor:
    """|u|_2 F plus |dL/du|_2 / F, each as a share of the layer's mean: magnitude and gradient added up."""
    f = importance[:, None, None]
    magnitudes, gradients = blocks.sums(u * u).sqrt() * f, blocks.sums(du * du).sqrt() / f
    return magnitudes / _mean(magnitudes) + gradients / _mean(gradients)


def magnitude(u: Tensor, du: Tensor, importance: Tensor, blocks: Granularity = COLUMN) -> Tensor:
    """|u|_2 alone. Depends on the scaling of G against B; here for comparison."""
    return blocks.sums(u * u).sqrt()


SCORES: dict[str, Score] = {f.__name__: f for f in (product, taylor, weighted_magnitude, weighted_sum, magnitude)}


def _mean(values: Tensor) -> Tensor:
    return values.mean().clamp_min(torch.finfo(values.dtype).tiny)
