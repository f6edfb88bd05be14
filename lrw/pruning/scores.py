"""What one observation adds to a column's score, from its weights and their gradient.

A score that is to compare columns must not depend on how factors are split between G and B (row norms of G differ by
144x in 3D F(4,3)): |u dL/du| and |u| F do not; plain |u| does and mostly ranks the convention.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor, Tensor], Tensor]


def product(u: Tensor, du: Tensor, importance: Tensor) -> Tensor:
    """[K]: sum over channel pairs of |u dL/du|, magnitude times gradient: our default (the paper's is unknown)."""
    return (u * du).abs().sum(dim=(1, 2))


def taylor(u: Tensor, du: Tensor, importance: Tensor) -> Tensor:
    """[K]: |sum of u dL/du|, the first-order change of the loss when the whole column goes."""
    return (u * du).sum(dim=(1, 2)).abs()


def weighted_magnitude(u: Tensor, du: Tensor, importance: Tensor) -> Tensor:
    """[K]: |u|_2 F, the RMS output change for white input (Yu, Park, Naumov, arXiv 1901.02132); no gradient."""
    return torch.linalg.vector_norm(u, dim=(1, 2)) * importance


def magnitude(u: Tensor, du: Tensor, importance: Tensor) -> Tensor:
    """[K]: |u|_2 alone. Depends on the scaling of G against B; here for comparison."""
    return torch.linalg.vector_norm(u, dim=(1, 2))


SCORES: dict[str, Score] = {f.__name__: f for f in (product, taylor, weighted_magnitude, magnitude)}
