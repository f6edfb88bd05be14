"""Half precision, for backends that compute in float32 and float64 only."""

import torch
from torch import Tensor


def widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the widest of their dtypes, float32 at least, contiguous where that took a copy."""
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    return tuple(tensor.to(dtype) for tensor in tensors)
