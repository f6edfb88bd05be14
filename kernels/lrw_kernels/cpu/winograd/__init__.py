"""Winograd convolution and its gradients in generic LLVM vector code, through Numba.

From the bottom: `line` (one axis as straight-line arithmetic), `recipe` and `patch` (a tile's transform), `intrinsics`,
`kernels` and `items` (Numba functions), `library` (their addresses), `plan` (what suits which processor), `side` (a
transform), `conv` (a whole layer).
"""
