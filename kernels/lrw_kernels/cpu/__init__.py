"""Vector kernels for CPUs and their builders: `winograd` convolution, and the other `operators` of networks.

Both are made of the steps of `step` and the products of `micro`. `intrinsics`, `kernels`, `library` and `records` are
what serves all: memory cleared, matrices moved (`layout`), memory hashed (`mix`, `digest`).
Importing this imports nothing; Numba is needed only where a kernel has never been compiled.
"""
