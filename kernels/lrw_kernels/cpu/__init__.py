"""Vector kernels for CPUs: Winograd convolution and its gradients in generic LLVM vector code, through Numba.

From the bottom: `line` (one axis as straight-line arithmetic), `vector` (the algebra in LLVM IR), `recipe` and `patch`
(a tile's transform), `micro` (products), `intrinsics`, `kernels` and `ranges` (Numba functions), `library` (their
addresses), `machine` and `plan` (what suits which processor), `arena`, `threads`, `layout`, `conv`
(a whole layer); `operators` is what networks need besides.
Importing this imports nothing; Numba is needed only where a kernel has never been compiled.
"""
