"""What torch's settings say of float32 products on NVIDIA GPUs: plain, or rounded to TF32 for tensor cores."""

from typing import Any, Literal

import torch

Precision = Literal["ieee", "tf32", "half"]
"""Of products: float32 throughout, float32 with TF32 tensor cores, or 16-bit numbers summed in float32."""


def of_convolutions(dtype: torch.dtype) -> Precision:
    """As torch's own convolutions of tensors of `dtype` (float32, bfloat16, float16) would have it."""
    if dtype != torch.float32:
        return "half"
    cudnn = torch.backends.cudnn
    return "tf32" if _takes_tf32(getattr(cudnn, "conv", None), cudnn) else "ieee"


def matmuls_are_plain() -> bool:
    """Whether torch.bmm keeps float32."""
    return not _takes_tf32(torch.backends.cuda.matmul, torch.backends.cuda.matmul)


def _takes_tf32(newer: Any, older: Any) -> bool:
    """By the newer setting (torch 2.9), which may leave it to those above it, or by the older one, where it may not be
    read once the newer was written."""
    settings = [getattr(place, "fp32_precision", None) for place in (newer, torch.backends)]
    if settings[0] is None:
        return bool(older.allow_tf32)
    return next((setting for setting in settings if setting != "none"), "ieee") == "tf32"
